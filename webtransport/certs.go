package webtransport

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

const (
	// certSkew is by how much the clock of a remote may differ from ours.
	certSkew = time.Hour

	// certPeriod is for how long a certificate is the current one.
	certPeriod = maxValidity - 2*certSkew

	// maxValidity is how long a certificate may be valid. Both ends count, so
	// ours are a second shorter than the difference allows.
	// https://www.w3.org/TR/webtransport/#custom-certificate-requirements
	maxValidity = 14 * 24 * time.Hour

	// maxCertificate bounds a certificate of others, in bytes; ours take 0.3 KiB.
	maxCertificate = 4 << 10

	// certInfo sets what is derived from the host key here apart from what is
	// derived from it for other purposes. To change it is to change every address.
	certInfo = "kith webtransport certificate"
)

// certs are the certificates that a host key has, at any time.
type certs struct {
	secret []byte        // the private key of the host
	offset time.Duration // hosts do not all change their certificates at once

	mu     sync.Mutex // held while a rotation is computed
	latest atomic.Pointer[rotation]
}

// A rotation is what is said and done between two changes of the certificate.
type rotation struct {
	from, until time.Time
	config      *tls.Config    // with the current certificate
	hashes      [][]byte       // multihashes of the last, the current and the next one
	suffix      multiaddr.Addr // /certhash/current/certhash/next
}

func newCerts(key peer.PrivateKey) (*certs, error) {
	c := &certs{secret: key.Marshal()}
	b, err := hkdf.Key(sha256.New, c.secret, nil, certInfo+" offset", 8)
	if err != nil {
		return nil, fmt.Errorf("webtransport: deriving from the host key: %w", err)
	}
	const seconds = uint64(certPeriod / time.Second)
	c.offset = time.Duration(binary.BigEndian.Uint64(b)%seconds) * time.Second
	return c, nil
}

// at returns the rotation to which now belongs: always the same for the same
// key and the same time.
func (c *certs) at(now time.Time) (*rotation, error) {
	if r := c.latest.Load(); r != nil && r.holds(now) {
		return r, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.latest.Load(); r != nil && r.holds(now) {
		return r, nil
	}
	r, err := c.compute(now)
	if err == nil {
		c.latest.Store(r)
	}
	return r, err
}

func (r *rotation) holds(now time.Time) bool { return !now.Before(r.from) && now.Before(r.until) }

func (c *certs) compute(now time.Time) (*rotation, error) {
	since := now.Sub(time.Unix(0, 0)) - c.offset
	number := int64(since / certPeriod)
	if since < 0 {
		return nil, fmt.Errorf("webtransport: the clock says %s: set it", now.Format(time.DateOnly))
	}
	r := &rotation{from: c.start(number), until: c.start(number + 1)}
	for i := number - 1; i <= number+1; i++ {
		cert, err := c.certificate(i)
		if err != nil {
			return nil, err
		}
		hash := certHash(cert.Certificate[0])
		r.hashes = append(r.hashes, hash)
		if i >= number {
			r.suffix = multiaddr.Join(r.suffix, certHashAddr(hash))
		}
		if i == number {
			r.config = &tls.Config{
				MinVersion:             tls.VersionTLS13,
				NextProtos:             []string{alpn},
				Certificates:           []tls.Certificate{cert},
				SessionTicketsDisabled: true,
			}
		}
	}
	return r, nil
}

// start is when a certificate becomes the current one.
func (c *certs) start(number int64) time.Time {
	return time.Unix(0, 0).Add(c.offset + time.Duration(number)*certPeriod).UTC()
}

// certificate makes a certificate, which is the same each time: all of its
// content is derived, and so is the nonce of the signature (RFC 6979).
func (c *certs) certificate(number int64) (tls.Certificate, error) {
	seed, err := hkdf.Key(sha256.New, c.secret, binary.BigEndian.AppendUint64(nil, uint64(number)), certInfo, 8+32)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("webtransport: deriving from the host key: %w", err)
	}
	key, err := p256Key(seed[8:])
	if err != nil {
		return tls.Certificate{}, err
	}
	start := c.start(number)
	template := &x509.Certificate{
		SerialNumber: new(big.Int).SetUint64(binary.BigEndian.Uint64(seed)>>1 | 1), // positive, as RFC 5280 wants
		NotBefore:    start.Add(-certSkew),
		NotAfter:     start.Add(certPeriod + certSkew - time.Second),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	// Without a source of randomness the signature is deterministic.
	der, err := x509.CreateCertificate(nil, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("webtransport: making a certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// p256Key makes a private key of 32 random bytes: they are the key unless
// they are zero or exceed the order of the curve, which is once in 2^32.
func p256Key(random []byte) (*ecdsa.PrivateKey, error) {
	for range 4 {
		if key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), random); err == nil {
			return key, nil
		}
		next := sha256.Sum256(random)
		random = next[:]
	}
	return nil, errors.New("webtransport: no key of P-256 follows from the host key")
}

// verifyHashed decides whether a server may use the certificates that it showed:
// the first of them must be one whose hash was expected, and of the kind that
// browsers accept too.
func verifyHashed(rawCerts [][]byte, expected [][]byte, now time.Time) error {
	if len(rawCerts) == 0 {
		return errors.New("webtransport: the server shows no certificate")
	}
	if len(rawCerts[0]) > maxCertificate {
		return fmt.Errorf("webtransport: the server's certificate has %d bytes: at most %d are accepted", len(rawCerts[0]), maxCertificate)
	}
	if hash := certHash(rawCerts[0]); !containsHash(expected, hash) {
		return &HashError{Got: hash, Want: expected}
	}
	cert, err := x509.ParseCertificate(rawCerts[0])
	if err != nil {
		return fmt.Errorf("webtransport: the server's certificate: %w", err)
	}
	if _, ok := cert.PublicKey.(*ecdsa.PublicKey); !ok {
		return fmt.Errorf("webtransport: the server's certificate has a key of kind %s: it must be ECDSA", cert.PublicKeyAlgorithm)
	}
	if validity := cert.NotAfter.Sub(cert.NotBefore); validity > maxValidity {
		return fmt.Errorf("webtransport: the server's certificate is valid for %v: at most %v are allowed", validity, maxValidity)
	}
	if now.Before(cert.NotBefore) || now.After(cert.NotAfter) {
		return fmt.Errorf("webtransport: the server's certificate is valid from %s to %s, and it is %s: ask for the peer's newest address, and see that the clocks are right",
			cert.NotBefore.Format(time.RFC3339), cert.NotAfter.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}
