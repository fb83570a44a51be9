package webtransport

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"time"

	quicgo "github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/noise"
	"github.com/kith-p2p/kith/quic"
)

// maxRequests is how many requests a connection may make until it has a
// session. Whoever looks around first gets the answer that there is nothing.
const maxRequests = 5

// A client that has not proved who it is may send as much as others, and what it
// sends is kept: QUIC has one window for all of a listener's connections, some MiB.
// So it is looked every unprovedInterval whether more has come than a request and
// a handshake take, with room for headers and for packets that came twice.
const (
	maxUnproved      = 64 << 10
	unprovedInterval = 20 * time.Millisecond
)

// Listen opens addr, which says nothing of certificates: Addr of the listener
// does. Addr changes every 13 days and 22 hours.
func (t *Transport) Listen(addr multiaddr.Addr) (host.TransportListener, error) {
	at, err := parseAddr(addr)
	if err != nil {
		return nil, err
	}
	if !at.bare() {
		return nil, fmt.Errorf("webtransport: %s says with which certificate to listen: leave out what follows /webtransport, the certificates follow from the key", addr)
	}
	if _, err := t.certs.at(t.now()); err != nil {
		return nil, err
	}
	ln, err := t.endpoint.Listen(at.at, alpn, func(*tls.ClientHelloInfo) (*tls.Config, error) {
		r, err := t.certs.at(t.now())
		if err != nil {
			return nil, err
		}
		return r.config, nil
	})
	if err != nil {
		return nil, err
	}
	return &listener{transport: t, ln: ln, local: fromAddrPort(ln.Addr())}, nil
}

type listener struct {
	transport *Transport
	ln        *quic.Listener
	local     multiaddr.Addr
}

func (l *listener) Accept() (host.Incoming, error) {
	conn, err := l.ln.Accept(context.Background())
	if err != nil {
		return nil, err
	}
	return &incoming{transport: l.transport, conn: conn}, nil
}

func (l *listener) Addr() multiaddr.Addr {
	t := l.transport
	r, err := t.certs.at(t.now())
	if err != nil {
		return l.local
	}
	return multiaddr.Join(l.local, r.suffix)
}

func (l *listener) Close() error { return l.ln.Close() }

// incoming is a QUIC connection, on which a session has still to be asked for.
type incoming struct {
	transport *Transport
	conn      *quicgo.Conn
}

func (i *incoming) RemoteAddr() multiaddr.Addr { return fromNet(i.conn.RemoteAddr()) }

func (i *incoming) Close() error {
	go hangUp(i.conn, http3.ErrCodeExcessiveLoad) // which waits for the connection
	return nil
}

func (i *incoming) Upgrade(ctx context.Context, progress func(host.Stage)) (host.TransportConn, error) {
	progress(host.StageOpened)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		tick := time.NewTicker(unprovedInterval)
		defer tick.Stop()
		for i.conn.ConnectionStats().BytesReceived <= maxUnproved {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
		cancel(fmt.Errorf("the client has sent more than %d bytes before it has said who it is", maxUnproved))
	}()
	stop := context.AfterFunc(ctx, func() { hangUp(i.conn, http3.ErrCodeRequestRejected) })
	tc, err := i.transport.admit(ctx, i.conn, progress)
	if !stop() {
		return host.TransportConn{}, fmt.Errorf("webtransport: %w", context.Cause(ctx))
	}
	if err != nil {
		hangUp(i.conn, http3.ErrCodeRequestRejected)
		return host.TransportConn{}, err
	}
	return tc, nil
}

// admit waits for the request for a session and then for the Noise handshake
// in the first stream.
func (t *Transport) admit(ctx context.Context, conn *quicgo.Conn, progress func(host.Stage)) (host.TransportConn, error) {
	var r request
	h3, err := (&http3.Server{
		Handler:            &r,
		EnableDatagrams:    true,
		MaxHeaderBytes:     maxHeader,
		AdditionalSettings: map[uint64]uint64{settingDraft2: 1, settingEnabled: 1, settingMaxSessions: 1},
	}).NewRawServerConn(conn)
	if err != nil {
		return host.TransportConn{}, fmt.Errorf("webtransport: %w", err)
	}
	go handleUni(conn, h3.HandleUnidirectionalStream)

	// Streams come in the order of their numbers, so the request is there before
	// the streams that refer to it.
	for n := 0; r.connect == nil; n++ {
		if n == maxRequests {
			return host.TransportConn{}, fmt.Errorf("webtransport: the client has made %d requests, none for a session", n)
		}
		str, err := conn.AcceptStream(ctx)
		if err != nil {
			return host.TransportConn{}, fmt.Errorf("webtransport: waiting for the request: %w", err)
		}
		h3.HandleRequestStream(str)
	}
	s := newSession(conn, t.endpoint.Meter(conn), r.connect, r.connect.StreamID())
	go s.read()

	progress(host.StageSecuring)
	rotation, err := t.certs.at(t.now())
	if err != nil {
		return host.TransportConn{}, err
	}
	st, err := s.acceptStream(ctx)
	if err != nil {
		return host.TransportConn{}, fmt.Errorf("webtransport: waiting for the handshake: %w", err)
	}
	secured, err := t.noise.Server(ctx, noiseConn{st}, noise.Config{CertHashes: rotation.hashes})
	if err != nil {
		st.Reset(0)
		return host.TransportConn{}, s.prefer(err)
	}
	defer st.leave()
	progress(host.StageSecured)
	tc, err := s.ready(ctx, r.received, r.settings)
	if err != nil {
		return host.TransportConn{}, err
	}
	tc.RemoteKey = secured.RemoteKey()
	progress(host.StageMuxed)
	return tc, nil
}

// A request answers what a client asks for until that is a session.
type request struct {
	connect  *http3.Stream
	received <-chan struct{}
	settings func() *http3.Settings
}

func (r *request) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if status := judge(req); status != http.StatusOK {
		w.WriteHeader(status)
		return
	}
	if req.Header.Get(draft2Offer) != "" {
		w.Header().Set(draft2Answer, "draft02")
	}
	r.take(w)
}

// take answers yes and keeps what http3 hands to its handlers.
func (r *request) take(w http.ResponseWriter) {
	w.WriteHeader(http.StatusOK)
	settings := w.(http3.Settingser)
	r.received, r.settings = settings.ReceivedSettings(), settings.Settings
	switch w := w.(type) {
	case interface {
		HTTPStream() (*http3.Stream, error)
	}:
		r.connect, _ = w.HTTPStream() // nil: the request comes to nothing
	case interface{ HTTPStream() *http3.Stream }: // quic-go 0.64, which a program that has go-libp2p too needs for now
		r.connect = w.HTTPStream()
	}
}

// judge decides over a request. Where it comes from does not matter: any web
// page may connect, and who is behind it is proved by Noise.
func judge(req *http.Request) int {
	if req.URL.Path != endpointPath {
		return http.StatusNotFound
	}
	if req.Method != http.MethodConnect {
		return http.StatusMethodNotAllowed
	}
	types := req.URL.Query()["type"]
	if len(types) != 1 || types[0] != endpointType || (req.Proto != protocol && req.Proto != protocolDraft15) {
		return http.StatusBadRequest
	}
	return http.StatusOK
}
