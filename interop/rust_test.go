//go:build rust

package interop

import (
	"testing"

	"github.com/kith-p2p/kith/interop/internal/peercmd"
)

// TestRust needs rustpeer, which takes minutes to build and therefore is not in CI: run interop/rust.
func TestRust(t *testing.T) {
	rustPeer := program{
		name: "rust", argv: []string{"rustpeer/target/release/rustpeer"}, agent: "rust-libp2p/",
		keyTypes: []string{"ed25519", "secp256k1", "ecdsa"}, records: true,
	}
	for _, pair := range []pair{{kithPeer, rustPeer}, {rustPeer, kithPeer}} {
		testPair(t, pair, rustPeer.keyTypes)
	}
	for _, pair := range []pair{{goPeer, rustPeer}, {rustPeer, goPeer}} {
		testPair(t, pair, []string{"secp256k1"})
	}
	for _, other := range []program{kithPeer, goPeer} {
		t.Run("mdns/rust-and-"+other.name, func(t *testing.T) {
			t.Parallel()
			var a, b *process
			inOwnNetwork(t, lan, func() {
				a = rustPeer.run(t, "mdns", "--listen=/ip4/10.77.0.1/tcp/0", "--linger=30")
				b = other.run(t, "mdns", "--listen=/ip4/10.77.0.1/tcp/0", "--linger=30")
			})
			aListening, bListening := await[peercmd.Listening](t, a), await[peercmd.Listening](t, b)
			checkDiscovered(t, await[peercmd.Discovered](t, a), bListening)
			if other.name == "kith" { // go-libp2p's zeroconf drops rust-libp2p's answers, as it does those of js-libp2p
				checkDiscovered(t, await[peercmd.Discovered](t, b), aListening)
			}
		})
	}
}
