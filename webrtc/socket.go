package webrtc

import (
	"net"
	"net/netip"
)

// maxDatagram is the most that is read at once, in bytes: what the kernel puts
// together from the packets of one sender.
const maxDatagram = 64 << 10

// maxBatch is the most that is sent with one call, in bytes, and maxSegments the
// most packets: what UDP_SEGMENT of Linux takes.
const (
	maxBatch    = 60000
	maxSegments = 60
)

// A socket sends and receives runs of packets. Where it is a UDP socket of a
// system that can, many packets take one call.
type socket struct {
	conn      net.PacketConn
	udp       *net.UDPConn // nil: conn is something else
	connected bool
	segments  bool // the kernel cuts and joins packets
}

func newSocket(conn net.PacketConn, connected bool) *socket {
	s := &socket{conn: conn, connected: connected}
	if udp, ok := conn.(*net.UDPConn); ok {
		s.udp = udp
		s.segments = enableSegments(udp)
	}
	return s
}

// read fills b with packets from one address, each of size bytes except for the
// last, which may be shorter.
func (s *socket) read(b, oob []byte) (n, size int, from netip.AddrPort, err error) {
	if s.udp == nil {
		n, addr, err := s.conn.ReadFrom(b)
		if u, ok := addr.(*net.UDPAddr); ok {
			from = u.AddrPort()
		}
		return n, n, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), err
	}
	if !s.segments {
		n, from, err = s.udp.ReadFromUDPAddrPort(b)
		size = n
	} else {
		var oobn int
		n, oobn, _, from, err = s.udp.ReadMsgUDPAddrPort(b, oob)
		size = segmentSize(oob[:oobn], n)
	}
	return n, size, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), err
}

// send sends b as packets of size bytes, the last of which may be shorter. What
// does not go out is lost, as packets are.
func (s *socket) send(b []byte, size int, to *net.UDPAddr) {
	if s.segments && len(b) > size {
		addr := netip.AddrPort{}
		if !s.connected {
			addr = to.AddrPort()
		}
		if _, _, err := s.udp.WriteMsgUDPAddrPort(b, segmentControl(size), addr); err == nil {
			return
		}
	}
	for len(b) > 0 {
		n := min(size, len(b))
		if s.connected {
			s.udp.Write(b[:n])
		} else {
			s.conn.WriteTo(b[:n], to)
		}
		b = b[n:]
	}
}
