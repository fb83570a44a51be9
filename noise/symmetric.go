package noise

import (
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

const (
	// protocolName is what the handshake's hash starts with. It has exactly the
	// 32 bytes of a hash, so it is used as it is.
	// https://github.com/libp2p/specs/blob/master/noise/README.md#noise-protocol-name
	protocolName = "Noise_XX_25519_ChaChaPoly_SHA256"

	keyLen = 32 // of X25519 keys, ChaCha20-Poly1305 keys and SHA-256 hashes
	tagLen = chacha20poly1305.Overhead
)

// maxMessages is how many messages one key encrypts. Noise allows 2^64-1; this
// is far away from any wrap, and 16 EiB of full records.
const maxMessages counter = 1 << 48

// A counter numbers the messages under one key. It only ever grows.
type counter uint64

var (
	errExhausted = errors.New("noise: 2^48 messages were sent under one key: connect anew")
	errDecrypt   = errors.New("noise: message is not authentic")
)

// A cipherState encrypts or decrypts one direction's messages.
// https://noiseprotocol.org/noise.html#the-cipherstate-object
type cipherState struct {
	aead  cipher.AEAD // nil before there is a key
	n     counter
	nonce [chacha20poly1305.NonceSize]byte // here, so that calls do not allocate it
}

func newCipherState(key []byte) (cipherState, error) {
	aead, err := chacha20poly1305.New(key)
	if err != nil {
		return cipherState{}, fmt.Errorf("noise: %w", err)
	}
	return cipherState{aead: aead}, nil
}

// next returns the nonce of the next message.
func (c *cipherState) next() ([]byte, error) {
	if c.n >= maxMessages {
		return nil, errExhausted
	}
	binary.LittleEndian.PutUint64(c.nonce[4:], uint64(c.n))
	c.n++
	return c.nonce[:], nil
}

// seal appends the ciphertext of plaintext to dst.
func (c *cipherState) seal(dst, plaintext, ad []byte) ([]byte, error) {
	nonce, err := c.next()
	if err != nil {
		return nil, err
	}
	return c.aead.Seal(dst, nonce, plaintext, ad), nil
}

// open appends the plaintext of ciphertext to dst, which may be ciphertext[:0].
func (c *cipherState) open(dst, ciphertext, ad []byte) ([]byte, error) {
	nonce, err := c.next()
	if err != nil {
		return nil, err
	}
	plaintext, err := c.aead.Open(dst, nonce, ciphertext, ad)
	if err != nil {
		return nil, errDecrypt
	}
	return plaintext, nil
}

// An xx is the state of one handshake with the pattern XX. Each side calls its
// three functions, write or read, in the order of their numbers, and then
// split. After an error it is of no more use.
// https://noiseprotocol.org/noise.html#the-handshakestate-object
type xx struct {
	initiator         bool
	static, ephemeral ecdh.KeyExchanger
	remoteStatic      *ecdh.PublicKey
	remoteEphemeral   *ecdh.PublicKey

	// https://noiseprotocol.org/noise.html#the-symmetricstate-object
	cipher cipherState
	chain  [keyLen]byte
	hash   [keyLen]byte
}

func newXX(initiator bool, prologue []byte, static, ephemeral ecdh.KeyExchanger) *xx {
	x := &xx{initiator: initiator, static: static, ephemeral: ephemeral}
	copy(x.hash[:], protocolName)
	x.chain = x.hash
	x.mixHash(prologue)
	return x
}

// write1 appends message 1 to b: e.
func (x *xx) write1(b, payload []byte) ([]byte, error) {
	b = x.writeEphemeral(b)
	return x.writeSealed(b, payload)
}

func (x *xx) read1(msg []byte) (payload []byte, err error) {
	msg, err = x.readEphemeral(msg)
	if err != nil {
		return nil, err
	}
	return x.readSealed(msg)
}

// write2 appends message 2 to b: e, ee, s, es.
func (x *xx) write2(b, payload []byte) ([]byte, error) {
	b = x.writeEphemeral(b)
	if err := x.mixDH(x.ephemeral, x.remoteEphemeral); err != nil {
		return nil, err
	}
	b, err := x.writeSealed(b, x.static.PublicKey().Bytes())
	if err != nil {
		return nil, err
	}
	if err := x.mixDH(x.static, x.remoteEphemeral); err != nil {
		return nil, err
	}
	return x.writeSealed(b, payload)
}

func (x *xx) read2(msg []byte) (payload []byte, err error) {
	msg, err = x.readEphemeral(msg)
	if err != nil {
		return nil, err
	}
	if err := x.mixDH(x.ephemeral, x.remoteEphemeral); err != nil {
		return nil, err
	}
	msg, err = x.readStatic(msg)
	if err != nil {
		return nil, err
	}
	if err := x.mixDH(x.ephemeral, x.remoteStatic); err != nil {
		return nil, err
	}
	return x.readSealed(msg)
}

// write3 appends message 3 to b: s, se.
func (x *xx) write3(b, payload []byte) ([]byte, error) {
	b, err := x.writeSealed(b, x.static.PublicKey().Bytes())
	if err != nil {
		return nil, err
	}
	if err := x.mixDH(x.static, x.remoteEphemeral); err != nil {
		return nil, err
	}
	return x.writeSealed(b, payload)
}

func (x *xx) read3(msg []byte) (payload []byte, err error) {
	msg, err = x.readStatic(msg)
	if err != nil {
		return nil, err
	}
	if err := x.mixDH(x.ephemeral, x.remoteStatic); err != nil {
		return nil, err
	}
	return x.readSealed(msg)
}

// split ends the handshake and returns the ciphers of what is sent and
// received.
func (x *xx) split() (send, receive cipherState, err error) {
	keys, err := hkdf.Key(sha256.New, nil, x.chain[:], "", 2*keyLen)
	if err != nil {
		return send, receive, fmt.Errorf("noise: %w", err)
	}
	first, err := newCipherState(keys[:keyLen])
	if err != nil {
		return send, receive, err
	}
	second, err := newCipherState(keys[keyLen:])
	if err != nil {
		return send, receive, err
	}
	if x.initiator {
		return first, second, nil
	}
	return second, first, nil
}

func (x *xx) writeEphemeral(b []byte) []byte {
	public := x.ephemeral.PublicKey().Bytes()
	x.mixHash(public)
	return append(b, public...)
}

func (x *xx) readEphemeral(msg []byte) (rest []byte, err error) {
	if len(msg) < keyLen {
		return nil, errShort
	}
	if x.remoteEphemeral, err = ecdh.X25519().NewPublicKey(msg[:keyLen]); err != nil {
		return nil, fmt.Errorf("noise: ephemeral key: %w", err)
	}
	x.mixHash(msg[:keyLen])
	return msg[keyLen:], nil
}

func (x *xx) readStatic(msg []byte) (rest []byte, err error) {
	if len(msg) < keyLen+tagLen {
		return nil, errShort
	}
	public, err := x.readSealed(msg[:keyLen+tagLen])
	if err != nil {
		return nil, err
	}
	if x.remoteStatic, err = ecdh.X25519().NewPublicKey(public); err != nil {
		return nil, fmt.Errorf("noise: static key: %w", err)
	}
	return msg[keyLen+tagLen:], nil
}

var errShort = errors.New("noise: handshake message is too short")

// writeSealed is EncryptAndHash: without a key, in message 1, the text is sent
// as it is.
func (x *xx) writeSealed(b, plaintext []byte) ([]byte, error) {
	start := len(b)
	if x.cipher.aead == nil {
		b = append(b, plaintext...)
	} else {
		var err error
		if b, err = x.cipher.seal(b, plaintext, x.hash[:]); err != nil {
			return nil, err
		}
	}
	x.mixHash(b[start:])
	return b, nil
}

// readSealed is DecryptAndHash. It leaves msg as it was, for the hash.
func (x *xx) readSealed(msg []byte) ([]byte, error) {
	if x.cipher.aead == nil {
		x.mixHash(msg)
		return msg, nil
	}
	plaintext, err := x.cipher.open(nil, msg, x.hash[:])
	if err != nil {
		return nil, err
	}
	x.mixHash(msg)
	return plaintext, nil
}

// mixDH mixes in what ours and theirs have in common. ecdh refuses the zero
// that points of small order lead to, so both sides have a say in every key.
func (x *xx) mixDH(ours ecdh.KeyExchanger, theirs *ecdh.PublicKey) error {
	shared, err := ours.ECDH(theirs)
	if err != nil {
		return fmt.Errorf("noise: key exchange: %w", err)
	}
	keys, err := hkdf.Key(sha256.New, shared, x.chain[:], "", 2*keyLen)
	if err != nil {
		return fmt.Errorf("noise: %w", err)
	}
	copy(x.chain[:], keys)
	x.cipher, err = newCipherState(keys[keyLen:])
	return err
}

func (x *xx) mixHash(data []byte) {
	h := sha256.New()
	h.Write(x.hash[:])
	h.Write(data)
	h.Sum(x.hash[:0])
}
