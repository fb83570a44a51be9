package autotls

import (
	"testing"

	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// The host asks for its addresses often.
func BenchmarkAnnounce(b *testing.B) {
	m := must(New(Config{Key: newKey(b, peer.Ed25519), Addrs: func() []multiaddr.Addr { return nil }}))
	listening := []multiaddr.Addr{
		multiaddr.MustParse("/ip4/1.2.3.4/udp/4001/quic-v1"),
		multiaddr.MustParse("/ip4/1.2.3.4/tcp/4001"),
		multiaddr.MustParse("/ip4/1.2.3.4/tcp/4001/tls/ws"),
		multiaddr.MustParse("/ip6/2600::1/tcp/4001/tls/ws"),
	}
	b.ReportAllocs()
	for b.Loop() {
		m.Announce(listening)
	}
}
