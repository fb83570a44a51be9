package autotls

import (
	"encoding/hex"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kith-p2p/kith/peer"
)

// The example of the specification.
// https://github.com/libp2p/specs/blob/master/http/peer-id-auth.md#signing-example
func TestSignedVector(t *testing.T) {
	server := must(peer.UnmarshalPrivateKey(must(hex.DecodeString("0801124001010101010101010101010101010101010101010101010101010101010101018a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c"))))
	client := must(hex.DecodeString("080112208139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394"))
	data := signed("challenge-server", "ERERERERERERERERERERERERERERERERERERERERERE=", "client-public-key", string(client), "hostname", "example.com")
	if got, want := hex.EncodeToString(data), "6c69627032702d5065657249443d6368616c6c656e67652d7365727665723d455245524552455245524552455245524552455245524552455245524552455245524552455245524552453d36636c69656e742d7075626c69632d6b65793d080112208139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b39414686f73746e616d653d6578616d706c652e636f6d"; got != want {
		t.Errorf("signed %s, want %s", got, want)
	}
	if got, want := encode64(must(server.Sign(data))), "UA88qZbLUzmAxrD9KECbDCgSKAUBAvBHrOCF2X0uPLR1uUCF7qGfLPc7dw3Olo-LaFCDpk5sXN7TkLWPVvuXAA=="; got != want {
		t.Errorf("signature %s, want %s", got, want)
	}
}

// The two complete handshakes of the specification.
// https://github.com/libp2p/specs/blob/master/http/peer-id-auth.md#complete-server-initiated-handshake-example
func TestHandshakeVectors(t *testing.T) {
	const (
		host      = "example.com"
		challenge = "MzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMz"
		serverKey = "CAESIIqI4910CfGV_VLbLTy6XXLKZwm_HZQSG_N0iAG0D29c"
	)
	key := must(peer.UnmarshalPrivateKey(must(hex.DecodeString("0801124002020202020202020202020202020202020202020202020202020202020202028139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394"))))
	c := authClient{key: key}
	us := key.Public().Marshal()
	if got := encode64(us); got != "CAESIIE5dw6ofRdfVqNUZsNMfszLjYqRtO43ol32D1uPybOU" {
		t.Errorf("our public key is %s", got)
	}

	// In the example where the server begins, the client's signature
	// (sig="5RT0BbFd…") does not cover the server's key, which the text wants; that of
	// the server is good.
	info := must(parseAuth([]string{`libp2p-PeerID sig="HQ7BJRaSpRhNCORNiALNJENdwXUyq0eM2cxNoxe-XnQw6oEAMaeYnjMYaHHjgq0XNxZmy4W2ngKUcI1CgprLCQ==", bearer="YhlY", public-key="CAESIIqI4910CfGV_VLbLTy6XXLKZwm_HZQSG_N0iAG0D29c"`}))
	if err := verifyServer(info, serverKey, us, challenge, host); err != nil {
		t.Error(err)
	}
	if err := verifyServer(info, serverKey, us, challenge, "example.org"); err == nil {
		t.Error("another host's signature is accepted")
	}
	if info.bearer != "YhlY" {
		t.Errorf("token %q", info.bearer)
	}

	p := must(parseAuth([]string{`libp2p-PeerID challenge-client="ERERERERERERERERERERERERERERERERERERERERERE=", public-key="CAESIIqI4910CfGV_VLbLTy6XXLKZwm_HZQSG_N0iAG0D29c", sig="snip", opaque="1Jrl"`}))
	if got := encode64(must(c.sign(p, host))); got != "OrwJPO4buHKJdKXP2av8PFwv3XF_-m5MqndskeVV5UzufYzBCTm7RBaFnBS1sEhuQHZSZPh9RJgN5NmLzrUrBQ==" {
		t.Errorf("we begin: we sign %s", got)
	}
	if got, want := authHeader("challenge-server", challenge, "public-key", encode64(us)), `libp2p-PeerID challenge-server="`+challenge+`", public-key="CAESIIE5dw6ofRdfVqNUZsNMfszLjYqRtO43ol32D1uPybOU"`; got != want {
		t.Errorf("we begin with %s, want %s", got, want)
	}
}

// Each way through a handshake, with a token, and with one that has expired.
func TestHandshakes(t *testing.T) {
	for name, begins := range map[string]bool{"we begin": false, "the server begins": true} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.begins = begins
				cfg := w.config()
				c := authClient{key: cfg.Key, http: cfg.HTTP, agent: "test"}
				u := must(parseURL("", cfg.Registration)).JoinPath(challengePath)
				body := []byte(`{"value":"` + strings.Repeat("A", 43) + `","addresses":[]}`)
				post := func(bearers int) {
					t.Helper()
					a, err := c.post(t.Context(), u, body)
					if err != nil || a.status != http.StatusOK {
						t.Fatalf("%d %s, %v", a.status, a.body, err)
					}
					if w.bearers != bearers {
						t.Errorf("%d requests with a token, want %d", w.bearers, bearers)
					}
				}
				n := 0
				if begins {
					n = 1 // the body comes with the token
				}
				post(n)
				post(n + 1)
				w.service.clients = nil // every token is forgotten
				post(n + 2)
				if len(w.records) != 1 {
					t.Errorf("records %v", w.records)
				}
				w.after(time.Second)
			})
		})
	}
}

