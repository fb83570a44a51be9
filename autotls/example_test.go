package autotls_test

import (
	"context"
	"fmt"
	"log"

	"github.com/kith-p2p/kith/autotls"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// A certificate for a node that is reached at 198.51.100.1. The listener may be
// opened before there is one.
func Example() {
	key, err := peer.LoadOrCreateKey("node/key", peer.Ed25519)
	if err != nil {
		log.Fatal(err)
	}
	m, err := autotls.New(autotls.Config{
		Key:   key,
		Addrs: func() []multiaddr.Addr { return []multiaddr.Addr{multiaddr.MustParse("/ip4/198.51.100.1/tcp/4001")} },
		Dir:   "node/autotls",
		Changed: func(s autotls.Status) {
			if s.Err != nil {
				fmt.Println("no certificate before", s.Next, "because", s.Err)
			} else {
				fmt.Println("a certificate for", s.Domain, "until", s.NotAfter)
			}
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	// m.TLSConfig() is for websocket.Config.TLS, m.Announce for host.Config.Announce.
	m.Run(context.Background())
}
