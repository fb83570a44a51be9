package kith

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/cpu"

	"github.com/kith-p2p/kith/acl"
	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/identify"
	"github.com/kith-p2p/kith/mdns"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/netwatch"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/perf"
	"github.com/kith-p2p/kith/ping"
	"github.com/kith-p2p/kith/store"
	"github.com/kith-p2p/kith/upgrade"
	"github.com/kith-p2p/kith/yamux"
)

// Version is the version of Kith.
const Version = "0.1.0"

const (
	// maxNeighbours bounds the connections that mDNS alone makes us dial: more than
	// a household or an office has, few against the limit of all connections.
	maxNeighbours = 64
	// neighbourTimeout bounds a dial to a neighbour.
	neighbourTimeout = 10 * time.Second
	// politeness is how long the peer with the larger ID waits before it dials a
	// neighbour: two peers find each other at the same time, and one connection is enough.
	politeness = 200 * time.Millisecond

	// Lost bootstrap peers are dialed again after a while that doubles from the
	// first to the second.
	redialMin = time.Second
	redialMax = time.Minute

	// closeStoreTimeout is what closing the store may take: there is nothing left to
	// write, so only a disk that hangs takes longer. A part of the second for closing.
	closeStoreTimeout = 80 * time.Millisecond
)

// A Node is a whole peer: a host with its transports, and the protocols that run
// on it.
type Node struct {
	*host.Host
	ACL      *acl.List // who may connect; kept in Config.Dir
	Identify *identify.Service
	MDNS     *mdns.Service // nil when it is off or not possible here
	MDNSErr  error         // why it is not possible; nil when it runs or is off

	// Store keeps what must survive a restart; nil when nothing does. Programs may keep
	// things of their own in it. See Config.Dir.
	Store host.Store

	transports transports
	closeStore func() error
}

// Start makes a node and sets it to work. ctx bounds the start alone; the node
// runs until Close. When mDNS is not possible the node starts without it: see
// Node.MDNSErr.
//
// The function is written to be copied: a program that wants other parts in its
// node starts from these lines.
func Start(ctx context.Context, cfg Config) (*Node, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	key, err := identity(cfg)
	if err != nil {
		return nil, fmt.Errorf("kith: %w", err)
	}

	// Transports turn addresses into connections that are secured and muxed.
	upgrading, err := upgradeConfig(key, cfg)
	if err != nil {
		return nil, fmt.Errorf("kith: %w", err)
	}
	n := new(Node)
	if n.ACL, err = accessList(cfg); err != nil {
		return nil, fmt.Errorf("kith: %w", err)
	}
	if n.Store, n.closeStore, err = openStore(cfg); err != nil {
		return nil, fmt.Errorf("kith: %w", err)
	}
	n.transports, err = newTransports(key, cfg, upgrading, func() []multiaddr.Addr { return n.Addrs() })
	if err != nil {
		return nil, errors.Join(fmt.Errorf("kith: %w", err), n.closeStore())
	}

	// The host owns connections, streams and handlers.
	h, err := host.New(host.Config{
		Identity:   key,
		Transports: n.transports.all,
		Announce:   n.transports.announce,
		Move:       n.transports.moved,
		Limits:     cfg.Limits,
		Migrate:    cfg.Migrate,
		Gate:       host.Gates(n.ACL.Gate(), cfg.Gate),
		Logger:     cfg.Logger,
		Store:      n.Store,
		Trace:      cfg.Trace,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("kith: %w", err), n.transports.close(), n.closeStore())
	}
	n.Host = h

	n.Go(func(ctx context.Context) { n.ACL.Run(ctx, h) })

	// Protocols.
	agent := cfg.Agent
	if agent == "" {
		agent = "kith/" + Version
	}
	n.Identify = identify.Start(h, identify.Config{AgentVersion: agent})
	if n.transports.moved != nil {
		n.Handle(host.FamiliesProtocol, func(context.Context, *host.Stream) error { return nil })
	}
	ping.Serve(h)
	if cfg.ServePerf {
		perf.Serve(h)
	}

	if err := listen(h, cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("kith: %w", err), n.Close())
	}
	if n.transports.autoTLS != nil {
		n.Go(n.transports.autoTLS.Run)
	}

	n.Go(func(ctx context.Context) { netwatch.Watch(ctx, n.NetworkChanged) })

	// Discovery comes last, when there are addresses to tell.
	if !cfg.MDNS.Off {
		n.findNeighbours(cfg.MDNS)
	}
	for _, p := range cfg.Bootstrap {
		n.keepConnected(p)
	}
	return n, nil
}

// Close ends all that the node does. See host.Host.Close.
func (n *Node) Close() error {
	err := errors.Join(n.Host.Close(), n.transports.close())
	closed := make(chan error, 1)
	go func() { closed <- n.closeStore() }()
	select {
	case storeErr := <-closed:
		return errors.Join(err, storeErr)
	case <-time.After(closeStoreTimeout):
		return errors.Join(err, errors.New("kith: the store is not closed, since its disk does not answer; it stays in use until that does or the process ends"))
	}
}

