package udp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
)

// socketBuffer is what the kernel may hold of packets that are not read or not
// sent yet, in bytes, where it lets us choose: 50 ms at a gigabit per second, which
// a process that is not scheduled for that long does not lose. It is what quic-go
// asks for too.
const socketBuffer = 7 << 20

// Sockets are the UDP sockets of a host, one for each local address. The zero value
// has none and is ready for use. A Sockets must not be copied.
type Sockets struct {
	mu   sync.Mutex
	open map[netip.AddrPort]*socket
}

// A socket has at most one user of each kind, and is closed with its last one.
type socket struct {
	owner  *Sockets
	conn   *net.UDPConn
	local  netip.AddrPort
	reader *reader // used by the QUIC side while there is one, else by pump

	// guarded by owner.mu
	quic    *QUICConn
	other   *otherConn
	pumping chan struct{} // closed when pump has returned; nil: none runs
}

// QUIC returns the side of the socket at ap that carries QUIC, and opens the socket
// if it is not open. The port can be 0 for any free one. There is one such side at a
// time.
func (s *Sockets) QUIC(ap netip.AddrPort) (*QUICConn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, err := s.socket(ap)
	if err != nil {
		return nil, err
	}
	if k.quic != nil {
		return nil, fmt.Errorf("udp: %s carries QUIC already: share its quic.Endpoint", k.local)
	}
	k.stopPump()
	k.quic = &QUICConn{UDPConn: k.conn, socket: k}
	return k.quic, nil
}

// Other returns the side of the socket at ap that carries everything but QUIC, and
// opens the socket if it is not open. The port can be 0 for any free one. There is
// one such side at a time. Its deadlines for writing have no effect: the socket is
// shared, and writing a packet does not wait for the remote.
func (s *Sockets) Other(ap netip.AddrPort) (net.PacketConn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, err := s.socket(ap)
	if err != nil {
		return nil, err
	}
	if k.other != nil {
		return nil, fmt.Errorf("udp: what is not QUIC at %s has a reader already", k.local)
	}
	k.other = newOther(k)
	k.reader.other.Store(k.other)
	if k.quic == nil {
		k.startPump()
	}
	return k.other, nil
}

// socket finds or opens the socket at ap. s.mu is held.
func (s *Sockets) socket(ap netip.AddrPort) (*socket, error) {
	ap = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	if !ap.Addr().IsValid() {
		return nil, errors.New("udp: no IP address to open a socket at: 0.0.0.0 and :: are all there are")
	}
	if k := s.open[ap]; k != nil {
		return k, nil
	}
	// Without the network's digit, Go would open IPv4 too for the unspecified IPv6 address.
	network := "udp6"
	if ap.Addr().Is4() {
		network = "udp4"
	}
	conn, err := net.ListenUDP(network, net.UDPAddrFromAddrPort(ap))
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("udp: port %d is taken by another process: choose another, or 0 for any free one: %w", ap.Port(), err)
	}
	if err != nil {
		return nil, fmt.Errorf("udp: %w", err)
	}
	conn.SetReadBuffer(socketBuffer) // as far as the kernel lets us
	conn.SetWriteBuffer(socketBuffer)
	local := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	k := &socket{owner: s, conn: conn, local: netip.AddrPortFrom(local.Addr().Unmap(), local.Port())}
	if k.reader, err = newReader(conn); err != nil {
		conn.Close()
		return nil, fmt.Errorf("udp: %w", err)
	}
	if s.open == nil {
		s.open = make(map[netip.AddrPort]*socket)
	}
	s.open[k.local] = k
	return k, nil
}

// startPump reads the socket for Other. owner.mu is held.
func (k *socket) startPump() {
	k.conn.SetReadDeadline(time.Time{})
	done := make(chan struct{})
	k.pumping = done
	go func() {
		defer close(done)
		k.reader.pump()
	}()
}

