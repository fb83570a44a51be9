package host

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/kith-p2p/kith/multiaddr"
)

// home is a machine with one address in a household's network, one in a large
// private network, a public one, and what every machine has.
func home() surroundings {
	return surroundings{
		links: prefixes("127.0.0.1/8", "::1/128", "192.168.1.5/24", "10.20.30.40/12", "100.64.7.7/32", "198.20.0.9/29", "fd12:3456::5/64", "fe80::5/64", "1.2.3.4/0"),
		listens: []multiaddr.Addr{
			multiaddr.MustParse("/ip4/192.168.1.5/tcp/4001"), multiaddr.MustParse("/ip4/198.20.0.9/udp/4001/quic-v1"), multiaddr.MustParse("/memory/7"),
		},
	}
}

func TestSafeDial(t *testing.T) {
	const user, local, itself, stranger = 1 << SourceUser, 1 << SourceLocal, 1 << SourcePeer, 1 << SourceStranger
	const others = itself | stranger
	for _, c := range []struct {
		addr string
		from int // whose word is enough, beside the user's
	}{
		// The internet.
		{"/ip4/8.8.8.8/tcp/4001", others},
		{"/ip4/8.8.8.8/udp/4001/quic-v1", others},
		{"/ip6/2606:4700::1111/tcp/4001", others},
		{"/ip4/198.20.0.10/tcp/4001", others | local}, // its own network is a public one
		{"/ip4/198.20.0.8/tcp/4001", others},          // all hosts of that network, or one of another
		{"/dns4/example.com/tcp/443/tls/ws", others},  // judged when it is resolved
		{"/memory/8", others | local},                 // no network
		{"/onion3/vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd:1234", others | local},

		// Networks that the machine is part of, and others like them.
		{"/ip4/192.168.1.6/tcp/4001", others | local},
		{"/ip4/192.168.2.6/tcp/4001", 0},
		{"/ip4/192.168.1.255/udp/4001/quic-v1", 0},
		{"/ip4/192.168.1.0/udp/4001/quic-v1", 0},
		{"/ip4/10.16.0.1/tcp/4001", others | local},
		{"/ip4/10.32.0.1/tcp/4001", 0},
		{"/ip4/172.16.0.1/tcp/4001", 0},
		{"/ip4/172.31.255.254/tcp/4001", 0},
		{"/ip4/172.32.0.1/tcp/4001", others},
		{"/ip4/100.64.7.8/tcp/4001", 0},
		{"/ip4/100.128.0.1/tcp/4001", others},
		{"/ip6/fd12:3456::6/tcp/4001", others | local},
		{"/ip6/fd12:3457::6/tcp/4001", 0},
		{"/ip6zone/eth0/ip6/fe80::6/tcp/4001", local},
		{"/ip6zone/eth0/ip6/2606:4700::1111/tcp/4001", 0},
		{"/ip6/fe80::6/tcp/4001", local},

		// This machine, and this host.
		{"/ip4/127.0.0.1/tcp/4001", local},
		{"/ip4/127.1.2.3/tcp/4001", local},
		{"/ip6/::1/tcp/4001", local},
		{"/ip4/192.168.1.5/tcp/4001", 0},
		{"/ip4/192.168.1.5/tcp/4001/ws", 0},
		{"/ip6/::ffff:192.168.1.5/tcp/4001", 0},
		{"/ip4/192.168.1.5/udp/4001/quic-v1", others | local}, // somebody else's
		{"/ip4/192.168.1.5/tcp/4002", others | local},
		{"/ip4/198.20.0.9/udp/4001/quic-v1/webtransport", 0},
		{"/unix/var%2Frun%2Fdocker.sock", 0},

		// No machine, or no peer.
		{"/ip4/0.0.0.0/tcp/4001", 0},
		{"/ip4/0.1.2.3/tcp/4001", 0},
		{"/ip4/169.254.169.254/tcp/80", 0},
		{"/ip4/169.254.7.7/tcp/4001", 0},
		{"/ip4/192.0.0.192/tcp/80", 0},
		{"/ip4/192.0.2.1/tcp/4001", 0},
		{"/ip4/198.18.0.1/tcp/4001", 0},
		{"/ip4/198.19.255.255/tcp/4001", 0},
		{"/ip4/198.51.100.1/tcp/4001", 0},
		{"/ip4/203.0.113.1/tcp/4001", 0},
		{"/ip4/224.0.0.1/udp/4001/quic-v1", 0},
		{"/ip4/240.0.0.1/tcp/4001", 0},
		{"/ip4/255.255.255.255/udp/4001/quic-v1", 0},
		{"/ip4/100.100.100.200/tcp/80", 0},
		{"/ip4/168.63.129.16/tcp/80", 0},
		{"/ip6/::/tcp/4001", 0},
		{"/ip6/fec0::1/tcp/4001", 0},
		{"/ip6/ff02::1/udp/4001/quic-v1", 0},
		{"/ip6/fd00:ec2::254/tcp/80", 0},
		{"/ip6/fd20:ce::254/tcp/80", 0},
		{"/ip6/2001:db8::1/tcp/4001", 0},
		{"/ip6/3fff::1/tcp/4001", 0},
		{"/ip6/2001:2::1/tcp/4001", 0},
		{"/ip6/2001:20::1/tcp/4001", 0},
		{"/ip6/100::1/tcp/4001", 0},
		{"/ip6/5f00::1/tcp/4001", 0},
		{"/ip6/4000::1/tcp/4001", 0},
		{"/ip4/8.8.8.8/tcp/0", 0},
		{"/ip4/8.8.8.8/tcp/22", 0},
		{"/ip4/8.8.8.8/tcp/25", 0},
		{"/ip4/8.8.8.8/udp/53/quic-v1", 0},
		{"/ip4/8.8.8.8/tcp/6379", 0},
		{"/ip4/8.8.8.8/tcp/80/ws", others},
		{"/ip4/8.8.8.8/tcp/443/wss", others},

		// IPv4 in the clothes of IPv6, of a public address and of others.
		{"/ip6/::ffff:8.8.8.8/tcp/4001", others},
		{"/ip6/::ffff:127.0.0.1/tcp/4001", local},
		{"/ip6/::ffff:169.254.169.254/tcp/80", 0},
		{"/ip6/::ffff:192.168.1.6/tcp/4001", others | local},
		{"/ip6/::8.8.8.8/tcp/4001", others},
		{"/ip6/::127.0.0.1/tcp/4001", 0},
		{"/ip6/::10.32.0.1/tcp/4001", 0},
		{"/ip6/::ffff:0:8.8.8.8/tcp/4001", others},
		{"/ip6/::ffff:0:10.32.0.1/tcp/4001", 0},
		{"/ip6/64:ff9b::8.8.8.8/tcp/4001", others},
		{"/ip6/64:ff9b::127.0.0.1/tcp/4001", 0},
		{"/ip6/64:ff9b::192.168.1.6/tcp/4001", 0}, // the gateway's 192.168.1.6, not ours
		{"/ip6/64:ff9b::169.254.169.254/tcp/80", 0},
		{"/ip6/64:ff9b:1::8.8.8.8/tcp/4001", 0},
		{"/ip6/64:ff9b:1:a9fe:a9:fe00::/tcp/80", 0},
		{"/ip6/2002:808:808::1/tcp/4001", others},
		{"/ip6/2002:7f00:1::1/tcp/4001", 0},
		{"/ip6/2002:a20:1::1/tcp/4001", 0},
		{"/ip6/2002:a9fe:a9fe::/tcp/80", 0},
		{"/ip6/2001:0:808:808:0:0:f7f7:f7f7/tcp/4001", others}, // client 8.8.8.8
		{"/ip6/2001:0:808:808:0:0:80ff:fffe/tcp/4001", 0},      // client 127.0.0.1
		{"/ip6/2001:0:a9fe:a9fe:0:0:f7f7:f7f7/tcp/80", 0},      // server 169.254.169.254
		{"/ip6/2606:4700::5efe:8.8.8.8/tcp/4001", others},
		{"/ip6/2606:4700::200:5efe:10.32.0.1/tcp/4001", 0},
		{"/ip6/2606:4700::5efe:127.0.0.1/tcp/4001", 0},
	} {
		addr := multiaddr.MustParse(c.addr)
		for _, s := range []Source{SourceStranger, SourcePeer, SourceLocal, SourceUser} { // the present peer has a test of its own
			want := (c.from|user)>>s&1 == 1
			if s == SourceLocal {
				// The public internet is not nearby; a name or another network cannot be judged.
				if _, ip := addr.IP(); !ip && !strings.HasPrefix(c.addr, "/unix") {
					want = true
				}
			}
			err := safeDial(addr, s, home())
			if (err == nil) != want {
				t.Errorf("%s on the word of %v: %v; allowed should be %v", addr, s, err, want)
			}
			if err != nil && !errors.Is(err, ErrForbidden) {
				t.Errorf("%s: %v is not ErrForbidden", addr, err)
			}
		}
	}
}

