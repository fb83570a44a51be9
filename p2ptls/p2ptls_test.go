package p2ptls

import (
	"context"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-p2p/kith/peer"
)

const yamux = "/yamux/1.0.0"

// shake runs both sides over a memory pipe. When it is done the server writes one
// byte and leaves, and the client reads: so it learns whether it was accepted.
func shake(t *testing.T, client, server func(net.Conn) (net.Conn, error)) (clientErr, serverErr error) {
	t.Helper()
	cc, sc := net.Pipe()
	return shakeOver(cc, sc, client, server)
}

func shakeOver(cc, sc net.Conn, client, server func(net.Conn) (net.Conn, error)) (clientErr, serverErr error) {
	done := make(chan error, 1)
	go func() {
		c, err := server(sc)
		if err == nil {
			c.Write([]byte{1}) // nobody reads it if the client has failed
		}
		sc.Close()
		done <- err
	}()
	c, clientErr := client(cc)
	if clientErr == nil {
		_, clientErr = c.Read(make([]byte, 1))
	}
	cc.Close()
	return clientErr, <-done
}

func asClient(t *Transport, cfg Config) func(net.Conn) (net.Conn, error) {
	return func(conn net.Conn) (net.Conn, error) {
		c, err := t.Client(context.Background(), conn, cfg)
		if err != nil {
			return nil, err
		}
		return c, nil
	}
}

func asServer(t *Transport, cfg Config) func(net.Conn) (net.Conn, error) {
	return func(conn net.Conn) (net.Conn, error) {
		c, err := t.Server(context.Background(), conn, cfg)
		if err != nil {
			return nil, err
		}
		return c, nil
	}
}

// rogue is a peer that is crypto/tls and nothing else.
func rogue(side func(net.Conn, *tls.Config) *tls.Conn, config *tls.Config) func(net.Conn) (net.Conn, error) {
	return func(conn net.Conn) (net.Conn, error) {
		c := side(conn, config)
		return c, c.Handshake()
	}
}

func TestHandshake(t *testing.T) {
	transports := map[peer.KeyType]*Transport{}
	keys := map[peer.KeyType]peer.PrivateKey{}
	for _, typ := range keyTypes {
		keys[typ] = newKey(t, typ)
		tr, err := New(keys[typ])
		if err != nil {
			t.Fatal(err)
		}
		transports[typ] = tr
	}
	for _, ct := range keyTypes {
		for _, st := range keyTypes {
			cc, sc := net.Pipe()
			done := make(chan *Conn)
			go func() {
				s, err := transports[st].Server(t.Context(), sc, Config{Remote: keys[ct].ID()})
				if err != nil {
					t.Errorf("server with %v for a client with %v: %v", st, ct, err)
				}
				done <- s
			}()
			c, err := transports[ct].Client(t.Context(), cc, Config{Remote: keys[st].ID()})
			if err != nil {
				t.Fatalf("client with %v for a server with %v: %v", ct, st, err)
			}
			s := <-done
			if c.RemotePeer() != keys[st].ID() || c.RemoteKey() != keys[st].Public() {
				t.Errorf("the client thinks that %v is %v", keys[st].ID(), c.RemotePeer())
			}
			if s.RemotePeer() != keys[ct].ID() || s.RemoteKey() != keys[ct].Public() {
				t.Errorf("the server thinks that %v is %v", keys[ct].ID(), s.RemotePeer())
			}
			cc.Close()
			sc.Close()
		}
	}
}

// Peers may use other certificate keys than we do.
func TestCertificateKeys(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	us := newTransport(t, peer.Ed25519)
	for name, f := range map[string]forger{
		"P-384": {key: newECDSA(t, elliptic.P384())}, "P-521": {key: newECDSA(t, elliptic.P521())},
		"Ed25519": {key: ed}, "RSA": {key: newRSA(t)},
	} {
		them := &Transport{f.cert(t)}
		if c, s := shake(t, asClient(us, Config{}), asServer(them, Config{})); c != nil || s != nil {
			t.Errorf("%s server: %v, %v", name, c, s)
		}
		if c, s := shake(t, asClient(them, Config{}), asServer(us, Config{})); c != nil || s != nil {
			t.Errorf("%s client: %v, %v", name, c, s)
		}
	}
}

