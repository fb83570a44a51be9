package webrtc

import (
	"testing"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/transporttest"
	"github.com/kith-p2p/kith/peer"
)

func TestTransport(t *testing.T) {
	transporttest.Run(t, transporttest.Case{
		New: func(t testing.TB, key peer.PrivateKey) host.Transport {
			transport, err := New(Config{Key: key, Timeout: 3 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			return transport
		},
		Listen:  transporttest.Addrs("/ip4/127.0.0.1/udp/0/webrtc-direct", "/ip6/::1/udp/0/webrtc-direct"),
		Silence: 3 * time.Second,
	})
}

func TestClosing(t *testing.T) {
	transporttest.Closing(t, transporttest.Case{
		New: func(t testing.TB, key peer.PrivateKey) host.Transport {
			transport, err := New(Config{Key: key})
			if err != nil {
				t.Fatal(err)
			}
			return transport
		},
		Listen: transporttest.Addrs("/ip4/127.0.0.1/udp/0/webrtc-direct"),
	})
}
