package multiaddr

import (
	"encoding/binary"
	"net/netip"
)

// FromAddrPort returns the address /ip4/…/tcp/N or /ip6/…/udp/N, where c is TCP
// or UDP (or another protocol with a port), with the zone in front if ap has
// one. An IPv4-mapped IPv6 address stays IPv6: call Unmap before, for addresses
// that a socket reported. It returns the zero Addr when ap is not valid, c has
// no port, or the zone cannot be written.
func FromAddrPort(c Code, ap netip.AddrPort) Addr {
	p := lookup(uint64(c))
	if p == nil || p.kind != kindPort || !ap.IsValid() {
		return Addr{}
	}
	var buf [64]byte
	b := buf[:0]
	if zone := ap.Addr().Zone(); zone != "" {
		var err error
		if b, err = lookup(uint64(IP6Zone)).appendComponent(b, zone); err != nil {
			return Addr{}
		}
	}
	if ap.Addr().Is4() {
		ip := ap.Addr().As4()
		b = append(append(b, byte(IP4)), ip[:]...)
	} else {
		ip := ap.Addr().As16()
		b = append(append(b, byte(IP6)), ip[:]...)
	}
	b = appendUvarint(b, uint64(c))
	return Addr{string(binary.BigEndian.AppendUint16(b, ap.Port()))}
}

// AddrPort returns the IP address and the port that a begins with, and whether
// the port is of TCP or UDP; more may follow. It is false when a does not begin
// with an IP address (with or without a zone) and one of these. An IPv4-mapped
// IPv6 address is returned as it is: call Unmap before comparing it with a list
// of addresses.
func (a Addr) AddrPort() (ap netip.AddrPort, c Code, ok bool) {
	ip, rest, ok := cutIP(a.s)
	if !ok {
		return netip.AddrPort{}, 0, false
	}
	port, _ := cut(rest)
	if port.code != TCP && port.code != UDP {
		return netip.AddrPort{}, 0, false
	}
	v := port.s[port.at:]
	return netip.AddrPortFrom(ip, uint16(v[0])<<8|uint16(v[1])), port.code, true
}

// IP returns the IP address, with its zone, that a begins with, and whether it
// does. IPv4-mapped addresses are returned as they are.
func (a Addr) IP() (netip.Addr, bool) {
	ip, _, ok := cutIP(a.s)
	return ip, ok
}

// Prefix returns the network of the IP address that a begins with: its first
// bits4 bits for IPv4, bits6 for IPv6. It is false when there is no IP address. An
// IPv4-mapped address counts as IPv4 and a zone is left out, so that whoever
// counts by network counts neither apart.
func (a Addr) Prefix(bits4, bits6 int) (netip.Prefix, bool) {
	ip, ok := a.IP()
	if !ok {
		return netip.Prefix{}, false
	}
	ip = ip.Unmap().WithZone("")
	bits := bits6
	if ip.Is4() {
		bits = bits4
	}
	p, err := ip.Prefix(bits)
	return p, err == nil
}

// A Scope tells from how far away an address can be reached. Scopes are ordered.
type Scope uint8

const (
	ScopeMachine  Scope = iota // this machine only: loopback, memory, unix
	ScopeNetwork               // networks nearby: private and link-local IP addresses
	ScopeInternet              // everything else, names included
)

// Scope returns the scope of what a begins with: of a relayed address, that of
// the relay.
func (a Addr) Scope() Scope {
	if ip, ok := a.IP(); ok {
		ip = ip.Unmap()
		switch {
		case ip.IsLoopback():
			return ScopeMachine
		case ip.IsPrivate(), ip.IsLinkLocalUnicast():
			return ScopeNetwork
		}
		return ScopeInternet
	}
	if first, _ := a.First(); first.Code() == Memory || first.Code() == Unix {
		return ScopeMachine
	}
	return ScopeInternet
}

// cutIP cuts /ip4/…, /ip6/… or /ip6zone/…/ip6/… off s.
func cutIP(s string) (ip netip.Addr, rest string, ok bool) {
	c, rest := cut(s)
	var zone string
	if c.code == IP6Zone {
		if zone = c.s[c.at:]; rest == "" {
			return netip.Addr{}, "", false
		}
		c, rest = cut(rest)
	}
	switch v := c.s[c.at:]; {
	case c.code == IP6:
		return netip.AddrFrom16([16]byte([]byte(v))).WithZone(zone), rest, true
	case c.code == IP4 && zone == "":
		return netip.AddrFrom4([4]byte([]byte(v))), rest, true
	}
	return netip.Addr{}, "", false
}
