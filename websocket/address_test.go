package websocket

import (
	"net/netip"
	"testing"

	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/upgrade"
)

var nothing = new(upgrade.Upgrader)

func must(s string) multiaddr.Addr { return multiaddr.MustParse(s) }

func TestParse(t *testing.T) {
	for _, c := range []struct {
		addr    string
		ok      bool
		network string
		host    string
		port    uint16
		secure  bool
		name    string // of the certificate
		over    string // the same at 192.0.2.1, port 9
	}{
		// The examples of the specification.
		{"/ip4/192.0.2.0/tcp/1234/ws", true, "tcp4", "192.0.2.0", 1234, false, "192.0.2.0", "/ip4/192.0.2.1/tcp/9/ws"},
		{"/ip4/192.0.2.0/tcp/1234/tls/ws", true, "tcp4", "192.0.2.0", 1234, true, "192.0.2.0", "/ip4/192.0.2.1/tcp/9/tls/ws"},
		{"/ip4/192.0.2.0/tcp/1234/tls/sni/foo.example.com/ws", true, "tcp4", "192.0.2.0", 1234, true, "foo.example.com", "/ip4/192.0.2.1/tcp/9/tls/sni/foo.example.com/ws"},
		{"/ip4/192.0.2.0/ws", true, "tcp4", "192.0.2.0", 80, false, "192.0.2.0", "/ip4/192.0.2.1/tcp/9/ws"},
		{"/ip4/192.0.2.0/tls/ws", true, "tcp4", "192.0.2.0", 443, true, "192.0.2.0", "/ip4/192.0.2.1/tcp/9/tls/ws"},
		{"/ip4/192.0.2.0/wss", true, "tcp4", "192.0.2.0", 443, true, "192.0.2.0", "/ip4/192.0.2.1/tcp/9/tls/ws"},
		{"/dns/example.com/wss", true, "tcp", "example.com", 443, true, "example.com", "/ip4/192.0.2.1/tcp/9/tls/sni/example.com/ws"},
		{"/dns/example.com/wss/http-path/path%2Fto%2Fendpoint", true, "tcp", "example.com", 443, true, "example.com", "/ip4/192.0.2.1/tcp/9/tls/sni/example.com/ws/http-path/path%2Fto%2Fendpoint"},
		// Others.
		{"/dns4/example.com/tcp/8443/tls/sni/other.com/wss", true, "tcp4", "example.com", 8443, true, "other.com", "/ip4/192.0.2.1/tcp/9/tls/sni/other.com/ws"},
		{"/dns6/example.com/tcp/80/ws", true, "tcp6", "example.com", 80, false, "example.com", "/ip4/192.0.2.1/tcp/9/ws"},
		{"/ip6/2001:db8::1/tcp/443/wss", true, "tcp6", "2001:db8::1", 443, true, "2001:db8::1", "/ip4/192.0.2.1/tcp/9/tls/ws"},
		{"/ip6zone/eth0/ip6/fe80::1/tcp/443/wss", true, "tcp6", "fe80::1%eth0", 443, true, "fe80::1", "/ip4/192.0.2.1/tcp/9/tls/ws"},
		{addr: "/ip4/192.0.2.0/tcp/1234"},
		{addr: "/ip4/192.0.2.0/tcp/1234/tls"},
		{addr: "/ip4/192.0.2.0/tcp/1234/sni/example.com/ws"},
		{addr: "/ip4/192.0.2.0/udp/1234/ws"},
		{addr: "/ip4/192.0.2.0/tcp/1234/ws/ws"},
		{addr: "/ip4/192.0.2.0/tcp/1234/ws/http-path/a/ws"},
		{addr: "/ip4/192.0.2.0/tcp/1234/tls/http/ws"},
		{addr: "/ip6zone/eth0/ip4/192.0.2.0/tcp/1/ws"},
		{addr: "/dnsaddr/example.com/tcp/1/ws"},
		{addr: "/tcp/1/ws"},
		{addr: "/ws"},
	} {
		a, ok := parse(must(c.addr))
		if ok != c.ok {
			t.Errorf("%s: understood %v", c.addr, ok)
		}
		if !ok || !c.ok {
			continue
		}
		if a.network() != c.network || a.host() != c.host || a.port != c.port || a.secure != c.secure || a.serverName() != c.name {
			t.Errorf("%s: %s %s %d, TLS %v, of %s", c.addr, a.network(), a.host(), a.port, a.secure, a.serverName())
		}
		over := a.over(netip.MustParseAddrPort("192.0.2.1:9"))
		if over.String() != c.over {
			t.Errorf("%s: at another place it is %s", c.addr, over)
		}
		if again, ok := parse(over); !ok || again.secure != a.secure {
			t.Errorf("%s is not understood", over)
		}
	}
}

// What is understood can be written and read again, and means the same.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"/ip4/192.0.2.0/tcp/1234/tls/sni/foo.example.com/ws", "/dns/example.com/wss/http-path/a%2Fb", "/ip6zone/x/ip6/fe80::1/tcp/443/wss", "/ws",
	} {
		f.Add(must(s).Bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		addr, err := multiaddr.FromBytes(b)
		if err != nil {
			return
		}
		a, ok := parse(addr)
		if !ok {
			return
		}
		over := a.over(netip.MustParseAddrPort("192.0.2.1:9"))
		again, ok := parse(over)
		if !ok || again.secure != a.secure || again.path != a.path || a.secure && a.sni != "" && again.sni != a.sni {
			t.Errorf("%s became %s", addr, over)
		}
	})
}
