//go:build !js && !wasip1

package mdns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// The groups of mDNS (RFC 6762 §3).
var (
	group4 = &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: port}
	group6 = &net.UDPAddr{IP: net.ParseIP("ff02::fb"), Port: port}
)

// hops is the TTL of mDNS packets (RFC 6762 §11).
const hops = 255

// listen opens a socket on an interface for each IP version with which a query
// can be sent. Each is pinned to the interface: nothing leaves through another.
// When none can be opened the error says why.
func listen(i Interface, query []byte) (open []transceiver, err error) {
	for _, family := range []struct {
		network string
		kind    func(netip.Addr) bool
		listen  func(net.PacketConn, Interface) (transceiver, error)
		group   *net.UDPAddr
	}{
		{"udp4", netip.Addr.Is4, listen4, group4},
		{"udp6", netip.Addr.Is6, listen6, group6},
	} {
		if !i.has(family.kind) {
			err = also(err, fmt.Errorf("interface %s has no address for %v", i.Name, family.group.IP))
			continue // the packets would leave with the address of another interface
		}
		t, familyErr := func() (transceiver, error) {
			// Given a group's address, net shares the port with other programs
			// (SO_REUSEADDR, and where it takes that SO_REUSEPORT), and binds to all
			// addresses.
			conn, err := (&net.ListenConfig{}).ListenPacket(context.Background(), family.network, family.group.String())
			if err != nil {
				return nil, fmt.Errorf("%w (a program that does not share the port must be stopped)", err)
			}
			t, err := family.listen(conn, i)
			if err == nil {
				err = t.send(query, netip.AddrPort{})
			}
			if err != nil {
				conn.Close()
				return nil, err
			}
			return t, nil
		}()
		if familyErr != nil {
			err = also(err, fmt.Errorf("no multicast on interface %s: %w", i.Name, familyErr))
			continue
		}
		open = append(open, t)
	}
	return open, err
}

type socket4 struct {
	*ipv4.PacketConn
	iface Interface
}

func listen4(conn net.PacketConn, i Interface) (transceiver, error) {
	c := ipv4.NewPacketConn(conn)
	ifi := &net.Interface{Index: i.Index, Name: i.Name}
	if err := c.JoinGroup(ifi, group4); err != nil {
		return nil, err
	}
	if err := errors.Join(c.SetMulticastInterface(ifi), c.SetMulticastLoopback(true), c.SetMulticastTTL(hops)); err != nil {
		return nil, err
	}
	c.SetControlMessage(ipv4.FlagInterface, true) // not on every system: see read
	return &socket4{c, i}, nil
}

func (s *socket4) is4() bool { return true }

func (s *socket4) read(buf []byte) (n, iface int, from netip.AddrPort, err error) {
	n, cm, src, err := s.ReadFrom(buf)
	if cm != nil {
		iface = cm.IfIndex
	}
	return n, iface, addrPort(src), err
}

func (s *socket4) send(packet []byte, to netip.AddrPort) error {
	dst := group4
	if to.IsValid() {
		dst = net.UDPAddrFromAddrPort(to)
	}
	cm := &ipv4.ControlMessage{IfIndex: s.iface.Index}
	if s.iface.Loopback && !to.IsValid() {
		// The kernel would take the address of another interface, or none.
		cm.Src = net.IPv4(127, 0, 0, 1)
	}
	s.SetWriteDeadline(time.Now().Add(sendTimeout))
	_, err := s.WriteTo(packet, cm, dst)
	return err
}

type socket6 struct {
	*ipv6.PacketConn
	iface Interface
}

func listen6(conn net.PacketConn, i Interface) (transceiver, error) {
	c := ipv6.NewPacketConn(conn)
	ifi := &net.Interface{Index: i.Index, Name: i.Name}
	if err := c.JoinGroup(ifi, group6); err != nil {
		return nil, err
	}
	if err := errors.Join(c.SetMulticastInterface(ifi), c.SetMulticastLoopback(true), c.SetMulticastHopLimit(hops)); err != nil {
		return nil, err
	}
	c.SetControlMessage(ipv6.FlagInterface, true) // not on every system: see read
	return &socket6{c, i}, nil
}

func (s *socket6) is4() bool { return false }

func (s *socket6) read(buf []byte) (n, iface int, from netip.AddrPort, err error) {
	n, cm, src, err := s.ReadFrom(buf)
	if cm != nil {
		iface = cm.IfIndex
	}
	return n, iface, addrPort(src), err
}

func (s *socket6) send(packet []byte, to netip.AddrPort) error {
	dst := &net.UDPAddr{IP: group6.IP, Port: group6.Port, Zone: s.iface.Name}
	if to.IsValid() {
		dst = net.UDPAddrFromAddrPort(to)
	}
	s.SetWriteDeadline(time.Now().Add(sendTimeout))
	_, err := s.WriteTo(packet, &ipv6.ControlMessage{IfIndex: s.iface.Index}, dst)
	return err
}

func addrPort(a net.Addr) netip.AddrPort {
	u, ok := a.(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := u.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
