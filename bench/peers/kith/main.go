// The command kith is the worker that measures Kith. Its nodes are those of
// kith.Start, listening with one transport, with one secure channel where the transport has
// none of its own, and without mDNS.
package main

import (
	"context"
	"fmt"

	"github.com/kith-p2p/kith"
	"github.com/kith-p2p/kith/bench/internal/worker"
	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/identify"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/tcp"
	"github.com/kith-p2p/kith/upgrade"
)

func main() { worker.Main(newNode) }

func newNode(cfg worker.NodeConfig) (worker.Node, error) {
	var security []func(peer.PrivateKey) (upgrade.Security, error)
	switch cfg.Security {
	case "noise":
		security = append(security, upgrade.Noise)
	case "tls":
		security = append(security, upgrade.TLS)
	case "":
	default:
		return nil, fmt.Errorf("no secure channel %q", cfg.Security)
	}
	listen := []multiaddr.Addr{}
	if cfg.Listen {
		addr, err := cfg.ListenAddr()
		if err != nil {
			return nil, err
		}
		listen = append(listen, multiaddr.MustParse(addr))
	}
	if cfg.Wide && !cfg.Listen && cfg.Transport == worker.TCP {
		return member(security)
	}
	var limits host.Limits
	if cfg.Wide {
		limits = host.Limits{Conns: -1, InboundStreamsPerPeer: -1}
	}
	n, err := kith.Start(context.Background(), kith.Config{
		Listen:   listen,
		Limits:   limits,
		Security: security,
		MDNS:     kith.MDNS{Off: true},
	})
	if err != nil {
		return nil, err
	}
	return node{n.Host, n.Identify}, nil
}

// member is one of a crowd of thousands in one process, which is not what is measured: a
// whole node has a socket of its own to hear of changes of the network, and then a process has
// not files enough.
func member(security []func(peer.PrivateKey) (upgrade.Security, error)) (worker.Node, error) {
	key, err := peer.GenerateKey(peer.Ed25519)
	if err != nil {
		return nil, err
	}
	var channels []upgrade.Security
	for _, channel := range security {
		c, err := channel(key)
		if err != nil {
			return nil, err
		}
		channels = append(channels, c)
	}
	upgrader, err := upgrade.New(upgrade.Config{Security: channels})
	if err != nil {
		return nil, err
	}
	transport, err := tcp.New(tcp.Config{Upgrader: upgrader})
	if err != nil {
		return nil, err
	}
	h, err := host.New(host.Config{Identity: key, Transports: []host.Transport{transport}})
	if err != nil {
		return nil, err
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
func (n node) Connect(ctx context.Context, addrs ...string) (worker.Conn, error) {
	var to peer.AddrInfo
	for _, addr := range addrs {
		info, err := peer.ParseAddrInfo(addr)
		if err != nil {
			return nil, err
		}
		to.ID, to.Addrs = info.ID, append(to.Addrs, info.Addrs...)
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

func (c conn) Close() error { return c.conn.Close() }