// stopPump leaves the socket to another reader. owner.mu is held.
func (k *socket) stopPump() {
	if k.pumping == nil {
		return
	}
	k.conn.SetReadDeadline(time.Unix(1, 0))
	<-k.pumping
	k.pumping = nil
	k.conn.SetReadDeadline(time.Time{})
}

// left looks after the socket when a side has gone. owner.mu is held.
func (k *socket) left() error {
	switch {
	case k.quic == nil && k.other == nil:
		delete(k.owner.open, k.local)
		err := k.conn.Close()
		if k.pumping != nil {
			<-k.pumping
		}
		k.reader.close()
		return err
	case k.quic == nil && k.pumping == nil:
		k.startPump()
	case k.other == nil:
		k.stopPump()
	}
	return nil
}

// QUICConn is the side of a socket that carries QUIC. It has all that quic-go looks
// for in a connection (see its OOBCapablePacketConn), and reads in batches.
type QUICConn struct {
	*net.UDPConn // the reads that quic-go uses are replaced: they would see what is not QUIC
	socket       *socket
	home         func([]byte) (to *QUICConn, ours bool) // nil: all is ours
	inbox        inbox
	single       [1]ipv4.Message // the reader's, where it wants one packet
	closed       bool            // guarded by socket.owner.mu
}

// LocalAddrPort is where the socket is, with the real port.
func (c *QUICConn) LocalAddrPort() netip.AddrPort { return c.socket.local }

// Close gives the side up; the socket closes with its last one. A read that is
// running must have been ended before, by a deadline.
func (c *QUICConn) Close() error {
	c.socket.owner.mu.Lock()
	defer c.socket.owner.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	c.inbox.close()
	c.socket.quic = nil
	return c.socket.left()
}

// SetDeadline sets that of reads; see SetWriteDeadline.
func (c *QUICConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetReadDeadline ends reads at t.
func (c *QUICConn) SetReadDeadline(t time.Time) error {
	c.socket.owner.mu.Lock()
	defer c.socket.owner.mu.Unlock()
	if c.closed { // the socket may be Other's alone by now
		return net.ErrClosed
	}
	c.inbox.mu.Lock()
	defer c.inbox.mu.Unlock()
	c.inbox.deadline = t
	return c.rearm() // who has been woken looks into the inbox first
}

// SetWriteDeadline does nothing: the socket is shared, and writing a packet does
// not wait for the remote.
func (c *QUICConn) SetWriteDeadline(time.Time) error { return nil }

// WriteMsgUDP sends one packet, or several of one size that the kernel takes apart.
// A packet of an established connection that finds no way is as good as one lost on
// the way: the machine may have another address in a moment, and the connection
// survives. One of a handshake fails, since there is nothing yet to survive.
func (c *QUICConn) WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	to := addr.AddrPort() // with which the standard library allocates nothing
	n, oobn, err = c.UDPConn.WriteMsgUDPAddrPort(b, oob, netip.AddrPortFrom(to.Addr().Unmap(), to.Port()))
	if err != nil && len(b) > 0 && b[0]&longHeader == 0 && noWay(err) {
		return len(b), len(oob), nil
	}
	return n, oobn, err
}

// The first byte of a packet.
const (
	// longHeader is set in packets of a QUIC handshake.
	// https://www.rfc-editor.org/rfc/rfc9000.html#section-17.2
	longHeader = 0x80

	// firstQUIC is the lowest one that QUIC has. STUN has 0 to 3, DTLS 20 to 63.
	// https://www.rfc-editor.org/rfc/rfc9443.html#section-3
	firstQUIC = 64
)

// noWay tells of errors that the state of the machine's network is the cause of.
func noWay(err error) bool {
	var errno syscall.Errno
	return errors.As(err, &errno) && (errno == syscall.ENETUNREACH || errno == syscall.EHOSTUNREACH || errno == syscall.ENETDOWN ||
		errno == syscall.EHOSTDOWN || errno == syscall.EADDRNOTAVAIL || errno == syscall.ENOBUFS || errno == syscall.EPERM || errno == syscall.EACCES)
}
