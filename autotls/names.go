package autotls

import (
	"math/big"
	"net/netip"
	"slices"
	"strings"

	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// maxAddrs bounds what the service is told, best first. It dials them.
const maxAddrs = 32

// nowhere are networks that look public to net/netip and are not, or, as those of
// NAT64, are another address's translation.
// https://www.iana.org/assignments/iana-ipv4-special-registry
// https://www.iana.org/assignments/iana-ipv6-special-registry
var nowhere = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"), // carriers' NAT
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("64:ff9b::/96"),
	netip.MustParsePrefix("64:ff9b:1::/48"),
	netip.MustParsePrefix("100::/64"),
	netip.MustParsePrefix("2001:db8::/32"),
	netip.MustParsePrefix("3fff::/20"),
}

// label returns the peer ID as a label of a DNS name: its CIDv1 in base36. For no
// type of key it is longer than a label may be, 63 characters: secp256k1 has as
// many, Ed25519 one less, the hashed keys fewer.
// https://github.com/libp2p/specs/blob/master/tls/autotls-client.md#requesting-challenge-from-acme-server
func label(id peer.ID) string {
	const cidv1, libp2pKey = 0x01, 0x72
	cid := append([]byte{cidv1, libp2pKey}, id.Bytes()...)
	return "k" + new(big.Int).SetBytes(cid).Text(36) // the first byte is not zero, so no digit is lost
}

// dashed returns ip as the label whose address is ip.
func dashed(ip netip.Addr) string {
	s := strings.NewReplacer(".", "-", ":", "-").Replace(ip.Unmap().WithZone("").String())
	if strings.HasPrefix(s, "-") {
		s = "0" + s
	}
	if strings.HasSuffix(s, "-") {
		s += "0"
	}
	return s
}

// named returns the address at which the certificate for parent can be checked,
// for an address at which TLS is served without a name. ok is false for any other
// address.
func named(a multiaddr.Addr, parent string) (with multiaddr.Addr, ip netip.Addr, ok bool) {
	ap, c, ok := a.AddrPort()
	if !ok || c != multiaddr.TCP {
		return multiaddr.Addr{}, netip.Addr{}, false
	}
	ap = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	var above []multiaddr.Code
	for c := range a.Components() {
		switch c.Code() {
		case multiaddr.IP4, multiaddr.IP6, multiaddr.IP6Zone, multiaddr.TCP:
		default:
			above = append(above, c.Code())
		}
	}
	if !slices.Equal(above, []multiaddr.Code{multiaddr.TLS, multiaddr.WS}) && !slices.Equal(above, []multiaddr.Code{multiaddr.WSS}) {
		return multiaddr.Addr{}, netip.Addr{}, false
	}
	tail, err := multiaddr.Parse("/tls/sni/" + dashed(ap.Addr()) + "." + parent + "/ws")
	if err != nil {
		return multiaddr.Addr{}, netip.Addr{}, false
	}
	return multiaddr.FromAddrPort(multiaddr.TCP, ap).Encapsulate(tail), ap.Addr(), true
}

// public reports whether ip can be reached from everywhere, as far as an address
// can tell.
func public(ip netip.Addr) bool {
	ip = ip.Unmap()
	return ip.IsGlobalUnicast() && !ip.IsPrivate() && ip.Zone() == "" &&
		!slices.ContainsFunc(nowhere, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// tellable returns those addresses that may be told to the registration service:
// IP addresses, public unless anywhere, and none behind a relay.
func tellable(addrs []multiaddr.Addr, anywhere bool) []multiaddr.Addr {
	var told []multiaddr.Addr
	for _, a := range addrs {
		ip, ok := a.IP()
		if !ok || a.Has(multiaddr.P2PCircuit) || !anywhere && !public(ip) || ip.IsUnspecified() {
			continue
		}
		if told = append(told, a); len(told) == maxAddrs {
			break
		}
	}
	return told
}
