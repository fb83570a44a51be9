package quic

import (
	"testing"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/transporttest"
	"github.com/kith-p2p/kith/peer"
)

func newTransport(t testing.TB, key peer.PrivateKey, cfg EndpointConfig) *Transport {
	t.Helper()
	cfg.Key = key
	e := NewEndpoint(cfg)
	t.Cleanup(func() { e.Close() })
	transport, err := New(Config{Key: key, Endpoint: e})
	if err != nil {
		t.Fatal(err)
	}
	return transport
}

func TestTransport(t *testing.T) {
	transporttest.Run(t, transporttest.Case{
		New: func(t testing.TB, key peer.PrivateKey) host.Transport {
			return newTransport(t, key, EndpointConfig{IdleTimeout: 6 * time.Second})
		},
		Listen:    transporttest.Addrs("/ip4/127.0.0.1/udp/0/quic-v1", "/ip6/::1/udp/0/quic-v1"),
		Silence:   6 * time.Second,
		Datagrams: true,
	})
}

func TestSimultaneousDials(t *testing.T) {
	transporttest.Simultaneous(t, transporttest.Case{
		New:    func(t testing.TB, key peer.PrivateKey) host.Transport { return newTransport(t, key, EndpointConfig{}) },
		Listen: transporttest.Addrs("/ip4/127.0.0.1/udp/0/quic-v1"),
	})
}

func TestClosing(t *testing.T) {
	transporttest.Closing(t, transporttest.Case{
		New:    func(t testing.TB, key peer.PrivateKey) host.Transport { return newTransport(t, key, EndpointConfig{}) },
		Listen: transporttest.Addrs("/ip4/127.0.0.1/udp/0/quic-v1"),
	})
}
