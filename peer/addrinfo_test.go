package peer

import (
	"slices"
	"strings"
	"testing"

	"github.com/kith-p2p/kith/multiaddr"
)

const (
	testID    = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
	testRelay = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"
)

func TestParseAddrInfo(t *testing.T) {
	for _, c := range []struct{ in, id, addr string }{
		{"/ip4/192.0.2.1/tcp/4001/p2p/" + testID, testID, "/ip4/192.0.2.1/tcp/4001"},
		{"/dns4/example.com/udp/4001/quic-v1/p2p/" + testRelay, testRelay, "/dns4/example.com/udp/4001/quic-v1"},
		{"/p2p/" + testID, testID, ""},
		{"/ip4/192.0.2.1/tcp/1/p2p/" + testRelay + "/p2p-circuit/p2p/" + testID, testID, "/ip4/192.0.2.1/tcp/1/p2p/" + testRelay + "/p2p-circuit"},
		{"/p2p/" + testRelay + "/p2p-circuit/p2p/" + testID, testID, "/p2p/" + testRelay + "/p2p-circuit"},
		{"/ip4/192.0.2.1/tcp/1/ipfs/" + testID, testID, "/ip4/192.0.2.1/tcp/1"},
		{"/ip4/192.0.2.1/tcp/1/p2p/bafzbeie5745rpv2m6tjyuugywy4d5ewrqgqqhfnf445he3omzpjbx5xqxe", testRelay, "/ip4/192.0.2.1/tcp/1"},
	} {
		ai, err := ParseAddrInfo(c.in)
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		var want []multiaddr.Addr
		if c.addr != "" {
			want = []multiaddr.Addr{multiaddr.MustParse(c.addr)}
		}
		if ai.ID.String() != c.id || !slices.Equal(ai.Addrs, want) {
			t.Errorf("%s: %v", c.in, ai)
		}
		back := ai.P2PAddrs()
		if len(back) != 1 || back[0] != multiaddr.MustParse(c.in) {
			t.Errorf("%s: P2PAddrs %v", c.in, back)
		}
		transport, id := SplitAddr(multiaddr.MustParse(c.in))
		if id != ai.ID || transport.String() != c.addr {
			t.Errorf("%s: SplitAddr %v, %v", c.in, transport, id)
		}
	}
}

func TestParseAddrInfoRefuses(t *testing.T) {
	for _, in := range []string{
		"", "/", testID, "/ip4/192.0.2.1/tcp/4001",
		"/ip4/192.0.2.1/tcp/1/p2p/" + testRelay + "/p2p-circuit",
		"/ip4/192.0.2.1/tcp/4001/p2p/" + testID + "/ws",
		"/ip4/192.0.2.1/tcp/4001/p2p/" + testID[:40],
		"/ip4/192.0.2.1/tcp/4001/p2p",
	} {
		if ai, err := ParseAddrInfo(in); err == nil || !strings.HasPrefix(err.Error(), "peer: ") {
			t.Errorf("%q: %v, %v", in, ai, err)
		}
	}
	if ai, err := AddrInfoFromAddr(multiaddr.Addr{}); err == nil {
		t.Errorf("no address: %v", ai)
	}
}

func TestSplitAddrWithoutID(t *testing.T) {
	for _, in := range []string{"/ip4/192.0.2.1/tcp/4001", "/p2p/" + testRelay + "/p2p-circuit"} {
		a := multiaddr.MustParse(in)
		if transport, id := SplitAddr(a); transport != a || !id.IsZero() {
			t.Errorf("%s: %v, %v", in, transport, id)
		}
	}
	if transport, id := SplitAddr(multiaddr.Addr{}); !transport.IsZero() || !id.IsZero() {
		t.Errorf("no address: %v, %v", transport, id)
	}
}

func TestP2PAddrs(t *testing.T) {
	id, err := ParseID(testID)
	if err != nil {
		t.Fatal(err)
	}
	suffix := "/p2p/" + testID
	ai := AddrInfo{ID: id, Addrs: []multiaddr.Addr{
		multiaddr.MustParse("/ip4/192.0.2.1/tcp/1"),
		multiaddr.MustParse("/ip4/192.0.2.2/tcp/2" + suffix), // as some peers announce theirs
		multiaddr.MustParse("/unix/run/kith.sock"),           // nothing can follow a path
		multiaddr.MustParse("/p2p/" + testRelay + "/p2p-circuit"),
	}}
	want := []string{"/ip4/192.0.2.1/tcp/1" + suffix, "/ip4/192.0.2.2/tcp/2" + suffix, "/p2p/" + testRelay + "/p2p-circuit" + suffix}
	var got []string
	for _, a := range ai.P2PAddrs() {
		got = append(got, a.String())
	}
	if !slices.Equal(got, want) {
		t.Errorf("P2PAddrs %v, want %v", got, want)
	}
	if got := (AddrInfo{Addrs: ai.Addrs}).P2PAddrs(); got != nil {
		t.Errorf("P2PAddrs of nobody: %v", got)
	}
	if s := ai.String(); !strings.Contains(s, testID) || !strings.Contains(s, "/ip4/192.0.2.1/tcp/1") {
		t.Errorf("String %q", s)
	}
}
