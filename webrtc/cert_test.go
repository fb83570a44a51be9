package webrtc

import (
	"crypto/x509"
	"encoding/hex"
	"testing"

	"github.com/kith-p2p/kith/peer"
)

// The vector of https://github.com/libp2p/specs/blob/master/webrtc/webrtc-direct.md#noise-prologue.
func TestPrologue(t *testing.T) {
	unhex := func(s string) string {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	client := multihashSHA256 + unhex("3e79af40d6059617a0d83b83a52ce73b0c1f37a72c6043ad2969e2351bdca870")
	server := multihashSHA256 + unhex("30fc9f469c207419dfdd0aab5f27a86c973c94e40548db9375cca2e915973b99")
	want := "6c69627032702d7765627274632d6e6f6973653a12203e79af40d6059617a0d83b83a52ce73b0c1f37a72c6043ad2969e2351bdca870122030fc9f469c207419dfdd0aab5f27a86c973c94e40548db9375cca2e915973b99"
	if got := hex.EncodeToString(prologue(client, server)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestCertificateIsStable(t *testing.T) {
	for _, kind := range []peer.KeyType{peer.Ed25519, peer.Secp256k1, peer.ECDSA, peer.RSA} {
		key, err := peer.GenerateKey(kind)
		if err != nil {
			t.Fatal(err)
		}
		loaded, err := peer.UnmarshalPrivateKey(key.Marshal())
		if err != nil {
			t.Fatal(err)
		}
		a, err := newCertificate(key)
		if err != nil {
			t.Fatal(err)
		}
		b, err := newCertificate(loaded)
		if err != nil || a.hash != b.hash {
			t.Errorf("%s: the certificate is another after a restart: %v", kind, err)
		}
		cert, err := x509.ParseCertificate(a.tls.Certificate[0])
		if err != nil || cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
	// What this key gives is what every later version must give.
	key, err := peer.UnmarshalPrivateKey(fixedKey(t))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := newCertificate(key)
	if err != nil {
		t.Fatal(err)
	}
	if got := hashText(cert.hash); got != fixedHash {
		t.Errorf("the hash of the fixed key's certificate is %s, was %s: published addresses would be void", got, fixedHash)
	}
}

const fixedHash = "uEiADjX2v8vacr2i6nSooLRKa2ko6COcjbaS7G2vZFdNA_w"

// fixedKey is the Ed25519 key of https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md#test-vectors.
func fixedKey(t *testing.T) []byte {
	b, err := hex.DecodeString("080112407e0830617c4a7de83925dfb2694556b12936c477a0e1feb2e148ec9da60fee7d1ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e")
	if err != nil {
		t.Fatal(err)
	}
	return b
}
