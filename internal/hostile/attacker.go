package hostile

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/kith-p2p/kith/internal/wire"
	"github.com/kith-p2p/kith/multistream"
	"github.com/kith-p2p/kith/noise"
	"github.com/kith-p2p/kith/p2ptls"
	"github.com/kith-p2p/kith/peer"
)

const (
	noiseID = "/noise"
	tlsID   = "/tls/1.0.0"
	yamuxID = "/yamux/1.0.0"

	// patience bounds every wait of an attacker, so that a test that fails ends.
	patience = 30 * time.Second
)

// An attacker has an identity, as anybody can make one, and does what is honest
// of a connection with Kith's own packages.
type attacker struct {
	key   peer.PrivateKey
	noise *noise.Transport
	tls   *p2ptls.Transport // nil until it is wanted
}

func newAttacker() (*attacker, error) {
	key, err := peer.GenerateKey(peer.Ed25519)
	if err != nil {
		return nil, err
	}
	n, err := noise.New(key)
	return &attacker{key: key, noise: n}, err
}

// token is one message of multistream-select.
func token(text string) []byte {
	return wire.AppendFrame(nil, append([]byte(text), '\n'))
}

// propose is the header and the proposal of proto.
func propose(proto string) []byte { return multistream.AppendProposal(nil, proto) }

// agree proposes proto and reads the answer.
func agree(conn net.Conn, proto string) error {
	if _, err := conn.Write(propose(proto)); err != nil {
		return err
	}
	return multistream.ReadAnswer(conn, proto)
}

// message is a Noise message behind its length, which can be another than it has.
func message(length int, body []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(length)), body...)
}

// random gives n bytes; 32 of them are as good as any X25519 key.
func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// readMessage reads a Noise message.
func readMessage(r io.Reader) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	msg := make([]byte, binary.BigEndian.Uint16(length[:]))
	_, err := io.ReadFull(r, msg)
	return msg, err
}

// clientHello is what an honest TLS client says first.
func clientHello() ([]byte, error) {
	var sent bytes.Buffer
	c := tls.Client(deaf{w: &sent}, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, NextProtos: []string{"libp2p"}})
	if err := c.Handshake(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("hostile: making a ClientHello: %w", err)
	}
	return sent.Bytes(), nil
}

// deaf is a connection that writes to w and hears nothing.
type deaf struct {
	net.Conn
	w io.Writer
}

func (d deaf) Write(p []byte) (int, error) { return d.w.Write(p) }
func (deaf) Read([]byte) (int, error)      { return 0, io.EOF }
func (deaf) Close() error                  { return nil }
func (deaf) SetDeadline(time.Time) error   { return nil }

func (deaf) SetReadDeadline(time.Time) error  { return nil }
func (deaf) SetWriteDeadline(time.Time) error { return nil }

// secure is an honest Noise handshake; without muxers none is agreed on in it.
func (a *attacker) secure(conn net.Conn, muxers ...string) (*noise.Conn, error) {
	if err := agree(conn, noiseID); err != nil {
		return nil, err
	}
	// The connection has its deadline already.
	return a.noise.Client(context.Background(), conn, noise.Config{Muxers: muxers})
}

// session is a connection that is secured and muxed, as an honest peer has it.
func (a *attacker) session(conn net.Conn) (*session, error) {
	c, err := a.secure(conn, yamuxID)
	if err != nil {
		return nil, err
	}
	if c.Muxer() != yamuxID {
		return nil, fmt.Errorf("hostile: the handshake chose the muxer %q", c.Muxer())
	}
	return &session{conn: c, next: 1}, nil
}

// sessionOverTLS is session with the other secure channel.
func (a *attacker) sessionOverTLS(conn net.Conn) (*session, error) {
	if a.tls == nil {
		var err error
		if a.tls, err = p2ptls.New(a.key); err != nil {
			return nil, err
		}
	}
	if err := agree(conn, tlsID); err != nil {
		return nil, err
	}
	c, err := a.tls.Client(context.Background(), conn, p2ptls.Config{Muxers: []string{yamuxID}})
	if err != nil {
		return nil, err
	}
	return &session{conn: c, next: 1}, nil
}
