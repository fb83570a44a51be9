package autotls

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

const maxLabel = 63 // RFC 1035 section 2.3.4

func TestLabel(t *testing.T) {
	// The example of the specification.
	id := must(peer.ParseID("12D3KooWATZi2wFwQxQ14Z3q24TDNWKap6f8W5ryLE6Da4RMfsxy"))
	if got := label(id); got != "k51qzi5uqu5dgf513xbrfjl4smgo2eh1x8p8y6grzsf1oz0reiy56p65tds3s6" {
		t.Error(got)
	}
	for _, typ := range []peer.KeyType{peer.Ed25519, peer.Secp256k1, peer.ECDSA, peer.RSA} {
		id := newKey(t, typ).ID()
		got := label(id)
		if back, err := peer.ParseID(got); err != nil || back != id || len(got) > maxLabel {
			t.Errorf("%v: %q of %d characters is read as %v, %v", typ, got, len(got), back, err)
		}
	}
}

func TestDashed(t *testing.T) {
	for ip, want := range map[string]string{
		"1.2.3.4":          "1-2-3-4",
		"2001:db8::1":      "2001-db8--1",
		"2001:db8::":       "2001-db8--0",
		"::1":              "0--1",
		"::":               "0--0",
		"::ffff:1.2.3.4":   "1-2-3-4",
		"fe80::1%eth0":     "fe80--1",
		"1:2:3:4:5:6:7:8":  "1-2-3-4-5-6-7-8",
		"2600:1f18::a:b:c": "2600-1f18--a-b-c",
	} {
		if got := dashed(netip.MustParseAddr(ip)); got != want {
			t.Errorf("%s: %q, want %q", ip, got, want)
		}
	}
}

func TestAnnounce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.manager(nil)
		anywhere := w.manager(func(c *Config) { c.AnyAddr = true })
		for _, m := range []*Manager{m, anywhere} {
			start(t, m)
			w.after(dueInterval)
		}
		for _, c := range []struct{ in, public, any string }{
			{"/ip4/1.2.3.4/tcp/443/tls/ws", "/ip4/1.2.3.4/tcp/443/tls/sni/1-2-3-4.ID/ws", ""},
			{"/ip4/1.2.3.4/tcp/443/wss", "/ip4/1.2.3.4/tcp/443/tls/sni/1-2-3-4.ID/ws", ""},
			{"/ip6/2600::1/tcp/443/tls/ws", "/ip6/2600::1/tcp/443/tls/sni/2600--1.ID/ws", ""},
			{"/ip4/127.0.0.1/tcp/443/tls/ws", "-", "/ip4/127.0.0.1/tcp/443/tls/sni/127-0-0-1.ID/ws"},
			{"/ip4/10.0.0.1/tcp/443/tls/ws", "-", "/ip4/10.0.0.1/tcp/443/tls/sni/10-0-0-1.ID/ws"},
			{"/ip6/::1/tcp/443/tls/ws", "-", "/ip6/::1/tcp/443/tls/sni/0--1.ID/ws"},
			{"/ip4/0.0.0.0/tcp/443/tls/ws", "-", "-"},
			// What is not ours.
			{"/ip4/1.2.3.4/tcp/443", "/ip4/1.2.3.4/tcp/443", ""},
			{"/ip4/1.2.3.4/tcp/443/ws", "/ip4/1.2.3.4/tcp/443/ws", ""},
			{"/ip4/1.2.3.4/tcp/443/tls", "/ip4/1.2.3.4/tcp/443/tls", ""},
			{"/ip4/1.2.3.4/udp/443/quic-v1", "/ip4/1.2.3.4/udp/443/quic-v1", ""},
			{"/dns4/example.com/tcp/443/tls/ws", "/dns4/example.com/tcp/443/tls/ws", ""},
			{"/ip4/1.2.3.4/tcp/443/tls/sni/example.com/ws", "/ip4/1.2.3.4/tcp/443/tls/sni/example.com/ws", ""},
		} {
			if c.any == "" {
				c.any = c.public
			}
			for m, want := range map[*Manager]string{m: c.public, anywhere: c.any} {
				want = strings.ReplaceAll(want, "ID", m.parent)
				got := m.Announce([]multiaddr.Addr{multiaddr.MustParse(c.in)})
				if want == "-" && len(got) != 0 || want != "-" && fmt.Sprint(got) != "["+want+"]" {
					t.Errorf("%s: %v, want %s", c.in, got, want)
				}
			}
		}
	})
}