func TestNewNeedsKey(t *testing.T) {
	if _, err := New(peer.PrivateKey{}); err == nil {
		t.Error("no error without a key")
	}
}

func TestMismatch(t *testing.T) {
	a, b := newKey(t, peer.Ed25519), newKey(t, peer.Ed25519)
	ta, err := New(a)
	if err != nil {
		t.Fatal(err)
	}
	tb, err := New(b)
	if err != nil {
		t.Fatal(err)
	}
	third := newKey(t, peer.Ed25519).ID()
	var mismatch *peer.MismatchError
	clientErr, serverErr := shake(t, asClient(ta, Config{Remote: third}), asServer(tb, Config{}))
	if !errors.As(clientErr, &mismatch) || mismatch.Want != third || mismatch.Got != b.ID() {
		t.Errorf("client: %v", clientErr)
	}
	wantError(t, serverErr, "bad certificate") // and so it has not got ours

	mismatch = nil
	clientErr, serverErr = shake(t, asClient(ta, Config{}), asServer(tb, Config{Remote: third}))
	if !errors.As(serverErr, &mismatch) || mismatch.Want != third || mismatch.Got != a.ID() {
		t.Errorf("server: %v", serverErr)
	}
	wantError(t, clientErr, "bad certificate") // on the first Read
}

func TestMuxer(t *testing.T) {
	client, server := newTransport(t, peer.Ed25519), newTransport(t, peer.Ed25519)
	for _, c := range []struct {
		client, server []string
		want           string
	}{
		{nil, nil, ""},
		{[]string{yamux}, nil, ""},
		{nil, []string{yamux}, ""},
		{[]string{yamux}, []string{yamux}, yamux},
		{[]string{"/a", "/b", "/c"}, []string{"/c", "/b"}, "/b"}, // the client's order counts
		{[]string{"/a"}, []string{"/b"}, ""},
	} {
		var muxers [2]string
		clientErr, serverErr := shake(t, func(conn net.Conn) (net.Conn, error) {
			cc, err := client.Client(t.Context(), conn, Config{Muxers: c.client})
			muxers[0] = cc.Muxer()
			return cc, err
		}, func(conn net.Conn) (net.Conn, error) {
			sc, err := server.Server(t.Context(), conn, Config{Muxers: c.server})
			muxers[1] = sc.Muxer()
			return sc, err
		})
		if clientErr != nil || serverErr != nil || muxers != [2]string{c.want, c.want} {
			t.Errorf("%v and %v give %q, %v, %v; want %q", c.client, c.server, muxers, clientErr, serverErr, c.want)
		}
	}
}

func TestChooseALPN(t *testing.T) {
	for _, c := range []struct {
		offered, muxers []string
		want            string
	}{
		{[]string{"libp2p"}, []string{yamux}, "libp2p"},
		{[]string{"libp2p", yamux}, []string{yamux}, yamux}, // against the rules, but clear
		{[]string{"h2"}, []string{yamux}, "libp2p"},         // crypto/tls then finds no overlap
		{nil, []string{yamux}, "libp2p"},
	} {
		if got := chooseALPN(c.offered, c.muxers); got != c.want {
			t.Errorf("chooseALPN(%q, %q) = %q, want %q", c.offered, c.muxers, got, c.want)
		}
	}
}

