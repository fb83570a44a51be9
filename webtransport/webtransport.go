package webtransport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	quicgo "github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/noise"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/quic"
)

const (
	// connCost is what a connection takes while it is idle, in bytes.
	connCost = 56 << 10

	// endpointPath is where a server takes libp2p connections in.
	// https://github.com/libp2p/specs/blob/master/webtransport/README.md#webtransport-http-endpoint
	endpointPath = "/.well-known/libp2p-webtransport"
	endpointType = "noise"

	// protocol is what a request for a session asks for. Servers of draft 15 and
	// later call it protocolDraft15, and those that we know of still take both.
	protocol        = "webtransport"
	protocolDraft15 = "webtransport-h3"

	// draft2Offer and draft2Answer are headers on which servers, and clients, of
	// draft 2 insist. go-libp2p v0.43 is such a server.
	// https://datatracker.ietf.org/doc/html/draft-ietf-webtrans-http3-02
	draft2Offer  = "Sec-Webtransport-Http3-Draft02"
	draft2Answer = "Sec-Webtransport-Http3-Draft"

	// maxHeader bounds the header of a request or a response, in bytes. Those of
	// browsers take less than 1 KiB.
	maxHeader = 16 << 10
)

// Config describes a Transport.
type Config struct {
	Endpoint *quic.Endpoint  // required: it has the sockets
	Key      peer.PrivateKey // required: who we are

	// RootCAs vouch for servers whose address has /sni and no certhash; nil: those
	// of the system.
	RootCAs *x509.CertPool
}

// Transport is the WebTransport transport. It implements host.Transport.
type Transport struct {
	endpoint *quic.Endpoint
	noise    *noise.Transport
	certs    *certs
	roots    *x509.CertPool
	now      func() time.Time
}

// New makes the transport. It opens nothing.
func New(cfg Config) (*Transport, error) {
	if cfg.Endpoint == nil {
		return nil, errors.New("webtransport: Config.Endpoint is missing: make one with quic.NewEndpoint")
	}
	n, err := noise.New(cfg.Key)
	if err != nil {
		return nil, err
	}
	c, err := newCerts(cfg.Key)
	if err != nil {
		return nil, err
	}
	return &Transport{endpoint: cfg.Endpoint, noise: n, certs: c, roots: cfg.RootCAs, now: time.Now}, nil
}

var _ host.Transport = (*Transport)(nil)

// A HashError tells that a server has shown another certificate than those that
// were expected. Certificates change every two weeks: the address may be too old.
type HashError struct {
	Got  []byte   // the multihash of the certificate
	Want [][]byte // the multihashes of those expected
}

func (e *HashError) Error() string {
	text := make([]string, len(e.Want))
	for i, h := range e.Want {
		text[i] = hashText(h)
	}
	return fmt.Sprintf("webtransport: the certificate has the hash %s, expected was one of %v: ask for the peer's newest address", hashText(e.Got), text)
}

// CanDial tells whether addr is a WebTransport address and says how its
// certificate can be verified.
func (t *Transport) CanDial(addr multiaddr.Addr) bool {
	to, err := parseAddr(addr)
	return err == nil && to.at.Port() != 0 && to.verifiable() == nil
}

// CanListen tells whether addr is /ip4|ip6/…/udp/…/quic-v1/webtransport. The port can
// be 0 for any free one.
func (t *Transport) CanListen(addr multiaddr.Addr) bool {
	to, err := parseAddr(addr)
	return err == nil && to.bare()
}

// bare tells whether the address says nothing of certificates.
func (t target) bare() bool { return t.sni == "" && len(t.hashes) == 0 && t.others == 0 }

// verifiable tells why a server at the address could not be verified.
func (t target) verifiable() error {
	switch {
	case len(t.hashes) > 0:
		return nil
	case t.others > 0:
		return errors.New("webtransport: the address has certificate hashes, but none of the kind sha2-256: no other is allowed")
	case t.sni == "":
		return errors.New("webtransport: the address has neither /certhash nor /sni, so that nothing could vouch for the server's certificate: ask for the peer's full address")
	}
	return nil
}

