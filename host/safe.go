//kith:pure

package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/kith-p2p/kith/multiaddr"
)

// Others tell us where peers are, and whoever believes all of it can be sent
// anywhere: to the router's web page, to the cloud's metadata service, to a
// database that trusts its own network. So what others say makes this host dial the
// public internet and the networks that it is a part of, and nothing else.

// ErrForbidden tells that an address was not dialed because of where it leads and
// whose word it is.
var ErrForbidden = errors.New("host: not dialed on the word of others")

// surroundings is what of this host the judgement of an address depends on.
type surroundings struct {
	// links are this machine's addresses, each with the length of its network.
	links []netip.Prefix
	// listens are the addresses that this host listens on and announces.
	listens []multiaddr.Addr
	// allowPrivate is Gate.AllowPrivate.
	allowPrivate func(netip.Addr) bool
}

// safeDial tells why addr must not be dialed on the word of source, or nil. Names
// are judged when they have been resolved. What a user says is never forbidden.
func safeDial(addr multiaddr.Addr, source Source, near surroundings) error {
	if source == SourceUser {
		return nil
	}
	ip, ok := addr.IP()
	if !ok {
		switch first, _ := addr.First(); first.Code() {
		case multiaddr.IP4, multiaddr.IP6, multiaddr.IP6Zone:
			return fmt.Errorf("%w: %s is malformed", ErrForbidden, addr)
		case multiaddr.Unix:
			return fmt.Errorf("%w: %s is a socket of this machine, which only its user may name", ErrForbidden, addr)
		}
		return nil
	}
	ap, code, hasPort := addr.AddrPort()
	if hasPort && slices.ContainsFunc(near.listens, func(l multiaddr.Addr) bool {
		own, c, ok := l.AddrPort()
		return ok && c == code && own.Port() == ap.Port() && plain(own.Addr()) == plain(ip)
	}) {
		return fmt.Errorf("%w: this host itself listens at %s", ErrForbidden, ap)
	}
	if source == SourceLocal {
		return safeNearby(ip, near)
	}
	if hasPort && isServicePort(ap.Port()) {
		return fmt.Errorf("%w: port %d belongs to a service that no peer is", ErrForbidden, ap.Port())
	}
	if v := plain(ip); source == SourcePresent && (v.IsLoopback() || judge(v) == reachPrivate) {
		return nil
	}
	return safeAnywhere(ip, near)
}

// safeNearby judges what came from the local network: it may lead to that network
// alone. The discovery has made sure that loopback addresses came over loopback.
func safeNearby(ip netip.Addr, near surroundings) error {
	switch v := plain(ip); {
	case judge(v) == reachNever && !v.IsLoopback() && !v.IsLinkLocalUnicast(), isMetadata(v):
	case v.Is6() && v.IsLinkLocalUnicast(), onLink(v, near.links):
		return nil
	}
	return fmt.Errorf("%w: %s is not on a network of this machine, which is where the local network's word counts", ErrForbidden, ip)
}

// safeAnywhere judges what a peer said of itself, or of others.
func safeAnywhere(ip netip.Addr, near surroundings) error {
	v := plain(ip)
	if ip.Zone() != "" {
		return fmt.Errorf("%w: %s names an interface of this machine", ErrForbidden, ip)
	}
	switch r := judge(v); {
	case r == reachPublic:
		return nil
	case r == reachPrivate && (onLink(v, near.links) || near.allowPrivate != nil && near.allowPrivate(v)):
		return nil
	case r == reachPrivate:
		return fmt.Errorf("%w: %s is in a private network that this machine has no interface in; if it can be reached all the same, let Config.Gate.AllowPrivate (on the command line: kith acl allow) say so, or give the address to Connect", ErrForbidden, ip)
	}
	return fmt.Errorf("%w: %s is not the address of a machine on the internet", ErrForbidden, ip)
}

