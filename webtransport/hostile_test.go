package webtransport

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	quicgo "github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/quicvarint"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/testkit"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/quic"
)

func quicConfig() *quicgo.Config {
	return &quicgo.Config{EnableDatagrams: true, EnableStreamResetPartialDelivery: true}
}

// A rogueServer is an HTTP/3 server that does what handler wants.
func rogueServer(t *testing.T, key any, handler http.HandlerFunc) multiaddr.Addr {
	t.Helper()
	der := forge(t, key, time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour))
	ln, err := quicgo.ListenAddr("127.0.0.1:0", &tls.Config{
		NextProtos:   []string{alpn},
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	}, quicConfig())
	if err != nil {
		t.Fatal(err)
	}
	server := &http3.Server{Handler: handler, EnableDatagrams: true}
	go func() {
		for {
			conn, err := ln.Accept(context.Background())
			if err != nil {
				return
			}
			go func() {
				h3, err := server.NewRawServerConn(conn)
				if err != nil {
					return
				}
				go handleUni(conn, h3.HandleUnidirectionalStream)
				// The first stream is the request, the second is that of the handshake.
				if str, err := conn.AcceptStream(context.Background()); err == nil {
					h3.HandleRequestStream(str)
				}
			}()
		}
	}()
	t.Cleanup(func() { ln.Close() })
	return multiaddr.Join(fromNet(ln.Addr()), certHashAddr(certHash(der)))
}

