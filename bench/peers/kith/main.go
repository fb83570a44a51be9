// The command kith is the worker that measures Kith. Its nodes are those of
// kith.Start, with TCP and one secure channel, and without mDNS.
package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"

	"github.com/kith-p2p/kith"
	"github.com/kith-p2p/kith/bench/internal/worker"
	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/identify"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/tcp"
	"github.com/kith-p2p/kith/upgrade"
	"github.com/kith-p2p/kith/yamux"
)

func main() { worker.Main(newNode) }

func newNode(cfg worker.NodeConfig) (worker.Node, error) {
	var security func(peer.PrivateKey) (upgrade.Security, error)
	switch cfg.Security {
	case "noise":
		security = upgrade.Noise
	case "tls":
		security = upgrade.TLS
	default:
		return nil, fmt.Errorf("no secure channel %q", cfg.Security)
	}
	start := startNode
	if cfg.Wide {
		start = startWide
	}
	listen := []multiaddr.Addr{}
	if cfg.Listen {
		listen = append(listen, multiaddr.MustParse("/ip4/127.0.0.1/tcp/0"))
	}
	return start(security, listen)
}

func startNode(security func(peer.PrivateKey) (upgrade.Security, error), listen []multiaddr.Addr) (worker.Node, error) {
	n, err := kith.Start(context.Background(), kith.Config{
		Listen:   listen,
		Security: []func(peer.PrivateKey) (upgrade.Security, error){security},
		MDNS:     kith.MDNS{Off: true},
	})
	if err != nil {
		return nil, err
	}
	return node{n.Host, n.Identify}, nil
}

// startWide is kith.Start with limits that no measurement reaches; that of yamux
// cannot be set there.
func startWide(security func(peer.PrivateKey) (upgrade.Security, error), listen []multiaddr.Addr) (worker.Node, error) {
	key, err := peer.GenerateKey(peer.Ed25519)
	if err != nil {
		return nil, err
	}
	channel, err := security(key)
	if err != nil {
		return nil, err
	}
	upgrader, err := upgrade.New(upgrade.Config{
		Security: []upgrade.Security{channel},
		Yamux:    yamux.Config{MaxIncomingStreams: 1 << 20},
	})
	if err != nil {
		return nil, err
	}
	transport, err := tcp.New(tcp.Config{Upgrader: upgrader})
	if err != nil {
		return nil, err
	}
	h, err := host.New(host.Config{
		Identity:   key,
		Transports: []host.Transport{transport},
		Limits:     host.Limits{Conns: -1, InboundStreamsPerPeer: -1},
	})
	if err != nil {
		return nil, err
	}
	for _, addr := range listen {
		if err := h.Listen(addr); err != nil {
			return nil, errors.Join(err, h.Close())
		}
	}
	return node{h, identify.Start(h, identify.Config{})}, nil
}

type node struct {
	host     *host.Host
	identify *identify.Service
}

func (n node) Addr() string {
	addrs := n.host.P2PAddrs()
	if len(addrs) == 0 {
		return ""
	}
	return addrs[0].String()
}

func (n node) Handle(proto string, serve func(worker.Stream) error) {
	n.host.Handle(host.ProtocolID(proto), func(_ context.Context, s *host.Stream) error { return serve(s) })
}

// Connect returns before identify.
func (n node) Connect(ctx context.Context, addr string) (worker.Conn, error) {
	to, err := peer.ParseAddrInfo(addr)
	if err != nil {
		return nil, err
	}
	c, err := n.host.Connect(ctx, to)
	if err != nil {
		return nil, err
	}
	return conn{n, c}, nil
}

type conn struct {
	node node
	conn *host.Conn
}

func (c conn) Open(ctx context.Context, proto string) (worker.Stream, error) {
	s, err := c.node.host.NewStream(ctx, c.conn.RemotePeer(), host.ProtocolID(proto))
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (c conn) Identified(ctx context.Context) error {
	_, err := c.node.identify.Identify(ctx, c.conn)
	return err
}

// Close waits until the host has forgotten the connection, as go-libp2p's does:
// before that, Connect could still give it to us.
func (c conn) Close() error {
	if err := c.conn.Close(); err != nil {
		return err
	}
	<-c.conn.Done()
	for slices.Contains(c.node.host.ConnsTo(c.conn.RemotePeer()), c.conn) {
		runtime.Gosched()
	}
	return nil
}
