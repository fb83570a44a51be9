package tcp

import (
	"testing"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/transporttest"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/upgrade"
)

func TestTransport(t *testing.T) {
	for name, channel := range map[string]func(peer.PrivateKey) (upgrade.Security, error){"noise": upgrade.Noise, "tls": upgrade.TLS} {
		t.Run(name, func(t *testing.T) {
			transporttest.Run(t, transporttest.Case{
				New:    func(t testing.TB, key peer.PrivateKey) host.Transport { return newTransport(t, key, channel) },
				Listen: transporttest.Addrs("/ip4/127.0.0.1/tcp/0", "/ip6/::1/tcp/0"),
			})
		})
	}
}

func TestSimultaneousDials(t *testing.T) {
	transporttest.Simultaneous(t, transporttest.Case{
		New: func(t testing.TB, key peer.PrivateKey) host.Transport {
			return newTransport(t, key, upgrade.Noise)
		},
		Listen: transporttest.Addrs("/ip4/127.0.0.1/tcp/0"),
	})
}

func TestClosing(t *testing.T) {
	transporttest.Closing(t, transporttest.Case{
		New: func(t testing.TB, key peer.PrivateKey) host.Transport {
			return newTransport(t, key, upgrade.Noise)
		},
		Listen: transporttest.Addrs("/ip4/127.0.0.1/tcp/0"),
	})
}
