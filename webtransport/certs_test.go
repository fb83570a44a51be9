package webtransport

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

var year2026 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// shownAt is the certificate that a server shows, and the hashes of its address.
func shownAt(t testing.TB, c *certs, now time.Time) (der []byte, dialed, proved [][]byte) {
	t.Helper()
	r, err := c.at(now)
	if err != nil {
		t.Fatal(err)
	}
	to, err := parseAddr(multiaddr.Join(multiaddr.MustParse("/ip4/192.0.2.1/udp/443/quic-v1/webtransport"), r.suffix))
	if err != nil {
		t.Fatal(err)
	}
	return r.config.Certificates[0].Certificate[0], to.hashes, r.hashes
}

// Over a year: an address works for the whole of the rotation in which it was
// made and for the whole of the next, for clients whose clocks are an hour off;
// and it works after a restart.
func TestRotationsOverAYear(t *testing.T) {
	for range 3 {
		key := newKey(t)
		c, err := newCerts(key)
		if err != nil {
			t.Fatal(err)
		}
		var changes []time.Time
		var before, beforeThat [][]byte // dialed hashes of the two rotations before
		var last []byte
		for now := year2026; now.Before(year2026.AddDate(1, 0, 0)); now = now.Add(time.Hour) {
			der, dialed, proved := shownAt(t, c, now)
			if len(dialed) != 2 || len(proved) != 3 || !bytes.Equal(dialed[0], proved[1]) || !bytes.Equal(dialed[1], proved[2]) {
				t.Fatalf("%v: the address has %d hashes, the handshake %d", now, len(dialed), len(proved))
			}
			if last != nil && !bytes.Equal(der, last) {
				changes = append(changes, now)
				beforeThat, before = before, nil
			}
			if before == nil {
				before = dialed
			}
			last = der
			old := append([][][]byte{dialed}, before)
			if beforeThat != nil {
				old = append(old, beforeThat)
			}
			for _, hashes := range old {
				for _, skew := range []time.Duration{0, -certSkew, certSkew - time.Second} {
					if err := verifyHashed([][]byte{der}, hashes, now.Add(skew)); err != nil {
						t.Fatalf("%v: clock off by %v: %v", now, skew, err)
					}
				}
				for _, h := range hashes {
					if !containsHash(proved, h) {
						t.Fatalf("%v: a published hash is not proved", now)
					}
				}
			}
			if now.Hour() == 0 && now.Day() == 1 { // a restart
				again, err := newCerts(key)
				if err != nil {
					t.Fatal(err)
				}
				if _, same, _ := shownAt(t, again, now); !slices.EqualFunc(dialed, same, bytes.Equal) {
					t.Fatalf("%v: other hashes after a restart", now)
				}
			}
		}
		if len(changes) < 26 || len(changes) > 27 {
			t.Errorf("the certificate changed %d times in a year", len(changes))
		}
		for i := 1; i < len(changes); i++ {
			if d := changes[i].Sub(changes[i-1]); d != certPeriod {
				t.Errorf("a certificate was used for %v", d)
			}
		}
	}
}

// At the very moment of a change, and with a clock that jumps back.
func TestRotationEdges(t *testing.T) {
	c, err := newCerts(fixedKey(t))
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.at(year2026)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		now  time.Time
		same bool
	}{{r.from, true}, {r.until.Add(-1), true}, {r.until, false}, {r.until.Add(-1), true}, {r.from.Add(-1), false}, {r.from, true}} {
		got, err := c.at(step.now)
		if err != nil {
			t.Fatal(err)
		}
		if same := got.suffix == r.suffix; same != step.same {
			t.Errorf("%v: same certificates: %v", step.now, same)
		}
		if !got.holds(step.now) {
			t.Errorf("%v is not between %v and %v", step.now, got.from, got.until)
		}
	}
	if _, err := c.at(time.Unix(-1e9, 0)); err == nil || !strings.Contains(err.Error(), "clock") {
		t.Errorf("before 1970: %v", err)
	}
	// Nearly free while nothing changes.
	if n := testing.AllocsPerRun(100, func() { c.at(r.from) }); n > 0 {
		t.Errorf("%v allocations to look at the certificates", n)
	}
}

// What browsers demand of a certificate.
// https://www.w3.org/TR/webtransport/#custom-certificate-requirements
func TestCertificateForBrowsers(t *testing.T) {
	for _, kind := range []peer.KeyType{peer.Ed25519, peer.Secp256k1, peer.ECDSA, peer.RSA} {
		key, err := peer.GenerateKey(kind)
		if err != nil {
			t.Fatal(err)
		}
		c, err := newCerts(key)
		if err != nil {
			t.Fatal(err)
		}
		der, _, _ := shownAt(t, c, year2026)
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		public, ok := cert.PublicKey.(*ecdsa.PublicKey)
		if !ok || public.Curve != elliptic.P256() || cert.Version != 3 || cert.SignatureAlgorithm != x509.ECDSAWithSHA256 {
			t.Errorf("%v: key %T, version %d, signature %v", kind, cert.PublicKey, cert.Version, cert.SignatureAlgorithm)
		}
		if d := cert.NotAfter.Sub(cert.NotBefore); d >= maxValidity {
			t.Errorf("%v: valid for %v", kind, d)
		}
		if err := cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature); err != nil {
			t.Errorf("%v: %v", kind, err)
		}
		if cert.SerialNumber.Sign() <= 0 {
			t.Errorf("%v: serial number %v", kind, cert.SerialNumber)
		}
	}
}

