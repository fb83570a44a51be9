package hostile

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/upgrade"
)

// A network carries connections in memory, so that minutes of waiting pass in
// no time in a testing/synctest bubble. Unlike that of package memory it lets an
// attacker have a connection as it is, and come from any IP address.
type network struct {
	mu    sync.Mutex
	ports map[netip.AddrPort]*port
	last  uint16
}

// A port takes connections in.
type port struct {
	net    *network
	addr   netip.AddrPort
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// open makes a port at ip.
func (n *network) open(ip netip.Addr) *port {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.last++
	p := &port{net: n, addr: netip.AddrPortFrom(ip, n.last), conns: make(chan net.Conn), closed: make(chan struct{})}
	if n.ports == nil {
		n.ports = make(map[netip.AddrPort]*port)
	}
	n.ports[p.addr] = p
	return p
}

// dial connects from an IP address.
func (n *network) dial(ctx context.Context, from netip.Addr, to netip.AddrPort) (net.Conn, error) {
	n.mu.Lock()
	p := n.ports[to]
	n.last++
	local := netip.AddrPortFrom(from, n.last)
	n.mu.Unlock()
	if p == nil {
		return nil, fmt.Errorf("hostile: nothing listens at %v", to)
	}
	near, far := newPipe(local, to)
	select {
	case p.conns <- far:
		return near, nil
	case <-p.closed:
		return nil, fmt.Errorf("hostile: %v was closed", to)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (p *port) accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *port) close() {
	p.once.Do(func() {
		p.net.mu.Lock()
		delete(p.net.ports, p.addr)
		p.net.mu.Unlock()
		close(p.closed)
	})
}

// multiaddr is where p is dialed.
func (p *port) multiaddr() multiaddr.Addr { return multiaddr.FromAddrPort(multiaddr.TCP, p.addr) }

// over is a transport of a host over the network. Dials leave from ip.
type over struct {
	*network
	upgrader *upgrade.Upgrader
	ip       netip.Addr
}

func (over) CanDial(addr multiaddr.Addr) bool {
	_, _, ok := addr.AddrPort()
	return ok
}

func (o over) CanListen(addr multiaddr.Addr) bool { return o.CanDial(addr) }

func (o over) Dial(ctx context.Context, addr multiaddr.Addr, p peer.ID, progress func(host.Stage)) (host.TransportConn, error) {
	to, _, _ := addr.AddrPort()
	tc, conn, err := o.upgrader.Dial(ctx, p, func(ctx context.Context) (net.Conn, error) { return o.dial(ctx, o.ip, to) }, progress)
	if err != nil {
		return tc, err
	}
	tc.LocalAddr, tc.RemoteAddr = tcpAddr(conn.LocalAddr()), addr
	return tc, nil
}

func (o over) Listen(addr multiaddr.Addr) (host.TransportListener, error) {
	ap, _, _ := addr.AddrPort()
	return listener{o.open(ap.Addr()), o.upgrader}, nil
}

type listener struct {
	port     *port
	upgrader *upgrade.Upgrader
}

func (l listener) Accept() (host.Incoming, error) {
	conn, err := l.port.accept()
	if err != nil {
		return nil, err
	}
	return incoming{conn, l.upgrader}, nil
}

func (l listener) Addr() multiaddr.Addr { return l.port.multiaddr() }

func (l listener) Close() error {
	l.port.close()
	return nil
}

type incoming struct {
	conn     net.Conn
	upgrader *upgrade.Upgrader
}

func (i incoming) RemoteAddr() multiaddr.Addr { return tcpAddr(i.conn.RemoteAddr()) }
func (i incoming) Close() error               { return i.conn.Close() }

func (i incoming) Upgrade(ctx context.Context, progress func(host.Stage)) (host.TransportConn, error) {
	tc, err := i.upgrader.Inbound(ctx, i.conn, progress)
	tc.LocalAddr, tc.RemoteAddr = tcpAddr(i.conn.LocalAddr()), i.RemoteAddr()
	return tc, err
}

func tcpAddr(a net.Addr) multiaddr.Addr {
	return multiaddr.FromAddrPort(multiaddr.TCP, a.(*net.TCPAddr).AddrPort())
}

// masked is a transport whose remotes do not look like this machine: a host
// lets loopback have what it would not give to one address of the internet. The
// first byte of a remote's IPv4 address, 127, becomes 44.
type masked struct{ host.Transport }

func (m masked) Listen(addr multiaddr.Addr) (host.TransportListener, error) {
	l, err := m.Transport.Listen(addr)
	if err != nil {
		return nil, err
	}
	return maskedListener{l}, nil
}

type maskedListener struct{ host.TransportListener }

func (l maskedListener) Accept() (host.Incoming, error) {
	in, err := l.TransportListener.Accept()
	if err != nil {
		return nil, err
	}
	return maskedIncoming{in}, nil
}

type maskedIncoming struct{ host.Incoming }

func (i maskedIncoming) RemoteAddr() multiaddr.Addr { return mask(i.Incoming.RemoteAddr()) }

func (i maskedIncoming) Upgrade(ctx context.Context, progress func(host.Stage)) (host.TransportConn, error) {
	tc, err := i.Incoming.Upgrade(ctx, progress)
	if err == nil {
		tc.RemoteAddr = mask(tc.RemoteAddr)
	}
	return tc, err
}

func mask(a multiaddr.Addr) multiaddr.Addr {
	ap, code, ok := a.AddrPort()
	if !ok || !ap.Addr().Is4() {
		return a
	}
	ip := ap.Addr().As4()
	ip[0] = 44
	return multiaddr.FromAddrPort(code, netip.AddrPortFrom(netip.AddrFrom4(ip), ap.Port()))
}