func TestTellable(t *testing.T) {
	var addrs, want []multiaddr.Addr
	for _, s := range []string{
		"/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1", "/ip4/192.168.0.1/tcp/1", "/ip4/172.16.0.1/tcp/1", "/ip4/169.254.1.1/tcp/1",
		"/ip4/100.64.0.1/tcp/1", "/ip4/0.0.0.0/tcp/1", "/ip4/224.0.0.1/tcp/1", "/ip4/255.255.255.255/tcp/1", "/ip4/203.0.113.1/tcp/1",
		"/ip6/::1/tcp/1", "/ip6/::/tcp/1", "/ip6/fe80::1/tcp/1", "/ip6/fd00::1/tcp/1", "/ip6/2001:db8::1/tcp/1",
		"/ip6/64:ff9b::102:304/tcp/1", "/ip6/64:ff9b:1::102:304/tcp/1", "/ip6/ff02::1/tcp/1", "/ip6/::ffff:10.0.0.1/tcp/1",
		"/ip6zone/eth0/ip6/2600::1/tcp/1", "/dns4/example.com/tcp/1", "/unix/a",
		"/ip4/1.2.3.4/tcp/1/p2p/12D3KooWATZi2wFwQxQ14Z3q24TDNWKap6f8W5ryLE6Da4RMfsxy/p2p-circuit",
	} {
		addrs = append(addrs, multiaddr.MustParse(s))
	}
	for _, s := range []string{"/ip4/1.2.3.4/tcp/1", "/ip6/2600::1/udp/1/quic-v1", "/ip4/1.2.3.4/tcp/1/tls/ws"} {
		addrs, want = append(addrs, multiaddr.MustParse(s)), append(want, multiaddr.MustParse(s))
	}
	if got := tellable(addrs, false); !slices.Equal(got, want) {
		t.Errorf("told %v, want %v", got, want)
	}
	for _, a := range tellable(addrs, true) {
		if _, ok := a.IP(); !ok || a.Has(multiaddr.P2PCircuit) {
			t.Errorf("told %v", a)
		}
	}
	if got := tellable(slices.Repeat(want, 100), false); len(got) != maxAddrs {
		t.Errorf("told %d addresses", len(got))
	}
}

func FuzzAnnounce(f *testing.F) {
	for _, s := range []string{"/ip4/1.2.3.4/tcp/443/tls/ws", "/ip6/2600::1/tcp/443/wss", "/ip6zone/x/ip6/fe80::1/tcp/1/tls/ws", "/ip4/1.2.3.4/tcp/1"} {
		f.Add(multiaddr.MustParse(s).Bytes())
	}
	parent := label(newKey(f, peer.Ed25519).ID()) + "." + DefaultDomain
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := multiaddr.FromBytes(b)
		if err != nil {
			return
		}
		with, ip, ok := named(a, parent)
		if !ok {
			return
		}
		name, _ := with.Value(multiaddr.SNI)
		first, rest, _ := strings.Cut(name, ".")
		if rest != parent || len(first) > maxLabel || strings.HasPrefix(first, "-") || strings.HasSuffix(first, "-") {
			t.Errorf("%v: the name %q", a, name)
		}
		was, _, _ := a.AddrPort()
		if now, c, ok := with.AddrPort(); !ok || c != multiaddr.TCP || now.Port() != was.Port() || now.Addr() != was.Addr().Unmap() || now.Addr() != ip {
			t.Errorf("%v became %v", a, with)
		}
	})
}