func TestAllowPrivate(t *testing.T) {
	near := home()
	allowed := netip.MustParsePrefix("10.32.0.0/16")
	everything := false
	near.allowPrivate = func(ip netip.Addr) bool { return everything || allowed.Contains(ip) }
	for addr, want := range map[string]bool{
		"/ip4/10.32.9.9/tcp/4001":               true,
		"/ip6/::ffff:10.32.9.9/tcp/4001":        true,
		"/ip4/10.33.9.9/tcp/4001":               false,
		"/ip6/2606:4700::5efe:10.32.9.9/tcp/80": false, // the word is of 10.32.0.0/16, not of tunnels into it
	} {
		if err := safeDial(multiaddr.MustParse(addr), SourceStranger, near); (err == nil) != want {
			t.Errorf("%s: %v", addr, err)
		}
	}
	everything = true
	for _, addr := range []string{"/ip4/127.0.0.1/tcp/4001", "/ip6/::1/tcp/4001", "/ip4/169.254.169.254/tcp/80", "/ip6/fd00:ec2::254/tcp/80", "/ip4/224.0.0.1/tcp/4001", "/ip4/0.0.0.0/tcp/4001"} {
		if safeDial(multiaddr.MustParse(addr), SourceStranger, near) == nil {
			t.Errorf("%s is let through by AllowPrivate", addr)
		}
	}
}