func TestParseAuth(t *testing.T) {
	long := strings.Repeat("x", maxAuthHeader)
	for _, c := range []struct {
		in   string
		want authParams
		err  string
	}{
		{in: `libp2p-PeerID bearer="a"`, want: authParams{bearer: "a"}},
		{in: `LIBP2P-peerid Bearer=a`, want: authParams{bearer: "a"}},
		{in: `libp2p-PeerID bearer = "a" ,, opaque="" `, want: authParams{bearer: "a"}},
		{in: `libp2p-PeerID opaque="a\"b\\c", unknown=1`, want: authParams{opaque: `a"b\c`}},
		{in: `Basic realm="libp2p-PeerID", libp2p-PeerID sig="s", Digest sig="t"`, want: authParams{sig: "s"}},
		{in: `Negotiate, libp2p-PeerID sig=s`, want: authParams{sig: "s"}},
		{in: `NTLM aGk=, libp2p-PeerID sig=s`, want: authParams{sig: "s"}},
		{in: `Bearer a/b+c==, libp2p-PeerID sig=s`, want: authParams{sig: "s"}},
		{in: `libp2p-PeerID challenge-client=1, challenge-server=2, public-key=3, sig=4, opaque=5, bearer=6`,
			want: authParams{"1", "2", "3", "4", "5", "6"}},
		{in: ``, err: "no header"},
		{in: `Basic realm="x"`, err: "no header"},
		{in: `libp2p-PeerID sig=a, sig=b`, err: "twice"},
		{in: `libp2p-PeerID sig=a, libp2p-PeerID sig=b`, err: "twice"},
		{in: `libp2p-PeerID sig="a`, err: "inside quotes"},
		{in: `libp2p-PeerID sig="a\`, err: "inside quotes"},
		{in: `libp2p-PeerID sig=`, err: "a value"},
		{in: `libp2p-PeerID sig="a" opaque="b"`, err: "a comma"},
		{in: `libp2p-PeerID ="a"`, err: "no header"},
		{in: `libp2p-PeerID "a"`, err: "a name"},
		{in: "libp2p-PeerID sig=\"a\r\nb\"", err: "byte 0x0d"},
		{in: "libp2p-PeerID sig=\"\xff\"", err: "byte 0xff"},
		{in: "libp2p-PeerID sig=é", err: "a value"},
		{in: `libp2p-PeerID sig="` + long + `"`, err: "2048 are allowed"},
	} {
		got, err := parseAuth([]string{c.in})
		if c.err == "" && (err != nil || got != c.want) || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%.60q: %+v, %v", c.in, got, err)
		}
	}
}

func FuzzParseAuth(f *testing.F) {
	for _, s := range []string{
		`libp2p-PeerID challenge-client="ERER=", opaque="0H1Y9", public-key="CAES", sig="AA"`,
		`Basic realm="a, b", libp2p-PeerID bearer="x\"y"`, `NTLM a==, libp2p-PeerID sig=`, `libp2p-PeerID`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := parseAuth([]string{s})
		if err != nil {
			return
		}
		header := authHeader("bearer", p.bearer, "challenge-client", p.challengeClient, "challenge-server", p.challengeServer,
			"opaque", p.opaque, "public-key", p.publicKey, "sig", p.sig)
		if strings.ContainsAny(header, "\r\n\x00") {
			t.Errorf("a header that is two: %q", header)
		}
		if len(header) > maxAuthHeader {
			return // with quotes that were not there
		}
		if again, err := parseAuth([]string{header}); err != nil || again != p {
			t.Errorf("%q is read as %+v, %v, want %+v", header, again, err, p)
		}
	})
}

// What a server says reaches the signer and the verifier as it is.
func FuzzServerParams(f *testing.F) {
	key := newKey(f, peer.Ed25519)
	c := authClient{key: key}
	f.Add(testChallenge, encode64(key.Public().Marshal()), encode64(make([]byte, 64)))
	f.Fuzz(func(t *testing.T, challenge, public, sig string) {
		p := authParams{challengeClient: challenge, publicKey: public, sig: sig}
		if got, err := c.sign(p, "example.com"); err == nil && len(challenge) < minChallenge {
			t.Errorf("%q is signed: %x", challenge, got)
		}
		if verifyServer(p, public, key.Public().Marshal(), testChallenge, "example.com") == nil {
			t.Errorf("%q proves %q", sig, public)
		}
	})
}

func FuzzStoredCertificate(f *testing.F) {
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		blocks := pemBlocks(data)
		if len(blocks) == 0 {
			return
		}
		key, err := parseKey(blocks[0])
		if err != nil {
			return
		}
		var chain [][]byte
		for _, b := range blocks[1:] {
			chain = append(chain, b.Bytes)
		}
		if cert, err := newCertificate(key, chain); err == nil && !key.PublicKey.Equal(cert.Leaf.PublicKey) {
			t.Error("a certificate for another key")
		}
	})
}
