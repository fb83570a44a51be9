package hostile

import (
	"crypto/ecdh"
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
	"errors"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/wire"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// A liar runs a handshake, in either role, after the secure channel was agreed on.
type liar struct {
	name   string
	client func(conn net.Conn) error
	server func(conn net.Conn) error // nil: the lie has only one side
}

// Nobody is let in who does not prove, in the one way there is, that the key is
// its own; whoever dials it learns why, and whoever listens has heard nothing.
func TestIdentityMustBeProved(t *testing.T) {
	honest, other := newKey(t), newKey(t)
	for proto, liars := range map[string][]liar{noiseID: noiseLiars(t, honest, other), tlsID: tlsLiars(t, honest, other)} {
		for _, l := range liars {
			t.Run("listening to "+proto+" with "+l.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := new(network)
					v := newVictimOn(t, n, victimConfig{bare: true})
					conn, err := n.dial(t.Context(), attackerIP, v.port)
					check(t, err)
					defer conn.Close()
					begin := time.Now()
					check(t, agree(conn, proto))
					l.client(conn) // it is told, or not
					io.Copy(io.Discard, conn)
					synctest.Wait()
					if took := time.Since(begin); took > 0 {
						t.Errorf("it took %v", took)
					}
					if v.log.count("opened") != 0 || v.log.count("upgrade failed") != 1 {
						t.Errorf("let in: %s", v.log.last("opened"))
					}
					if text := v.log.last("upgrade failed"); !strings.HasPrefix(text, "the security handshake") || strings.Contains(text, "EOF") {
						t.Errorf("the upgrade failed with %q", text)
					}
				})
			})
			if l.server == nil {
				continue
			}
			t.Run("dialing to "+proto+" with "+l.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := new(network)
					v := newVictimOn(t, n, victimConfig{bare: true})
					at := serve(t, n, func(conn net.Conn) {
						if respond(conn, proto) == nil {
							l.server(conn)
						}
						io.Copy(io.Discard, conn)
					})
					begin := time.Now()
					_, err := v.Connect(t.Context(), peer.AddrInfo{ID: honest.ID(), Addrs: at})
					var failed *host.DialError
					if !errors.As(err, &failed) || len(failed.Attempts) != 1 || failed.Attempts[0].Stage != host.StageSecuring ||
						strings.Contains(err.Error(), "EOF") || strings.Contains(err.Error(), "multistream") {
						t.Errorf("connecting: %v", err)
					}
					if took := time.Since(begin); took > 0 {
						t.Errorf("it took %v", took)
					}
				})
			})
		}
	}
}

// The liars do what is expected, but for the lie: without it both sides go on,
// to where the liars stop.
func TestWithoutTheLie(t *testing.T) {
	honest := newKey(t)
	static := newStatic()
	sig, err := vouch(honest, static)
	check(t, err)
	r := rogue{static: static, payload: payload(honest.Public().Marshal(), sig)}
	cert := newCertificate(t, honest, nil)
	for proto, l := range map[string]liar{
		noiseID: {client: r.client, server: r.server},
		tlsID:   {client: tlsClient(cert), server: tlsServer(cert)},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := new(network)
			v := newVictimOn(t, n, victimConfig{bare: true})
			at := serve(t, n, func(conn net.Conn) {
				if respond(conn, proto) == nil {
					l.server(conn)
				}
			})
			_, err := v.Connect(t.Context(), peer.AddrInfo{ID: honest.ID(), Addrs: at})
			var failed *host.DialError
			if !errors.As(err, &failed) || failed.Attempts[0].Stage != host.StageSecured {
				t.Errorf("dialing to %s: %v", proto, err)
			}
			conn, err := n.dial(t.Context(), attackerIP, v.port)
			check(t, err)
			check(t, agree(conn, proto))
			check(t, l.client(conn))
			conn.Close()
			synctest.Wait()
			if text := v.log.last("upgrade failed"); !strings.HasPrefix(text, host.StageSecured.String()) {
				t.Errorf("listening to %s: the upgrade failed with %q", proto, text)
			}
		})
	}
}

// serve answers the first connections to an address of the network.
func serve(t testing.TB, n *network, answer func(net.Conn)) []multiaddr.Addr {
	t.Helper()
	p := n.open(attackerIP)
	t.Cleanup(p.close)
	go func() {
		for {
			conn, err := p.accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				answer(conn)
			}()
		}
	}()
	return []multiaddr.Addr{p.multiaddr()}
}

