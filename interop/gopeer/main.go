// Command gopeer is go-libp2p behind the command line of Kith's interoperability suite: see interop/README.md.
package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/discovery/mdns"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	libp2pwebrtc "github.com/libp2p/go-libp2p/p2p/transport/webrtc"
	"github.com/libp2p/go-libp2p/p2p/transport/websocket"
	webtransport "github.com/libp2p/go-libp2p/p2p/transport/webtransport"
	"github.com/multiformats/go-multiaddr"

	"github.com/kith-p2p/kith/interop/internal/peercmd"
)

func main() {
	program := peercmd.Program{
		Capabilities: peercmd.Capabilities{
			Transports: []string{"tcp", "ws", "wss", "quic-v1", "webtransport", "webrtc-direct"},
			Security:   []string{"noise", "tls"},
			Muxers:     []string{"yamux"},
			KeyTypes:   peercmd.KeyTypes,
		},
		Start: start,
	}
	if err := program.Main(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "gopeer:", err)
		os.Exit(1)
	}
}

type node struct {
	host host.Host
	gate *gate
	seen event.Subscription // identify and its pushes; owned by watch
	// identified is closed, per peer, when identify has answered.
	identified chan peercmd.Identify
}

// start makes a host without anything that would talk to strangers: no relay, no NAT traversal, no routing, no metrics.
func start(_ context.Context, opt peercmd.Options, hooks peercmd.Hooks) (peercmd.Node, error) {
	key, err := newKey(opt.KeyType)
	if err != nil {
		return nil, err
	}
	certificate, err := peercmd.SelfSigned()
	if err != nil {
		return nil, err
	}
	gate := new(gate)
	options := []libp2p.Option{
		libp2p.ConnectionGater(gate),
		libp2p.Identity(key),
		libp2p.NoListenAddrs,
		libp2p.NoTransports,
		libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Transport(websocket.New, websocket.WithTLSConfig(certificate), websocket.WithTLSClientConfig(&tls.Config{InsecureSkipVerify: true})),
		libp2p.Muxer(yamux.ID, yamux.DefaultTransport),
		libp2p.DisableRelay(),
		libp2p.DisableMetrics(),
		libp2p.DisableIdentifyAddressDiscovery(),
		libp2p.UserAgent("go-libp2p/gopeer"),
	}
	if opt.Security != "tls" {
		options = append(options, libp2p.Security(noise.ID, noise.New))
	}
	if opt.Security != "noise" {
		options = append(options, libp2p.Security(libp2ptls.ID, libp2ptls.New))
	}
	if opt.PSK != "" {
		psk, err := loadPSK(opt.PSK)
		if err != nil {
			return nil, err
		}
		options = append(options, libp2p.PrivateNetwork(psk))
	} else { // these refuse to be in a private network
		options = append(options, libp2p.Transport(libp2pquic.NewTransport), libp2p.Transport(webtransport.New), libp2p.Transport(libp2pwebrtc.New))
	}
	h, err := libp2p.New(options...)
	if err != nil {
		return nil, err
	}
	seen, err := h.EventBus().Subscribe([]any{new(event.EvtPeerIdentificationCompleted), new(event.EvtPeerProtocolsUpdated)}, eventbus.BufSize(256))
	if err != nil {
		return nil, errors.Join(err, h.Close())
	}
	n := &node{host: h, gate: gate, seen: seen, identified: make(chan peercmd.Identify, 1)}
	h.Network().Notify(&network.NotifyBundle{
		ConnectedF: func(_ network.Network, c network.Conn) {
			hooks.Connected(peercmd.Connected{
				Peer: c.RemotePeer().String(), Addr: c.RemoteMultiaddr().String(),
				Direction: strings.ToLower(c.Stat().Direction.String()), Limited: c.Stat().Limited,
			})
		},
		DisconnectedF: func(_ network.Network, c network.Conn) {
			hooks.Disconnected(peercmd.Disconnected{Peer: c.RemotePeer().String(), Addr: c.RemoteMultiaddr().String()})
		},
	})
	h.SetStreamHandler(peercmd.PerfProtocol, n.handler(peercmd.ServePerf))
	go n.watch(hooks)
	return n, nil
}

func loadPSK(file string) (pnet.PSK, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return pnet.DecodeV1PSK(f)
}

