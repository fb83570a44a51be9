package quic_test

import (
	"context"
	"fmt"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/quic"
)

// Two hosts that speak QUIC and nothing else.
func Example() {
	newHost := func() *host.Host {
		key, err := peer.GenerateKey(peer.Ed25519)
		if err != nil {
			panic(err)
		}
		transport, err := quic.New(quic.Config{Key: key})
		if err != nil {
			panic(err)
		}
		h, err := host.New(host.Config{Identity: key, Transports: []host.Transport{transport}})
		if err != nil {
			panic(err)
		}
		return h
	}
	a, b := newHost(), newHost()
	defer a.Close()
	defer b.Close()
	if err := b.Listen(multiaddr.MustParse("/ip4/127.0.0.1/udp/0/quic-v1")); err != nil {
		panic(err)
	}
	conn, err := a.Connect(context.Background(), peer.AddrInfo{ID: b.ID(), Addrs: b.Addrs()})
	if err != nil {
		panic(err)
	}
	fmt.Println(conn.RemotePeer() == b.ID())
	// Output: true
}