// respond agrees to proto, and refuses what is proposed before. A dialer sends its
// handshake along with its first proposal: that ends the connection, as everywhere.
func respond(conn net.Conn, proto string) error {
	if _, err := io.ReadFull(conn, make([]byte, len(propose(""))-2)); err != nil {
		return err
	}
	said := token("/multistream/1.0.0")
	for {
		length, err := wire.ReadUvarint(conn)
		if err != nil {
			return err
		}
		if length == 0 {
			conn.Close()
			return errors.New("no message")
		}
		text := make([]byte, length)
		if _, err := io.ReadFull(conn, text); err != nil {
			return err
		}
		if string(text) == proto+"\n" {
			_, err := conn.Write(append(said, token(proto)...))
			return err
		}
		if _, err := conn.Write(append(said, token("na")...)); err != nil {
			return err
		}
		said = nil
	}
}

// noiseLiars try to be honest, without having its key.
func noiseLiars(t testing.TB, honest, other peer.PrivateKey) []liar {
	static := newStatic()
	public := honest.Public().Marshal()
	sig, err := vouch(honest, static)
	check(t, err)
	wrong, err := vouch(other, static)
	check(t, err)
	elsewhere, err := vouch(honest, newStatic())
	check(t, err)
	unprefixed, err := honest.Sign(static.PublicKey().Bytes())
	check(t, err)

	var liars []liar
	add := func(name string, r rogue) {
		liars = append(liars, liar{name, r.client, r.server})
	}
	say := func(name string, payload []byte) { add(name, rogue{static: static, payload: payload}) }
	say("another's signature", payload(public, wrong))
	say("a signature of another static key", payload(public, elsewhere))
	say("a signature without its prefix", payload(public, unprefixed))
	say("a signature that was changed", payload(public, flip(sig, 3)))
	say("a signature with a larger S", payload(public, malleate(sig)))
	say("half a signature", payload(public, sig[:32]))
	say("no signature", wire.AppendBytesField(nil, 1, public))
	say("no key", wire.AppendBytesField(nil, 2, sig))
	say("nothing", nil)
	say("two keys", append(payload(public, sig), wire.AppendBytesField(nil, 1, other.Public().Marshal())...))
	say("no protobuf", []byte("\xff\xff\xff"))
	for name, key := range encodings(honest.Public()) {
		say(name, payload(key, sig))
	}
	for name, key := range rsaKeys(t) {
		say(name, payload(key, make([]byte, 512)))
	}
	for i, point := range smallPoints {
		static, sig := forge(t, point)
		add("a key of small order, number "+string('0'+rune(i)), rogue{static: static, payload: payload(ed25519Key(point), sig)})
	}
	for name, e := range map[string]string{
		"zero": "00", "one": "01",
		"a point of order 8": "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
		"p - 1":              "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"p":                  "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	} {
		b, err := hex.DecodeString(e)
		check(t, err)
		add("the ephemeral key "+name, rogue{static: static, payload: payload(public, sig), ephemeral: append(b, make([]byte, 32-len(b))...)})
	}
	liars = append(liars, liar{name: "early data", client: rogue{static: static, payload: payload(public, sig), first: payload(public, sig)}.client})
	return liars
}

func flip(b []byte, i int) []byte {
	b = append([]byte(nil), b...)
	b[i] ^= 1
	return b
}

// malleate adds the order of the group to S, which makes another signature that
// a careless verifier takes.
func malleate(sig []byte) []byte {
	order, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	s := make([]byte, 32)
	for i := range s {
		s[i] = sig[63-i]
	}
	sum := new(big.Int).Add(new(big.Int).SetBytes(s), order).FillBytes(s)
	out := append([]byte(nil), sig[:32]...)
	for i := range sum {
		out = append(out, sum[31-i])
	}
	return out
}

