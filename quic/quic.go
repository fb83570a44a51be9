package quic

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"

	quicgo "github.com/quic-go/quic-go"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/p2ptls"
	"github.com/kith-p2p/kith/peer"
)

// alpn is the application protocol that clients of libp2p name.
// https://github.com/libp2p/specs/blob/master/quic/README.md
const alpn = "libp2p"

var suffix = multiaddr.MustParse("/quic-v1")

// Config describes a Transport.
type Config struct {
	// Key is who the host is. Required.
	Key peer.PrivateKey

	// Endpoint has the sockets. Nil: one of the transport's own, with its defaults.
	Endpoint *Endpoint
}

// Transport is the QUIC transport. It implements host.Transport.
type Transport struct {
	endpoint *Endpoint
	tls      *p2ptls.Transport
	server   *tls.Config
}

// New makes the transport. It opens nothing.
func New(cfg Config) (*Transport, error) {
	if cfg.Key.IsZero() {
		return nil, errors.New("quic: Config.Key is missing: it is the host's private key")
	}
	security, err := p2ptls.New(cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("quic: %w", err)
	}
	if cfg.Endpoint == nil {
		cfg.Endpoint = NewEndpoint(EndpointConfig{Key: cfg.Key})
	}
	return &Transport{endpoint: cfg.Endpoint, tls: security, server: security.QUICConfig(peer.ID{})}, nil
}

var _ host.Transport = (*Transport)(nil)

// CanDial tells whether addr is an IP address, a UDP port and QUIC, and nothing more.
func (t *Transport) CanDial(addr multiaddr.Addr) bool {
	ap, ok := addrPort(addr)
	return ok && ap.Port() != 0
}

// CanListen is CanDial, but the port can be 0 for any free one.
func (t *Transport) CanListen(addr multiaddr.Addr) bool {
	_, ok := addrPort(addr)
	return ok
}

func addrPort(addr multiaddr.Addr) (netip.AddrPort, bool) {
	ap, code, ok := addr.AddrPort()
	if !ok || code != multiaddr.UDP || quicAddr(ap) != addr {
		return ap, false
	}
	return ap, true
}

// quicAddr is what addrPort reads.
func quicAddr(ap netip.AddrPort) multiaddr.Addr {
	return multiaddr.FromAddrPort(multiaddr.UDP, ap).Encapsulate(suffix)
}

// Dial connects to addr, at which p must answer.
func (t *Transport) Dial(ctx context.Context, addr multiaddr.Addr, p peer.ID, progress func(host.Stage)) (host.TransportConn, error) {
	ap, ok := addrPort(addr)
	if !ok {
		return host.TransportConn{}, fmt.Errorf("quic: %s is not an IP address with a UDP port and quic-v1", addr)
	}
	conf := t.tls.QUICConfig(p)
	verify := conf.VerifyConnection
	conf.VerifyConnection = func(state tls.ConnectionState) error {
		progress(host.StageSecuring) // the remote has answered
		return verify(state)
	}
	qc, err := t.endpoint.Dial(ctx, ap, conf)
	if err != nil {
		return host.TransportConn{}, err
	}
	progress(host.StageSecured)
	tc, err := t.use(qc, addr, progress)
	if err == nil {
		if p.IsZero() {
			p = tc.RemoteKey.ID()
		}
		t.endpoint.leadsTo(qc, p)
	}
	return tc, err
}

// use hands a connection to the host whose remote has proved who it is.
func (t *Transport) use(qc *quicgo.Conn, remote multiaddr.Addr, progress func(host.Stage)) (host.TransportConn, error) {
	state := qc.ConnectionState()
	key, err := p2ptls.RemoteKey(state.TLS)
	if err != nil {
		qc.CloseWithError(quicgo.ApplicationErrorCode(host.ConnCodeProtocolViolation), "")
		return host.TransportConn{}, err
	}
	c := &conn{qc: qc, meter: t.endpoint.Meter(qc)}
	tc := host.TransportConn{Mux: c, LocalAddr: fromNet(qc.LocalAddr()), RemoteAddr: remote, RemoteKey: key,
		Cost: ConnCost, StreamCost: StreamCost, Charge: c.meter.Charge, Shed: c.meter.Shed}
	if state.SupportsDatagrams.Remote && state.SupportsDatagrams.Local {
		tc.Datagrams = c
	}
	progress(host.StageMuxed)
	return tc, nil
}

