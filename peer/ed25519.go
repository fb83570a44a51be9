package peer

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
)

const (
	ed25519PublicLen  = ed25519.PublicKeySize
	ed25519PrivateLen = ed25519.PrivateKeySize

	// The form of old versions, which repeats the public key.
	// https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md#ed25519
	ed25519LegacyLen = ed25519PrivateLen + ed25519PublicLen
)

// ed25519SmallOrder holds the y coordinates, little-endian, of the eight points
// whose order divides 8. Whoever names one of them as its key can make
// signatures that verify for many messages. The points share five coordinates,
// since a point and its negative have the same one.
var ed25519SmallOrder = [...]string{
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", // 0
	"\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", // 1
	"\xec\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", // -1
	"\x26\xe8\x95\x8f\xc2\xb2\x27\xb0\x45\xc3\xf4\x89\xf2\xef\x98\xf0\xd5\xdf\xac\x05\xd3\xc6\x33\x39\xb1\x38\x02\x88\x6d\x53\xfc\x05",
	"\xc7\x17\x6a\x70\x3d\x4d\xd8\x4f\xba\x3c\x0b\x76\x0d\x10\x67\x0f\x2a\x20\x53\xfa\x2c\x39\xcc\xc6\x4e\xc7\xfd\x77\x92\xac\x03\x7a",
}

// ed25519Prime is the prime 2^255-19 of the field, little-endian. A coordinate
// from there up has a second, canonical encoding.
const ed25519Prime = "\xed\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f"

// checkEd25519Public refuses keys with a second encoding and those of small
// order. Bytes that are no point at all pass: such a key verifies nothing.
func checkEd25519Public(data []byte) error {
	if len(data) != ed25519PublicLen {
		return fmt.Errorf("an Ed25519 key has %d bytes, not %d", ed25519PublicLen, len(data))
	}
	y := [ed25519PublicLen]byte(data)
	y[31] &= 0x7f // the sign of x
	if y[0] >= ed25519Prime[0] && string(y[1:]) == ed25519Prime[1:] {
		return errors.New("Ed25519 key in a second form of its encoding")
	}
	for _, small := range ed25519SmallOrder {
		if string(y[:]) == small {
			return errors.New("Ed25519 key is a point of small order")
		}
	}
	return nil
}

func verifyEd25519(data string, msg, sig []byte) bool {
	return ed25519.Verify([]byte(data), msg, sig)
}

func generateEd25519() (PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return PrivateKey{}, err
	}
	return newEd25519(key), nil
}

// parseEd25519Private checks that the public half belongs to the seed: signing
// with another one would disclose the key.
func parseEd25519Private(data []byte) (PrivateKey, error) {
	switch len(data) {
	case ed25519PrivateLen:
	case ed25519LegacyLen:
		if !bytes.Equal(data[ed25519PrivateLen:], data[ed25519PrivateLen-ed25519PublicLen:ed25519PrivateLen]) {
			return PrivateKey{}, errors.New("the two public keys in an Ed25519 key of 96 bytes differ")
		}
		data = data[:ed25519PrivateLen]
	default:
		return PrivateKey{}, fmt.Errorf("an Ed25519 private key has %d bytes, not %d", ed25519PrivateLen, len(data))
	}
	key := ed25519.NewKeyFromSeed(data[:ed25519.SeedSize])
	if !bytes.Equal(key, data) {
		return PrivateKey{}, errors.New("the public half of an Ed25519 key is not that of its seed")
	}
	return newEd25519(key), nil
}

func newEd25519(key ed25519.PrivateKey) PrivateKey {
	public := key[ed25519.SeedSize:]
	return newPrivateKey(Ed25519, key, public, func(msg []byte) ([]byte, error) {
		return ed25519.Sign(key, msg), nil
	})
}