// encodings are other ways to write down a key, of which each would be another
// peer with the same key.
func encodings(key peer.PublicKey) map[string][]byte {
	typ := wire.AppendVarintField(nil, 1, uint64(key.Type()))
	raw := wire.AppendBytesField(nil, 2, key.Raw())
	return map[string][]byte{
		"the fields of the key in another order": append(append([]byte(nil), raw...), typ...),
		"an unknown field in the key":            append(append(append([]byte(nil), typ...), raw...), 0x18, 1),
		"a type in two bytes":                    append([]byte{8, 0x81, 0}, raw...),
		"the key twice":                          append(append(append([]byte(nil), typ...), raw...), raw...),
		"an unknown type of key":                 append([]byte{8, 4}, raw...),
		"a key of 31 bytes":                      wire.AppendBytesField([]byte{8, 1}, 2, key.Raw()[:31]),
		"a key as if of another type":            append([]byte{8, 2}, raw...),
	}
}

// rsaKeys would take long to verify with.
func rsaKeys(t testing.TB) map[string][]byte {
	keys := make(map[string][]byte)
	for name, c := range map[string]struct {
		bits uint
		e    int
		even bool
	}{
		"an RSA key of 16384 bits":      {bits: 16384, e: 65537},
		"an RSA key of 30000 bits":      {bits: 30000, e: 65537},
		"an RSA key of 1024 bits":       {bits: 1024, e: 65537},
		"an RSA key that is even":       {bits: 2048, e: 65537, even: true},
		"an RSA key with a large power": {bits: 8192, e: 1<<31 - 1},
		"an RSA key with an even power": {bits: 2048, e: 65536},
	} {
		n := new(big.Int).Lsh(big.NewInt(1), c.bits-1)
		if !c.even {
			n.Add(n, big.NewInt(1))
		}
		der, err := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: n, E: c.e})
		check(t, err)
		keys[name] = wire.AppendBytesField([]byte{8, 0}, 2, der)
	}
	return keys
}

func ed25519Key(point []byte) []byte { return wire.AppendBytesField([]byte{8, 1}, 2, point) }

// smallPoints are the eight points of small order on Ed25519's curve.
var smallPoints = func() (points [][]byte) {
	for _, s := range []string{
		"0100000000000000000000000000000000000000000000000000000000000000",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0000000000000000000000000000000000000000000000000000000000000080",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
	} {
		b, err := hex.DecodeString(s)
		if err != nil {
			panic(err)
		}
		points = append(points, b)
	}
	return points
}()

// forge finds a static key for which a signature by a key of small order
// verifies, although nobody knows a private key: with R the neutral element and S = 0
// it does whenever the hash is a multiple of the order.
func forge(t testing.TB, point []byte) (*ecdh.PrivateKey, []byte) {
	t.Helper()
	sig := append(smallPoints[0][:32:32], make([]byte, 32)...)
	for range 1000 {
		static := newStatic()
		if ed25519.Verify(point, append([]byte("noise-libp2p-static-key:"), static.PublicKey().Bytes()...), sig) {
			return static, sig
		}
	}
	t.Fatalf("no forged signature verifies for the key %x", point)
	return nil, nil
}