// Dial connects to addr, at which p must answer.
func (t *Transport) Dial(ctx context.Context, addr multiaddr.Addr, p peer.ID, progress func(host.Stage)) (host.TransportConn, error) {
	to, err := parseAddr(addr)
	if err == nil {
		err = to.verifiable()
	}
	if err != nil {
		return host.TransportConn{}, err
	}
	var refused atomic.Pointer[error] // why we did: quic words it as an alert of TLS
	conn, err := t.endpoint.Dial(ctx, to.at, t.clientTLS(to, func(err error) { refused.Store(&err) }))
	if err != nil {
		if why := refused.Load(); why != nil {
			err = *why
		}
		return host.TransportConn{}, &dialError{err}
	}
	progress(host.StageOpened)
	stop := context.AfterFunc(ctx, func() { hangUp(conn, http3.ErrCodeRequestCanceled) })
	tc, err := t.request(ctx, conn, to, p, progress)
	if !stop() {
		return host.TransportConn{}, fmt.Errorf("webtransport: %w", context.Cause(ctx))
	}
	if err != nil {
		hangUp(conn, http3.ErrCodeRequestCanceled)
		return host.TransportConn{}, &dialError{err}
	}
	tc.RemoteAddr = addr
	return tc, nil
}

// A dialError tells why a dial failed. It is what it was before in all but one
// respect: a remote that does not answer, or hangs up, is no net.ErrClosed, which
// would say that we are closed.
type dialError struct{ err error }

func (e *dialError) Error() string {
	if text := e.err.Error(); strings.HasPrefix(text, "webtransport: ") {
		return text
	}
	return "webtransport: " + e.err.Error()
}

func (e *dialError) Is(target error) bool { return target != net.ErrClosed && errors.Is(e.err, target) }

func (e *dialError) As(target any) bool { return errors.As(e.err, target) }

// clientTLS says how the server's certificate is verified; refused is told why it was not good.
func (t *Transport) clientTLS(to target, refused func(error)) *tls.Config {
	conf := &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{alpn},
		ServerName: to.sni,
		RootCAs:    t.roots,
		Time:       t.now,
	}
	if len(to.hashes) > 0 {
		conf.InsecureSkipVerify = true // the hash takes the place of the chain
		conf.VerifyPeerCertificate = func(rawCerts [][]byte, _ [][]*x509.Certificate) error {
			err := verifyHashed(rawCerts, to.hashes, t.now())
			if err != nil {
				refused(err)
			}
			return err
		}
	}
	return conf
}

