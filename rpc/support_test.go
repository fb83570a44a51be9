package rpc_test

import (
	"testing"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/testkit"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/quic"
	"github.com/kith-p2p/kith/tcp"
	"github.com/kith-p2p/kith/upgrade"
)

// transports have muxers of different kinds.
var transports = []struct {
	name string
	pair func(testing.TB) (client, server *host.Host)
}{
	{"memory", testkit.Pair},
	{"tcp", func(t testing.TB) (client, server *host.Host) {
		return testkit.PairOver(t, "/ip4/127.0.0.1/tcp/0", func(u *upgrade.Upgrader) (*tcp.Transport, error) { return tcp.New(tcp.Config{Upgrader: u}) })
	}},
	{"quic", func(t testing.TB) (client, server *host.Host) {
		client, server = quicHost(t), quicHost(t)
		if err := server.Listen(multiaddr.MustParse("/ip4/127.0.0.1/udp/0/quic-v1")); err != nil {
			t.Fatal(err)
		}
		client.AddAddrs(testkit.Info(server), host.TTLTold)
		return client, server
	}},
}

func quicHost(t testing.TB) *host.Host {
	key := testkit.Key(t)
	endpoint := quic.NewEndpoint(quic.EndpointConfig{Key: key})
	transport, err := quic.New(quic.Config{Key: key, Endpoint: endpoint})
	if err != nil {
		t.Fatal(err)
	}
	h, err := host.New(host.Config{Identity: key, Transports: []host.Transport{transport}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		endpoint.Close()
	})
	return h
}
