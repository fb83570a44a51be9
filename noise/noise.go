package noise

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/kith-p2p/kith/internal/wire"
	"github.com/kith-p2p/kith/peer"
)

// ProtocolID is the name of this security protocol in multistream-select.
// https://github.com/libp2p/specs/blob/master/noise/README.md#negotiation
const ProtocolID = "/noise"

// A Transport runs handshakes for one identity. It can be used concurrently.
type Transport struct {
	id       peer.ID
	static   *ecdh.PrivateKey // never stored: it lives as long as the Transport
	identity []byte           // the fields identity_key and identity_sig of a payload
}

// New makes a static key and lets key sign it: both serve every handshake of
// the Transport.
func New(key peer.PrivateKey) (*Transport, error) {
	if key.IsZero() {
		return nil, errors.New("noise: no private key: make or load one")
	}
	static, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("noise: static key: %w", err)
	}
	sig, err := key.Sign(signedBytes(static.PublicKey().Bytes()))
	if err != nil {
		return nil, fmt.Errorf("noise: signing the static key: %w", err)
	}
	identity := wire.AppendBytesField(nil, fieldIdentityKey, key.Public().Marshal())
	identity = wire.AppendBytesField(identity, fieldIdentitySig, sig)
	return &Transport{id: key.ID(), static: static, identity: identity}, nil
}

// Config says what one handshake is to be like. The zero value is a handshake
// with anyone, without a choice of muxer.
type Config struct {
	// Remote is who must be at the other end; zero: anyone.
	Remote peer.ID

	// Muxers are the protocol IDs of our muxers, by preference; empty: the
	// handshake chooses none. At most 100.
	Muxers []string

	// Prologue is what both sides must have in common to come to terms. WebRTC
	// binds its certificates in this way; empty otherwise.
	Prologue []byte

	// CertHashes are the multihashes of our WebTransport certificates, for the
	// peer. At most 32.
	CertHashes [][]byte

	// CheckCertHashes, if not nil, decides over the hashes that the peer sent, which
	// may be none. It is called when the peer has proved who it is; if it
	// returns an error, the handshake ends with it. An initiator has then not yet
	// shown who it is, and the responder knows of no connection.
	CheckCertHashes func(hashes [][]byte) error

	// TCP is the socket beneath, for a conn that wraps one and, once the
	// handshake is done, adds nothing to it: Conn then reads from it directly.
	// A conn that is a *net.TCPConn itself needs no mention.
	TCP *net.TCPConn
}

// Client runs the handshake as its initiator: it writes first.
//
// It returns when the last message is written: whether the responder accepts
// our identity shows in what it does next. ctx bounds the handshake, and only
// the handshake; when it ends the error wraps its cause. Deadlines that conn
// already has are kept. If there is an error conn is of no more use, and is the
// caller's to close.
//
// The error is a *peer.MismatchError if another peer than cfg.Remote answered; it
// has then not learned who we are.
func (t *Transport) Client(ctx context.Context, conn net.Conn, cfg Config) (*Conn, error) {
	return t.run(ctx, conn, cfg, true)
}

// Server runs the handshake as its responder. See Client.
func (t *Transport) Server(ctx context.Context, conn net.Conn, cfg Config) (*Conn, error) {
	return t.run(ctx, conn, cfg, false)
}

func (t *Transport) run(ctx context.Context, conn net.Conn, cfg Config, initiator bool) (*Conn, error) {
	stop := context.AfterFunc(ctx, func() {
		if conn.SetDeadline(time.Unix(1, 0)) != nil { // long past: every wait ends
			conn.Close()
		}
	})
	c, err := t.handshake(conn, cfg, initiator)
	if !stop() && (err == nil || isTimeout(err)) {
		return nil, fmt.Errorf("noise: handshake: %w", context.Cause(ctx))
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// isTimeout reports whether err may come from the deadline that run sets.
func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, net.ErrClosed)
}
