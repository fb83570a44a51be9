package p2ptls

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"net"
	"testing"
	"time"

	"github.com/kith-p2p/kith/peer"
)

func FuzzExtension(f *testing.F) {
	for _, v := range vectors(f) {
		der, err := hex.DecodeString(v.Cert)
		if err != nil {
			f.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(cert.Extensions[0].Value)
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		key, sig, err := parseExtension(value)
		if err != nil {
			return
		}
		again, err := asn1.Marshal(signedKey{PublicKey: key.Marshal(), Signature: sig})
		if err != nil || !bytes.Equal(again, value) {
			t.Errorf("%x decodes and encodes again as %x, %v", value, again, err)
		}
	})
}

func FuzzVerifyCertificate(f *testing.F) {
	valid := map[string]bool{}
	for _, v := range vectors(f) {
		der, err := hex.DecodeString(v.Cert)
		if err != nil {
			f.Fatal(err)
		}
		valid[string(der)] = v.Error == ""
		f.Add(der)
	}
	f.Add(forger{template: addExtension(2, true, 10)}.cert(f).Certificate[0])
	f.Fuzz(func(t *testing.T, der []byte) {
		key, err := verifyDER(der, time.Now())
		if err != nil {
			return
		}
		// Nobody forges two signatures by accident.
		if key.IsZero() || !valid[string(der)] {
			t.Errorf("a certificate for %v is accepted: %x", key.ID(), der)
		}
	})
}

// recorded are what client and server send in a handshake and for one message.
func recorded(tb testing.TB) (client, server []byte) {
	tb.Helper()
	cc, sc := net.Pipe()
	defer cc.Close()
	defer sc.Close()
	rc, rs := &recorder{Conn: cc}, &recorder{Conn: sc}
	c, s := handshakes(tb, newTransport(tb, peer.Ed25519), newTransport(tb, peer.ECDSA), rc, rs, Config{Muxers: []string{yamux}})
	go c.Write([]byte("hello"))
	if _, err := s.ReadRecord(nil); err != nil {
		tb.Fatal(err)
	}
	return rc.wrote, rs.wrote
}

type recorder struct {
	net.Conn
	wrote []byte
}

func (r *recorder) Write(p []byte) (int, error) {
	r.wrote = append(r.wrote, p...)
	return r.Conn.Write(p)
}

// Whatever a peer sends, without the keys it cannot finish a handshake, and we
// read no more than we should.
func FuzzServerHandshake(f *testing.F) {
	client, server := recorded(f)
	f.Add(client)
	f.Add(client[:len(client)/2])
	f.Add(server)
	f.Add(stripALPN(f, client, yamux))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	us := newTransport(f, peer.Ed25519)
	f.Fuzz(func(t *testing.T, in []byte) {
		fuzzHandshake(t, us.Server, in)
	})
}

func FuzzClientHandshake(f *testing.F) {
	client, server := recorded(f)
	f.Add(server)
	f.Add(server[:len(server)/2])
	f.Add(client)
	f.Add([]byte{21, 3, 3, 0, 2, 2, 40}) // an alert
	us := newTransport(f, peer.Ed25519)
	f.Fuzz(func(t *testing.T, in []byte) {
		fuzzHandshake(t, us.Client, in)
	})
}

func fuzzHandshake(t *testing.T, side func(context.Context, net.Conn, Config) (*Conn, error), in []byte) {
	s := &script{in: in}
	if c, err := side(t.Context(), s, Config{Muxers: []string{yamux}}); err == nil {
		t.Errorf("a handshake with %v, who was not there", c.RemotePeer())
	}
	if read := len(in) - len(s.in); read > maxHandshake+smallBuffer {
		t.Errorf("%d bytes were read", read)
	}
}
