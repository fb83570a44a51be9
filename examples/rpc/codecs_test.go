package codecs

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/rpc"
	"github.com/kith-p2p/kith/tcp"
	"github.com/kith-p2p/kith/upgrade"
)

type greeting struct {
	Name  string
	Times int
}

func TestCodecs(t *testing.T) {
	server, client := node(t), node(t)
	client.AddAddrs(peer.AddrInfo{ID: server.ID(), Addrs: server.Addrs()}, host.TTLTold)

	greet := rpc.Method[greeting, string]{Protocol: "/greet/1", Codec: CBOR}
	greet.Serve(server, func(_ context.Context, _ peer.ID, g greeting) (string, error) {
		return strings.Repeat("Hello "+g.Name+". ", g.Times), nil
	})
	if got, err := greet.Call(t.Context(), client, server.ID(), greeting{"Kith", 2}); got != "Hello Kith. Hello Kith. " || err != nil {
		t.Errorf("CBOR: %q, %v", got, err)
	}

	upper := rpc.Method[*wrapperspb.StringValue, *wrapperspb.StringValue]{Protocol: "/upper/1", Codec: Protobuf}
	upper.Serve(server, func(_ context.Context, _ peer.ID, s *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
		return wrapperspb.String(strings.ToUpper(s.Value)), nil
	})
	if got, err := upper.Call(t.Context(), client, server.ID(), wrapperspb.String("kith")); got.GetValue() != "KITH" || err != nil {
		t.Errorf("protobuf: %v, %v", got, err)
	}
}

func node(t *testing.T) *host.Host {
	key, err := peer.GenerateKey(peer.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	channel, err := upgrade.Noise(key)
	if err != nil {
		t.Fatal(err)
	}
	upgrader, err := upgrade.New(upgrade.Config{Security: []upgrade.Security{channel}})
	if err != nil {
		t.Fatal(err)
	}
	transport, err := tcp.New(tcp.Config{Upgrader: upgrader})
	if err != nil {
		t.Fatal(err)
	}
	h, err := host.New(host.Config{Identity: key, Transports: []host.Transport{transport}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	if err := h.Listen(multiaddr.MustParse("/ip4/127.0.0.1/tcp/0")); err != nil {
		t.Fatal(err)
	}
	return h
}