func newKey(keyType string) (crypto.PrivKey, error) {
	types := map[string]int{"ed25519": crypto.Ed25519, "secp256k1": crypto.Secp256k1, "ecdsa": crypto.ECDSA, "rsa": crypto.RSA}
	const rsaBits = 2048
	key, _, err := crypto.GenerateKeyPairWithReader(types[keyType], rsaBits, rand.Reader)
	return key, err
}

// watch runs until the subscription is closed.
func (n *node) watch(hooks peercmd.Hooks) {
	for e := range n.seen.Out() {
		switch e := e.(type) {
		case event.EvtPeerIdentificationCompleted:
			identified := n.describe(e)
			if hooks.Identified != nil {
				hooks.Identified(identified)
			}
			select {
			case n.identified <- identified:
			default: // only a dialer waits for it, for the one peer that it dialed
			}
		case event.EvtPeerProtocolsUpdated:
			for _, p := range e.Added {
				if p == peercmd.PushedProtocol {
					hooks.Pushed(e.Peer.String())
				}
			}
		}
	}
}

func (n *node) describe(e event.EvtPeerIdentificationCompleted) peercmd.Identify {
	identify := peercmd.Identify{
		Peer: e.Peer.String(), Agent: e.AgentVersion, ProtocolVersion: e.ProtocolVersion,
		Protocols: protocol.ConvertToStrings(e.Protocols), SignedRecord: e.SignedPeerRecord != nil,
	}
	for _, a := range e.ListenAddrs {
		identify.ListenAddrs = append(identify.ListenAddrs, a.String())
	}
	if e.ObservedAddr != nil {
		identify.Observed = e.ObservedAddr.String()
	}
	if key := n.host.Peerstore().PubKey(e.Peer); key != nil {
		identify.KeyType = strings.ToLower(key.Type().String())
	}
	return identify
}

func (n *node) Peer() string { return n.host.ID().String() }

func (n *node) Handle(protocolID string, handler func(peercmd.Stream) error) {
	n.host.SetStreamHandler(protocol.ID(protocolID), n.handler(handler))
}

func (n *node) handler(handler func(peercmd.Stream) error) network.StreamHandler {
	return func(s network.Stream) {
		if err := handler(stream{s}); err != nil {
			s.Reset()
			return
		}
		s.Close()
	}
}

func (n *node) Listen(addrs []string) error {
	for _, text := range addrs {
		addr, err := multiaddr.NewMultiaddr(text)
		if err != nil {
			return err
		}
		if err := n.host.Network().Listen(addr); err != nil {
			return err
		}
	}
	return nil
}

func (n *node) Addrs() []string {
	addrs := []string{}
	for _, a := range n.host.Network().ListenAddresses() {
		addrs = append(addrs, fmt.Sprintf("%s/p2p/%s", a, n.host.ID()))
	}
	return addrs
}

func (n *node) Connect(ctx context.Context, addr string) (peercmd.Session, peercmd.Dialed, error) {
	info, err := peer.AddrInfoFromString(addr)
	if err != nil {
		return nil, peercmd.Dialed{}, err
	}
	if err := n.host.Connect(ctx, *info); err != nil {
		return nil, peercmd.Dialed{}, err
	}
	conns := n.host.Network().ConnsToPeer(info.ID)
	if len(conns) == 0 {
		return nil, peercmd.Dialed{}, fmt.Errorf("the connection with %s ended at once", info.ID)
	}
	conn := conns[0]
	state := conn.ConnState()
	return session{n, info.ID}, peercmd.Dialed{
		Peer: info.ID.String(), Addr: conn.RemoteMultiaddr().String(), Limited: conn.Stat().Limited,
		Security: string(state.Security), Muxer: string(state.StreamMultiplexer),
	}, nil
}

func (n *node) Connected(peerID string) bool {
	id, err := peer.Decode(peerID)
	return err == nil && len(n.host.Network().ConnsToPeer(id)) > 0
}

func (n *node) KnownAddrs(peerID string) (addrs []string) {
	id, err := peer.Decode(peerID)
	if err != nil {
		return nil
	}
	for _, a := range n.host.Peerstore().Addrs(id) {
		addrs = append(addrs, a.String())
	}
	return addrs
}

func (n *node) Disconnect(peerID string, code uint32) error {
	id, err := peer.Decode(peerID)
	if err != nil {
		return err
	}
	for _, conn := range n.host.Network().ConnsToPeer(id) {
		err = errors.Join(err, conn.CloseWithError(network.ConnErrorCode(code)))
	}
	return err
}

