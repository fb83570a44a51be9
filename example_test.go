package kith_test

import (
	"context"
	"fmt"
	"io"
	"log"

	"github.com/kith-p2p/kith"
	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// Two nodes in one program: one echoes, the other asks it.
func Example() {
	ctx := context.Background()
	local := kith.Config{
		Listen: []multiaddr.Addr{multiaddr.MustParse("/ip4/127.0.0.1/tcp/0")},
		MDNS:   kith.MDNS{Off: true},
	}
	server, err := kith.Start(ctx, local)
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()
	server.Handle("/echo/1", func(_ context.Context, s *host.Stream) error {
		_, err := io.Copy(s, s)
		return err
	})

	client, err := kith.Start(ctx, local)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	// On one network mDNS would find the address.
	if _, err := client.Connect(ctx, peer.AddrInfo{ID: server.ID(), Addrs: server.Addrs()}); err != nil {
		log.Fatal(err)
	}
	s, err := client.NewStream(ctx, server.ID(), "/echo/1")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Fprint(s, "hello")
	s.CloseWrite()
	answer, err := io.ReadAll(s)
	fmt.Println(string(answer), err)
	// Output: hello <nil>
}