// What a client says in its hello, seen by a server of crypto/tls.
func TestClientHello(t *testing.T) {
	client := newTransport(t, peer.Ed25519)
	config := newTransport(t, peer.Ed25519).config(trusting, nil)
	var hello *tls.ClientHelloInfo
	config.GetConfigForClient = func(info *tls.ClientHelloInfo) (*tls.Config, error) {
		hello = info
		return nil, nil
	}
	shake(t, asClient(client, Config{Muxers: []string{"/b", "/a"}}), rogue(tls.Server, config))
	const sni, earlyData, preSharedKey = 0, 42, 41
	if hello.ServerName != "" || slices.Contains(hello.Extensions, sni) {
		t.Error("the client sends a server name")
	}
	if slices.Contains(hello.Extensions, earlyData) || slices.Contains(hello.Extensions, preSharedKey) {
		t.Error("the client wants to resume a session")
	}
	if !slices.Equal(hello.SupportedVersions, []uint16{tls.VersionTLS13}) {
		t.Errorf("the client offers the versions %x", hello.SupportedVersions)
	}
	if want := []string{"/b", "/a", "libp2p"}; !slices.Equal(hello.SupportedProtos, want) {
		t.Errorf("the client offers the protocols %q, want %q", hello.SupportedProtos, want)
	}
}

func trusting(tls.ConnectionState) error { return nil }

func TestRogueServers(t *testing.T) {
	us, them := newTransport(t, peer.Ed25519), newTransport(t, peer.Ed25519)
	serverWith := func(change func(*tls.Config)) *tls.Config {
		config := them.config(trusting, []string{"libp2p"})
		change(config)
		return config
	}
	good := them.cert
	for name, c := range map[string]struct {
		config *tls.Config
		want   string // of the client; "": no error
	}{
		"good":         {serverWith(func(c *tls.Config) {}), ""},
		"no ALPN":      {serverWith(func(c *tls.Config) { c.NextProtos = nil }), ""},
		"TLS 1.2":      {serverWith(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }), "protocol version"},
		"wrong ALPN":   {serverWith(func(c *tls.Config) { c.NextProtos = []string{"h2"} }), "no application protocol"},
		"asks nobody":  {serverWith(func(c *tls.Config) { c.ClientAuth = tls.NoClientCert }), "did not ask who we are"},
		"chain of two": {serverWith(func(c *tls.Config) { c.Certificates = []tls.Certificate{twice(good)} }), "sent 2 certificates"},
		"forged":       {serverWith(func(c *tls.Config) { c.Certificates = []tls.Certificate{forger{signer: newP256(t)}.cert(t)} }), "not signed by its own key"},
		"huge":         {serverWith(func(c *tls.Config) { c.Certificates = []tls.Certificate{hugeCertificate(t, 8<<10)} }), "over the limit of 4096"},
		"another's": {serverWith(func(c *tls.Config) {
			c.Certificates = []tls.Certificate{{Certificate: good.Certificate, PrivateKey: newP256(t)}}
		}), "invalid signature by the server certificate"},
		"SNI and tickets": {serverWith(func(c *tls.Config) { c.SessionTicketsDisabled = false; c.ServerName = "x" }), ""},
	} {
		t.Run(name, func(t *testing.T) {
			clientErr, _ := shake(t, asClient(us, Config{}), rogue(tls.Server, c.config))
			if c.want == "" {
				if clientErr != nil {
					t.Error(clientErr)
				}
				return
			}
			wantError(t, clientErr, c.want)
		})
	}
}

func TestRogueClients(t *testing.T) {
	us, them := newTransport(t, peer.Ed25519), newTransport(t, peer.Ed25519)
	clientWith := func(change func(*tls.Config)) *tls.Config {
		config := them.config(trusting, []string{"libp2p"})
		change(config)
		return config
	}
	good := them.cert
	for name, c := range map[string]struct {
		config *tls.Config
		want   string // of the server; "": no error
	}{
		"good":           {clientWith(func(c *tls.Config) {}), ""},
		"no ALPN":        {clientWith(func(c *tls.Config) { c.NextProtos = nil }), ""},
		"server name":    {clientWith(func(c *tls.Config) { c.ServerName = "example.com" }), ""},
		"TLS 1.2":        {clientWith(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }), "unsupported versions"},
		"wrong ALPN":     {clientWith(func(c *tls.Config) { c.NextProtos = []string{"h2", "http/1.1"} }), "unsupported application protocols"},
		"no certificate": {clientWith(func(c *tls.Config) { c.Certificates = nil }), "didn't provide a certificate"},
		"chain of two":   {clientWith(func(c *tls.Config) { c.Certificates = []tls.Certificate{twice(good)} }), "sent 2 certificates"},
		"forged":         {clientWith(func(c *tls.Config) { c.Certificates = []tls.Certificate{forger{signer: newP256(t)}.cert(t)} }), "not signed by its own key"},
		"huge":           {clientWith(func(c *tls.Config) { c.Certificates = []tls.Certificate{hugeCertificate(t, 8<<10)} }), "over the limit of 4096"},
		"another's": {clientWith(func(c *tls.Config) {
			c.Certificates = []tls.Certificate{{Certificate: good.Certificate, PrivateKey: newP256(t)}}
		}), "invalid signature by the client certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			clientErr, serverErr := shake(t, rogue(tls.Client, c.config), asServer(us, Config{}))
			if c.want == "" {
				if clientErr != nil || serverErr != nil {
					t.Error(clientErr, serverErr)
				}
				return
			}
			wantError(t, serverErr, c.want)
			if clientErr == nil {
				t.Error("the client was not told")
			}
		})
	}
}

