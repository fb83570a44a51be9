package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/kith-p2p/kith"
	"github.com/kith-p2p/kith/acl"
	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/interop/internal/peercmd"
	"github.com/kith-p2p/kith/mdns"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/perf"
	"github.com/kith-p2p/kith/ping"
	"github.com/kith-p2p/kith/pnet"
	"github.com/kith-p2p/kith/upgrade"
)

// eventBuffer is how many events may wait; a test makes a few per connection.
const eventBuffer = 1024

// node is a Kith node behind peercmd's interface.
type node struct {
	*kith.Node
}

// start makes a node that dials nobody by itself.
func start(ctx context.Context, opt peercmd.Options, hooks peercmd.Hooks) (peercmd.Node, error) {
	keyType, err := peer.ParseKeyType(opt.KeyType)
	if err != nil {
		return nil, err
	}
	key, err := peer.GenerateKey(keyType)
	if err != nil {
		return nil, err
	}
	certificate, err := peercmd.SelfSigned()
	if err != nil {
		return nil, err
	}
	cfg := kith.Config{
		WebSocket: kith.WebSocket{TLS: certificate, ClientTLS: &tls.Config{InsecureSkipVerify: true}},
		Identity:  key,
		Listen:    []multiaddr.Addr{},   // not yet
		MDNS:      kith.MDNS{Off: true}, // the mode mdns has its own
		ServePerf: true,
		Logger:    slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	if opt.HighWater > 0 {
		cfg.Limits.HighWater, cfg.Limits.LowWater, cfg.Limits.Grace = opt.HighWater, opt.HighWater, -1
	}
	switch opt.Security {
	case "noise":
		cfg.Security = []func(peer.PrivateKey) (upgrade.Security, error){upgrade.Noise}
	case "tls":
		cfg.Security = []func(peer.PrivateKey) (upgrade.Security, error){upgrade.TLS}
	}
	if opt.PSK != "" {
		psk, err := pnet.LoadKey(opt.PSK)
		if err != nil {
			return nil, err
		}
		cfg.PSK = &psk
	}
	n, err := kith.Start(ctx, cfg)
	if err != nil {
		return nil, err
	}
	go watch(n.Subscribe(eventBuffer), hooks) // until the node is closed
	return node{n}, nil
}

func watch(events *host.Subscription, hooks peercmd.Hooks) {
	for e := range events.Events() {
		switch e := e.(type) {
		case host.ConnOpened:
			hooks.Connected(peercmd.Connected{
				Peer: e.Conn.RemotePeer().String(), Addr: e.Conn.RemoteAddr().String(),
				Direction: e.Conn.Direction().String(), Limited: e.Conn.Limited(),
			})
		case host.ConnClosed:
			hooks.Disconnected(peercmd.Disconnected{Peer: e.Conn.RemotePeer().String(), Addr: e.Conn.RemoteAddr().String()})
		case host.PeerIdentified:
			if hooks.Identified != nil {
				hooks.Identified(describe(e.Conn, e.Info))
			}
			if e.Push && slices.Contains(e.Info.Protocols, peercmd.PushedProtocol) {
				hooks.Pushed(e.Info.ID.String())
			}
		case host.EventsLost:
			fmt.Fprintf(os.Stderr, "%d events lost\n", e.N)
		}
	}
}

func describe(conn *host.Conn, info host.PeerInfo) peercmd.Identify {
	identify := peercmd.Identify{
		Peer: info.ID.String(), Agent: info.AgentVersion, ProtocolVersion: info.ProtocolVersion,
		SignedRecord: info.SignedRecord, KeyType: strings.ToLower(conn.RemoteKey().Type().String()),
	}
	for _, p := range info.Protocols {
		identify.Protocols = append(identify.Protocols, string(p))
	}
	for _, a := range info.Addrs {
		identify.ListenAddrs = append(identify.ListenAddrs, a.String())
	}
	if !info.ObservedAddr.IsZero() {
		identify.Observed = info.ObservedAddr.String()
	}
	return identify
}

func (n node) Peer() string { return n.ID().String() }

func (n node) Handle(protocol string, handler func(peercmd.Stream) error) {
	n.Node.Handle(host.ProtocolID(protocol), func(_ context.Context, s *host.Stream) error {
		err := handler(stream{s})
		if reset, ok := errors.AsType[*peercmd.ResetError](err); ok {
			return reset.Err
		}
		return err
	})
}

func (n node) Listen(addrs []string) error {
	for _, text := range addrs {
		addr, err := multiaddr.Parse(text)
		if err != nil {
			return err
		}
		if err := n.Node.Listen(addr); err != nil {
			return err
		}
	}
	return nil
}

func (n node) Addrs() []string {
	addrs := []string{}
	for _, a := range n.P2PAddrs() {
		addrs = append(addrs, a.String())
	}
	return addrs
}

func (n node) Connect(ctx context.Context, addr string) (peercmd.Session, peercmd.Dialed, error) {
	info, err := peer.ParseAddrInfo(addr)
	if err != nil {
		return nil, peercmd.Dialed{}, err
	}
	conn, err := n.Node.Connect(ctx, info)
	if err != nil {
		return nil, peercmd.Dialed{}, err
	}
	return session{n, conn}, peercmd.Dialed{
		Peer: conn.RemotePeer().String(), Addr: conn.RemoteAddr().String(), Limited: conn.Limited(),
		Security: string(conn.Security()), Muxer: string(conn.Muxer()),
	}, nil
}

func (n node) NewStream(ctx context.Context, peerID, protocol string) (peercmd.Stream, error) {
	id, err := peer.ParseID(peerID)
	if err != nil {
		return nil, err
	}
	s, err := n.Node.NewStream(ctx, id, host.ProtocolID(protocol))
	if err != nil {
		return nil, err
	}
	return stream{s}, nil
}

func (n node) Connected(peerID string) bool {
	id, err := peer.ParseID(peerID)
	return err == nil && len(n.ConnsTo(id)) > 0
}

func (n node) KnownAddrs(peerID string) (addrs []string) {
	id, err := peer.ParseID(peerID)
	if err != nil {
		return nil
	}
	for _, known := range n.Node.KnownAddrs(id) {
		addrs = append(addrs, known.Addr.String())
	}
	return addrs
}

func (n node) Disconnect(peerID string, code uint32) error {
	id, err := peer.ParseID(peerID)
	if err != nil {
		return err
	}
	for _, conn := range n.ConnsTo(id) {
		err = errors.Join(err, conn.CloseWithCode(code))
	}
	return err
}

func (n node) Refuse(peerID string) error {
	subject, err := acl.ParseSubject(peerID)
	if err != nil {
		return err
	}
	return n.ACL.Set(acl.Entry{Subject: subject, Verdict: acl.Block})
}

func (n node) Value(peerID string, value float64) error {
	id, err := peer.ParseID(peerID)
	if err != nil {
		return err
	}
	n.Node.Value(id, "order", value, 0)
	return nil
}

func (n node) Discover(ctx context.Context, service string, found func(peercmd.Discovered)) error {
	s, err := mdns.Listen(mdns.Config{
		ID:      n.ID(),
		Addrs:   n.Node.Addrs,
		Service: service,
		Found: func(info peer.AddrInfo) {
			d := peercmd.Discovered{Peer: info.ID.String()}
			for _, a := range info.Addrs {
				d.Addrs = append(d.Addrs, a.String())
			}
			go found(d) // it may block
		},
	})
	if err != nil {
		return err
	}
	s.Run(ctx)
	return nil
}

// session is a connection that was dialed.
type session struct {
	node
	conn *host.Conn
}

func (s session) Identify(ctx context.Context) (peercmd.Identify, error) {
	info, err := s.node.Identify.Identify(ctx, s.conn)
	if err != nil {
		return peercmd.Identify{}, err
	}
	return describe(s.conn, info), nil
}

func (s session) Ping(ctx context.Context) (time.Duration, error) {
	return ping.Once(ctx, s.Host, s.conn.RemotePeer())
}

func (s session) Perf(ctx context.Context, upload, download int64) (up, down time.Duration, err error) {
	result, err := perf.Run(ctx, s.Host, s.conn.RemotePeer(), perf.Config{Upload: uint64(upload), Download: uint64(download)})
	return result.UploadTime, result.DownloadTime, err
}

func (s session) NewStream(ctx context.Context, protocol string) (peercmd.Stream, error) {
	opened, err := s.conn.NewStream(ctx, host.ProtocolID(protocol))
	if err != nil {
		return nil, err
	}
	return stream{opened}, nil
}

// stream turns Kith's reset error into peercmd's.
type stream struct{ *host.Stream }

func (s stream) Read(b []byte) (int, error) {
	n, err := s.Stream.Read(b)
	return n, coded(err)
}

func (s stream) Write(b []byte) (int, error) {
	n, err := s.Stream.Write(b)
	return n, coded(err)
}

func coded(err error) error {
	if reset, ok := errors.AsType[*host.StreamError](err); ok {
		return &peercmd.ResetError{Code: reset.Code, Remote: reset.Remote, Err: err}
	}
	var closed interface { // what muxers' errors have
		error
		ErrorCode() uint32
		IsRemote() bool
	}
	if errors.As(err, &closed) {
		return &peercmd.ClosedError{Code: closed.ErrorCode(), Remote: closed.IsRemote(), Err: err}
	}
	return err
}