// Listen opens addr.
func (t *Transport) Listen(addr multiaddr.Addr) (host.TransportListener, error) {
	ap, ok := addrPort(addr)
	if !ok {
		return nil, fmt.Errorf("quic: %s is not an IP address with a UDP port and quic-v1", addr)
	}
	l, err := t.endpoint.Listen(ap, alpn, func(*tls.ClientHelloInfo) (*tls.Config, error) { return t.server, nil })
	if err != nil {
		return nil, err
	}
	return &listener{transport: t, ln: l, addr: quicAddr(l.Addr())}, nil
}

// AddrsChanged is to be called when the machine's addresses have changed. It moves
// the connections that were dialed to where dials leave from now, with their
// streams, and returns when that is done, or when ctx ends. A connection that cannot
// move stays where it is; what is returned tells which, and why.
//
// elsewhere, if it is not nil, tells where else a peer can be reached whose connection
// goes to an address that packets cannot leave to any more: see Elsewhere.
func (t *Transport) AddrsChanged(ctx context.Context, elsewhere func(p peer.ID, at multiaddr.Addr) []multiaddr.Addr) error {
	if elsewhere == nil {
		return t.endpoint.Rebind(ctx, nil)
	}
	return t.endpoint.Rebind(ctx, func(p peer.ID, at netip.AddrPort) (found []netip.AddrPort) {
		for _, a := range elsewhere(p, quicAddr(at)) {
			if ap, ok := addrPort(a); ok {
				found = append(found, ap)
			}
		}
		return found
	})
}

type listener struct {
	transport *Transport
	ln        *Listener
	addr      multiaddr.Addr
}

func (l *listener) Accept() (host.Incoming, error) {
	qc, err := l.ln.Accept(context.Background())
	if err != nil {
		return nil, err
	}
	return &incoming{transport: l.transport, qc: qc, remote: fromNet(qc.RemoteAddr())}, nil
}

func (l *listener) Addr() multiaddr.Addr { return l.addr }

func (l *listener) Close() error { return l.ln.Close() }

// incoming is a connection whose client has not proved who it is.
type incoming struct {
	transport *Transport
	qc        *quicgo.Conn
	remote    multiaddr.Addr
	closed    atomic.Bool
}

func (i *incoming) RemoteAddr() multiaddr.Addr { return i.remote }

// Upgrade waits for the end of the handshake; the client's certificate is the last
// that comes.
func (i *incoming) Upgrade(ctx context.Context, progress func(host.Stage)) (host.TransportConn, error) {
	progress(host.StageSecuring)
	select {
	case <-i.qc.HandshakeComplete():
	case <-i.qc.Context().Done():
		return host.TransportConn{}, handshakeError(context.Cause(i.qc.Context()))
	case <-ctx.Done():
	}
	// Both can be the case.
	if ctx.Err() != nil {
		i.Close()
		return host.TransportConn{}, fmt.Errorf("quic: handshake: %w", context.Cause(ctx))
	}
	if i.closed.Load() {
		return host.TransportConn{}, fmt.Errorf("quic: handshake: %w", net.ErrClosed)
	}
	progress(host.StageSecured)
	return i.transport.use(i.qc, i.remote, progress)
}

// Close ends the connection without waiting for it.
func (i *incoming) Close() error {
	i.closed.Store(true)
	go i.qc.CloseWithError(quicgo.ApplicationErrorCode(host.ConnCodeResourceLimit), "")
	return nil
}
