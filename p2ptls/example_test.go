package p2ptls_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"

	"github.com/kith-p2p/kith/p2ptls"
	"github.com/kith-p2p/kith/peer"
)

func Example() {
	alice, err := peer.GenerateKey(peer.Ed25519)
	if err != nil {
		log.Fatal(err)
	}
	bob, err := peer.GenerateKey(peer.Ed25519)
	if err != nil {
		log.Fatal(err)
	}
	dialed, accepted := net.Pipe() // as a transport makes them
	go serve(bob, accepted)

	t, err := p2ptls.New(alice)
	if err != nil {
		log.Fatal(err)
	}
	conn, err := t.Client(context.Background(), dialed, p2ptls.Config{
		Remote: bob.ID(),
		Muxers: []string{"/yamux/1.0.0"},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	greeting, err := io.ReadAll(conn)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(conn.Muxer(), string(greeting))
	// Output: /yamux/1.0.0 hello
}

func serve(key peer.PrivateKey, accepted net.Conn) {
	t, err := p2ptls.New(key)
	if err != nil {
		log.Fatal(err)
	}
	conn, err := t.Server(context.Background(), accepted, p2ptls.Config{Muxers: []string{"/yamux/1.0.0"}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Fprint(conn, "hello")
	conn.Close()
}
