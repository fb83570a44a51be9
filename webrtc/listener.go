package webrtc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/noise"
	"github.com/kith-p2p/kith/peer"
)

// Bounds of a listener. What it holds for an address begins with a ClientHello,
// which has perhaps a false sender.
const (
	// backlog is how many connections wait for Accept; more are ignored, and ask
	// again.
	backlog = 128

	// maxShaking is how many connections have not come to the end of their
	// handshakes. The host's own limit is lower.
	maxShaking = 512

	// maxShakingPerIP is the same for one IPv4 address or one IPv6 /64.
	maxShakingPerIP = 128

	// helloWait is how long a remote may take to prove that it receives at its
	// address, by the cookie of DTLS. One whose address is false never does.
	helloWait = 3 * time.Second
)

// A listener answers on one UDP address.
type listener struct {
	transport *Transport
	socket    *socket
	local     netip.AddrPort
	addr      multiaddr.Addr
	waiting   chan *incoming
	closed    chan struct{}

	mu        sync.Mutex
	isClosed  bool
	conns     map[netip.AddrPort]*conn
	shaking   int
	shakingIP map[netip.Addr]int
}

// Listen opens addr.
func (t *Transport) Listen(addr multiaddr.Addr) (host.TransportListener, error) {
	ap, hashes, ok := split(addr)
	if !ok || len(hashes) > 0 {
		return nil, fmt.Errorf("webrtc: %s is not an IP address with a UDP port and /webrtc-direct", addr)
	}
	packets, err := t.listenPacket(ap)
	if err != nil {
		return nil, err
	}
	hash, err := certHashComponent(t.cert.hash)
	if err != nil {
		packets.Close()
		return nil, fmt.Errorf("webrtc: %w", err)
	}
	local := packets.LocalAddr().(*net.UDPAddr).AddrPort()
	local = netip.AddrPortFrom(local.Addr().Unmap(), local.Port())
	l := &listener{
		transport: t, socket: newSocket(packets, false), local: local, addr: address(local).Encapsulate(hash),
		waiting: make(chan *incoming, backlog), closed: make(chan struct{}),
		conns: make(map[netip.AddrPort]*conn), shakingIP: make(map[netip.Addr]int),
	}
	go l.read()
	return l, nil
}

func (l *listener) Addr() multiaddr.Addr { return l.addr }

func (l *listener) Accept() (host.Incoming, error) {
	select {
	case i := <-l.waiting:
		return i, nil
	case <-l.closed:
		return nil, fmt.Errorf("webrtc: the listener is closed: %w", net.ErrClosed)
	}
}

// Close ends Accept. The socket stays for the connections that were accepted, and
// closes with the last of them.
func (l *listener) Close() error {
	l.mu.Lock()
	if l.isClosed {
		l.mu.Unlock()
		return nil
	}
	l.isClosed = true
	close(l.closed)
	l.mu.Unlock()
	for {
		select {
		case i := <-l.waiting:
			i.Close()
			continue
		default:
		}
		break
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closeUnused()
	return nil
}

func (l *listener) closeUnused() {
	if l.isClosed && len(l.conns) == 0 {
		l.socket.conn.Close()
	}
}

// read handles what comes until the socket is closed.
func (l *listener) read() {
	b, oob := blocks.Get().(*block), make([]byte, 64)
	for wait := readRetryMin; ; {
		n, size, from, err := l.socket.read(b[:], oob)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				l.fail()
				return
			}
			// An answer to a packet of ours says that a remote is gone; anything else passes.
			time.Sleep(wait)
			wait = min(2*wait, readRetryMax)
			continue
		}
		wait = readRetryMin
		l.mu.Lock()
		c := l.conns[from]
		l.mu.Unlock()
		if c == nil {
			c = l.strangers(b[:n], size, from)
		}
		if c != nil && c.packets(b, n, size) {
			b = blocks.Get().(*block)
		}
	}
}

const (
	readRetryMin = time.Millisecond
	readRetryMax = 100 * time.Millisecond
)

// fail ends all connections, because the socket is gone.
func (l *listener) fail() {
	l.mu.Lock()
	conns := make([]*conn, 0, len(l.conns))
	for _, c := range l.conns {
		conns = append(conns, c)
	}
	l.mu.Unlock()
	for _, c := range conns {
		c.fail(&CloseError{Reason: "the socket was closed"})
	}
	l.Close()
}

