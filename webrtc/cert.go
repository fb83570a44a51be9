package webrtc

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"io"
	"math/big"
	"time"

	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// A change of any of these changes the addresses of every node.
const (
	certLabel = "kith webrtc-direct certificate v1"
	certName  = "kith"
)

// The certificate must say when it is valid; nobody looks, since its hash is what
// is trusted, and a hash that changed would make published addresses useless.
var (
	certNotBefore = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	certNotAfter  = time.Date(2120, 1, 1, 0, 0, 0, 0, time.UTC)
)

// multihashSHA256 starts the multihash of a certificate.
// https://github.com/multiformats/multicodec/blob/master/table.csv
const multihashSHA256 = "\x12\x20"

// A certificate is what a side shows in DTLS, and the multihash by which it is known.
type certificate struct {
	tls  tls.Certificate
	hash string
}

// newCertificate derives a certificate from the identity key: the same one for
// the same key, so that addresses that hold its hash stay true after a restart
// without a file.
func newCertificate(key peer.PrivateKey) (certificate, error) {
	secret := key.Marshal()
	var private *ecdsa.PrivateKey
	for i := byte(0); private == nil; i++ { // one of 2^32 values is no key of P-256
		raw, err := hkdf.Key(sha256.New, secret, nil, certLabel+string([]byte{i}), 32)
		if err != nil {
			return certificate{}, fmt.Errorf("webrtc: the certificate's key: %w", err)
		}
		private, err = ecdsa.ParseRawPrivateKey(elliptic.P256(), raw)
		if err != nil && i == 255 {
			return certificate{}, fmt.Errorf("webrtc: the certificate's key: %w", err)
		}
	}
	template := &x509.Certificate{
		SerialNumber:       big.NewInt(1),
		Subject:            pkix.Name{CommonName: certName},
		NotBefore:          certNotBefore,
		NotAfter:           certNotAfter,
		KeyUsage:           x509.KeyUsageDigitalSignature,
		ExtKeyUsage:        []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		SignatureAlgorithm: x509.ECDSAWithSHA256,
	}
	der, err := x509.CreateCertificate(nil, template, template, private.Public(), deterministic{private})
	if err != nil {
		return certificate{}, fmt.Errorf("webrtc: the certificate: %w", err)
	}
	return certificate{
		tls:  tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private},
		hash: certHash(der),
	}, nil
}

// deterministic signs without randomness, as RFC 6979 says.
type deterministic struct{ *ecdsa.PrivateKey }

func (d deterministic) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return d.PrivateKey.Sign(nil, digest, opts)
}

// certHash is the multihash of a certificate, in binary.
func certHash(der []byte) string {
	sum := sha256.Sum256(der)
	return multihashSHA256 + string(sum[:])
}

func certHashComponent(hash string) (multiaddr.Addr, error) {
	c, err := multiaddr.NewComponent(multiaddr.CertHash, hashText(hash))
	if err != nil {
		return multiaddr.Addr{}, err
	}
	return c.Addr(), nil
}

// hashText is the text of a certificate's hash, in multibase.
func hashText(hash string) string { return "u" + base64.RawURLEncoding.EncodeToString([]byte(hash)) }

// prologue binds the Noise handshake to the certificates of both sides.
// https://github.com/libp2p/specs/blob/master/webrtc/webrtc-direct.md#connection-security
func prologue(dialer, listener string) []byte {
	return []byte("libp2p-webrtc-noise:" + dialer + listener)
}
