package peer

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
)

const (
	// Below 2048 bits a key can be broken with effort; above 8192 its signatures
	// are a way to burn a peer's processor (CVE-2023-39533).
	rsaMinBits = 2048
	rsaMaxBits = 8192

	rsaGenerateBits = 2048

	// rsaMaxExponent is the exponent that everybody uses. A larger one only makes
	// verification slower.
	rsaMaxExponent = 65537

	// rsaMaxPublic is the length in bytes of the PKIX structure of a key of 8192
	// bits. Longer ones are refused unread.
	rsaMaxPublic = 1062

	// rsaMaxPrivate is the same for the PKCS #1 structure of a private key: nine
	// integers, of which two are as long as the modulus and five half as long.
	rsaMaxPrivate = 4800
)

// parseRSAPublic accepts the PKIX structure that it would write itself.
func parseRSAPublic(data []byte) (*rsa.PublicKey, error) {
	if len(data) > rsaMaxPublic {
		return nil, fmt.Errorf("an RSA key of %d bytes is over the limit of %d (%d bits)", len(data), rsaMaxPublic, rsaMaxBits)
	}
	parsed, err := x509.ParsePKIXPublicKey(data)
	if err != nil {
		return nil, errors.New("an RSA key is not a PKIX structure")
	}
	key, ok := parsed.(*rsa.PublicKey)
	if !ok {
		return nil, errors.New("a key that is not RSA is labelled so")
	}
	if err := checkRSA(key); err != nil {
		return nil, err
	}
	again, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, data) {
		return nil, errors.New("an RSA key is not in canonical DER")
	}
	return key, nil
}

func checkRSA(key *rsa.PublicKey) error {
	switch bits := key.N.BitLen(); {
	case bits < rsaMinBits || bits > rsaMaxBits:
		return fmt.Errorf("an RSA key has %d to %d bits, not %d", rsaMinBits, rsaMaxBits, bits)
	case key.N.Bit(0) == 0:
		return errors.New("an RSA modulus is even")
	case key.E < 3 || key.E > rsaMaxExponent || key.E%2 == 0:
		return fmt.Errorf("an RSA exponent is odd and from 3 to %d, not %d", rsaMaxExponent, key.E)
	}
	return nil
}

func verifyRSA(data string, msg, sig []byte) bool {
	parsed, err := x509.ParsePKIXPublicKey([]byte(data)) // checked when it was unmarshalled
	if err != nil {
		return false
	}
	key, ok := parsed.(*rsa.PublicKey)
	if !ok {
		return false
	}
	hash := sha256.Sum256(msg)
	return rsa.VerifyPKCS1v15(key, crypto.SHA256, hash[:], sig) == nil
}

func generateRSA() (PrivateKey, error) {
	key, err := rsa.GenerateKey(rand.Reader, rsaGenerateBits)
	if err != nil {
		return PrivateKey{}, err
	}
	return newRSA(key)
}

func parseRSAPrivate(data []byte) (PrivateKey, error) {
	if len(data) > rsaMaxPrivate {
		return PrivateKey{}, fmt.Errorf("an RSA private key of %d bytes is over the limit of %d", len(data), rsaMaxPrivate)
	}
	key, err := x509.ParsePKCS1PrivateKey(data)
	if err != nil {
		return PrivateKey{}, errors.New("an RSA private key is not a valid PKCS #1 structure")
	}
	if len(key.Primes) != 2 {
		return PrivateKey{}, fmt.Errorf("an RSA private key has two primes, not %d", len(key.Primes))
	}
	if err := checkRSA(&key.PublicKey); err != nil {
		return PrivateKey{}, err
	}
	return newRSA(key)
}

func newRSA(key *rsa.PrivateKey) (PrivateKey, error) {
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return PrivateKey{}, err
	}
	private := x509.MarshalPKCS1PrivateKey(key)
	return newPrivateKey(RSA, private, public, func(msg []byte) ([]byte, error) {
		hash := sha256.Sum256(msg)
		return rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, hash[:])
	}), nil
}