// openStore gives the store of the node, and what closes it.
func openStore(cfg Config) (host.Store, func() error, error) {
	if cfg.Store != nil || cfg.Dir == "" {
		return cfg.Store, func() error { return nil }, nil
	}
	file, err := store.Open(cfg.Dir)
	if err != nil {
		return nil, nil, err
	}
	return file, file.Close, nil
}

// identity finds or makes the node's key.
func identity(cfg Config) (peer.PrivateKey, error) {
	switch {
	case !cfg.Identity.IsZero():
		return cfg.Identity, nil
	case cfg.Dir != "":
		return peer.LoadOrCreateKey(filepath.Join(cfg.Dir, "identity.key"), peer.Ed25519)
	}
	return peer.GenerateKey(peer.Ed25519)
}

// ACLFile is the name of the file in Config.Dir that says who may connect; see
// package acl.
const ACLFile = "acl.txt"

func accessList(cfg Config) (*acl.List, error) {
	if cfg.Dir == "" {
		return acl.New(), nil
	}
	return acl.Open(filepath.Join(cfg.Dir, ACLFile))
}

// fastAES tells of a processor with instructions for AES-GCM, where TLS moves bytes
// in half the time of Noise, whose cipher is ChaCha20-Poly1305.
var fastAES = cpu.X86.HasAES && cpu.X86.HasPCLMULQDQ || cpu.ARM64.HasAES && cpu.ARM64.HasPMULL

// upgradeConfig tells how connections are secured and muxed.
func upgradeConfig(key peer.PrivateKey, cfg Config) (upgrade.Config, error) {
	channels := cfg.Security
	if channels == nil {
		channels = []func(peer.PrivateKey) (upgrade.Security, error){upgrade.Noise, upgrade.TLS}
		if fastAES {
			slices.Reverse(channels)
		}
	}
	var security []upgrade.Security
	for _, channel := range channels {
		s, err := channel(key)
		if err != nil {
			return upgrade.Config{}, err
		}
		security = append(security, s)
	}
	limits := cfg.Limits.Resolve(host.MachineMemory())
	return upgrade.Config{
		Security: security,
		Yamux:    yamux.Config{MaxIncomingStreams: streamsPerPeer(limits), Budget: limits.PeerStreamMemory()},
		PSK:      cfg.PSK,
	}, nil
}

// streamsPerPeer is what a muxer gets as its limit: what a peer may open on all its
// connections, it may open on one.
func streamsPerPeer(limits host.Limits) int { return min(limits.InboundStreamsPerPeer, math.MaxInt32) }

// maxQUICStreams is four times what go-libp2p and rust-libp2p let remotes have.
const maxQUICStreams = 1024

// quicStreams is the same for connections over QUIC. There a remote waits that may open no
// more, and is not refused; and quic-go keeps streams for which nobody is charged while the
// host makes a remote wait.
func quicStreams(limits host.Limits) int {
	return min(max(1, streamsPerPeer(limits)/4), maxQUICStreams)
}

// findNeighbours starts mDNS.
func (n *Node) findNeighbours(cfg MDNS) {
	var dialing atomic.Int32
	service, err := mdns.Listen(mdns.Config{
		ID:         n.ID(),
		Addrs:      n.Addrs,
		Interfaces: cfg.Interfaces,
		Service:    cfg.Service,
		Found: func(info peer.AddrInfo) {
			n.Discovered(info, "mdns", host.SourceLocal)
			if cfg.NoConnect || dialing.Load() >= maxNeighbours {
				return
			}
			dialing.Add(1)
			n.Go(func(ctx context.Context) {
				defer dialing.Add(-1)
				n.connectNeighbour(ctx, info)
			})
		},
	})
	if err != nil {
		n.MDNSErr = err
		n.Logger().Warn("no neighbours will be found by mDNS", "err", err)
		return
	}
	n.MDNS = service
	n.Go(service.Run)
}

func (n *Node) connectNeighbour(ctx context.Context, info peer.AddrInfo) {
	if n.ID().Compare(info.ID) > 0 {
		select {
		case <-time.After(politeness):
		case <-ctx.Done():
			return
		}
	}
	ctx, cancel := context.WithTimeout(ctx, neighbourTimeout)
	defer cancel()
	// Without the addresses: with them it would be we who vouch for them.
	if _, err := n.ConnectBackground(ctx, peer.AddrInfo{ID: info.ID}); err != nil && !errors.Is(err, context.Canceled) {
		n.Logger().Info("neighbour not reached", "peer", info.ID.String(), "err", err)
	}
}

// keepConnected dials p now and whenever the connection is lost.
func (n *Node) keepConnected(p peer.AddrInfo) {
	n.AddAddrs(p, host.TTLForever)
	n.Go(func(ctx context.Context) {
		wait := redialMin
		for {
			attempt, cancel := context.WithTimeout(ctx, neighbourTimeout)
			conn, err := n.Connect(attempt, p)
			cancel()
			if err == nil {
				wait = redialMin
				select {
				case <-conn.Done():
				case <-ctx.Done():
					return
				}
			} else if ctx.Err() == nil {
				n.Logger().Warn("bootstrap peer not reached", "peer", p.ID.String(), "err", err)
			}
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return
			}
			wait = min(2*wait, redialMax)
		}
	})
}