func p256(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Each of these servers is turned away, with a reason, and soon.
func TestMaliciousListener(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	accepts := func(then func(*http3.Stream)) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			r := new(request)
			r.take(w)
			then(r.connect)
		}
	}
	for _, c := range []struct {
		name    string
		key     any
		handler http.HandlerFunc
		want    string
	}{
		{"an RSA key", rsaKey, status(200), "must be ECDSA"},
		{"refuses", p256(t), status(403), "status 403"},
		{"knows no libp2p", p256(t), status(404), "status 404"},
		{"a header of 10 MB", p256(t), func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 10<<20))
			w.WriteHeader(200)
		}, "too large"},
		{"hints without end", p256(t), func(w http.ResponseWriter, _ *http.Request) {
			for range 100 {
				w.WriteHeader(http.StatusEarlyHints)
			}
		}, "status 103"},
		{"ends the request", p256(t), accepts(func(s *http3.Stream) { s.Close() }), "the request ended"},
		// The reset can overtake the answer: either "answer to the request", or "the request was reset".
		{"resets the request", p256(t), accepts(func(s *http3.Stream) { s.CancelWrite(1) }), "the request"},
		{"closes the session", p256(t), accepts(func(s *http3.Stream) {
			s.Write(append(quicvarint.Append(quicvarint.Append(nil, closeSession), 7), 0, 0, 0, 9, 'b', 'y', 'e'))
		}), `code 0x9): "bye"`},
		{"closes the session with half a message", p256(t), accepts(func(s *http3.Stream) {
			s.Write(append(quicvarint.Append(quicvarint.Append(nil, closeSession), 7), 0, 0))
			s.Close()
		}), "in the middle"},
		{"panics", p256(t), func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "answer to the request"},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr := rogueServer(t, c.key, c.handler)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			tc, err := newTransport(t, newKey(t)).Dial(ctx, addr, newKey(t).ID(), func(host.Stage) {})
			if err == nil {
				tc.Mux.CloseWithCode(0)
				t.Fatal("connected")
			}
			if !strings.Contains(err.Error(), c.want) || ctx.Err() != nil {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// A server that accepts and then says nothing costs no more than the time that it is given.
func TestSilentListener(t *testing.T) {
	release := make(chan struct{})
	addr := rogueServer(t, p256(t), func(http.ResponseWriter, *http.Request) { <-release })
	t.Cleanup(func() { close(release) })
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := newTransport(t, newKey(t)).Dial(ctx, addr, newKey(t).ID(), func(host.Stage) {})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestWrongHash(t *testing.T) {
	key := newKey(t)
	ln := listen(t, newTransport(t, key))
	other := multiaddr.Join(ln.Addr().Decapsulate(multiaddr.MustParse("/certhash/"+firstHash(t, ln.Addr()))), certHashAddr(certHash([]byte("other"))))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := newTransport(t, newKey(t)).Dial(ctx, other, key.ID(), func(host.Stage) {})
	var mismatch *HashError
	if !errors.As(err, &mismatch) || hashText(mismatch.Got) != firstHash(t, ln.Addr()) {
		t.Error(err)
	}
}

func firstHash(t *testing.T, addr multiaddr.Addr) string {
	t.Helper()
	h, ok := addr.Value(multiaddr.CertHash)
	if !ok {
		t.Fatalf("no hash in %s", addr)
	}
	return h
}

// Clocks that are weeks apart: the certificate is the one expected, and not valid.
func TestExpired(t *testing.T) {
	key := newKey(t)
	ln := listen(t, newTransport(t, key))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, by := range []time.Duration{15 * 24 * time.Hour, -15 * 24 * time.Hour} {
		late := newTransport(t, newKey(t))
		late.now = func() time.Time { return time.Now().Add(by) }
		_, err := late.Dial(ctx, ln.Addr(), key.ID(), func(host.Stage) {})
		if err == nil || !strings.Contains(err.Error(), "clocks") {
			t.Errorf("off by %v: %v", by, err)
		}
	}
}

// While a listener runs its certificate changes: old addresses still work, and
// the new address is another one.
func TestListenerRotates(t *testing.T) {
	key := newKey(t)
	server, client := newTransport(t, key), newTransport(t, newKey(t))
	var clock atomic.Int64
	clock.Store(time.Now().UnixNano())
	server.now = func() time.Time { return time.Unix(0, clock.Load()) }
	client.now = server.now
	ln := listen(t, server)
	var addrs []multiaddr.Addr
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	go admitAll(ctx, ln)
	for i := range 4 {
		addrs = append(addrs, ln.Addr())
		for k, addr := range addrs {
			tc, err := client.Dial(ctx, addr, key.ID(), func(host.Stage) {})
			if err == nil {
				tc.Mux.CloseWithCode(0)
			}
			if mismatch := (*HashError)(nil); k < i-1 && !errors.As(err, &mismatch) || k >= i-1 && err != nil {
				t.Fatalf("an address %d rotations old: %v", i-k, err)
			}
		}
		clock.Store(clock.Load() + int64(certPeriod))
		if ln.Addr() == addrs[i] {
			t.Fatal("the address has not changed")
		}
	}
}

// Somebody stands between client and server, with a certificate of its own, and
// with the server's handshake: the client notices before it has said who it is.
func TestManInTheMiddle(t *testing.T) {
	key := newKey(t)
	server, other := newTransport(t, key), newTransport(t, newKey(t))
	theirs, err := other.certs.at(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ours, err := server.certs.at(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for name, hashes := range map[string][][]byte{"other hashes": ours.hashes, "no hashes": nil} {
		server.certs.latest.Store(&rotation{
			from: ours.from, until: ours.until,
			config: theirs.config, suffix: theirs.suffix, // what the one in between shows
			hashes: hashes, // what the server has
		})
		ln := listen(t, server)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		admitted := admitNext(ctx, ln)
		_, err = newTransport(t, newKey(t)).Dial(ctx, ln.Addr(), key.ID(), func(host.Stage) {})
		if err == nil || !strings.Contains(err.Error(), "somebody is in between") {
			t.Errorf("%s: %v", name, err)
		}
		if a := <-admitted; a.err == nil || !a.RemoteKey.IsZero() {
			t.Errorf("%s: the server believes in a connection with %s", name, a.RemoteKey.ID())
		}
	}
}

// A client is an HTTP/3 client that does not follow rules.
type client struct {
	*quicgo.Conn
	h3 *http3.RawClientConn
}

func rogueClient(t *testing.T, to multiaddr.Addr, conf *quicgo.Config) client {
	t.Helper()
	ap, _, _ := to.AddrPort()
	conn, err := quicgo.DialAddr(t.Context(), ap.String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpn}}, conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.CloseWithError(0, "") })
	h3 := (&http3.Transport{EnableDatagrams: true}).NewRawClientConn(conn)
	go handleUni(conn, h3.HandleUnidirectionalStream)
	return client{conn, h3}
}

// ask sends a request.
func (c client) ask(t *testing.T, method, proto, target string, header http.Header) (*http3.RequestStream, int, error) {
	t.Helper()
	str, err := c.h3.OpenRequestStream(t.Context())
	if err != nil {
		return nil, 0, err
	}
	u, err := url.Parse("https://127.0.0.1" + target)
	if err != nil {
		return nil, 0, err
	}
	if header == nil {
		header = http.Header{}
	}
	if err := str.SendRequestHeader(&http.Request{Method: method, Proto: proto, Host: u.Host, URL: u, Header: header}); err != nil {
		return nil, 0, err
	}
	rsp, err := str.ReadResponse()
	if err != nil {
		return nil, 0, err
	}
	return str, rsp.StatusCode, nil
}

const goodTarget = endpointPath + "?type=noise"

func TestRequests(t *testing.T) {
	for _, c := range []struct {
		method, proto, target string
		header                http.Header
		want                  int
	}{
		{"CONNECT", protocol, goodTarget, nil, 200},
		{"CONNECT", protocolDraft15, goodTarget, nil, 200},
		{"CONNECT", protocol, goodTarget, http.Header{"Origin": {"https://example.com"}}, 200}, // any page
		{"CONNECT", protocol, goodTarget + "&x=y", nil, 200},
		{"CONNECT", protocol, endpointPath, nil, 400},
		{"CONNECT", protocol, endpointPath + "?type=tls", nil, 400},
		{"CONNECT", protocol, endpointPath + "?type=noise&type=tls", nil, 400},
		{"CONNECT", protocol, endpointPath + "?type=Noise", nil, 400},
		{"CONNECT", protocol, endpointPath + "?%zz", nil, 400},
		{"CONNECT", "connect-udp", goodTarget, nil, 400},
		{"CONNECT", protocol, "/", nil, 404},
		{"CONNECT", protocol, "/x" + goodTarget, nil, 404},
		{"GET", "", goodTarget, nil, 405},
		{"GET", "", "/", nil, 404},
		{"CONNECT", protocol, goodTarget, http.Header{"X": {strings.Repeat("x", 10<<20)}}, 431},
	} {
		key := newKey(t)
		ln := listen(t, newTransport(t, key))
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		admitted := admitNext(ctx, ln)
		cl := rogueClient(t, ln.Addr(), quicConfig())
		var err error
		for got, n := 0, 0; n < maxRequests && got != 200; n++ {
			if _, got, err = cl.ask(t, c.method, c.proto, c.target, c.header); n == maxRequests-1 {
				break // the connection may end before the answer is there
			} else if err != nil && c.want != 431 {
				t.Errorf("%s %.60s: %v", c.method, c.target, err)
			} else if got != c.want && (err == nil || c.want != 431) {
				t.Errorf("%s %s: status %d, want %d", c.method, c.target, got, c.want)
			}
		}
		if c.want == 200 {
			cl.CloseWithError(0, "")
		}
		a := <-admitted
		told := a.err != nil && strings.Contains(a.err.Error(), "none for a session")
		if c.want == 431 && a.err != nil {
			told = told || strings.Contains(a.err.Error(), "before it has said who it is")
		}
		if a.err == nil || (c.want != 200) != told {
			t.Errorf("%s %.60s: %v", c.method, c.target, a.err)
		}
		if ctx.Err() != nil {
			t.Errorf("%s %.60s: the listener waited for its time to be over", c.method, c.target)
		}
		cancel()
	}
}

// Servers and clients of draft 2 look for a header each.
func TestDraft2(t *testing.T) {
	addr := rogueServer(t, p256(t), func(w http.ResponseWriter, req *http.Request) {
		if req.Proto == protocol && req.Header.Get(draft2Offer) == "1" {
			w.WriteHeader(http.StatusTeapot)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := newTransport(t, newKey(t)).Dial(ctx, addr, newKey(t).ID(), func(host.Stage) {})
	if err == nil || !strings.Contains(err.Error(), "status 418") {
		t.Errorf("a server of draft 2 does not know its own: %v", err)
	}

	ln := listen(t, newTransport(t, newKey(t)))
	go admitAll(ctx, ln)
	cl := rogueClient(t, ln.Addr(), quicConfig())
	str, err := cl.h3.OpenRequestStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	u := &url.URL{Scheme: "https", Host: "127.0.0.1", Path: endpointPath, RawQuery: "type=noise"}
	if err := str.SendRequestHeader(&http.Request{Method: "CONNECT", Proto: protocol, Host: u.Host, URL: u, Header: http.Header{draft2Offer: {"1"}}}); err != nil {
		t.Fatal(err)
	}
	if rsp, err := str.ReadResponse(); err != nil || rsp.StatusCode != 200 || rsp.Header.Get(draft2Answer) != "draft02" {
		t.Errorf("%+v, %v", rsp, err)
	}
}

// A client that stops at any point of the handshake costs the time it is
// given; one that leaves costs nothing more.
func TestMaliciousDialer(t *testing.T) {
	prefix := func(id quicgo.StreamID) []byte {
		return quicvarint.Append(quicvarint.Append(nil, bidiStream), uint64(id))
	}
	for _, c := range []struct {
		name string
		do   func(t *testing.T, c client)
		want string
	}{
		{"says nothing", func(*testing.T, client) {}, ""},
		{"sends half a request", func(t *testing.T, c client) {
			str, err := c.OpenStream()
			if err != nil {
				t.Error(err)
			}
			str.Write([]byte{1, 0x40})
		}, ""},
		{"sends no request but a stream", func(t *testing.T, c client) {
			str, err := c.OpenStream()
			if err != nil {
				t.Error(err)
			}
			str.Write(append(prefix(0), "hello"...))
			str.Close()
		}, ""},
		{"opens no stream", func(t *testing.T, c client) {
			if _, status, err := c.ask(t, "CONNECT", protocol, goodTarget, nil); status != 200 {
				t.Error(status, err)
			}
		}, ""},
		{"opens a stream of another session", func(t *testing.T, c client) {
			c.ask(t, "CONNECT", protocol, goodTarget, nil)
			str, err := c.OpenStream()
			if err != nil {
				t.Error(err)
			}
			str.Write(append(prefix(400), make([]byte, 34)...))
		}, "only session 0"},
		{"sends another request instead of a stream", func(t *testing.T, c client) {
			c.ask(t, "CONNECT", protocol, goodTarget, nil)
			go c.ask(t, "CONNECT", protocol, goodTarget, nil)
		}, "only session 0"},
		{"sends garbage instead of Noise", func(t *testing.T, c client) {
			c.ask(t, "CONNECT", protocol, goodTarget, nil)
			str, err := c.OpenStream()
			if err != nil {
				t.Error(err)
			}
			str.Write(append(prefix(0), "GET / HTTP/1.1\r\n\r\n"...))
		}, "noise"},
		{"sends much and not who it is", func(t *testing.T, c client) {
			c.ask(t, "CONNECT", protocol, goodTarget, nil)
			for _, data := range [][]byte{{0, 32, 1}, make([]byte, maxUnproved/2), make([]byte, maxUnproved)} {
				str, err := c.OpenStream()
				if err != nil {
					t.Error(err)
				}
				str.Write(append(prefix(0), data...))
			}
		}, "before it has said who it is"},
		{"ends the stream in the middle", func(t *testing.T, c client) {
			c.ask(t, "CONNECT", protocol, goodTarget, nil)
			str, err := c.OpenStream()
			if err != nil {
				t.Error(err)
			}
			str.Write(append(prefix(0), 0, 32, 1))
			str.Close()
		}, "unexpected EOF"},
		{"closes the session in the middle", func(t *testing.T, c client) {
			req, _, err := c.ask(t, "CONNECT", protocol, goodTarget, nil)
			if err != nil {
				t.Error(err)
				return
			}
			req.Write(append(quicvarint.Append(quicvarint.Append(nil, closeSession), 4), 0, 0, 0, 5))
		}, "code 0x5"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, leaves := range []bool{true, false} {
				if !leaves && c.want != "" {
					continue
				}
				key := newKey(t)
				ln := listen(t, newTransport(t, key))
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				limit, end := ctx, func() {}
				if !leaves {
					hand := &handDeadline{ctx, make(chan struct{})}
					limit, end = hand, func() { close(hand.passed) }
				}
				admitted := admitNext(limit, ln)
				cl := rogueClient(t, ln.Addr(), quicConfig())
				c.do(t, cl)
				end()
				if leaves && c.want == "" {
					cl.CloseWithError(0, "")
				}
				a := <-admitted
				switch {
				case a.err == nil:
					t.Error("was taken in")
				case leaves && (ctx.Err() != nil || !strings.Contains(a.err.Error(), c.want)):
					t.Errorf("%v, want %q", a.err, c.want)
				case !leaves && !errors.Is(a.err, context.DeadlineExceeded):
					t.Errorf("%v, want the end of its time", a.err)
				}
			}
		})
	}
}

// A handDeadline has a deadline that passes when the test wants it.
type handDeadline struct {
	context.Context
	passed chan struct{}
}

func (c *handDeadline) Done() <-chan struct{} { return c.passed }

func (c *handDeadline) Err() error {
	select {
	case <-c.passed:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// A remote that reads nothing and grants nothing cannot delay Close.
func TestWithheldCredit(t *testing.T) {
	key := newKey(t)
	ln := listen(t, newTransport(t, key))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	admitted := admitNext(ctx, ln)
	conf := quicConfig()
	conf.MaxIncomingStreams = 1000
	conf.InitialStreamReceiveWindow, conf.MaxStreamReceiveWindow = 1024, 1024
	conf.InitialConnectionReceiveWindow, conf.MaxConnectionReceiveWindow = 2048, 2048
	cl := rogueClient(t, ln.Addr(), conf)
	req, _, err := cl.ask(t, "CONNECT", protocol, goodTarget, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := newSession(cl.Conn, quic.NewEndpoint(quic.EndpointConfig{}).Meter(cl.Conn), req, req.StreamID())
	st, err := s.openStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	n := newTransport(t, newKey(t)).noise
	if _, err := n.Client(ctx, noiseConn{st}, noiseConfig(key.ID())); err != nil {
		t.Fatal(err)
	}
	a := <-admitted
	if a.err != nil {
		t.Fatal(a.err)
	}
	var writes []<-chan error
	for range 8 {
		out, err := a.Mux.OpenStream(ctx)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			_, err := out.Write(make([]byte, 64<<10))
			done <- err
		}()
		writes = append(writes, done)
	}
	// Streams that cannot even say what they are end at once.
	for range 100 {
		out, err := a.Mux.OpenStream(ctx)
		if err != nil {
			t.Fatal(err)
		}
		took := testkit.Took(func() {
			if i := out.(*stream).str.StreamID(); i%8 == 0 {
				out.Close()
			} else {
				out.Reset(1)
			}
		})
		if took > time.Second {
			t.Fatalf("ending a stream took %v", took)
		}
	}
	if took := testkit.Took(func() { a.Mux.CloseWithCode(7) }); took > time.Second {
		t.Errorf("CloseWithCode took %v", took)
	}
	for _, w := range writes {
		if err := <-w; !errors.Is(err, net.ErrClosed) {
			t.Errorf("a write on a connection that was closed: %v", err)
		}
	}
}

// A million streams leave nothing behind; here a few thousand, which would show.
func TestStreamsLeaveNothing(t *testing.T) {
	near, far := connect(t)
	go far.Mux.Serve(func(s host.MuxedStream) { go func() { io.Copy(s, s); s.Close() }() })
	go near.Mux.Serve(func(s host.MuxedStream) { s.Reset(0) })
	use := func(n int) uint64 {
		for range n {
			s, err := near.Mux.OpenStream(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprint(s, "x")
			s.CloseWrite()
			io.Copy(io.Discard, s)
			s.Close()
		}
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := use(500)
	if after := use(3000); after > before+256<<10 {
		t.Errorf("%d bytes after 500 streams, %d after 3000 more", before, after)
	}
	if n := near.Mux.NumStreams(); n != 0 {
		t.Errorf("%d streams are open", n)
	}
}

// Only one session: a second request on the connection comes to nothing.
func TestSecondSession(t *testing.T) {
	near, far := connect(t)
	served := make(chan host.MuxedStream, 1)
	go far.Mux.Serve(func(s host.MuxedStream) { served <- s })
	str, err := near.Mux.(*session).conn.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	str.Write([]byte{1, 1, 0}) // a HEADERS frame
	s := <-served
	if _, err := s.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "only session") {
		t.Error(err)
	}
	if _, err := str.Read(make([]byte, 1)); err == nil {
		t.Error("the stream goes on")
	}
	s.Reset(0)
}

func TestCloseCodes(t *testing.T) {
	for _, code := range []uint32{0, 1, host.ConnCodeResourceLimit, 1<<32 - 1} {
		near, far := connect(t)
		ended := make(chan error, 1)
		go func() { ended <- far.Mux.Serve(func(host.MuxedStream) {}) }()
		near.Mux.CloseWithCode(code)
		var closed *SessionError
		if err := <-ended; !errors.As(err, &closed) || closed.Code != code || !closed.Remote || !errors.Is(err, net.ErrClosed) {
			t.Errorf("code %#x: %v", code, err)
		}
	}
}

// The codes of streams avoid those that HTTP/3 keeps for itself.
// https://datatracker.ietf.org/doc/html/draft-ietf-webtrans-http3#section-4.4
func TestStreamCodes(t *testing.T) {
	for _, c := range []struct {
		code uint32
		wire quicgo.StreamErrorCode
	}{{0, 0x52e4a40fa8db}, {0x1d, 0x52e4a40fa8f8}, {0x1e, 0x52e4a40fa8fa}, {1<<32 - 1, 0x52e5ac983162}} {
		if got := toWire(c.code); got != c.wire {
			t.Errorf("%#x is sent as %#x, want %#x", c.code, got, c.wire)
		}
	}
	for code := uint32(0); code < 100_000; code++ {
		wire := toWire(code)
		if back, ok := fromWire(wire); !ok || back != code || (wire-0x21)%0x1f == 0 {
			t.Fatalf("%#x is sent as %#x, and read as %#x, %v", code, wire, back, ok)
		}
	}
	for _, wire := range []quicgo.StreamErrorCode{0, 0x10c, firstCode - 1, lastCode + 1, 0x52e4a40fa8f9, sessionGone} {
		if code, ok := fromWire(wire); ok {
			t.Errorf("%#x is read as %#x", wire, code)
		}
	}
}

func FuzzStreamCode(f *testing.F) {
	for _, code := range []uint64{0, firstCode, lastCode, 0x52e4a40fa8f9, sessionGone} {
		f.Add(code)
	}
	f.Fuzz(func(t *testing.T, code uint64) {
		if n, ok := fromWire(quicgo.StreamErrorCode(code)); ok && toWire(n) != quicgo.StreamErrorCode(code) {
			t.Fatalf("%#x is read as %#x, which is sent as %#x", code, n, toWire(n))
		}
	})
}

// Prefixes of streams come in pieces, and in encodings that are longer than need be.
func TestPrefixLen(t *testing.T) {
	for _, c := range [][]byte{
		{0x40, 0x41, 0}, {0x40, 0x41, 0x40, 4}, {0x80, 0, 0, 0x41, 0},
		{0xc0, 0, 0, 0, 0, 0, 0, 0x41, 0xc0, 0, 0, 0, 0, 0, 0, 4},
	} {
		if got := prefixLen(c); got != len(c) {
			t.Errorf("%x: %d", c, got)
		}
		for i := range c {
			if got := prefixLen(c[:i]); got <= i || got > len(c) {
				t.Errorf("%x of %x: %d", c[:i], c, got)
			}
		}
	}
}

func TestNew(t *testing.T) {
	if _, err := New(Config{Key: newKey(t)}); err == nil || !strings.Contains(err.Error(), "Endpoint") {
		t.Error(err)
	}
	e := newEndpoint(t)
	defer e.Close()
	if _, err := New(Config{Endpoint: e, Key: peer.PrivateKey{}}); err == nil {
		t.Error("no key is a key")
	}
}