// Refuse is go-libp2p's: what stands stays.
func (n *node) Refuse(peerID string) error {
	id, err := peer.Decode(peerID)
	if err != nil {
		return err
	}
	n.gate.refused.Store(id, true)
	return nil
}

func (n *node) Value(peerID string, value float64) error {
	id, err := peer.Decode(peerID)
	if err != nil {
		return err
	}
	n.host.ConnManager().TagPeer(id, "order", int(value))
	return nil
}

func (n *node) NewStream(ctx context.Context, peerID, protocolID string) (peercmd.Stream, error) {
	id, err := peer.Decode(peerID)
	if err != nil {
		return nil, err
	}
	return session{n, id}.NewStream(ctx, protocolID)
}

type notifee func(peer.AddrInfo)

func (f notifee) HandlePeerFound(info peer.AddrInfo) { f(info) }

// Discover asks and answers on every interface that can do multicast: go-libp2p lets nobody choose. The suite therefore runs
// it in a network namespace that has loopback only.
func (n *node) Discover(ctx context.Context, service string, found func(peercmd.Discovered)) error {
	m := mdns.NewMdnsService(n.host, service, notifee(func(info peer.AddrInfo) {
		d := peercmd.Discovered{Peer: info.ID.String()}
		for _, a := range info.Addrs {
			d.Addrs = append(d.Addrs, a.String())
		}
		found(d)
	}))
	if err := m.Start(); err != nil {
		return err
	}
	<-ctx.Done()
	return m.Close()
}

func (n *node) Close() error { return errors.Join(n.seen.Close(), n.host.Close()) }

// A gate refuses peers once they have proved who they are.
type gate struct{ refused sync.Map }

func (g *gate) lets(p peer.ID) bool {
	_, refused := g.refused.Load(p)
	return !refused
}

func (g *gate) InterceptPeerDial(p peer.ID) bool                        { return g.lets(p) }
func (g *gate) InterceptAddrDial(p peer.ID, _ multiaddr.Multiaddr) bool { return g.lets(p) }
func (g *gate) InterceptAccept(network.ConnMultiaddrs) bool             { return true }
func (g *gate) InterceptSecured(network.Direction, peer.ID, network.ConnMultiaddrs) bool {
	return true
}
func (g *gate) InterceptUpgraded(c network.Conn) (bool, control.DisconnectReason) {
	return g.lets(c.RemotePeer()), 0
}

type session struct {
	*node
	peer peer.ID
}

func (s session) Identify(ctx context.Context) (peercmd.Identify, error) {
	select {
	case identify := <-s.identified:
		return identify, nil
	case <-ctx.Done():
		return peercmd.Identify{}, context.Cause(ctx)
	}
}

func (s session) Ping(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	result := <-ping.Ping(ctx, s.host, s.peer)
	return result.RTT, result.Error
}

func (s session) Perf(ctx context.Context, upload, download int64) (up, down time.Duration, err error) {
	perf, err := s.NewStream(ctx, peercmd.PerfProtocol)
	if err != nil {
		return 0, 0, err
	}
	defer perf.Close()
	stop := context.AfterFunc(ctx, func() { perf.Reset(0) })
	defer stop()
	return peercmd.RunPerf(perf, upload, download)
}

func (s session) NewStream(ctx context.Context, protocolID string) (peercmd.Stream, error) {
	opened, err := s.host.NewStream(ctx, s.peer, protocol.ID(protocolID))
	if err != nil {
		return nil, err
	}
	return stream{opened}, nil
}

// stream turns go-libp2p's reset error into peercmd's.
type stream struct{ network.Stream }

func (s stream) Read(b []byte) (int, error) {
	n, err := s.Stream.Read(b)
	return n, coded(err)
}

func (s stream) Write(b []byte) (int, error) {
	n, err := s.Stream.Write(b)
	return n, coded(err)
}

func (s stream) Reset(code uint32) error {
	return s.Stream.ResetWithError(network.StreamErrorCode(code))
}

func coded(err error) error {
	if reset, ok := errors.AsType[*network.StreamError](err); ok {
		return &peercmd.ResetError{Code: uint32(reset.ErrorCode), Remote: reset.Remote, Err: err}
	}
	if closed, ok := errors.AsType[*network.ConnError](err); ok {
		return &peercmd.ClosedError{Code: uint32(closed.ErrorCode), Remote: closed.Remote, Err: err}
	}
	if errors.Is(err, network.ErrReset) { // by a remote whose muxer sent no code; our own resets have one
		return &peercmd.ResetError{Remote: true, Err: err}
	}
	return err
}
