package tcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/upgrade"
)

// A listener that cannot take a connection, because files have run out for
// example, tries again after a while that grows from the first to the second.
const (
	acceptRetryMin = 5 * time.Millisecond
	acceptRetryMax = time.Second
)

// Config describes a Transport.
type Config struct {
	Upgrader *upgrade.Upgrader // required

	// Ports are where Listen opens what it listens on, to share it with others. nil:
	// each address has its own socket.
	Ports *Ports

	// NoReusePort makes dials leave from a free port instead of the one that is
	// listened on.
	NoReusePort bool
}

// Transport is the TCP transport. It implements host.Transport.
type Transport struct {
	upgrader *upgrade.Upgrader
	reuse    bool
	ports    *Ports

	mu        sync.Mutex
	listening []netip.AddrPort
}

// New makes the transport. It opens nothing.
func New(cfg Config) (*Transport, error) {
	if cfg.Upgrader == nil {
		return nil, errors.New("tcp: Config.Upgrader is missing: make one with upgrade.New")
	}
	return &Transport{upgrader: cfg.Upgrader, reuse: canReusePort && !cfg.NoReusePort, ports: cfg.Ports}, nil
}

var _ host.Transport = (*Transport)(nil)

// CanDial tells whether addr is an IP address and a TCP port, and nothing more.
func (t *Transport) CanDial(addr multiaddr.Addr) bool {
	ap, ok := addrPort(addr)
	return ok && ap.Port() != 0
}

// CanListen is CanDial, but the port can be 0 for any free one.
func (t *Transport) CanListen(addr multiaddr.Addr) bool {
	_, ok := addrPort(addr)
	return ok
}

func addrPort(addr multiaddr.Addr) (netip.AddrPort, bool) {
	ap, code, ok := addr.AddrPort()
	if !ok || code != multiaddr.TCP || multiaddr.FromAddrPort(multiaddr.TCP, ap) != addr {
		return ap, false
	}
	return ap, true
}

// Dial connects to addr, at which p must answer.
func (t *Transport) Dial(ctx context.Context, addr multiaddr.Addr, p peer.ID, progress func(host.Stage)) (host.TransportConn, error) {
	ap, ok := addrPort(addr)
	if !ok {
		return host.TransportConn{}, fmt.Errorf("tcp: %s is not an IP address with a TCP port", addr)
	}
	tc, conn, err := t.upgrader.Dial(ctx, p, func(ctx context.Context) (net.Conn, error) { return t.dial(ctx, ap) }, progress)
	if err != nil {
		return tc, err
	}
	tc.LocalAddr = fromNet(conn.LocalAddr())
	tc.RemoteAddr = addr
	return tc, nil
}

// keepAlive has the system ask a silent remote for a sign of life and end the
// connection after 40 s without one. That costs the program nothing, and routers on the
// way see packets often enough.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 25 * time.Second, Interval: 5 * time.Second, Count: 3}

func (t *Transport) dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	if from, ok := t.source(to.Addr()); ok {
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(from), Control: reusePort, KeepAliveConfig: keepAlive}
		conn, err := d.DialContext(ctx, "tcp", to.String())
		if err == nil || !portTrouble(err) {
			return conn, err
		}
	}
	d := net.Dialer{KeepAliveConfig: keepAlive}
	return d.DialContext(ctx, "tcp", to.String())
}

// portTrouble tells of a dial that failed because of the local port: it is taken
// after all, or it has a connection to the same remote, perhaps a closed one.
func portTrouble(err error) bool {
	return errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EACCES)
}

// source gives the address from which to dial an IP: that of a listener which
// can reach it. There is no NAT on the loopback interface.
func (t *Transport) source(to netip.Addr) (netip.AddrPort, bool) {
	if !t.reuse || to.IsLoopback() {
		return netip.AddrPort{}, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range t.listening {
		if l.Addr().Is4() == to.Is4() && !l.Addr().IsLoopback() {
			return l, true
		}
	}
	return netip.AddrPort{}, false
}

// Listen opens addr.
func (t *Transport) Listen(addr multiaddr.Addr) (host.TransportListener, error) {
	ap, ok := addrPort(addr)
	if !ok {
		return nil, fmt.Errorf("tcp: %s is not an IP address with a TCP port", addr)
	}
	l := &listener{transport: t, closed: make(chan struct{})}
	if t.ports != nil {
		shared, err := t.ports.listen(ap, Multistream)
		if err != nil {
			return nil, err
		}
		l.shared, l.socket = shared, shared.port.ln
	} else {
		socket, err := open(ap)
		if err != nil {
			return nil, err
		}
		l.socket = socket
	}
	l.local = unmap(l.socket.Addr())
	if t.reuse {
		// Only now that the port is ours: before, two hosts could take the same one.
		if raw, err := l.socket.SyscallConn(); err == nil {
			reusePort("", "", raw)
		}
		t.mu.Lock()
		t.listening = append(t.listening, l.local)
		t.mu.Unlock()
	}
	return l, nil
}

type listener struct {
	transport *Transport
	socket    *net.TCPListener
	shared    *kindListener // nil: the socket is ours alone
	local     netip.AddrPort
	once      sync.Once
	closed    chan struct{}
}

func (l *listener) Accept() (host.Incoming, error) {
	var conn net.Conn
	var err error
	if l.shared != nil {
		conn, err = l.shared.Accept()
	} else {
		conn, err = accept(l.socket, l.closed)
	}
	if err != nil {
		return nil, err
	}
	return &incoming{conn: conn, upgrader: l.transport.upgrader}, nil
}

func (l *listener) Addr() multiaddr.Addr { return multiaddr.FromAddrPort(multiaddr.TCP, l.local) }

func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		t := l.transport
		t.mu.Lock()
		defer t.mu.Unlock()
		for i, k := range t.listening {
			if k == l.local {
				t.listening = append(t.listening[:i:i], t.listening[i+1:]...)
				break
			}
		}
	})
	if l.shared != nil {
		return l.shared.Close()
	}
	return l.socket.Close()
}

type incoming struct {
	conn     net.Conn
	upgrader *upgrade.Upgrader
}

func (i *incoming) RemoteAddr() multiaddr.Addr { return fromNet(i.conn.RemoteAddr()) }

func (i *incoming) Upgrade(ctx context.Context, progress func(host.Stage)) (host.TransportConn, error) {
	tc, err := i.upgrader.Inbound(ctx, i.conn, progress)
	if err != nil {
		return tc, err
	}
	tc.LocalAddr = fromNet(i.conn.LocalAddr())
	tc.RemoteAddr = fromNet(i.conn.RemoteAddr())
	return tc, nil
}

func (i *incoming) Close() error {
	refuse(i.conn)
	return nil
}

func fromNet(a net.Addr) multiaddr.Addr {
	return multiaddr.FromAddrPort(multiaddr.TCP, unmap(a))
}

// unmap gives an IPv4 address its own form, also where the socket is an IPv6 one.
func unmap(a net.Addr) netip.AddrPort {
	ap := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
