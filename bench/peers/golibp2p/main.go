// The command golibp2p is the worker that measures go-libp2p. Its nodes are the
// leanest that its options allow: one transport, with one secure channel and yamux where
// it needs them; no resource manager, no connection manager, no metrics, no relay.
// Identify is always there.
package main

import (
	"context"
	"crypto/rand"
	"fmt"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	webrtc "github.com/libp2p/go-libp2p/p2p/transport/webrtc"
	"github.com/libp2p/go-libp2p/p2p/transport/websocket"
	webtransport "github.com/libp2p/go-libp2p/p2p/transport/webtransport"

	"github.com/kith-p2p/kith/bench/internal/worker"
)

func main() { worker.Main(newNode) }

func newNode(cfg worker.NodeConfig) (worker.Node, error) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, err
	}
	options := []libp2p.Option{
		libp2p.Identity(key),
		libp2p.NoTransports,
		libp2p.Muxer(yamux.ID, yamux.DefaultTransport),
		libp2p.ResourceManager(&network.NullResourceManager{}),
		libp2p.ConnectionManager(connmgr.NullConnMgr{}),
		libp2p.DisableMetrics(),
		libp2p.DisableRelay(),
		libp2p.DisableIdentifyAddressDiscovery(),
	}
	switch cfg.Transport {
	case worker.TCP:
		options = append(options, libp2p.Transport(tcp.NewTCPTransport))
	case worker.QUIC:
		options = append(options, libp2p.Transport(quic.NewTransport))
	case worker.WebSocket:
		options = append(options, libp2p.Transport(websocket.New))
	case worker.WebTransport:
		options = append(options, libp2p.Transport(webtransport.New))
	case worker.WebRTC:
		options = append(options, libp2p.Transport(webrtc.New))
	}
	switch cfg.Security {
	case "noise":
		options = append(options, libp2p.Security(noise.ID, noise.New))
	case "tls":
		options = append(options, libp2p.Security(libp2ptls.ID, libp2ptls.New))
	case "":
	default:
		return nil, fmt.Errorf("no secure channel %q", cfg.Security)
	}
	if cfg.Listen {
		addr, err := cfg.ListenAddr()
		if err != nil {
			return nil, err
		}
		options = append(options, libp2p.ListenAddrStrings(addr))
	} else {
		options = append(options, libp2p.NoListenAddrs)
	}
	h, err := libp2p.New(options...)
	if err != nil {
		return nil, err
	}
	return node{h}, nil
}

type node struct{ host host.Host }

func (n node) Addr() string {
	if len(n.host.Addrs()) == 0 {
		return ""
	}
	return fmt.Sprintf("%s/p2p/%s", n.host.Addrs()[0], n.host.ID())
}

func (n node) Handle(proto string, serve func(worker.Stream) error) {
	n.host.SetStreamHandler(protocol.ID(proto), func(s network.Stream) {
		if err := serve(s); err != nil {
			s.Reset()
			return
		}
		s.Close()
	})
}

// Connect returns after identify.
func (n node) Connect(ctx context.Context, addrs ...string) (worker.Conn, error) {
	var to peer.AddrInfo
	for _, addr := range addrs {
		info, err := peer.AddrInfoFromString(addr)
		if err != nil {
			return nil, err
		}
		to.ID, to.Addrs = info.ID, append(to.Addrs, info.Addrs...)
	}
	if err := n.host.Connect(ctx, to); err != nil {
		return nil, err
	}
	return conn{n.host, to.ID}, nil
}

type conn struct {
	host   host.Host
	remote peer.ID
}

func (c conn) Open(ctx context.Context, proto string) (worker.Stream, error) {
	return c.host.NewStream(ctx, c.remote, protocol.ID(proto))
}

func (c conn) Identified(context.Context) error { return nil }

func (c conn) Close() error { return c.host.Network().ClosePeer(c.remote) }
