package p2ptls

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/kith-p2p/kith/peer"
)

const (
	// ProtocolID is what multistream-select calls this handshake.
	// https://github.com/libp2p/specs/blob/master/tls/tls.md#handshake-protocol
	ProtocolID = "/tls/1.0.0"

	// alpn is the application protocol that leaves the muxer open.
	// https://github.com/libp2p/specs/blob/master/tls/tls.md#alpn
	alpn = "libp2p"
)

// A Transport runs handshakes for one host. It is safe for concurrent use.
type Transport struct {
	cert tls.Certificate
}

// New makes the certificate that all handshakes of the host with this key use.
func New(key peer.PrivateKey) (*Transport, error) {
	if key.IsZero() {
		return nil, errors.New("p2ptls: New needs a private key, for example from peer.GenerateKey")
	}
	cert, err := newCertificate(key, time.Now())
	if err != nil {
		return nil, fmt.Errorf("p2ptls: make a certificate: %w", err)
	}
	return &Transport{cert}, nil
}

// Config is what one handshake wants. The zero value lets anyone in and agrees
// on no muxer.
type Config struct {
	Remote peer.ID  // who must answer; zero: anyone
	Muxers []string // protocol IDs of our muxers, the best first; nil: agree on none
}

// Client runs the handshake as the side that speaks first. It writes before it
// reads, and reads nothing of conn beyond what the Conn returned will hand out.
//
// When Client returns, the server has proved who it is, and has not yet seen our
// certificate: in TLS 1.3 a client is done one flight earlier. Whether the server
// refuses us shows on the first Read, as an error; what was written until then is lost.
//
// The end of ctx ends the handshake. Client sets no deadline otherwise, and
// without a limit in ctx or on conn it waits as long as the server wants. On an
// error conn is of no use, and the caller closes it. If another peer than
// cfg.Remote answers the error is a *peer.MismatchError, and the peer has learned
// nothing of who we are.
func (t *Transport) Client(ctx context.Context, conn net.Conn, cfg Config) (*Conn, error) {
	h := &handshake{remote: cfg.Remote}
	config := t.config(h.verify, append(slices.Clone(cfg.Muxers), alpn))
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		h.asked = true
		return &t.cert, nil
	}
	socket := newSocket(conn)
	c, err := h.run(ctx, socket, tls.Client(socket, config))
	if err == nil && !h.asked {
		return nil, errors.New("p2ptls: handshake: the server did not ask who we are")
	}
	return c, err
}

// Server runs the handshake as the side that listens. When it returns, both
// sides have proved who they are. Of the muxers that both have, the one that the
// client likes best is taken. For ctx and errors see Client.
func (t *Transport) Server(ctx context.Context, conn net.Conn, cfg Config) (*Conn, error) {
	h := &handshake{remote: cfg.Remote}
	config := t.config(h.verify, nil)
	// crypto/tls prefers the server's order, so it gets to see our choice only.
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		return t.config(h.verify, []string{chooseALPN(hello.SupportedProtos, cfg.Muxers)}), nil
	}
	socket := newSocket(conn)
	return h.run(ctx, socket, tls.Server(socket, config))
}

// chooseALPN returns the first of the client's protocols that is a muxer of ours.
// Clients name alpn last, so it is what remains. A client that has not even that
// is refused by crypto/tls, except when it names nothing at all: old
// implementations do not use ALPN.
func chooseALPN(offered, muxers []string) string {
	for _, proto := range offered {
		if slices.Contains(muxers, proto) {
			return proto
		}
	}
	return alpn
}

// config describes a handshake in either role. It is read while a connection
// lives, and is not changed.
func (t *Transport) config(verify func(tls.ConnectionState) error, protos []string) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		Certificates:       []tls.Certificate{t.cert},
		ClientAuth:         tls.RequireAnyClientCert,
		InsecureSkipVerify: true, // verify does it; there are no authorities in libp2p
		VerifyConnection:   verify,
		NextProtos:         protos,
		// A resumed session would carry over an identity that nobody checks again.
		SessionTicketsDisabled: true,
		// Small records at the start help browsers, not muxers: they are more work.
		DynamicRecordSizingDisabled: true,
	}
}

// A handshake is the state of one.
type handshake struct {
	remote peer.ID        // who must answer; zero: anyone
	key    peer.PublicKey // who has
	asked  bool           // the server wants our certificate
}

// verify is called by crypto/tls when the peer's certificate has come, before it
// checks that the peer has the certificate's key.
func (h *handshake) verify(state tls.ConnectionState) error {
	key, err := verifyChain(state.PeerCertificates, time.Now())
	if err != nil {
		return err
	}
	if got := key.ID(); !h.remote.IsZero() && got != h.remote {
		return &peer.MismatchError{Want: h.remote, Got: got}
	}
	h.key = key
	return nil
}

func (h *handshake) run(ctx context.Context, socket *socket, conn *tls.Conn) (*Conn, error) {
	// HandshakeContext would close the connection, which a caller may not expect
	// of a net.Conn that it has made.
	stop := context.AfterFunc(ctx, func() { socket.conn.SetDeadline(time.Unix(1, 0)) })
	err := conn.Handshake()
	if !stop() {
		return nil, fmt.Errorf("p2ptls: handshake: %w", context.Cause(ctx))
	}
	var mismatch *peer.MismatchError
	if errors.As(err, &mismatch) {
		return nil, mismatch
	}
	if err != nil {
		return nil, fmt.Errorf("p2ptls: handshake: %w", err)
	}
	socket.waits = false
	c := &Conn{tls: conn, socket: socket, key: h.key, id: h.key.ID()}
	if proto := conn.ConnectionState().NegotiatedProtocol; proto != alpn {
		c.muxer = proto
	}
	return c, nil
}
