//go:build !js

package websocket_test

import (
	"testing"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/transporttest"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/upgrade"
	"github.com/kith-p2p/kith/websocket"
)

func TestTransport(t *testing.T) {
	server, client := certificate(t)
	for name, channel := range map[string]func(peer.PrivateKey) (upgrade.Security, error){"noise": upgrade.Noise, "tls": upgrade.TLS} {
		for kind, addrs := range map[string][]string{
			"ws":  {"/ip4/127.0.0.1/tcp/0/ws", "/ip6/::1/tcp/0/ws"},
			"wss": {"/ip4/127.0.0.1/tcp/0/tls/ws"},
		} {
			t.Run(kind+" "+name, func(t *testing.T) {
				transporttest.Run(t, transporttest.Case{
					New: func(t testing.TB, key peer.PrivateKey) host.Transport {
						return newTransport(t, key, channel, websocket.Config{TLS: server, ClientTLS: client})
					},
					Listen: transporttest.Addrs(addrs...),
				})
			})
		}
	}
}

func newTransport(t testing.TB, key peer.PrivateKey, channel func(peer.PrivateKey) (upgrade.Security, error), cfg websocket.Config) *websocket.Transport {
	t.Helper()
	security, err := channel(key)
	check(t, err)
	cfg.Upgrader, err = upgrade.New(upgrade.Config{Security: []upgrade.Security{security}})
	check(t, err)
	transport, err := websocket.New(cfg)
	check(t, err)
	return transport
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestClosing(t *testing.T) {
	transporttest.Closing(t, transporttest.Case{
		New: func(t testing.TB, key peer.PrivateKey) host.Transport {
			return newTransport(t, key, upgrade.Noise, websocket.Config{})
		},
		Listen: transporttest.Addrs("/ip4/127.0.0.1/tcp/0/ws"),
	})
}
