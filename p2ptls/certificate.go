package p2ptls

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/kith-p2p/kith/peer"
)

const (
	// signaturePrefix is put before the certificate's key and signed with it.
	// https://github.com/libp2p/specs/blob/master/tls/tls.md#libp2p-public-key-extension
	signaturePrefix = "libp2p-tls-handshake:"

	// maxCertificate is the largest certificate accepted, in bytes. The worst
	// sensible one takes 3.4 KiB: an RSA host key of 8192 bits and its signature
	// (1 KiB each), and an RSA certificate key of maxRSABits and its signature
	// (0.5 KiB each). With our own P-256 keys such a host's certificate has 2.4 KiB.
	maxCertificate = 4 << 10

	// RSA certificate keys that are weak or slow are refused. Nobody is known to
	// use RSA here, the specification advises against it.
	minRSABits = 2048
	maxRSABits = 4096

	// clockSlack is how far two clocks may be apart beyond the hour by which
	// certificates are dated back. It is what Kerberos allows.
	clockSlack = 5 * time.Minute

	// Our certificate is valid from an hour ago for 100 years: no clock is that
	// wrong, and no process runs that long.
	backdated = time.Hour
	validity  = 100 * 365 * 24 * time.Hour
)

// keyExtension is the OID of the libp2p Public Key Extension.
// https://github.com/libp2p/specs/blob/master/tls/tls.md#libp2p-public-key-extension
var keyExtension = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 53594, 1, 1}

// newCertificate makes a key of its own and a certificate for it that key vouches
// for. The extension is the only one: js-libp2p looks for it in the first place.
func newCertificate(key peer.PrivateKey, now time.Time) (tls.Certificate, error) {
	certKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	extension, err := newExtension(key, certKey.Public())
	if err != nil {
		return tls.Certificate{}, err
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		// The issuer, here also the subject, must not be empty (RFC 5280, 4.1.2.4).
		Subject:         pkix.Name{SerialNumber: serial.String()},
		NotBefore:       now.Add(-backdated),
		NotAfter:        now.Add(validity),
		ExtraExtensions: []pkix.Extension{extension},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, certKey.Public(), certKey)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: certKey}, nil
}

// signedKey is what the extension holds.
type signedKey struct {
	PublicKey []byte // protobuf
	Signature []byte
}

// newExtension lets key vouch for the certificate key certKey.
func newExtension(key peer.PrivateKey, certKey crypto.PublicKey) (pkix.Extension, error) {
	spki, err := x509.MarshalPKIXPublicKey(certKey)
	if err != nil {
		return pkix.Extension{}, err
	}
	sig, err := key.Sign(append([]byte(signaturePrefix), spki...))
	if err != nil {
		return pkix.Extension{}, err
	}
	value, err := asn1.Marshal(signedKey{PublicKey: key.Public().Marshal(), Signature: sig})
	if err != nil {
		return pkix.Extension{}, err
	}
	return pkix.Extension{Id: keyExtension, Value: value}, nil
}

// verifyChain returns the host key for which a peer's certificates speak. What
// it does not check is that the peer has the certificate's key: TLS does.
func verifyChain(chain []*x509.Certificate, now time.Time) (peer.PublicKey, error) {
	if len(chain) != 1 {
		return peer.PublicKey{}, fmt.Errorf("peer sent %d certificates, it must be one", len(chain))
	}
	key, err := verifyCertificate(chain[0], now)
	if err != nil {
		return peer.PublicKey{}, fmt.Errorf("peer's certificate: %w", err)
	}
	return key, nil
}

// verifyCertificate is the part of "Peer Authentication" that concerns one
// certificate, cheap checks first. There is no path to build and no name to
// match, so nothing of crypto/x509's verifier is needed.
// https://github.com/libp2p/specs/blob/master/tls/tls.md#peer-authentication
func verifyCertificate(cert *x509.Certificate, now time.Time) (peer.PublicKey, error) {
	if len(cert.Raw) > maxCertificate {
		return peer.PublicKey{}, fmt.Errorf("%d bytes are over the limit of %d", len(cert.Raw), maxCertificate)
	}
	if now.Add(clockSlack).Before(cert.NotBefore) {
		return peer.PublicKey{}, fmt.Errorf("not valid before %v, it is %v here", cert.NotBefore, now.UTC())
	}
	if now.Add(-clockSlack).After(cert.NotAfter) {
		return peer.PublicKey{}, fmt.Errorf("expired at %v, it is %v here", cert.NotAfter, now.UTC())
	}
	if err := checkKey(cert.PublicKey); err != nil {
		return peer.PublicKey{}, err
	}
	for _, id := range cert.UnhandledCriticalExtensions {
		if !id.Equal(keyExtension) {
			return peer.PublicKey{}, fmt.Errorf("unknown critical extension %v", id)
		}
	}
	key, sig, err := certificateKey(cert)
	if err != nil {
		return peer.PublicKey{}, err
	}
	if !key.Verify(append([]byte(signaturePrefix), cert.RawSubjectPublicKeyInfo...), sig) {
		return peer.PublicKey{}, fmt.Errorf("not signed by the host key of %v", key.ID())
	}
	if err := cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature); err != nil {
		return peer.PublicKey{}, fmt.Errorf("not signed by its own key: %w", err)
	}
	return key, nil
}

// checkKey refuses certificate keys that the specification's implementations do
// not share, and those that are weak or slow.
func checkKey(key any) error {
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return nil
		}
		return fmt.Errorf("key on the curve %s, not P-256, P-384 or P-521", key.Curve.Params().Name)
	case ed25519.PublicKey:
		return nil
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return fmt.Errorf("RSA key of %d bits, not %d to %d", bits, minRSABits, maxRSABits)
		}
		return nil
	}
	return errors.New("key of an unknown type")
}

// certificateKey returns what the libp2p Public Key Extension says, unverified.
// crypto/x509 has made sure that there is at most one.
func certificateKey(cert *x509.Certificate) (peer.PublicKey, []byte, error) {
	for _, ext := range cert.Extensions {
		if ext.Id.Equal(keyExtension) {
			return parseExtension(ext.Value)
		}
	}
	return peer.PublicKey{}, nil, errors.New("no libp2p Public Key Extension")
}

// parseExtension decodes a signedKey, with nothing before, behind or inside it
// that does not belong there. (asn1 alone lets a SEQUENCE go on.)
func parseExtension(value []byte) (peer.PublicKey, []byte, error) {
	var signed signedKey
	var seq asn1.RawValue
	rest, err := asn1.Unmarshal(value, &seq)
	if err == nil && (len(rest) > 0 || seq.Class != asn1.ClassUniversal || seq.Tag != asn1.TagSequence || !seq.IsCompound) {
		err = errors.New("not one SEQUENCE")
	}
	if err == nil {
		rest, err = asn1.Unmarshal(seq.Bytes, &signed.PublicKey)
	}
	if err == nil {
		rest, err = asn1.Unmarshal(rest, &signed.Signature)
	}
	if err == nil && len(rest) > 0 {
		err = errors.New("more than a key and a signature")
	}
	if err != nil {
		return peer.PublicKey{}, nil, fmt.Errorf("libp2p Public Key Extension: %w", err)
	}
	key, err := peer.UnmarshalPublicKey(signed.PublicKey)
	if err != nil {
		return peer.PublicKey{}, nil, err
	}
	return key, signed.Signature, nil
}