// tlsLiars try the same with certificates.
func tlsLiars(t testing.TB, honest, other peer.PrivateKey) []liar {
	var liars []liar
	add := func(name string, cert tls.Certificate) {
		liars = append(liars, liar{name, tlsClient(cert), tlsServer(cert)})
	}
	with := func(change func(*certificate)) tls.Certificate { return newCertificate(t, honest, change) }
	add("another's signature", with(func(c *certificate) { c.signer = other }))
	add("a signature without its prefix", with(func(c *certificate) { c.prefix = "" }))
	add("a signature of another key", with(func(c *certificate) { c.signed = newECDSA(t) }))
	add("a signature that was changed", with(func(c *certificate) { c.sig = func(b []byte) []byte { return flip(b, 3) } }))
	add("a signature with a larger S", with(func(c *certificate) { c.sig = malleate }))
	add("no extension", with(func(c *certificate) { c.bare = true }))
	add("an extension with more in it", with(func(c *certificate) { c.tail = []byte{5, 0} }))
	add("a certificate that has expired", with(func(c *certificate) { c.until = -24 * time.Hour }))
	add("a certificate of the future", with(func(c *certificate) { c.from = 24 * time.Hour }))
	add("a certificate of 6 KiB", with(func(c *certificate) { c.padding = 3 << 10 }))
	add("an unknown critical extension", with(func(c *certificate) { c.critical = true }))
	add("a certificate that another has signed", with(func(c *certificate) { c.issuer = newECDSA(t) }))
	two := with(nil)
	two.Certificate = append(two.Certificate, newCertificate(t, other, nil).Certificate...)
	add("two certificates", two)
	for i, point := range smallPoints {
		add("a key of small order, number "+string('0'+rune(i)), with(func(c *certificate) {
			c.key = ed25519Key(point)
			c.sig = func([]byte) []byte { return append(smallPoints[0][:32:32], make([]byte, 32)...) }
		}))
	}
	for name, key := range encodings(honest.Public()) {
		add(name, with(func(c *certificate) { c.key = key }))
	}
	for name, key := range rsaKeys(t) {
		add(name, with(func(c *certificate) { c.key = key }))
	}
	liars = append(liars,
		liar{name: "no certificate", client: func(conn net.Conn) error {
			return tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, NextProtos: []string{"libp2p"}}).Handshake()
		}},
		liar{name: "TLS 1.2", client: func(conn net.Conn) error {
			return tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, Certificates: []tls.Certificate{with(nil)}}).Handshake()
		}, server: func(conn net.Conn) error {
			return tls.Server(conn, &tls.Config{MaxVersion: tls.VersionTLS12, Certificates: []tls.Certificate{with(nil)}}).Handshake()
		}},
		liar{name: "another ALPN", client: func(conn net.Conn) error {
			return tls.Client(conn, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{with(nil)}, NextProtos: []string{"h2"}}).Handshake()
		}},
	)
	return liars
}

// tlsClient runs a handshake by the book with cert.
func tlsClient(cert tls.Certificate) func(net.Conn) error {
	return func(conn net.Conn) error {
		c := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, NextProtos: []string{"libp2p"}, Certificates: []tls.Certificate{cert}})
		return c.Handshake()
	}
}

func tlsServer(cert tls.Certificate) func(net.Conn) error {
	return func(conn net.Conn) error {
		s := tls.Server(conn, &tls.Config{ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13, NextProtos: []string{"libp2p"}, Certificates: []tls.Certificate{cert}})
		return s.Handshake()
	}
}

// A certificate is what goes into one, right or wrong.
type certificate struct {
	key      []byte          // the host's, as it is written down
	signer   peer.PrivateKey // who signs the certificate's key
	prefix   string
	signed   *ecdsa.PrivateKey // what is signed in place of the certificate's key
	issuer   *ecdsa.PrivateKey // who signs the certificate in place of its own key
	sig      func([]byte) []byte
	bare     bool // there is no extension
	tail     []byte
	from     time.Duration
	until    time.Duration
	padding  int
	critical bool
}

func newECDSA(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	return key
}

// newCertificate makes what an honest host with the key has, but for the change.
// https://github.com/libp2p/specs/blob/master/tls/tls.md#libp2p-public-key-extension
func newCertificate(t testing.TB, key peer.PrivateKey, change func(*certificate)) tls.Certificate {
	t.Helper()
	own := newECDSA(t)
	c := certificate{
		key: key.Public().Marshal(), signer: key, prefix: "libp2p-tls-handshake:", signed: own, issuer: own,
		sig: func(b []byte) []byte { return b }, from: -time.Hour, until: time.Hour,
	}
	if change != nil {
		change(&c)
	}
	spki, err := x509.MarshalPKIXPublicKey(c.signed.Public())
	check(t, err)
	sig, err := c.signer.Sign(append([]byte(c.prefix), spki...))
	check(t, err)
	value, err := asn1.Marshal(struct{ Key, Sig []byte }{c.key, c.sig(sig)})
	check(t, err)
	if len(c.tail) > 0 { // inside of the SEQUENCE
		var seq asn1.RawValue
		_, err := asn1.Unmarshal(value, &seq)
		check(t, err)
		value, err = asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: append(seq.Bytes, c.tail...)})
		check(t, err)
	}
	// The clock of a bubble is not that of the world.
	now := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: strings.Repeat("x", c.padding)},
		NotBefore:    now.Add(c.from),
		NotAfter:     now.Add(c.until),
	}
	if !c.bare {
		template.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 53594, 1, 1}, Value: value}}
	}
	if c.critical {
		template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}})
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, own.Public(), c.issuer)
	check(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: own}
}
