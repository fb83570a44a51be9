package mdns_test

import (
	"context"
	"fmt"
	"log"
	"os/signal"
	"syscall"

	"github.com/kith-p2p/kith/mdns"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

func ExampleListen() {
	key, err := peer.GenerateKey(peer.Ed25519)
	if err != nil {
		log.Fatal(err)
	}
	service, err := mdns.Listen(mdns.Config{
		ID:    key.ID(),
		Addrs: func() []multiaddr.Addr { return []multiaddr.Addr{multiaddr.MustParse("/ip4/192.168.1.7/tcp/4001")} },
		Found: func(info peer.AddrInfo) { fmt.Println("found", info) },
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT)
	defer stop()
	service.Run(ctx)
}
