package multiaddr

import (
	"net/netip"
	"strings"
	"testing"
)

func TestAddrPort(t *testing.T) {
	for _, test := range []struct {
		addr string
		ap   string
		code Code
	}{
		{"/ip4/192.0.2.1/tcp/4001", "192.0.2.1:4001", TCP},
		{"/ip4/192.0.2.1/udp/0/quic-v1/p2p-circuit", "192.0.2.1:0", UDP},
		{"/ip6/2001:db8::1/udp/65535/quic-v1", "[2001:db8::1]:65535", UDP},
		{"/ip6/::ffff:192.0.2.1/tcp/80", "[::ffff:192.0.2.1]:80", TCP}, // not unmapped
		{"/ip6zone/eth0/ip6/fe80::1/tcp/80/ws", "[fe80::1%eth0]:80", TCP},
	} {
		want := netip.MustParseAddrPort(test.ap)
		a := MustParse(test.addr)
		if ap, code, ok := a.AddrPort(); ap != want || code != test.code || !ok {
			t.Errorf("%q.AddrPort() = %v, %v, %v, want %v, %v", a, ap, code, ok, want, test.code)
		}
		if ip, ok := a.IP(); ip != want.Addr() || !ok {
			t.Errorf("%q.IP() = %v, %v, want %v", a, ip, ok, want.Addr())
		}
		made := FromAddrPort(test.code, want)
		if checked, err := FromBytes(made.Bytes()); err != nil || checked != made || !a.HasPrefix(made) || made.IsZero() {
			t.Errorf("FromAddrPort(%v, %v) = %q, %v, want the beginning of %q", test.code, want, made, err, a)
		}
	}
	for _, text := range []string{
		"", "/tcp/80", "/ws", "/dns4/example.com/tcp/80", "/p2p-circuit/ip4/192.0.2.1/tcp/80",
		"/ip6zone/eth0", "/ip6zone/eth0/tcp/80", "/ip6zone/a/ip6zone/b/ip6/fe80::1/tcp/80", "/ip6zone/eth0/ip4/192.0.2.1/tcp/80",
	} {
		var a Addr
		if text != "" {
			a = MustParse(text)
		}
		ap, code, ok := a.AddrPort()
		ip, ipOK := a.IP()
		if ok || ipOK || ap.IsValid() || ip.IsValid() || code != 0 {
			t.Errorf("%q: AddrPort() = %v, %v, %v; IP() = %v, %v; want none", text, ap, code, ok, ip, ipOK)
		}
	}
	for _, text := range []string{"/ip4/192.0.2.1", "/ip4/192.0.2.1/sctp/80", "/ip4/192.0.2.0/ipcidr/24/tcp/80", "/ip6/fe80::1/ip6zone/eth0/tcp/80"} {
		a := MustParse(text)
		if ap, code, ok := a.AddrPort(); ok || ap.IsValid() || code != 0 {
			t.Errorf("%q.AddrPort() = %v, %v, %v, want none", a, ap, code, ok)
		}
		if ip, ok := a.IP(); !ok || !ip.IsValid() {
			t.Errorf("%q.IP() = %v, %v, want its address", a, ip, ok)
		}
	}
}

func TestFromAddrPortRefuses(t *testing.T) {
	v4 := netip.MustParseAddrPort("192.0.2.1:80")
	v6 := netip.MustParseAddr("fe80::1")
	for _, test := range []struct {
		code Code
		ap   netip.AddrPort
	}{
		{TCP, netip.AddrPort{}},
		{WS, v4},
		{IPCIDR, v4},
		{Code(5), v4},
		{TCP, netip.AddrPortFrom(v6.WithZone("a/b"), 80)},
		{TCP, netip.AddrPortFrom(v6.WithZone("a\nb"), 80)},
		{TCP, netip.AddrPortFrom(v6.WithZone(strings.Repeat("x", MaxValueLen+1)), 80)},
	} {
		if a := FromAddrPort(test.code, test.ap); !a.IsZero() {
			t.Errorf("FromAddrPort(%v, %v) = %q, want the zero Addr", test.code, test.ap, a)
		}
	}
	if a := FromAddrPort(SCTP, v4); a != MustParse("/ip4/192.0.2.1/sctp/80") {
		t.Errorf("FromAddrPort(sctp) = %q", a)
	}
}

func TestPrefix(t *testing.T) {
	for _, test := range []struct{ addr, want string }{
		{"/ip4/192.0.2.1/tcp/1", "192.0.2.0/24"},
		{"/ip6/::ffff:192.0.2.3/tcp/1", "192.0.2.0/24"},
		{"/ip6/2001:db8:1:2::1/tcp/1/p2p-circuit", "2001:db8:1::/48"},
		{"/ip6zone/eth0/ip6/fe80::1/tcp/1", "fe80::/48"},
		{"/ip4/127.0.0.1/tcp/1", "127.0.0.0/24"},
		{"/memory/1", "invalid Prefix"},
		{"/dns4/example.com/tcp/1", "invalid Prefix"},
	} {
		p, ok := MustParse(test.addr).Prefix(24, 48)
		if p.String() != test.want || ok != p.IsValid() {
			t.Errorf("%s.Prefix(24, 48) = %v, %v, want %s", test.addr, p, ok, test.want)
		}
	}
	if p, ok := MustParse("/ip4/192.0.2.1").Prefix(48, 48); ok {
		t.Errorf("48 bits of an IPv4 address: %v", p)
	}
	if p, ok := (Addr{}).Prefix(24, 48); ok {
		t.Errorf("the zero Addr: %v", p)
	}
}

func TestScope(t *testing.T) {
	for text, want := range map[string]Scope{
		"/ip4/127.0.0.1/tcp/1":             ScopeMachine,
		"/ip4/127.8.8.8/udp/1/quic-v1":     ScopeMachine,
		"/ip6/::1/tcp/1":                   ScopeMachine,
		"/ip6/::ffff:127.0.0.1/tcp/1":      ScopeMachine,
		"/memory/1":                        ScopeMachine,
		"/unix/a":                          ScopeMachine,
		"/ip4/10.0.0.1/tcp/1":              ScopeNetwork,
		"/ip4/192.168.1.1/tcp/1":           ScopeNetwork,
		"/ip4/169.254.169.254/tcp/80":      ScopeNetwork,
		"/ip6/fe80::1/tcp/1":               ScopeNetwork,
		"/ip6zone/eth0/ip6/fe80::1/tcp/1":  ScopeNetwork,
		"/ip6/fd00::1/tcp/1":               ScopeNetwork,
		"/ip6/::ffff:10.0.0.1/tcp/1":       ScopeNetwork,
		"/ip4/192.0.2.1/tcp/1":             ScopeInternet,
		"/ip6/2001:db8::1/tcp/1":           ScopeInternet,
		"/ip4/192.0.2.1/tcp/1/p2p-circuit": ScopeInternet,
		"/dns4/example.com/tcp/1":          ScopeInternet,
	} {
		if got := MustParse(text).Scope(); got != want {
			t.Errorf("%s.Scope() = %d, want %d", text, got, want)
		}
	}
	if got := (Addr{}).Scope(); got != ScopeInternet {
		t.Errorf("the scope of the zero Addr is %d", got)
	}
}
