package webtransport

import (
	"testing"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/transporttest"
	"github.com/kith-p2p/kith/peer"
)

func TestTransport(t *testing.T) {
	transporttest.Run(t, transporttest.Case{
		New:       func(t testing.TB, key peer.PrivateKey) host.Transport { return newTransport(t, key) },
		Listen:    transporttest.Addrs("/ip4/127.0.0.1/udp/0/quic-v1/webtransport", "/ip6/::1/udp/0/quic-v1/webtransport"),
		Datagrams: true,
		Unread:    2, // one each way: the connection's window begins with 1.5 times a stream's
		Silence:   6 * time.Second,
	})
}

func TestClosing(t *testing.T) {
	transporttest.Closing(t, transporttest.Case{
		New:    func(t testing.TB, key peer.PrivateKey) host.Transport { return newTransport(t, key) },
		Listen: transporttest.Addrs("/ip4/127.0.0.1/udp/0/quic-v1/webtransport"),
	})
}