// A peer that comes from a private or loopback address may name it, as the program's
// neighbours on this machine and those behind a router do; others may not.
func TestHeard(t *testing.T) {
	for _, c := range []struct {
		addr, remote string
		want         Source
	}{
		{"/ip4/127.0.0.1/tcp/4001", "/ip4/127.0.0.1/udp/9/quic-v1", SourcePresent},
		{"/ip6/::1/tcp/4001", "/ip4/127.0.0.1/tcp/9", SourcePresent},
		{"/ip4/10.99.9.9/tcp/4001", "/ip6/::ffff:10.99.9.9/tcp/9", SourcePresent},
		{"/ip4/10.99.9.8/tcp/4001", "/ip4/10.99.9.9/tcp/9", SourcePeer},
		{"/ip4/127.0.0.1/tcp/4001", "/ip4/10.99.9.9/tcp/9", SourcePeer},
		{"/ip4/127.0.0.1/tcp/4001", "/memory/3", SourcePeer},
		{"/ip4/127.0.0.1/tcp/4001/p2p/" + relayID + "/p2p-circuit", "/ip4/127.0.0.1/tcp/9", SourcePeer},
		{"/ip4/127.0.0.1/tcp/4001", "/ip4/127.0.0.1/tcp/4001/p2p/" + relayID + "/p2p-circuit", SourcePeer},
		{"/ip4/8.8.8.8/tcp/4001", "/ip4/8.8.8.8/tcp/9", SourcePeer}, // paced as all others are
		{"/ip4/169.254.169.254/tcp/4001", "/ip4/169.254.169.254/tcp/9", SourcePeer},
		{"/unix/a", "/unix/a", SourcePeer},
	} {
		addr := multiaddr.MustParse(c.addr)
		got := heard(addr, multiaddr.MustParse(c.remote))
		if got != c.want {
			t.Errorf("heard(%s, %s) = %v", c.addr, c.remote, got)
		}
		if err := safeDial(addr, got, surroundings{}); (err == nil) != (c.want == SourcePresent || c.addr == "/ip4/8.8.8.8/tcp/4001") {
			t.Errorf("%s, heard from %s: %v", c.addr, c.remote, err)
		}
	}
	if safeDial(multiaddr.MustParse("/ip4/127.0.0.1/tcp/6379"), SourcePresent, surroundings{}) == nil {
		t.Error("a database of this machine is dialed because its neighbour says so")
	}
}

