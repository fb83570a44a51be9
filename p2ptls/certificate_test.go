package p2ptls

import (
	"bytes"
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
	"encoding/hex"
	"encoding/json"
	"math/big"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kith-p2p/kith/peer"
)

type vector struct {
	Name, Cert, Peer, Error string
}

func vectors(tb testing.TB) []vector {
	tb.Helper()
	data, err := os.ReadFile("../testdata/vectors/tls.json")
	if err != nil {
		tb.Fatal(err)
	}
	var file struct{ Vectors []vector }
	if err := json.Unmarshal(data, &file); err != nil {
		tb.Fatal(err)
	}
	if len(file.Vectors) != 10 {
		tb.Fatalf("%d vectors, want 10", len(file.Vectors))
	}
	return file.Vectors
}

func TestVectors(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			der, err := hex.DecodeString(v.Cert)
			if err != nil {
				t.Fatal(err)
			}
			key, err := verifyDER(der, time.Now())
			if v.Error != "" {
				wantError(t, err, v.Error)
				return
			}
			if err != nil || key.ID().String() != v.Peer {
				t.Fatalf("peer %v, %v; want %v", key.ID(), err, v.Peer)
			}
			if len(der) > 1000 {
				return // RSA takes its time
			}
			// One changed byte anywhere breaks it: crypto/x509 refuses it or one of
			// the two signatures does.
			for i := range der {
				bad := bytes.Clone(der)
				bad[i] ^= 0x01
				if _, err := verifyDER(bad, time.Now()); err == nil {
					t.Errorf("valid with another byte %d", i)
				}
			}
		})
	}
}

func TestOwnCertificate(t *testing.T) {
	now := time.Now()
	for _, typ := range keyTypes {
		key := newKey(t, typ)
		made, err := newCertificate(key, now)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(made.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		got, err := verifyChain([]*x509.Certificate{cert}, now)
		if err != nil || got != key.Public() {
			t.Errorf("%v: %v, %v", typ, got, err)
		}
		// js-libp2p takes the first extension to be ours.
		if len(cert.Extensions) != 1 || !cert.Extensions[0].Id.Equal(keyExtension) || cert.Extensions[0].Critical {
			t.Errorf("%v: extensions %v", typ, cert.Extensions)
		}
		if cert.SerialNumber.Sign() < 0 || cert.Subject.SerialNumber == "" || !bytes.Equal(cert.RawIssuer, cert.RawSubject) {
			t.Errorf("%v: serial number %v, subject %v, issuer %v", typ, cert.SerialNumber, cert.Subject, cert.Issuer)
		}
		if d := now.Sub(cert.NotBefore); d < time.Hour || d > time.Hour+time.Second {
			t.Errorf("%v: dated back by %v", typ, d)
		}
		if cert.NotAfter.Before(now.AddDate(99, 0, 0)) {
			t.Errorf("%v: valid until %v", typ, cert.NotAfter)
		}
		if pub, ok := cert.PublicKey.(*ecdsa.PublicKey); !ok || pub.Curve != elliptic.P256() {
			t.Errorf("%v: certificate key %T", typ, cert.PublicKey)
		}
		if s := string(made.Certificate[0]); strings.Contains(s, string(key.Marshal())) {
			t.Errorf("%v: the private key is in the certificate", typ)
		}
	}
}

// A forger makes certificates. The zero value makes valid ones.
type forger struct {
	host      peer.PrivateKey                // zero: the forger makes one
	key       crypto.Signer                  // of the certificate; nil: P-256
	signer    crypto.Signer                  // of the certificate; nil: key
	extension func(v []byte) []byte          // changes the value of the libp2p extension
	template  func(*x509.Certificate)        // changes what is to be signed
	der       func(der []byte) []byte        // changes the whole
	vouched   func() (pkix.Extension, error) // makes the libp2p extension; nil: as it should be
}

func (f forger) cert(tb testing.TB) tls.Certificate {
	tb.Helper()
	if f.host.IsZero() {
		f.host = newKey(tb, peer.Ed25519)
	}
	if f.key == nil {
		f.key = newP256(tb)
	}
	if f.signer == nil {
		f.signer = f.key
	}
	if f.vouched == nil {
		f.vouched = func() (pkix.Extension, error) { return newExtension(f.host, f.key.Public()) }
	}
	extension, err := f.vouched()
	if err != nil {
		tb.Fatal(err)
	}
	if f.extension != nil {
		extension.Value = f.extension(extension.Value)
	}
	template := &x509.Certificate{
		SerialNumber:    big.NewInt(1),
		Subject:         pkix.Name{SerialNumber: "1"},
		NotBefore:       time.Now().Add(-time.Hour),
		NotAfter:        time.Now().Add(time.Hour),
		ExtraExtensions: []pkix.Extension{extension},
	}
	if f.template != nil {
		f.template(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, f.key.Public(), f.signer)
	if err != nil {
		tb.Fatal(err)
	}
	if f.der != nil {
		der = f.der(der)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: f.key}
}

func addExtension(id int, critical bool, size int) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{
			Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 53594, 1, id}, Critical: critical, Value: make([]byte, size),
		})
	}
}