func twice(cert tls.Certificate) tls.Certificate {
	cert.Certificate = append(slices.Clone(cert.Certificate), cert.Certificate[0])
	return cert
}

func hugeCertificate(tb testing.TB, size int) tls.Certificate {
	return forger{template: addExtension(2, false, size)}.cert(tb)
}

// Of certificates that crypto/tls itself would take, up to 256 KiB, no more than
// maxHandshake is read.
func TestHugeHandshake(t *testing.T) {
	us := newTransport(t, peer.Ed25519)
	config := us.config(trusting, []string{"libp2p"})
	config.Certificates = []tls.Certificate{hugeCertificate(t, 200<<10)}
	cc, sc := tcpPair(t) // which takes in what nobody reads
	clientErr, _ := shakeOver(cc, sc, asClient(us, Config{}), rogue(tls.Server, config))
	wantError(t, clientErr, "more than 16 KiB")
	cc, sc = tcpPair(t)
	_, serverErr := shakeOver(cc, sc, rogue(tls.Client, config), asServer(us, Config{}))
	wantError(t, serverErr, "more than 16 KiB")
}

// A server gives no tickets, so that no identity outlives its connection.
func TestNoResumption(t *testing.T) {
	us, them := newTransport(t, peer.Ed25519), newTransport(t, peer.Ed25519)
	config := them.config(trusting, []string{"libp2p"})
	config.SessionTicketsDisabled = false
	config.ServerName = "cache.key"
	cache := countingCache{}
	config.ClientSessionCache = &cache
	clientErr, serverErr := shake(t, rogue(tls.Client, config), func(conn net.Conn) (net.Conn, error) {
		c, err := us.Server(t.Context(), conn, Config{})
		if err == nil {
			_, err = c.Write([]byte{1}) // a ticket would come before
		}
		return c, err
	})
	if clientErr != nil || serverErr != nil || cache.puts > 0 {
		t.Errorf("%v, %v, %d tickets", clientErr, serverErr, cache.puts)
	}
}

type countingCache struct{ puts int }

func (c *countingCache) Get(string) (*tls.ClientSessionState, bool) { return nil, false }
func (c *countingCache) Put(string, *tls.ClientSessionState)        { c.puts++ }

// Somebody between the two takes the muxer out of the client's hello. Neither
// side must end up with another muxer than the other.
func TestMuxerStripped(t *testing.T) {
	client, server := newTransport(t, peer.Ed25519), newTransport(t, peer.Ed25519)
	cfg := Config{Muxers: []string{yamux}}
	stripped := false
	clientErr, serverErr := shake(t, asClient(client, cfg), func(conn net.Conn) (net.Conn, error) {
		return asServer(server, cfg)(&tampered{Conn: conn, change: func(hello []byte) []byte {
			stripped = true
			return stripALPN(t, hello, yamux)
		}})
	})
	if !stripped {
		t.Fatal("no hello was seen")
	}
	if clientErr == nil || serverErr == nil {
		t.Errorf("client: %v, server: %v; want two errors", clientErr, serverErr)
	}
}

