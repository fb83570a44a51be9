// The command minimal-golibp2p is examples/minimal with go-libp2p: TCP, Noise and
// yamux, and everything else off that can be.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
)

const echo = "/echo/1"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()

	h := must(libp2p.New(
		libp2p.ListenAddrStrings("/ip4/0.0.0.0/tcp/0"),
		libp2p.NoTransports,
		libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Security(noise.ID, noise.New),
		libp2p.Muxer(yamux.ID, yamux.DefaultTransport),
		libp2p.ResourceManager(&network.NullResourceManager{}),
		libp2p.ConnectionManager(connmgr.NullConnMgr{}),
		libp2p.DisableMetrics(),
		libp2p.DisableRelay(),
		libp2p.DisableIdentifyAddressDiscovery(),
	))
	defer h.Close()

	if len(os.Args) > 1 {
		greet(ctx, h, *must(peer.AddrInfoFromString(os.Args[1])))
		return
	}
	h.SetStreamHandler(echo, func(s network.Stream) {
		if _, err := io.Copy(s, s); err != nil {
			s.Reset()
			return
		}
		s.Close()
	})
	for _, addr := range must(peer.AddrInfoToP2pAddrs(&peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()})) {
		fmt.Println(addr)
	}
	<-ctx.Done()
}

// greet sends a line to a peer and prints what comes back.
func greet(ctx context.Context, h host.Host, to peer.AddrInfo) {
	if err := h.Connect(ctx, to); err != nil {
		log.Fatal(err)
	}
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
