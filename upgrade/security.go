package upgrade

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/noise"
	"github.com/kith-p2p/kith/p2ptls"
	"github.com/kith-p2p/kith/peer"
)

// Security is a secure channel: Noise and TLS are here.
type Security interface {
	Protocol() host.ProtocolID

	// Cost is what an idle connection takes, with its muxer, in bytes. 0: as with Noise.
	Cost() int

	// Client and Server run the handshake within ctx. remote can be zero for
	// anyone. muxers are those that we have, by preference.
	Client(ctx context.Context, conn net.Conn, remote peer.ID, muxers []string) (SecureConn, error)
	Server(ctx context.Context, conn net.Conn, muxers []string) (SecureConn, error)
}

// SecureConn is a connection whose remote has proved its key.
type SecureConn interface {
	RemoteKey() peer.PublicKey
	Muxer() string // what the handshake agreed on, or ""

	Read(p []byte) (int, error)
	ReadRecord(take func(n int) []byte) ([]byte, error) // see yamux.Conn
	Ready() bool
	Write(p []byte) (int, error)
	Close() error
	SetDeadline(t time.Time) error
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
}

// Noise is the secure channel of most libp2p implementations.
func Noise(key peer.PrivateKey) (Security, error) {
	t, err := noise.New(key)
	return noiseSecurity{t}, err
}

type noiseSecurity struct{ t *noise.Transport }

func (noiseSecurity) Cost() int { return 0 }

func (noiseSecurity) Protocol() host.ProtocolID { return noise.ProtocolID }

func (s noiseSecurity) Client(ctx context.Context, conn net.Conn, remote peer.ID, muxers []string) (SecureConn, error) {
	c, err := s.t.Client(ctx, conn, noise.Config{Remote: remote, Muxers: muxers, TCP: tcpBelow(conn)})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// tcpBelow finds the TCP connection under one whose proposal is still to be sent:
// Noise reads from it without holding a buffer while it waits.
func tcpBelow(conn net.Conn) *net.TCPConn {
	if p, ok := conn.(*proposing); ok {
		conn = p.Conn
	}
	tcp, _ := conn.(*net.TCPConn)
	return tcp
}

func (s noiseSecurity) Server(ctx context.Context, conn net.Conn, muxers []string) (SecureConn, error) {
	c, err := s.t.Server(ctx, conn, noise.Config{Muxers: muxers})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// TLS is TLS 1.3 with libp2p's certificates. Ours is made for the first
// connection: that takes 0.4 ms of a program's start, which is 5 ms in all.
func TLS(key peer.PrivateKey) (Security, error) {
	if key.IsZero() {
		return nil, errors.New("upgrade: TLS needs a private key, for example from peer.GenerateKey")
	}
	return tlsSecurity{sync.OnceValues(func() (*p2ptls.Transport, error) { return p2ptls.New(key) })}, nil
}

type tlsSecurity struct {
	transport func() (*p2ptls.Transport, error)
}

// Cost is more than with Noise, since crypto/tls keeps the state of the handshake.
func (tlsSecurity) Cost() int { return 24 << 10 }

func (tlsSecurity) Protocol() host.ProtocolID { return p2ptls.ProtocolID }

func (s tlsSecurity) Client(ctx context.Context, conn net.Conn, remote peer.ID, muxers []string) (SecureConn, error) {
	t, err := s.transport()
	if err != nil {
		return nil, err
	}
	c, err := t.Client(ctx, conn, p2ptls.Config{Remote: remote, Muxers: muxers})
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (s tlsSecurity) Server(ctx context.Context, conn net.Conn, muxers []string) (SecureConn, error) {
	t, err := s.transport()
	if err != nil {
		return nil, err
	}
	c, err := t.Server(ctx, conn, p2ptls.Config{Muxers: muxers})
	if err != nil {
		return nil, err
	}
	return c, nil
}