// tampered changes the first record that is read.
type tampered struct {
	net.Conn
	change func([]byte) []byte
	first  []byte
	done   bool
}

func (c *tampered) Read(p []byte) (int, error) {
	if !c.done {
		c.done = true
		head := make([]byte, recordHeader)
		if _, err := io.ReadFull(c.Conn, head); err != nil {
			return 0, err
		}
		body := make([]byte, binary.BigEndian.Uint16(head[3:]))
		if _, err := io.ReadFull(c.Conn, body); err != nil {
			return 0, err
		}
		c.first = c.change(append(head, body...))
	}
	if len(c.first) > 0 {
		n := copy(p, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// stripALPN removes a protocol from the list in a ClientHello record, and
// corrects the five lengths around it.
func stripALPN(tb testing.TB, record []byte, proto string) []byte {
	tb.Helper()
	entry := append([]byte{byte(len(proto))}, proto...)
	at := slices.Index(record, entry[0])
	for at >= 0 && string(record[at:at+len(entry)]) != string(entry) {
		next := slices.Index(record[at+1:], entry[0])
		if next < 0 {
			tb.Fatal("the hello does not offer the muxer")
		}
		at += 1 + next
	}
	out := slices.Concat(record[:at], record[at+len(entry):])
	shrink16 := func(i int) { binary.BigEndian.PutUint16(out[i:], binary.BigEndian.Uint16(out[i:])-uint16(len(entry))) }
	shrink16(3)      // record
	shrink16(7)      // handshake message, of whose three bytes the first is 0
	shrink16(at - 2) // list of protocols
	shrink16(at - 4) // extension
	// Session ID, cipher suites and compression methods stand before the extensions.
	i := 5 + 4 + 2 + 32
	i += 1 + int(out[i])
	i += 2 + int(binary.BigEndian.Uint16(out[i:]))
	i += 1 + int(out[i])
	shrink16(i)
	return out
}

// With no tampering but the removal of nothing, the way of TestMuxerStripped works.
func TestStripNothing(t *testing.T) {
	client, server := newTransport(t, peer.Ed25519), newTransport(t, peer.Ed25519)
	var before, after []byte
	clientErr, serverErr := shake(t, asClient(client, Config{Muxers: []string{yamux}}), func(conn net.Conn) (net.Conn, error) {
		return asServer(server, Config{Muxers: []string{yamux}})(&tampered{Conn: conn, change: func(hello []byte) []byte {
			before, after = hello, stripALPN(t, hello, yamux)
			return hello
		}})
	})
	if clientErr != nil || serverErr != nil {
		t.Fatal(clientErr, serverErr)
	}
	// The stripped hello is one that a server understands.
	config := server.config(trusting, nil)
	var offered []string
	config.GetConfigForClient = func(info *tls.ClientHelloInfo) (*tls.Config, error) {
		offered = info.SupportedProtos
		return nil, errors.New("seen enough")
	}
	tls.Server(&script{in: after}, config).Handshake()
	if !slices.Equal(offered, []string{"libp2p"}) || len(after) >= len(before) {
		t.Errorf("the stripped hello offers %q", offered)
	}
}

// A peer that says nothing, or reads nothing, holds a handshake until ctx ends.
func TestHandshakeContext(t *testing.T) {
	us := newTransport(t, peer.Ed25519)
	sides := map[string]func(context.Context, net.Conn, Config) (*Conn, error){"client": us.Client, "server": us.Server}
	for name, side := range sides {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn, silent := net.Pipe()
				defer silent.Close()
				defer conn.Close()
				start := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
				defer cancel()
				_, err := side(ctx, conn, Config{})
				if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 15*time.Second {
					t.Errorf("deadline: %v after %v", err, time.Since(start))
				}
			})
			synctest.Test(t, func(t *testing.T) {
				conn, silent := net.Pipe()
				defer silent.Close()
				defer conn.Close()
				ctx, cancel := context.WithCancelCause(t.Context())
				cause := errors.New("no longer wanted")
				time.AfterFunc(time.Second, func() { cancel(cause) })
				start := time.Now()
				_, err := side(ctx, conn, Config{})
				if !errors.Is(err, cause) || time.Since(start) != time.Second {
					t.Errorf("cancel: %v after %v", err, time.Since(start))
				}
			})
		})
	}
	t.Run("over", func(t *testing.T) {
		cc, sc := tcpPair(t)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan *Conn)
		go func() {
			s, _ := us.Server(ctx, sc, Config{})
			done <- s
		}()
		c, err := us.Client(ctx, cc, Config{})
		if err != nil {
			t.Fatal(err)
		}
		s := <-done
		cancel() // is nothing to a connection that is there
		if _, err := c.Write([]byte("hi")); err != nil {
			t.Error(err)
		}
		if record, err := s.ReadRecord(nil); string(record) != "hi" {
			t.Errorf("%q, %v", record, err)
		}
	})
}

