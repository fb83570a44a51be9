package tcp

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

const (
	// maxSniffing is how many connections of one port may be looked at before it is
	// known what they are: a thousand new ones a second, as a flood from one machine
	// has, leave each the time it gets. At 6 KiB each they take 6 MiB. With one more
	// the oldest is taken for Multistream at once: so this never refuses anybody, and
	// it is the host's room of half-open connections that decides who stays.
	maxSniffing = 1024

	// sniffTimeout is how long a client has for its first bytes. Who is silent
	// speaks multistream: both sides of it may wait for the other.
	sniffTimeout = time.Second

	// portBacklog is how many connections of one kind wait for Accept before more
	// are closed, as many as kernels keep.
	portBacklog = 128
)

// Kind is what a client begins a connection with.
type Kind uint8

const (
	Multistream Kind = iota // libp2p without anything around it, and all that is not one of the others
	HTTP                    // a request of HTTP/1
	TLS                     // a ClientHello
	numKinds
)

func (k Kind) String() string {
	if k < numKinds {
		return [...]string{"multistream", "HTTP", "TLS"}[k]
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// Ports are TCP ports of which each is shared by listeners for several kinds of
// connections, so that a node needs one port in all. What a connection is, its
// first bytes tell; whoever accepts it reads them as if nobody had looked. A
// connection of a kind that nobody listens for is closed.
//
// The zero value has no ports and is ready.
type Ports struct {
	mu   sync.Mutex
	open map[netip.AddrPort]*port
}

// Listen opens ap for one kind of connections, or joins those that listen there
// for another kind. ap can have port 0, for any free one; those who join give the
// real one, which is in the listener's Addr. The port is closed with its last
// listener.
func (p *Ports) Listen(ap netip.AddrPort, kind Kind) (net.Listener, error) {
	l, err := p.listen(ap, kind)
	if err != nil {
		return nil, err
	}
	return l, nil
}

func (p *Ports) listen(ap netip.AddrPort, kind Kind) (*kindListener, error) {
	if kind >= numKinds {
		return nil, fmt.Errorf("tcp: %s is no kind of connections", kind)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	shared := p.open[ap]
	if shared == nil {
		ln, err := open(ap)
		if err != nil {
			return nil, err
		}
		shared = &port{ports: p, ln: ln, local: unmap(ln.Addr())}
		if p.open == nil {
			p.open = make(map[netip.AddrPort]*port)
		}
		p.open[shared.local] = shared
		go shared.run()
	}
	if shared.kinds[kind] != nil {
		return nil, fmt.Errorf("tcp: port %d is listened on for %s already, by this process: choose another, or 0 for any free one: %w", ap.Port(), kind, syscall.EADDRINUSE)
	}
	l := &kindListener{port: shared, kind: kind, conns: make(chan net.Conn, portBacklog), closed: make(chan struct{})}
	shared.kinds[kind] = l
	return l, nil
}

// open makes the one socket of an address.
func open(ap netip.AddrPort) (*net.TCPListener, error) {
	// Without the network's digit, Go would open IPv4 too for the unspecified IPv6 address.
	network := "tcp6"
	if ap.Addr().Is4() {
		network = "tcp4"
	}
	lc := net.ListenConfig{KeepAliveConfig: keepAlive}
	ln, err := lc.Listen(context.Background(), network, ap.String())
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("tcp: port %d is taken by another process: choose another, or 0 for any free one: %w", ap.Port(), err)
	}
	if err != nil {
		return nil, fmt.Errorf("tcp: %w", err)
	}
	return ln.(*net.TCPListener), nil
}

// accept waits for a connection, also while there is none to be had because files
// have run out.
func accept(ln *net.TCPListener, closed <-chan struct{}) (*net.TCPConn, error) {
	for wait := acceptRetryMin; ; wait = min(2*wait, acceptRetryMax) {
		conn, err := ln.AcceptTCP()
		if err == nil {
			return conn, nil
		}
		if errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		select {
		case <-closed:
			return nil, net.ErrClosed
		case <-time.After(wait):
		}
	}
}

// refuse resets a connection: nothing waits to be sent to a stranger, and the
// kernel keeps no state for one.
func refuse(conn net.Conn) {
	if c, ok := conn.(*net.TCPConn); ok {
		c.SetLinger(0)
	}
	conn.Close()
}

// A port is one socket and those who listen on it.
type port struct {
	ports *Ports
	ln    *net.TCPListener
	local netip.AddrPort

	// guarded by ports.mu
	kinds    [numKinds]*kindListener
	sniffing list.List // of *net.TCPConn, the oldest first
	done     bool      // the socket is closed
}

func (p *port) run() {
	for {
		conn, err := accept(p.ln, nil)
		if err != nil {
			return
		}
		if kind, sure, err := peek(conn); err != nil {
			refuse(conn)
		} else if sure {
			p.deliver(conn, kind)
		} else if e := p.enter(conn); e != nil {
			go p.sniff(conn, e)
		}
	}
}

// enter makes room for one more connection to be looked at.
func (p *port) enter(conn *net.TCPConn) *list.Element {
	p.ports.mu.Lock()
	defer p.ports.mu.Unlock()
	if p.done {
		refuse(conn)
		return nil
	}
	conn.SetReadDeadline(time.Now().Add(sniffTimeout))
	if p.sniffing.Len() >= maxSniffing {
		oldest := p.sniffing.Front()
		p.sniffing.Remove(oldest)
		oldest.Value.(*net.TCPConn).SetReadDeadline(past)
	}
	return p.sniffing.PushBack(conn)
}

var past = time.Unix(1, 0)

// sniff waits until it is clear what conn is, for at most sniffTimeout.
func (p *port) sniff(conn *net.TCPConn, e *list.Element) {
	looked, kind, err := peekWait(conn)
	p.ports.mu.Lock()
	p.sniffing.Remove(e) // does nothing when it was the oldest and had to go
	p.ports.mu.Unlock()
	if err != nil {
		refuse(conn)
		return
	}
	conn.SetReadDeadline(time.Time{})
	p.deliver(looked, kind)
}

// deliver gives conn to who listens for its kind, without waiting.
func (p *port) deliver(conn net.Conn, kind Kind) {
	p.ports.mu.Lock()
	defer p.ports.mu.Unlock()
	if l := p.kinds[kind]; l != nil {
		select {
		case l.conns <- conn:
			return
		default:
		}
	}
	refuse(conn)
}

// A kindListener takes the connections of one kind from a port.
type kindListener struct {
	port   *port
	kind   Kind
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (l *kindListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
	}
}

func (l *kindListener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.port.local) }

func (l *kindListener) Close() (err error) {
	l.once.Do(func() {
		p := l.port
		p.ports.mu.Lock()
		defer p.ports.mu.Unlock()
		p.kinds[l.kind] = nil
		close(l.closed)
		for waiting := true; waiting; {
			select {
			case conn := <-l.conns:
				refuse(conn)
			default:
				waiting = false
			}
		}
		if p.kinds != [numKinds]*kindListener{} {
			return
		}
		p.done = true
		delete(p.ports.open, p.local)
		for e := p.sniffing.Front(); e != nil; e = e.Next() {
			e.Value.(*net.TCPConn).SetReadDeadline(past)
		}
		err = p.ln.Close()
	})
	return err
}

// sniffLen is how many bytes are enough for classify.
const sniffLen = 6

// classify tells what a connection is that begins with b, and whether it would
// say the same with more. It looks at several bytes of HTTP and TLS, since what a
// private network sends is random.
func classify(b []byte) (kind Kind, sure bool) {
	for _, method := range [...]string{"GET ", "HEAD", "POST", "PUT ", "DELE", "OPTI", "PATC"} {
		if n := min(len(b), len(method)); string(b[:n]) == method[:n] {
			if n == len(method) {
				return HTTP, true
			}
			return Multistream, false
		}
	}
	// A record that carries a handshake (22), whose version is 3.x, then its length, and
	// in it a ClientHello (1). https://datatracker.ietf.org/doc/html/rfc8446#section-5.1
	for i, want := range [sniffLen]int{22, 3, -1, -1, -1, 1} {
		if i == len(b) {
			return Multistream, false
		}
		if want >= 0 && int(b[i]) != want {
			return Multistream, true
		}
	}
	return TLS, true
}
