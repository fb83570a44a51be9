package hostile

import (
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"net"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/kith-p2p/kith/internal/wire"
	"github.com/kith-p2p/kith/peer"
)

// A rogue runs the Noise handshake as its specification says, but for what the
// fields below change. It is written apart from package noise, which has no
// way to do it wrong.
type rogue struct {
	static    *ecdh.PrivateKey
	payload   []byte // of message 2 or 3
	ephemeral []byte // is sent in place of the ephemeral key; nil: the key is
	first     []byte // follows the key in message 1
}

// newStatic makes a static key.
func newStatic() *ecdh.PrivateKey {
	for {
		if key, err := ecdh.X25519().NewPrivateKey(random(32)); err == nil {
			return key
		}
	}
}

// client runs the handshake as the one who dials, after the protocol was agreed on.
func (r rogue) client(conn net.Conn) error {
	own := newStatic()
	x := newTranscript()
	e := r.ephemeralOf(own)
	x.mixHash(e)
	x.mixHash(r.first)
	first := append(e, r.first...)
	if _, err := conn.Write(message(len(first), first)); err != nil {
		return err
	}
	msg, err := readMessage(conn)
	if err != nil {
		return err
	}
	theirs, err := ecdh.X25519().NewPublicKey(msg[:32])
	if err != nil {
		return err
	}
	x.mixHash(msg[:32])
	x.mixKey(own, theirs)
	static, err := x.open(msg[32:80])
	if err != nil {
		return err
	}
	theirStatic, err := ecdh.X25519().NewPublicKey(static)
	if err != nil {
		return err
	}
	x.mixKey(own, theirStatic)
	if _, err := x.open(msg[80:]); err != nil {
		return err
	}
	out := x.seal(nil, r.static.PublicKey().Bytes())
	x.mixKey(r.static, theirs)
	out = x.seal(out, r.payload)
	_, err = conn.Write(message(len(out), out))
	return err
}

// server runs the handshake as the one who listens. What the other side says in
// message 3 does not matter.
func (r rogue) server(conn net.Conn) error {
	own := newStatic()
	x := newTranscript()
	msg, err := readMessage(conn)
	if err != nil {
		return err
	}
	theirs, err := ecdh.X25519().NewPublicKey(msg)
	if err != nil {
		return err
	}
	x.mixHash(msg)
	x.mixHash(nil)
	out := r.ephemeralOf(own)
	x.mixHash(out)
	x.mixKey(own, theirs)
	out = x.seal(out, r.static.PublicKey().Bytes())
	x.mixKey(r.static, theirs)
	out = x.seal(out, r.payload)
	if _, err := conn.Write(message(len(out), out)); err != nil {
		return err
	}
	_, err = readMessage(conn)
	return err
}

func (r rogue) ephemeralOf(own *ecdh.PrivateKey) []byte {
	if r.ephemeral != nil {
		return append([]byte(nil), r.ephemeral...)
	}
	return own.PublicKey().Bytes()
}

// A transcript is the symmetric state of a handshake.
// https://noiseprotocol.org/noise.html#the-symmetricstate-object
type transcript struct {
	chain, hash [32]byte
	aead        cipher.AEAD
	n           uint64
}

func newTranscript() *transcript {
	x := new(transcript)
	copy(x.hash[:], "Noise_XX_25519_ChaChaPoly_SHA256")
	x.chain = x.hash
	x.mixHash(nil) // there is no prologue
	return x
}

func (x *transcript) mixHash(b []byte) {
	x.hash = sha256.Sum256(append(x.hash[:len(x.hash):len(x.hash)], b...))
}

func (x *transcript) mixKey(ours *ecdh.PrivateKey, theirs *ecdh.PublicKey) {
	shared, err := ours.ECDH(theirs)
	if err != nil {
		shared = make([]byte, 32) // what a careless implementation computes
	}
	keys, err := hkdf.Key(sha256.New, shared, x.chain[:], "", 64)
	if err != nil {
		panic(err) // the lengths are right
	}
	copy(x.chain[:], keys)
	if x.aead, err = chacha20poly1305.New(keys[32:]); err != nil {
		panic(err)
	}
	x.n = 0
}

func (x *transcript) nonce() []byte {
	nonce := binary.LittleEndian.AppendUint64(make([]byte, 4), x.n)
	x.n++
	return nonce
}

func (x *transcript) seal(b, plaintext []byte) []byte {
	sealed := x.aead.Seal(nil, x.nonce(), plaintext, x.hash[:])
	x.mixHash(sealed)
	return append(b, sealed...)
}

func (x *transcript) open(sealed []byte) ([]byte, error) {
	plaintext, err := x.aead.Open(nil, x.nonce(), sealed, x.hash[:])
	x.mixHash(sealed)
	return plaintext, err
}

// payload is what a side of a Noise handshake says of itself.
// https://github.com/libp2p/specs/blob/master/noise/README.md#the-libp2p-handshake-payload
func payload(key, sig []byte) []byte {
	b := wire.AppendBytesField(nil, 1, key)
	return wire.AppendBytesField(b, 2, sig)
}

// vouch is the signature with which key vouches for a static key.
func vouch(key peer.PrivateKey, static *ecdh.PrivateKey) ([]byte, error) {
	return key.Sign(append([]byte("noise-libp2p-static-key:"), static.PublicKey().Bytes()...))
}
