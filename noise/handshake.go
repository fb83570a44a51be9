package noise

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"

	"github.com/kith-p2p/kith/internal/wire"
	"github.com/kith-p2p/kith/peer"
)

const (
	// maxHandshakeMessage bounds a handshake message, in bytes. An RSA key of
	// 8192 bits and its signature make 2.2 KiB; a hundred usual muxers 1.4 KiB.
	maxHandshakeMessage = 4 << 10

	// maxMuxers bounds the list of muxers; go-libp2p has the same bound.
	maxMuxers = 100

	// maxCertHashes bounds the list of certificate hashes. Servers have two or
	// three certificates at a time.
	maxCertHashes = 32

	// signaturePrefix is signed in front of the static key.
	// https://github.com/libp2p/specs/blob/master/noise/README.md#the-libp2p-handshake-payload
	signaturePrefix = "noise-libp2p-static-key:"
)

// The fields of NoiseHandshakePayload and NoiseExtensions.
// https://github.com/libp2p/specs/blob/master/noise/README.md#the-libp2p-handshake-payload
const (
	fieldIdentityKey = 1
	fieldIdentitySig = 2
	fieldExtensions  = 4

	fieldCertHashes   = 1
	fieldStreamMuxers = 2
)

// A payload is what a side says of itself. What is decoded shares its memory
// with the message.
type payload struct {
	key, sig   []byte
	muxers     []string
	certHashes [][]byte
}

func (t *Transport) handshake(conn net.Conn, cfg Config, initiator bool) (*Conn, error) {
	ours, err := t.payload(cfg)
	if err != nil {
		return nil, err
	}
	ephemeral, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("noise: ephemeral key: %w", err)
	}
	c := newConn(conn)
	x := newXX(initiator, cfg.Prologue, t.static, ephemeral)
	if initiator {
		err = c.initiate(x, ours, cfg)
	} else {
		err = c.respond(x, ours, cfg)
	}
	if err != nil {
		return nil, err
	}
	if c.sealer, c.opener, err = x.split(); err != nil {
		return nil, err
	}
	c.in.attach(conn, cfg.TCP)
	return c, nil
}

func (c *Conn) initiate(x *xx, ours []byte, cfg Config) error {
	if err := c.send(1, x.write1, nil); err != nil {
		return err
	}
	msg, err := c.receive(2)
	if err != nil {
		return err
	}
	plaintext, err := x.read2(msg)
	if err != nil {
		return fmt.Errorf("noise: handshake message 2: %w", err)
	}
	theirs, err := c.accept(plaintext, x.remoteStatic, cfg)
	if err != nil {
		return err
	}
	if c.muxer, err = chooseMuxer(cfg.Muxers, theirs.muxers); err != nil {
		return err
	}
	return c.send(3, x.write3, ours)
}

func (c *Conn) respond(x *xx, ours []byte, cfg Config) error {
	msg, err := c.receive(1)
	if err != nil {
		return err
	}
	// Nothing may be said before there is secrecy, and nobody does.
	if early, err := x.read1(msg); err != nil || len(early) > 0 {
		return fmt.Errorf("noise: handshake message 1 has %d bytes, and must have %d", len(msg), keyLen)
	}
	if err := c.send(2, x.write2, ours); err != nil {
		return err
	}
	if msg, err = c.receive(3); err != nil {
		return err
	}
	plaintext, err := x.read3(msg)
	if err != nil {
		return fmt.Errorf("noise: handshake message 3: %w", err)
	}
	theirs, err := c.accept(plaintext, x.remoteStatic, cfg)
	if err != nil {
		return err
	}
	c.muxer, err = chooseMuxer(theirs.muxers, cfg.Muxers)
	return err
}

// send writes a handshake message behind its length, in one Write.
func (c *Conn) send(number int, write func(b, payload []byte) ([]byte, error), payload []byte) error {
	b := make([]byte, lengthLen, lengthLen+2*(keyLen+tagLen)+len(payload)+tagLen)
	b, err := write(b, payload)
	if err != nil {
		return fmt.Errorf("noise: handshake message %d: %w", number, err)
	}
	binary.BigEndian.PutUint16(b, uint16(len(b)-lengthLen))
	if _, err := c.conn.Write(b); err != nil {
		return fmt.Errorf("noise: sending handshake message %d: %w", number, err)
	}
	return nil
}

func (c *Conn) receive(number int) ([]byte, error) {
	msg, err := c.in.frame(maxHandshakeMessage)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("noise: receiving handshake message %d: %w", number, err)
	}
	return msg, nil
}