const relayID = "12D3KooWGzxzKZYveHXtpG6AsrUJBcWxHBFS2HsEoGTxrMLvKXtf"

// Every form in which IPv6 can carry an IPv4 address is as good as that address.
func TestDisguises(t *testing.T) {
	for _, c := range []struct {
		v4   string
		want reach
	}{
		{"8.8.8.8", reachPublic}, {"10.1.2.3", reachPrivate}, {"100.64.0.1", reachPrivate},
		{"127.0.0.1", reachNever}, {"169.254.169.254", reachNever}, {"255.255.255.255", reachNever}, {"0.0.0.0", reachNever},
	} {
		for _, ip := range disguises(netip.MustParseAddr(c.v4)) {
			if got := judge(plain(ip)); got != c.want {
				t.Errorf("%s in %s: %v, want %v", c.v4, ip, got, c.want)
			}
			if got := bothered(ip); got.String() != c.v4 && got.String() != "8.8.8.8" {
				t.Errorf("packets to %s go to %s", ip, got)
			}
		}
	}
}

// disguises are the IPv6 forms of an IPv4 address, as the RFCs describe them.
func disguises(v4 netip.Addr) []netip.Addr {
	b := v4.As4()
	hex := fmt.Sprintf("%02x%02x:%02x%02x", b[0], b[1], b[2], b[3])
	inverse := fmt.Sprintf("%02x%02x:%02x%02x", b[0]^0xff, b[1]^0xff, b[2]^0xff, b[3]^0xff)
	var all []netip.Addr
	for _, text := range []string{
		"::ffff:" + hex, "::ffff:0:" + hex, "::" + hex, "64:ff9b::" + hex, "2002:" + hex + "::1", "2002:" + hex + "::5efe:" + hex,
		"2001:0:0808:0808:8000:0:" + inverse, "2001:0:" + hex + ":8000:0:f7f7:f7f7",
		"2606:4700::5efe:" + hex, "2606:4700::200:5efe:" + hex,
	} {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

func FuzzSafeDial(f *testing.F) {
	for _, s := range []string{"/ip4/8.8.8.8/tcp/4001", "/ip6/64:ff9b::7f00:1/tcp/1", "/ip6zone/a/ip6/fe80::1/udp/1", "/ip6zone/a/ip4/1.2.3.4", "/unix/a", "/memory/1"} {
		f.Add(multiaddr.MustParse(s).Bytes(), uint8(SourceStranger))
	}
	f.Fuzz(func(t *testing.T, data []byte, s uint8) {
		addr, err := multiaddr.FromBytes(data)
		if err != nil {
			return
		}
		source := Source(s % (uint8(SourceUser) + 1))
		err = safeDial(addr, source, home())
		ip, ok := addr.IP()
		if err != nil || source == SourceUser || !ok {
			return
		}
		switch ip = plain(ip); {
		case ip.IsUnspecified(), ip.IsMulticast():
			t.Errorf("%s is dialed", addr)
		case source != SourceLocal && ip.IsLinkLocalUnicast(), source <= SourcePeer && ip.IsLoopback(), isMetadata(ip):
			t.Errorf("%s is dialed on the word of %v", addr, source)
		}
	})
}

func BenchmarkSafeDial(b *testing.B) {
	near := home()
	for _, s := range []string{"/ip4/8.8.8.8/tcp/4001", "/ip6/2606:4700::1111/udp/4001/quic-v1", "/ip4/192.168.1.6/tcp/4001"} {
		b.Run(s[1:], func(b *testing.B) {
			addr := multiaddr.MustParse(s)
			b.ReportAllocs()
			for b.Loop() {
				if err := safeDial(addr, SourceStranger, near); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