func TestAcceptedCertificates(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]forger{
		"P-256":                    {},
		"P-384":                    {key: newECDSA(t, elliptic.P384())},
		"P-521":                    {key: newECDSA(t, elliptic.P521())},
		"Ed25519":                  {key: ed},
		"RSA 2048":                 {key: newRSA(t)},
		"RSA 2048 PSS":             {key: newRSA(t), template: func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA256WithRSAPSS }},
		"critical":                 {template: func(c *x509.Certificate) { c.ExtraExtensions[0].Critical = true }},
		"unknown extension":        {template: addExtension(2, false, 10)},
		"known critical extension": {template: func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature; c.BasicConstraintsValid = true }},
		"clock behind":             {template: func(c *x509.Certificate) { c.NotBefore = time.Now().Add(clockSlack - time.Minute) }},
		"clock ahead":              {template: func(c *x509.Certificate) { c.NotAfter = time.Now().Add(time.Minute - clockSlack) }},
		"almost too large":         {template: addExtension(2, false, 3600)},
	} {
		if _, err := verifyDER(f.cert(t).Certificate[0], time.Now()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRefusedCertificates(t *testing.T) {
	host := newKey(t, peer.Ed25519)
	key := newP256(t)
	seq := func(parts ...[]byte) []byte {
		der, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: bytes.Join(parts, nil)})
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	octets := func(b []byte) []byte {
		der, err := asn1.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	signed := func(msg []byte) (pkix.Extension, error) {
		sig, err := host.Sign(msg)
		return pkix.Extension{Id: keyExtension, Value: seq(octets(host.Public().Marshal()), octets(sig))}, err
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		forger
		want string
	}{
		"expired":              {forger{template: func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-clockSlack - time.Minute) }}, "expired"},
		"not yet valid":        {forger{template: func(c *x509.Certificate) { c.NotBefore = time.Now().Add(clockSlack + time.Minute) }}, "not valid before"},
		"signed by another":    {forger{signer: newP256(t)}, "not signed by its own key"},
		"no extension":         {forger{template: func(c *x509.Certificate) { c.ExtraExtensions = nil }}, "no libp2p Public Key Extension"},
		"two extensions":       {forger{template: func(c *x509.Certificate) { c.ExtraExtensions = append(c.ExtraExtensions, c.ExtraExtensions[0]) }}, "duplicate extension"},
		"another's extension":  {forger{vouched: func() (pkix.Extension, error) { return newExtension(host, newP256(t).Public()) }}, "not signed by the host key"},
		"no prefix":            {forger{key: key, vouched: func() (pkix.Extension, error) { return signed(spki) }}, "not signed by the host key"},
		"prefix of Noise":      {forger{key: key, vouched: func() (pkix.Extension, error) { return signed(append([]byte("noise-libp2p-static-key:"), spki...)) }}, "not signed by the host key"},
		"unknown and critical": {forger{template: addExtension(2, true, 10)}, "unknown critical extension"},
		"too large":            {forger{template: addExtension(2, false, maxCertificate)}, "over the limit of 4096"},
		"P-224":                {forger{key: newECDSA(t, elliptic.P224())}, "curve P-224"},
		"RSA 1024":             {forger{key: weak}, "RSA key of 1024 bits"},
		"extension empty":      {forger{extension: func([]byte) []byte { return nil }}, "Public Key Extension"},
		"extension cut":        {forger{extension: func(v []byte) []byte { return v[:len(v)-1] }}, "Public Key Extension"},
		"extension too long":   {forger{extension: func(v []byte) []byte { return append(v, 0) }}, "not one SEQUENCE"},
		"extension a SET":      {forger{extension: func(v []byte) []byte { return append([]byte{0x31}, v[1:]...) }}, "not one SEQUENCE"},
		"three elements":       {forger{extension: func(v []byte) []byte { return seq(v[2:], octets(nil)) }}, "more than a key and a signature"},
		"one element":          {forger{extension: func(v []byte) []byte { return seq(octets(host.Public().Marshal())) }}, "Public Key Extension"},
		"swapped":              {forger{extension: func(v []byte) []byte { return seq(octets(make([]byte, 64)), octets(host.Public().Marshal())) }}, "peer:"},
		"another type":         {forger{extension: func(v []byte) []byte { return seq([]byte{asn1.TagUTF8String, 0}, octets(nil)) }}, "Public Key Extension"},
		"not a key":            {forger{extension: func(v []byte) []byte { return seq(octets([]byte{8, 1}), octets(nil)) }}, "peer:"},
		"no signature":         {forger{extension: func(v []byte) []byte { return seq(octets(host.Public().Marshal()), octets(nil)) }}, "not signed by the host key"},
		"not DER":              {forger{der: func(der []byte) []byte { return append(der, 0) }}, "trailing data"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := verifyDER(c.cert(t).Certificate[0], time.Now())
			wantError(t, err, c.want)
		})
	}
	// RSA keys above the limit are refused before a signature of theirs is checked.
	large := &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), maxRSABits), E: 65537}
	wantError(t, checkKey(large), "RSA key of 4097 bits")
	wantError(t, checkKey("a key"), "unknown type")
}