// The client writes first, and a peer that leaves is an error on either side.
func TestPeerLeaves(t *testing.T) {
	us := newTransport(t, peer.Ed25519)
	if _, err := us.Server(t.Context(), &script{}, Config{}); !errors.Is(err, io.EOF) {
		t.Errorf("server: %v", err)
	}
	s := &script{}
	if _, err := us.Client(t.Context(), s, Config{}); !errors.Is(err, io.EOF) {
		t.Errorf("client: %v", err)
	}
	if len(s.wrote) == 0 || s.readBeforeWrite {
		t.Errorf("the client has written %d bytes, and read before: %t", len(s.wrote), s.readBeforeWrite)
	}
}

// A script is a connection on which the other side says what it says, whatever
// it is told.
type script struct {
	net.Conn
	in              []byte // is read
	wrote           []byte
	readBeforeWrite bool
}

func (s *script) Read(p []byte) (int, error) {
	s.readBeforeWrite = s.readBeforeWrite || len(s.wrote) == 0
	if len(s.in) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.in)
	s.in = s.in[n:]
	return n, nil
}

func (s *script) Write(p []byte) (int, error) {
	s.wrote = append(s.wrote, p...)
	return len(p), nil
}

func TestQUICConfig(t *testing.T) {
	a, b := newKey(t, peer.Ed25519), newKey(t, peer.ECDSA)
	ta, err := New(a)
	if err != nil {
		t.Fatal(err)
	}
	tb, err := New(b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := RemoteKey(tls.ConnectionState{}); err == nil {
		t.Error("a key without a handshake")
	}
	remote := func(want peer.PrivateKey, side func(net.Conn) (net.Conn, error)) func(net.Conn) (net.Conn, error) {
		return func(conn net.Conn) (net.Conn, error) {
			c, err := side(conn)
			if err != nil {
				return nil, err
			}
			state := c.(*tls.Conn).ConnectionState()
			if key, err := RemoteKey(state); err != nil || key != want.Public() || state.NegotiatedProtocol != "libp2p" {
				t.Errorf("%v, %v, protocol %q", key, err, state.NegotiatedProtocol)
			}
			return c, nil
		}
	}
	clientErr, serverErr := shake(t, remote(b, rogue(tls.Client, ta.QUICConfig(b.ID()))), remote(a, rogue(tls.Server, tb.QUICConfig(peer.ID{}))))
	if clientErr != nil || serverErr != nil {
		t.Error(clientErr, serverErr)
	}
	var mismatch *peer.MismatchError
	clientErr, _ = shake(t, rogue(tls.Client, ta.QUICConfig(a.ID())), rogue(tls.Server, tb.QUICConfig(peer.ID{})))
	if !errors.As(clientErr, &mismatch) || mismatch.Got != b.ID() {
		t.Error(clientErr)
	}
	_, serverErr = shake(t, rogue(tls.Client, (&Transport{forger{signer: newP256(t)}.cert(t)}).QUICConfig(b.ID())), rogue(tls.Server, tb.QUICConfig(peer.ID{})))
	wantError(t, serverErr, "not signed by its own key")
}
