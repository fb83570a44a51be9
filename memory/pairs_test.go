package memory_test

import (
	"testing"
	"testing/synctest"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/testkit"
	"github.com/kith-p2p/kith/internal/transporttest"
	"github.com/kith-p2p/kith/memory"
	"github.com/kith-p2p/kith/peer"
)

func TestSimultaneousDials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(memory.Network)
		transporttest.SimultaneousPairs(t, transporttest.Case{
			New: func(t testing.TB, key peer.PrivateKey) host.Transport {
				transport, err := memory.New(memory.Config{Network: network, Upgrader: testkit.Upgrader(t, key)})
				if err != nil {
					t.Fatal(err)
				}
				return transport
			},
			Listen: transporttest.Addrs("/memory/0"),
		}, 1000)
	})
}