func TestChainOfOne(t *testing.T) {
	cert, err := x509.ParseCertificate(forger{}.cert(t).Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	_, err = verifyChain(nil, time.Now())
	wantError(t, err, "sent 0 certificates")
	_, err = verifyChain([]*x509.Certificate{cert, cert}, time.Now())
	wantError(t, err, "sent 2 certificates")
}

// verifyDER is what happens to a certificate that arrives.
func verifyDER(der []byte, now time.Time) (peer.PublicKey, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return peer.PublicKey{}, err
	}
	return verifyChain([]*x509.Certificate{cert}, now)
}

var keyTypes = []peer.KeyType{peer.Ed25519, peer.Secp256k1, peer.ECDSA, peer.RSA}

// rsaHost is the same for hosts.
var rsaHost = sync.OnceValues(func() (peer.PrivateKey, error) { return peer.GenerateKey(peer.RSA) })

func newKey(tb testing.TB, t peer.KeyType) peer.PrivateKey {
	tb.Helper()
	generate := func() (peer.PrivateKey, error) { return peer.GenerateKey(t) }
	if t == peer.RSA {
		generate = rsaHost
	}
	key, err := generate()
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func newECDSA(tb testing.TB, curve elliptic.Curve) crypto.Signer {
	tb.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func newP256(tb testing.TB) crypto.Signer { return newECDSA(tb, elliptic.P256()) }

// rsaKey takes a while to make, and is the same for all.
var rsaKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

func newRSA(tb testing.TB) crypto.Signer {
	tb.Helper()
	key, err := rsaKey()
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// wantError fails unless err says what.
func wantError(tb testing.TB, err error, what string) {
	tb.Helper()
	if err == nil || !strings.Contains(err.Error(), what) {
		tb.Errorf("error %v, want one that says %q", err, what)
	}
}