// heard is on whose word an address is known that a peer gave on a connection with
// remote. Private and loopback addresses of the very machine at the other end count
// for more than others: who is there has shown that it is. With one of loopback all are.
func heard(addr, remote multiaddr.Addr) Source {
	ip, ok := addr.IP()
	at, connected := remote.IP()
	if !ok || !connected || addr.Has(multiaddr.P2PCircuit) || remote.Has(multiaddr.P2PCircuit) {
		return SourcePeer
	}
	ip, at = plain(ip), plain(at)
	if ip.IsLoopback() && at.IsLoopback() || ip == at && judge(ip) == reachPrivate {
		return SourcePresent
	}
	return SourcePeer
}

// plain takes off a zone and the IPv6 clothes of an IPv4 address.
func plain(ip netip.Addr) netip.Addr { return ip.WithZone("").Unmap() }

// minLinkBits keeps out "networks" that are most of the internet, as tunnels have them.
const minLinkBits = 8

// onLink tells whether ip is in a network that this machine has an address in, and
// is that of one machine there.
func onLink(ip netip.Addr, links []netip.Prefix) bool {
	return slices.ContainsFunc(links, func(p netip.Prefix) bool {
		if p.Bits() < minLinkBits || !p.Masked().Contains(ip) {
			return false
		}
		// The first and the last address of an IPv4 network stand for all hosts in it.
		return ip.Is6() || p.Bits() >= 31 || ip == p.Addr() || ip != p.Masked().Addr() && ip != lastIn(p)
	})
}

func lastIn(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	n := binary.BigEndian.Uint32(b[:]) | ^uint32(0)>>p.Bits()
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
}

// reach tells where an IP address leads.
type reach uint8

const (
	reachNever   reach = iota // no machine, or one that only its own programs may talk to
	reachPrivate              // a machine in some private network
	reachPublic               // a machine on the internet
)

// judge tells where ip, which is plain, leads. An IPv6 address that carries an IPv4
// one is judged by that: a gateway on the way sends the packets there.
func judge(ip netip.Addr) reach {
	if !ip.IsValid() || isMetadata(ip) || within(ip, never) {
		return reachNever
	}
	if within(ip, private) {
		return reachPrivate
	}
	if ip.Is4() {
		return reachPublic
	}
	inside, n := carried(ip)
	if n == 0 && !global6.Contains(ip) {
		return reachNever
	}
	r := reachPublic
	for _, v4 := range inside[:n] {
		r = min(r, judge(v4))
	}
	return r
}

// carried finds the IPv4 addresses in an IPv6 address that a gateway or a tunnel may
// send to, the one that gets the packets last.
func carried(ip netip.Addr) (inside [2]netip.Addr, n int) {
	b := ip.As16()
	add := func(at int, flip byte) {
		inside[n] = netip.AddrFrom4([4]byte{b[at] ^ flip, b[at+1] ^ flip, b[at+2] ^ flip, b[at+3] ^ flip})
		n++
	}
	switch {
	case nat64.Contains(ip), compatible.Contains(ip), translated.Contains(ip):
		add(12, 0)
	case teredo.Contains(ip):
		add(4, 0)     // its server
		add(12, 0xff) // and its client
	default:
		if b[8]&^2 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe { // ISATAP: RFC 5214, section 6.1
			add(12, 0)
		}
		if sixToFour.Contains(ip) {
			add(2, 0)
		}
	}
	return inside, n
}

// EmbeddedIPv4 gives the IPv4 addresses that an IPv6 one stands for, which gateways and
// tunnels send to: those of NAT64, 6to4, Teredo (server and client), ISATAP, and the old
// compatible and translated forms. An IPv4-mapped address is not IPv6: see
// netip.Addr.Unmap. A NAT64 that uses a prefix of its own does not show.
func EmbeddedIPv4(ip netip.Addr) []netip.Addr {
	if ip = plain(ip); !ip.Is6() || ip.IsLoopback() || ip.IsUnspecified() {
		return nil
	}
	inside, n := carried(ip)
	return append([]netip.Addr(nil), inside[:n]...)
}