// request asks for a session and proves in its first stream who both sides are.
func (t *Transport) request(ctx context.Context, conn *quicgo.Conn, to target, p peer.ID, progress func(host.Stage)) (host.TransportConn, error) {
	h3 := (&http3.Transport{
		EnableDatagrams:        true,
		AdditionalSettings:     map[uint64]uint64{settingDraft2: 1, settingEnabled: 1},
		MaxResponseHeaderBytes: maxHeader,
		DisableCompression:     true,
	}).NewRawClientConn(conn)
	go handleUni(conn, h3.HandleUnidirectionalStream)

	connect, err := h3.OpenRequestStream(ctx)
	if err != nil {
		return host.TransportConn{}, fmt.Errorf("webtransport: %w", err)
	}
	authority := to.at.String()
	if to.sni != "" {
		authority = fmt.Sprintf("%s:%d", to.sni, to.at.Port())
	} else if zone := to.at.Addr().Zone(); zone != "" {
		authority = netip.AddrPortFrom(to.at.Addr().WithZone(""), to.at.Port()).String()
	}
	if err := connect.SendRequestHeader(&http.Request{
		Method: http.MethodConnect,
		Proto:  protocol,
		Host:   authority,
		URL:    &url.URL{Scheme: "https", Host: authority, Path: endpointPath, RawQuery: "type=" + endpointType},
		Header: http.Header{draft2Offer: {"1"}},
	}); err != nil {
		return host.TransportConn{}, fmt.Errorf("webtransport: sending the request: %w", err)
	}

	s := newSession(conn, t.endpoint.Meter(conn), connect, connect.StreamID())
	go func() {
		if err := readAnswer(connect); err != nil {
			s.end(err)
			hangUp(conn, http3.ErrCodeNoError)
		}
		s.read()
	}()
	progress(host.StageSecuring)
	st, err := s.openStream(ctx)
	if err != nil {
		return host.TransportConn{}, err
	}
	shown := certHash(conn.ConnectionState().TLS.PeerCertificates[0].Raw)
	secured, err := t.noise.Client(ctx, noiseConn{st}, noise.Config{Remote: p, CheckCertHashes: func(hashes [][]byte) error {
		if len(to.hashes) == 0 || containsHash(hashes, shown) {
			return nil
		}
		return fmt.Errorf("webtransport: peer %s does not own the certificate %s that was shown in its place: somebody is in between", p, hashText(shown))
	}})
	if err != nil {
		err = s.prefer(err) // before the remote hangs up because of the reset
		st.Reset(0)
		return host.TransportConn{}, err
	}
	defer secured.Close() // which ends the stream, not the connection
	progress(host.StageSecured)
	tc, err := s.ready(ctx, h3.ReceivedSettings(), h3.Settings)
	if err != nil {
		return host.TransportConn{}, err
	}
	tc.RemoteKey = secured.RemoteKey()
	progress(host.StageMuxed)
	return tc, nil
}

// readAnswer reads what the server says to the request for a session.
func readAnswer(connect *http3.RequestStream) error {
	rsp, err := connect.ReadResponse()
	for range 3 { // others may come before it
		if err == nil && rsp.StatusCode < 200 {
			rsp, err = connect.ReadResponse()
		}
	}
	if err != nil {
		return fmt.Errorf("webtransport: the answer to the request: %w", err)
	}
	if rsp.StatusCode < 200 || rsp.StatusCode >= 300 {
		return fmt.Errorf("webtransport: the server refuses the session with status %d", rsp.StatusCode)
	}
	return nil
}

// ready waits for the settings of the remote, without which nobody knows
// whether it takes datagrams, and describes the connection.
func (s *session) ready(ctx context.Context, received <-chan struct{}, settings func() *http3.Settings) (host.TransportConn, error) {
	select {
	case <-received:
	case <-s.conn.Context().Done():
		return host.TransportConn{}, s.convert(context.Cause(s.conn.Context()))
	case <-ctx.Done():
		return host.TransportConn{}, context.Cause(ctx)
	}
	tc := host.TransportConn{Mux: s, LocalAddr: fromNet(s.conn.LocalAddr()), RemoteAddr: fromNet(s.conn.RemoteAddr()),
		Cost: connCost, StreamCost: quic.StreamCost, Charge: s.meter.Charge, Shed: s.meter.Shed}
	if settings().EnableDatagrams && s.conn.ConnectionState().SupportsDatagrams.Remote {
		tc.Datagrams = s
	}
	return tc, nil
}

// prefer gives why the session ended, if it has, in place of err, which follows from that.
func (s *session) prefer(err error) error {
	if cause := s.reason(); cause != nil {
		return cause
	}
	return err
}

// handleUni hands the streams that the remote opens for HTTP/3's own purposes on.
func handleUni(conn *quicgo.Conn, handle func(*quicgo.ReceiveStream)) {
	for {
		str, err := conn.AcceptUniStream(context.Background())
		if err != nil {
			return
		}
		go handle(str)
	}
}

// hangUp ends a connection on which there is no session.
func hangUp(conn *quicgo.Conn, code http3.ErrCode) error {
	return conn.CloseWithError(quicgo.ApplicationErrorCode(code), "")
}