// Certificates must be the same for all time: with another release of Kith or of
// Go, addresses that are known would no longer work.
func TestCertificatesStay(t *testing.T) {
	c, err := newCerts(fixedKey(t))
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.at(year2026)
	if err != nil {
		t.Fatal(err)
	}
	const want = "/certhash/uEiDOdm1ZsnxB5DblkIdmcPnqRV2d4L4T9TDz46NHIupW6Q/certhash/uEiDPltX-uwqT8MGTer_MCggEVGyLLqxhCleER8u5fnzRFQ"
	if got := r.suffix.String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestHostsRotateAtDifferentTimes(t *testing.T) {
	var changes []time.Time
	for range 20 {
		c, err := newCerts(newKey(t))
		if err != nil {
			t.Fatal(err)
		}
		r, err := c.at(year2026)
		if err != nil {
			t.Fatal(err)
		}
		changes = append(changes, r.until)
	}
	slices.SortFunc(changes, time.Time.Compare)
	if n := len(slices.CompactFunc(changes, time.Time.Equal)); n < 20 {
		t.Errorf("20 hosts change their certificates at %d times", n)
	}
}

func TestP256Key(t *testing.T) {
	for name, random := range map[string][]byte{"zero": make([]byte, 32), "beyond the order": bytes.Repeat([]byte{0xff}, 32), "one": append(make([]byte, 31), 1)} {
		a, err := p256Key(random)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		b, _ := p256Key(random)
		if !a.Equal(b) {
			t.Errorf("%s: two keys", name)
		}
	}
	if _, err := p256Key(nil); err == nil {
		// The hash of nothing is a key as good as any.
		t.Log("no bytes make a key")
	}
}

// A forged certificate differs from a good one in one respect.
func forge(t testing.TB, key any, from, until time.Time) []byte {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: from, NotAfter: until}
	var public any
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		public = k.Public()
	case *rsa.PrivateKey:
		public = k.Public()
	case ed25519.PrivateKey:
		public = k.Public()
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestVerifyHashed(t *testing.T) {
	now := year2026
	good, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, _ := ed25519.GenerateKey(rand.Reader)
	week := 7 * 24 * time.Hour
	ok := forge(t, good, now.Add(-week), now.Add(week))
	for _, c := range []struct {
		name string
		der  []byte
		want string // part of the error; "" none
	}{
		{"good", ok, ""},
		{"just begun", forge(t, good, now, now.Add(week)), ""},
		{"RSA", forge(t, rsaKey, now.Add(-week), now.Add(week)), "must be ECDSA"},
		{"Ed25519", forge(t, edKey, now.Add(-week), now.Add(week)), "must be ECDSA"},
		{"too long", forge(t, good, now.Add(-week), now.Add(week+time.Second)), "at most 336h"},
		{"expired", forge(t, good, now.Add(-week), now.Add(-time.Second)), "clocks"},
		{"not yet", forge(t, good, now.Add(time.Second), now.Add(week)), "clocks"},
		{"garbage", []byte("garbage"), "certificate"},
		{"empty", nil, "certificate"},
		{"large", make([]byte, maxCertificate+1), "bytes"},
		{"trailing", append(slices.Clone(ok), 0), "certificate"},
	} {
		// With others around it.
		expected := [][]byte{certHash([]byte("other")), certHash(c.der)}
		err := verifyHashed([][]byte{c.der, ok}, expected, now)
		if c.want == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	var mismatch *HashError
	if err := verifyHashed([][]byte{ok}, [][]byte{certHash([]byte("other"))}, now); !errors.As(err, &mismatch) || !bytes.Equal(mismatch.Got, certHash(ok)) {
		t.Errorf("another hash: %v", err)
	} else if text := err.Error(); !strings.Contains(text, "uEi") || !strings.Contains(text, "newest address") {
		t.Error(text)
	}
	// The second certificate is not the server's.
	if err := verifyHashed([][]byte{forge(t, rsaKey, now.Add(-week), now.Add(week)), ok}, [][]byte{certHash(ok)}, now); !errors.As(err, &mismatch) {
		t.Errorf("the hash of the second: %v", err)
	}
	if err := verifyHashed(nil, [][]byte{certHash(ok)}, now); err == nil {
		t.Error("no certificate was accepted")
	}
}