// bothered is who gets the packets that are sent to ip: the IPv4 address in an IPv6
// one, if there is one.
func bothered(ip netip.Addr) netip.Addr {
	ip = plain(ip)
	if ip.Is6() {
		if inside, n := carried(ip); n > 0 {
			return inside[n-1]
		}
	}
	return ip
}

// The special ranges of the IANA registries, except those whose addresses are of
// machines on the internet all the same.
// https://www.iana.org/assignments/iana-ipv4-special-registry
// https://www.iana.org/assignments/iana-ipv6-special-registry
var (
	never = prefixes(
		"0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", // this network, loopback, link-local
		"192.0.0.0/24", "192.88.99.0/24", // protocol assignments, 6to4 relays
		"192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "198.18.0.0/15", // documentation, benchmarks
		"224.0.0.0/4", "240.0.0.0/4", // multicast, reserved and broadcast
		"::/128", "::1/128", "fe80::/10", "fec0::/10", "ff00::/8", // unspecified, loopback, link-local, site-local, multicast
		"64:ff9b:1::/48", // NAT64 whose use its own network decides (RFC 8215): where it leads cannot be seen in it
		"100::/64",       // discarded
		"2001:2::/48",    // benchmarks
		"2001:10::/28",   // ORCHID
		"2001:20::/28",   // ORCHIDv2
		"2001:db8::/32",  // documentation
		"3fff::/20",      // documentation
	)
	private = prefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")

	nat64      = netip.MustParsePrefix("64:ff9b::/96")    // RFC 6052
	compatible = netip.MustParsePrefix("::/96")           // RFC 4291, section 2.5.5.1
	translated = netip.MustParsePrefix("::ffff:0:0:0/96") // RFC 2765, section 2.1
	sixToFour  = netip.MustParsePrefix("2002::/16")       // RFC 3056
	teredo     = netip.MustParsePrefix("2001::/32")       // RFC 4380
	global6    = netip.MustParsePrefix("2000::/3")        // all that is given out, RFC 4291, section 2.4
)

// metadata are the addresses at which clouds tell a machine its secrets, where they
// are not link-local, which is never dialed in any case.
var metadata = []netip.Addr{
	netip.MustParseAddr("169.254.169.254"), // nearly all
	netip.MustParseAddr("fd00:ec2::254"),   // Amazon
	netip.MustParseAddr("fd00:ec2::23"),    // Amazon, credentials of containers
	netip.MustParseAddr("fd20:ce::254"),    // Google
	netip.MustParseAddr("fd00:42::42"),     // Scaleway
	netip.MustParseAddr("100.100.100.200"), // Alibaba
	netip.MustParseAddr("168.63.129.16"),   // Azure
}

func isMetadata(ip netip.Addr) bool { return slices.Contains(metadata, ip) }

func within(ip netip.Addr, ranges []netip.Prefix) bool {
	return slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return p.Contains(ip) })
}

func prefixes(texts ...string) []netip.Prefix {
	ps := make([]netip.Prefix, len(texts))
	for i, t := range texts {
		ps[i] = netip.MustParsePrefix(t)
	}
	return ps
}

// isServicePort tells of ports at which something else than a peer answers, and may
// take our first bytes for a command or our coming for a scan: those below 1024 but
// the web's, and above it those that browsers do not connect to, with some databases'.
// https://fetch.spec.whatwg.org/#port-blocking
func isServicePort(port uint16) bool {
	if port < 1024 {
		return port != 80 && port != 443
	}
	return slices.Contains(servicePorts, port)
}

var servicePorts = []uint16{
	1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080,
	2375, 3306, 3389, 5432, 5900, 6379, 9200, 11211, 27017, // docker, mysql, rdp, postgres, vnc, redis, elastic, memcached, mongo
}
