package peer

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
)

// ecdsaHeader is all that precedes the uncompressed point in the PKIX structure
// of a P-256 key: the object identifiers of EC keys and of the curve, and the
// head of a bit string. https://www.rfc-editor.org/rfc/rfc5480#section-2
var ecdsaHeader = []byte("\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00")

const (
	ecdsaPointLen = 65

	// ecdsaMaxPrivate bounds what is parsed of a private key, in bytes. The
	// structure takes 121 with the curve and the public key in it.
	ecdsaMaxPrivate = 256
)

// parseECDSAPublic accepts keys on P-256 with an uncompressed point, which is
// what all implementations make and the only curve that rust-libp2p accepts.
func parseECDSAPublic(data []byte) (*ecdsa.PublicKey, error) {
	point, ok := bytes.CutPrefix(data, ecdsaHeader)
	if !ok || len(point) != ecdsaPointLen {
		return nil, errors.New("an ECDSA key is not an uncompressed point on P-256 in PKIX")
	}
	return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
}

func verifyECDSA(data string, msg, sig []byte) bool {
	key, err := parseECDSAPublic([]byte(data))
	if err != nil {
		return false
	}
	hash := sha256.Sum256(msg)
	return ecdsa.VerifyASN1(key, hash[:], sig)
}

func generateECDSA() (PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return PrivateKey{}, err
	}
	return newECDSA(key)
}

// parseECDSAPrivate reads a SEC 1 structure: the specification says PKIX, but
// its test vector and all implementations have SEC 1. The structure has to be
// the one that its scalar has, which tells a damaged public half.
func parseECDSAPrivate(data []byte) (PrivateKey, error) {
	if len(data) > ecdsaMaxPrivate {
		return PrivateKey{}, fmt.Errorf("an ECDSA private key has at most %d bytes, not %d", ecdsaMaxPrivate, len(data))
	}
	key, err := x509.ParseECPrivateKey(data)
	if err != nil {
		return PrivateKey{}, errors.New("an ECDSA private key is not a SEC 1 structure that names its curve")
	}
	if key.Curve != elliptic.P256() {
		return PrivateKey{}, errors.New("an ECDSA private key is not on the curve P-256")
	}
	again, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return PrivateKey{}, err
	}
	if !bytes.Equal(again, data) {
		return PrivateKey{}, errors.New("the public half of an ECDSA private key is missing, or not its own")
	}
	return newECDSA(key)
}

func newECDSA(key *ecdsa.PrivateKey) (PrivateKey, error) {
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return PrivateKey{}, err
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		return PrivateKey{}, err
	}
	public := append(bytes.Clone(ecdsaHeader), point...)
	return newPrivateKey(ECDSA, private, public, func(msg []byte) ([]byte, error) {
		hash := sha256.Sum256(msg)
		return ecdsa.SignASN1(rand.Reader, key, hash[:])
	}), nil
}