// accept decides whether the payload shows that the peer with the static key is
// one that we want to talk to. Only then are its parts used.
func (c *Conn) accept(plaintext []byte, static *ecdh.PublicKey, cfg Config) (payload, error) {
	theirs, err := parsePayload(plaintext)
	if err != nil {
		return theirs, err
	}
	key, err := peer.UnmarshalPublicKey(theirs.key)
	if err != nil {
		return theirs, fmt.Errorf("noise: identity key: %w", err)
	}
	if !key.Verify(signedBytes(static.Bytes()), theirs.sig) {
		return theirs, errors.New("noise: the identity key has not signed the static key")
	}
	if id := key.ID(); cfg.Remote.IsZero() || id == cfg.Remote {
		c.remoteKey, c.remote = key, id
	} else {
		return theirs, &peer.MismatchError{Want: cfg.Remote, Got: id}
	}
	for _, h := range theirs.certHashes {
		c.certHashes = append(c.certHashes, slices.Clone(h)) // not to keep the whole message
	}
	if cfg.CheckCertHashes != nil {
		if err := cfg.CheckCertHashes(c.certHashes); err != nil {
			return theirs, fmt.Errorf("noise: certificate hashes: %w", err)
		}
	}
	return theirs, nil
}

// chooseMuxer returns the first of the initiator's muxers that the responder
// has, or "" when one of them named none.
// https://github.com/libp2p/specs/blob/master/connections/inlined-muxer-negotiation.md#multiplexer-negotiation-over-noise
func chooseMuxer(initiator, responder []string) (string, error) {
	if len(initiator) == 0 || len(responder) == 0 {
		return "", nil
	}
	for _, m := range initiator {
		if slices.Contains(responder, m) {
			return m, nil
		}
	}
	const shown = 3 // a peer's list is not for filling our log
	return "", fmt.Errorf("noise: no muxer in common: the initiator has %.40q, the responder %.40q",
		initiator[:min(shown, len(initiator))], responder[:min(shown, len(responder))])
}

// payload encodes what we say of ourselves.
func (t *Transport) payload(cfg Config) ([]byte, error) {
	if len(cfg.Muxers) > maxMuxers || len(cfg.CertHashes) > maxCertHashes {
		return nil, fmt.Errorf("noise: %d muxers and %d certificate hashes: give at most %d and %d",
			len(cfg.Muxers), len(cfg.CertHashes), maxMuxers, maxCertHashes)
	}
	var extensions []byte
	for _, h := range cfg.CertHashes {
		extensions = wire.AppendBytesField(extensions, fieldCertHashes, h)
	}
	for _, m := range cfg.Muxers {
		extensions = wire.AppendStringField(extensions, fieldStreamMuxers, m)
	}
	b := t.identity
	if len(extensions) > 0 {
		b = wire.AppendBytesField(slices.Clip(b), fieldExtensions, extensions) // identity is shared
	}
	if limit := maxHandshakeMessage - 2*(keyLen+tagLen); len(b) > limit {
		return nil, fmt.Errorf("noise: identity, muxers and certificate hashes take %d bytes: give fewer, at most %d bytes", len(b), limit)
	}
	return b, nil
}

// parsePayload decodes what the peer says of itself. Unknown fields are
// skipped; a field that can be there once must not be there twice.
func parsePayload(b []byte) (p payload, err error) {
	var extended bool
	err = wire.Fields(b, func(f wire.Field) error {
		var repeated bool
		switch f.Num {
		case fieldIdentityKey:
			repeated, p.key = p.key != nil, f.Bytes
		case fieldIdentitySig:
			repeated, p.sig = p.sig != nil, f.Bytes
		case fieldExtensions:
			repeated, extended = extended, true
			if err := p.parseExtensions(f.Bytes); err != nil {
				return err
			}
		default:
			return nil
		}
		if repeated {
			return fmt.Errorf("field %d is there twice", f.Num)
		}
		return f.Want(wire.TypeBytes)
	})
	if err != nil {
		return payload{}, fmt.Errorf("noise: handshake payload: %w", err)
	}
	return p, nil
}

func (p *payload) parseExtensions(b []byte) error {
	return wire.Fields(b, func(f wire.Field) error {
		switch f.Num {
		case fieldCertHashes:
			if len(p.certHashes) == maxCertHashes {
				return fmt.Errorf("more than %d certificate hashes", maxCertHashes)
			}
			p.certHashes = append(p.certHashes, f.Bytes)
		case fieldStreamMuxers:
			if len(p.muxers) == maxMuxers {
				return fmt.Errorf("more than %d muxers", maxMuxers)
			}
			p.muxers = append(p.muxers, string(f.Bytes))
		default:
			return nil
		}
		return f.Want(wire.TypeBytes)
	})
}

// signedBytes is what the identity key signs to vouch for a static key.
func signedBytes(static []byte) []byte {
	return append([]byte(signaturePrefix), static...)
}
