// The command minimal is the smallest useful peer: a host with TCP, Noise and
// yamux, put together by hand. It echoes what other peers send until it is
// interrupted; given the address of one, it sends a line there and prints the answer.
//
//	go run ./examples/minimal
//	go run ./examples/minimal /ip4/127.0.0.1/tcp/4001/p2p/12D3KooW…
//
// It knows nothing of its peers but their keys, and finds none. kith.Start makes a
// node that does more; this is for programs that link only what they use.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/tcp"
	"github.com/kith-p2p/kith/upgrade"
)

const echo host.ProtocolID = "/echo/1"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()

	key := must(peer.GenerateKey(peer.Ed25519))
	noise := must(upgrade.Noise(key))
	upgrader := must(upgrade.New(upgrade.Config{Security: []upgrade.Security{noise}}))
	transport := must(tcp.New(tcp.Config{Upgrader: upgrader}))
	h := must(host.New(host.Config{Identity: key, Transports: []host.Transport{transport}}))
	defer h.Close()

	if len(os.Args) > 1 {
		greet(ctx, h, must(peer.ParseAddrInfo(os.Args[1])))
		return
	}
	h.Handle(echo, func(_ context.Context, s *host.Stream) error {
		_, err := io.Copy(s, s)
		return err
	})
	if err := h.Listen(multiaddr.MustParse("/ip4/0.0.0.0/tcp/0")); err != nil {
		log.Fatal(err)
	}
	for _, addr := range h.P2PAddrs() {
		fmt.Println(addr)
	}
	<-ctx.Done()
}

// greet sends a line to a peer and prints what comes back.
func greet(ctx context.Context, h *host.Host, to peer.AddrInfo) {
	must(h.Connect(ctx, to))
	s := must(h.NewStream(ctx, to.ID, echo))
	must(fmt.Fprintln(s, "hello from", h.ID()))
	if err := s.CloseWrite(); err != nil {
		log.Fatal(err)
	}
	must(io.Copy(os.Stdout, s))
}

// must ends the program when something fails.
func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}