// strangers handles packets from an address without a connection. If one starts a
// handshake, it returns the connection that they are for.
func (l *listener) strangers(b []byte, size int, from netip.AddrPort) *conn {
	for p := b; len(p) > 0; p = p[min(size, len(p)):] {
		if q := p[:min(size, len(p))]; isClientHello(q) && !hasCookie(q) { // one with a cookie is late: the connection that gave it is gone
			if c := l.connect(from); c != nil {
				return c
			}
		}
	}
	for p := b; len(p) > 0; p = p[min(size, len(p)):] {
		if q := p[:min(size, len(p))]; isSTUN(q) {
			l.answer(q, from)
		}
	}
	return nil
}

// answer answers a connectivity check. It remembers nothing, and sends no more
// than about what it got, so that a false sender gains nothing. It tells whether
// the check was valid.
func (l *listener) answer(p []byte, from netip.AddrPort) (valid bool) {
	m, err := parseSTUN(p)
	if err != nil {
		return false
	}
	var reply []byte
	key, kind := listenerCheck(m)
	switch kind {
	case checkValid:
		reply = stunSuccess(m, from, key)
	case checkRefused:
		reply = stunRefusal(m)
	default:
		return false
	}
	l.socket.send(reply, len(reply), net.UDPAddrFromAddrPort(from))
	return kind == checkValid
}

// connect makes a connection for an address that has sent a ClientHello.
func (l *listener) connect(from netip.AddrPort) *conn {
	ip := subnet(from.Addr())
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isClosed || l.shaking >= maxShaking || l.shakingIP[ip] >= maxShakingPerIP || len(l.waiting) >= backlog {
		return nil
	}
	c := newConn(newLink(l.socket, from), false, l.transport.timeout)
	i := &incoming{listener: l, conn: c}
	c.stun = func(p []byte) {
		if l.answer(p, from) {
			c.heard()
		}
	}
	c.detach = func() {
		i.shaken()
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.conns, from)
		l.closeUnused()
	}
	l.conns[from] = c
	l.shaking++
	l.shakingIP[ip]++
	l.waiting <- i // there is room: only this goroutine puts something in
	return c
}

// subnet is what one remote can be taken to own.
func subnet(ip netip.Addr) netip.Addr {
	if ip.Is6() {
		p, _ := ip.WithZone("").Prefix(64)
		return p.Addr()
	}
	return ip
}

// incoming is a connection whose remote has sent a ClientHello.
type incoming struct {
	listener *listener
	conn     *conn
	once     sync.Once
}

func (i *incoming) RemoteAddr() multiaddr.Addr { return address(i.conn.link.remote) }

// shaken notes that the handshakes are over.
func (i *incoming) shaken() {
	i.once.Do(func() {
		l, ip := i.listener, subnet(i.conn.link.remote.Addr())
		l.mu.Lock()
		defer l.mu.Unlock()
		l.shaking--
		if l.shakingIP[ip]--; l.shakingIP[ip] == 0 {
			delete(l.shakingIP, ip)
		}
	})
}

func (i *incoming) Close() error {
	i.conn.fail(&CloseError{})
	return nil
}

// Upgrade runs the handshakes of DTLS, SCTP and Noise.
func (i *incoming) Upgrade(ctx context.Context, progress func(host.Stage)) (tc host.TransportConn, err error) {
	c, t := i.conn, i.listener.transport
	defer i.shaken()
	defer func() {
		if err != nil {
			c.fail(err)
		}
	}()
	progress(host.StageOpened)
	timer := time.AfterFunc(helloWait, func() {
		if !c.link.proved.Load() {
			c.fail(errors.New("webrtc: the remote has not shown that it receives at its address"))
		}
	})
	defer timer.Stop()
	hash, err := c.secure(ctx, t.cert, true, func([]byte) error { return nil })
	if err != nil {
		return tc, err
	}
	progress(host.StageSecuring)
	secured, err := t.noise.Client(ctx, handshakeChannel{c.handshakes}, noise.Config{Remote: peer.ID{}, Prologue: prologue(hash, t.cert.hash)})
	if err != nil {
		return tc, fmt.Errorf("webrtc: %w", err)
	}
	progress(host.StageSecured)
	progress(host.StageMuxed)
	return host.TransportConn{
		Mux:        c,
		LocalAddr:  address(i.listener.local),
		RemoteAddr: address(c.link.remote),
		RemoteKey:  secured.RemoteKey(),
		Cost:       connCost,
		StreamCost: streamCost,
		Charge:     c.charge,
		Shed:       c.shed,
	}, nil
}
