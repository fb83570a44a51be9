package host_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/testkit"
	"github.com/kith-p2p/kith/memory"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

func echo(_ context.Context, s *host.Stream) error {
	_, err := io.Copy(s, s)
	return err
}

// checkEcho says text on s and wants to hear it.
func checkEcho(t *testing.T, s *host.Stream, text string) {
	t.Helper()
	fmt.Fprint(s, text)
	s.CloseWrite()
	if got, err := io.ReadAll(s); string(got) != text || err != nil {
		t.Errorf("%q came back as %q, %v", text, got, err)
	}
}

func TestEcho(t *testing.T) {
	a, b := testkit.Pair(t)
	b.Handle("/echo/1", echo)
	s, err := a.NewStream(t.Context(), b.ID(), "/echo/1")
	if err != nil {
		t.Fatal(err)
	}
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go func() {
		s.Write(sent)
		s.CloseWrite()
	}()
	got, err := io.ReadAll(s)
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("%d bytes came back of %d: %v", len(got), len(sent), err)
	}
	if s.Protocol() != "/echo/1" || s.Conn().RemotePeer() != b.ID() || s.Direction() != host.DirOutbound {
		t.Errorf("stream tells %s %s %s", s.Protocol(), s.Conn().RemotePeer(), s.Direction())
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// The side that did not dial opens streams too.
func TestStreamsBothWays(t *testing.T) {
	a, b := testkit.Pair(t)
	a.Handle("/echo/1", echo)
	s, err := b.NewStream(t.Context(), a.ID(), "/echo/1")
	if err != nil {
		t.Fatal(err)
	}
	checkEcho(t, s, "hello")
}

// A handler that speaks first, to an opener that only reads.
func TestServerSpeaksFirst(t *testing.T) {
	a, b := testkit.Pair(t)
	b.Handle("/time/1", func(_ context.Context, s *host.Stream) error {
		_, err := fmt.Fprint(s, "noon")
		return err
	})
	s, err := a.NewStream(t.Context(), b.ID(), "/time/1")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(s); string(got) != "noon" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestProtocolRefused(t *testing.T) {
	a, b := testkit.Pair(t)
	s, err := a.NewStream(t.Context(), b.ID(), "/none/1")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(s, "data that nobody reads")
	var refused *host.ProtocolError
	if _, err := s.Read(make([]byte, 1)); !errors.As(err, &refused) || refused.Peer != b.ID() || refused.Protocols[0] != "/none/1" {
		t.Errorf("reading from a refused stream: %v", err)
	}
	// The same again: the answer does not change.
	if _, err := s.Read(make([]byte, 1)); !errors.As(err, &refused) {
		t.Errorf("reading again: %v", err)
	}
	if _, err := a.NewStream(t.Context(), b.ID(), "/none/1", "/none/2"); !errors.As(err, &refused) {
		t.Errorf("proposing two: %v", err)
	}
}

// A reset can overtake the refusal: then it is a write that learns of it.
func TestRefusalOfAWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := testkit.Pair(t)
		s, err := a.NewStream(t.Context(), b.ID(), "/none/1")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprint(s, "\x02no message of multistream"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		var refused *host.ProtocolError
		if _, err := fmt.Fprint(s, "more"); !errors.As(err, &refused) || refused.Peer != b.ID() || refused.Protocols[0] != "/none/1" {
			t.Errorf("writing to a refused stream: %v", err)
		}
	})
}

func TestSecondProtocol(t *testing.T) {
	a, b := testkit.Pair(t)
	b.Handle("/echo/1", echo)
	s, err := a.NewStream(t.Context(), b.ID(), "/echo/2", "/echo/1")
	if err != nil {
		t.Fatal(err)
	}
	if s.Protocol() != "/echo/1" {
		t.Errorf("agreed on %s", s.Protocol())
	}
	checkEcho(t, s, "x")
}

func TestBadProtocolIDs(t *testing.T) {
	a, b := testkit.Pair(t)
	if _, err := a.NewStream(t.Context(), b.ID()); err == nil {
		t.Error("a stream without a protocol was opened")
	}
	for _, p := range []host.ProtocolID{"", "no-slash", "/with\nnewline", host.ProtocolID("/" + strings.Repeat("x", 1024))} {
		if _, err := a.NewStream(t.Context(), b.ID(), p); err == nil {
			t.Errorf("a stream for the protocol %.20q was opened", p)
		}
	}
}

func TestHandlerErrors(t *testing.T) {
	a, b := testkit.Pair(t)
	b.Handle("/fails/1", func(context.Context, *host.Stream) error { return errors.New("no") })
	b.Handle("/limits/1", func(context.Context, *host.Stream) error {
		return fmt.Errorf("busy: %w", &host.StreamError{Code: host.CodeRateLimited})
	})
	b.Handle("/panics/1", func(context.Context, *host.Stream) error { panic("at the disco") })
	for proto, code := range map[host.ProtocolID]uint32{"/fails/1": 0, "/limits/1": host.CodeRateLimited, "/panics/1": 0} {
		s, err := a.NewStream(t.Context(), b.ID(), proto)
		if err != nil {
			t.Fatal(err)
		}
		var reset *host.StreamError
		if _, err := s.Read(make([]byte, 1)); !errors.As(err, &reset) || !reset.Remote || reset.Code != code {
			t.Errorf("%s: %v, want a reset by the remote with code %#x", proto, err, code)
		}
	}
	// The host is still there.
	b.Handle("/echo/1", echo)
	s, err := a.NewStream(t.Context(), b.ID(), "/echo/1")
	if err != nil {
		t.Fatal(err)
	}
	checkEcho(t, s, "x")
}

func TestHTTP(t *testing.T) {
	a, b := testkit.Pair(t)
	l := b.Listener("/http/1.1")
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s", r.Method, r.URL.Path)
	})}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return a.NewStream(ctx, b.ID(), "/http/1.1")
	}}}
	for range 3 {
		resp, err := client.Get("http://peer/path")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(body) != "GET /path" || err != nil {
			t.Errorf("got %q, %v", body, err)
		}
	}
	client.CloseIdleConnections()
	if err := server.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-served; err != http.ErrServerClosed {
		t.Errorf("Serve ended with %v", err)
	}
	if len(b.Protocols()) != 0 {
		t.Errorf("protocols after the listener was closed: %v", b.Protocols())
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v", err)
	}
}

func TestOneDialAtATime(t *testing.T) {
	network := new(memory.Network)
	a, b := testkit.Host(t, network, host.Config{}), testkit.Host(t, network, host.Config{})
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if _, err := a.Connect(t.Context(), testkit.Info(b)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := len(a.ConnsTo(b.ID())); n != 1 {
		t.Errorf("%d connections after 50 dials at the same time, want 1", n)
	}
}

// A caller that joins a dial which knows only bad addresses brings a good one.
func TestJoinedDialTriesNewAddrs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(memory.Network)
		a, b := testkit.Host(t, network, host.Config{}), testkit.Host(t, network, host.Config{})
		silent := silentListener(t, network)
		first := make(chan error, 1)
		go func() {
			_, err := a.Connect(t.Context(), peer.AddrInfo{ID: b.ID(), Addrs: []multiaddr.Addr{silent}})
			first <- err
		}()
		synctest.Wait()
		if _, err := a.Connect(t.Context(), testkit.Info(b)); err != nil {
			t.Errorf("the second caller: %v", err)
		}
		<-first
	})
}

// silentListener accepts connections and says nothing.
func silentListener(t *testing.T, network *memory.Network) multiaddr.Addr {
	t.Helper()
	transport, err := memory.New(memory.Config{Network: network, Upgrader: testkit.Upgrader(t, testkit.Key(t))})
	if err != nil {
		t.Fatal(err)
	}
	l, err := transport.Listen(multiaddr.MustParse("/memory/0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { in.Close() })
		}
	}()
	return l.Addr()
}

func TestDialErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(memory.Network)
		a := testkit.Host(t, network, host.Config{})
		impostor := testkit.Host(t, network, host.Config{})
		wanted := testkit.Key(t).ID()

		if _, err := a.NewStream(t.Context(), wanted, "/x/1"); !errors.Is(err, host.ErrNoAddrs) {
			t.Errorf("without addresses: %v", err)
		}
		if _, err := a.Connect(t.Context(), testkit.Info(a)); err != host.ErrDialSelf {
			t.Errorf("to itself: %v", err)
		}

		silent := silentListener(t, network)
		to := peer.AddrInfo{ID: wanted, Addrs: append(impostor.Addrs(), silent,
			multiaddr.MustParse("/memory/999"), multiaddr.MustParse("/ip4/127.0.0.1/udp/1/quic-v1"))}
		_, err := a.Connect(t.Context(), to)
		var failed *host.DialError
		if !errors.As(err, &failed) || len(failed.Attempts) != 4 {
			t.Fatalf("four addresses: %v", err)
		}
		for _, attempt := range failed.Attempts {
			var want string
			switch attempt.Addr {
			case impostor.Addrs()[0]:
				want = impostor.ID().String()
			case silent:
				want = "deadline"
				if attempt.Elapsed != 10*time.Second || attempt.Stage != host.StageOpened {
					t.Errorf("silent address: %v in %s", attempt.Elapsed, attempt.Stage)
				}
			case multiaddr.MustParse("/memory/999"):
				want = "nothing listens"
			default:
				want = "no transport"
			}
			if !strings.Contains(attempt.Err.Error(), want) {
				t.Errorf("%s: %v, want it to tell of %q", attempt.Addr, attempt.Err, want)
			}
		}

		// A caller that does not wait gets what is known so far.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = a.Connect(ctx, peer.AddrInfo{ID: testkit.Key(t).ID(), Addrs: []multiaddr.Addr{silent}})
		if !errors.As(err, &failed) || len(failed.Attempts) != 1 || failed.Attempts[0].Elapsed != time.Second || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("given up after a second: %v", err)
		}
	})
}

func TestEvents(t *testing.T) {
	network := new(memory.Network)
	var mu sync.Mutex
	var trace []string
	a := testkit.Host(t, network, host.Config{Trace: func(e host.Event) {
		mu.Lock()
		defer mu.Unlock()
		trace = append(trace, fmt.Sprintf("%T", e))
	}})
	b := testkit.Host(t, network, host.Config{})
	b.Handle("/echo/1", echo)
	sub := a.Subscribe(16)
	testkit.Connect(t, a, b)
	s, err := a.NewStream(t.Context(), b.ID(), "/echo/1")
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	b.Close()
	for _, want := range []string{"host.PeerConnected", "host.ConnOpened", "host.ConnClosed", "host.PeerDisconnected"} {
		if got := fmt.Sprintf("%T", <-sub.Events()); got != want {
			t.Errorf("event %s, want %s", got, want)
		}
	}
	sub.Close()
	sub.Close()
	if _, open := <-sub.Events(); open {
		t.Error("an event after Close")
	}
	mu.Lock()
	defer mu.Unlock()
	want := "[host.AddrsChanged host.DialStarted host.DialRanked host.DialAttempted host.PeerConnected host.ConnOpened host.DialEnded host.StreamOpened host.ConnClosed host.PeerDisconnected]"
	if fmt.Sprint(trace) != want {
		t.Errorf("trace %v,\nwant  %s", trace, want)
	}
}

func TestStreamLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(memory.Network)
		a := testkit.Host(t, network, host.Config{})
		b := testkit.Host(t, network, host.Config{Limits: host.Limits{InboundStreamsPerPeer: 3}})
		hold := make(chan struct{})
		b.Handle("/hold/1", func(_ context.Context, s *host.Stream) error {
			s.Write([]byte{1})
			<-hold
			return nil
		})
		testkit.Connect(t, a, b)
		ok, refused := 0, 0
		for range 5 {
			s, err := a.NewStream(t.Context(), b.ID(), "/hold/1")
			if err != nil {
				t.Fatal(err)
			}
			var reset *host.StreamError
			switch _, err := s.Read(make([]byte, 1)); {
			case err == nil:
				ok++
			case errors.As(err, &reset) && reset.Code == host.CodeResourceLimit && reset.Remote:
				refused++
			default:
				t.Errorf("reading: %v", err)
			}
		}
		if ok != 3 || refused != 2 {
			t.Errorf("%d streams served and %d refused, want 3 and 2", ok, refused)
		}
		close(hold)
		synctest.Wait()
		s, err := a.NewStream(t.Context(), b.ID(), "/hold/1")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Read(make([]byte, 1)); err != nil {
			t.Errorf("after places have become free: %v", err)
		}
	})
}

// Who opens streams that come to nothing is read ever more slowly, and then sent away.
// Meanwhile others are not, and nobody whose streams are served.
func TestVainStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(memory.Network)
		var looked atomic.Int64 // streams that came to nothing
		b := testkit.Host(t, network, host.Config{Trace: func(e host.Event) {
			switch e := e.(type) {
			case host.StreamRefused:
				looked.Add(1)
			case host.StreamEnded:
				if e.Err != nil {
					looked.Add(1)
				}
			}
		}})
		b.Handle("/echo/1", echo)
		b.Handle("/busy/1", func(context.Context, *host.Stream) error { return &host.StreamError{Code: host.CodeRateLimited} })
		honest := testkit.Host(t, network, host.Config{})
		testkit.Connect(t, honest, b)
		echoed := func(streams int) (took time.Duration) {
			start := time.Now()
			for range streams {
				s, err := honest.NewStream(t.Context(), b.ID(), "/echo/1")
				if err != nil {
					t.Fatal(err)
				}
				s.Write([]byte{1})
				if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
					t.Fatal(err)
				}
				s.Close()
			}
			return time.Since(start)
		}
		if took := echoed(5000); took > 0 {
			t.Errorf("5,000 streams that are served waited for %v", took)
		}
		// Nobody serves the first, and the handler of the second refuses.
		for _, proto := range []host.ProtocolID{"/nobody/1", "/busy/1"} {
			a := testkit.Host(t, network, host.Config{})
			c := testkit.Connect(t, a, b)
			start, before := time.Now(), looked.Load()
			var early int64
			for opened := 0; ; opened++ {
				if s, err := c.NewStream(t.Context(), proto); err == nil {
					s.Read(make([]byte, 1))
				}
				time.Sleep(time.Millisecond)
				if opened == 300 {
					if took := echoed(100); took > 0 {
						t.Errorf("%s: others wait for %v", proto, took)
					}
				}
				if time.Since(start) < time.Second {
					early = looked.Load() - before
				}
				select {
				case <-c.Done():
				default:
					continue
				}
				break
			}
			took, all := time.Since(start), looked.Load()-before
			if took < 4*time.Second || took > 7*time.Second || all > 1200 || early < 100 || early > 320 {
				t.Errorf("%s: %d streams were looked at in %v, of them %d in the first second", proto, all, took, early)
			}
		}
	})
}

func TestConnLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(memory.Network)
		b := testkit.Host(t, network, host.Config{Limits: host.Limits{Conns: 2}})
		for i := range 3 {
			a := testkit.Host(t, network, host.Config{})
			a.Connect(t.Context(), testkit.Info(b))
			synctest.Wait()
			if got, want := len(a.Conns()), []int{1, 1, 0}[i]; got != want {
				t.Errorf("host %d has %d connections, want %d", i, got, want)
			}
		}
		if n := len(b.Conns()); n != 2 {
			t.Errorf("%d connections, want 2", n)
		}
	})
}

// Close returns within a second although a handler never does, and says so.
func TestCloseWithStuckHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(memory.Network)
		a := testkit.Host(t, network, host.Config{})
		identity := testkit.Key(t)
		transport, err := memory.New(memory.Config{Network: network, Upgrader: testkit.Upgrader(t, identity)})
		if err != nil {
			t.Fatal(err)
		}
		b, err := host.New(host.Config{Identity: identity, Transports: []host.Transport{transport}})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Listen(multiaddr.MustParse("/memory/0")); err != nil {
			t.Fatal(err)
		}
		stuck := make(chan struct{})
		b.Handle("/stuck/1", func(_ context.Context, s *host.Stream) error {
			s.Write([]byte{1})
			<-stuck
			return nil
		})
		testkit.Connect(t, a, b)
		s, err := a.NewStream(t.Context(), b.ID(), "/stuck/1")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		err = b.Close()
		if err == nil || !strings.Contains(err.Error(), "1 of its goroutines") {
			t.Errorf("Close: %v", err)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("Close took %v", took)
		}
		if err := b.Close(); err != nil {
			t.Errorf("a second Close: %v", err)
		}
		close(stuck)
	})
}

// Close in the middle of everything: dials, half-open connections, streams.
func TestCloseFromAnyState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(memory.Network)
		a, b := testkit.Host(t, network, host.Config{}), testkit.Host(t, network, host.Config{})
		b.Handle("/wait/1", func(ctx context.Context, s *host.Stream) error {
			_, err := s.Read(make([]byte, 1))
			return err
		})
		testkit.Connect(t, a, b)
		s, err := a.NewStream(t.Context(), b.ID(), "/wait/1")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.CloseRead(); err != nil {
			t.Fatal(err)
		}
		silent := silentListener(t, network)
		dialed := make(chan error, 1)
		go func() {
			_, err := a.Connect(t.Context(), peer.AddrInfo{ID: testkit.Key(t).ID(), Addrs: []multiaddr.Addr{silent}})
			dialed <- err
		}()
		synctest.Wait()
		start := time.Now()
		if err := a.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("Close took %v", took)
		}
		if err := <-dialed; err == nil {
			t.Error("a dial of a closed host succeeded")
		}
		if _, err := a.NewStream(t.Context(), b.ID(), "/x/1"); !errors.Is(err, net.ErrClosed) {
			t.Errorf("NewStream after Close: %v", err)
		}
		if err := a.Listen(multiaddr.MustParse("/memory/0")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Listen after Close: %v", err)
		}
	})
}

// Streams on which nothing is proposed cost a place for ten seconds at most.
func TestSilentStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(memory.Network)
		a, b := testkit.Host(t, network, host.Config{}), testkit.Host(t, network, host.Config{})
		b.Handle("/echo/1", echo)
		testkit.Connect(t, a, b)
		c := b.ConnsTo(a.ID())[0]
		var open []*host.Stream
		for range 3 {
			s, err := a.NewStream(t.Context(), b.ID(), "/echo/1")
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, s)
		}
		_ = open
		synctest.Wait()
		if n := c.NumStreams(); n != 0 {
			t.Errorf("%d streams at the remote before anything was sent, want 0", n)
		}
	})
}

// A writer that waits for the remote to read does not keep our reader from
// reading, also before anything was read.
func TestReadWhileWriteWaits(t *testing.T) {
	a, b := testkit.Pair(t)
	b.Handle("/echo/1", echo)
	s, err := a.NewStream(t.Context(), b.ID(), "/echo/1")
	if err != nil {
		t.Fatal(err)
	}
	sent := bytes.Repeat([]byte("kith"), 4<<20)
	wrote := make(chan error, 1)
	go func() {
		_, err := s.Write(sent) // more than windows and buffers hold
		wrote <- errors.Join(err, s.CloseWrite())
	}()
	// Only when nothing moves any more does the reader begin.
	for last := -1; ; {
		n := s.Conn().NumStreams()
		if n == last {
			break
		}
		last = n
	}
	got, err := io.ReadAll(s)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes came back of %d: %v", len(got), len(sent), err)
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
}

// A read that gave up in the middle of the remote's answer can be tried again.
func TestReadDeadlineDuringNegotiation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(memory.Network)
		a := testkit.Host(t, network, host.Config{})
		b := testkit.Host(t, network, host.Config{})
		answer := make(chan struct{})
		b.Handle("/slow/1", func(_ context.Context, s *host.Stream) error {
			<-answer
			_, err := fmt.Fprint(s, "data")
			return err
		})
		testkit.Connect(t, a, b)
		s, err := a.NewStream(t.Context(), b.ID(), "/slow/1")
		if err != nil {
			t.Fatal(err)
		}
		for range 3 { // the answer comes with the first data, or soon without it
			s.SetReadDeadline(time.Now().Add(40 * time.Millisecond))
			if _, err := s.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("reading before there is an answer: %v", err)
			}
		}
		close(answer)
		s.SetReadDeadline(time.Time{})
		if got, err := io.ReadAll(s); string(got) != "data" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

// The end of a stream waits for the remote to agree to its protocol: soon, though
// its handler does nothing at first, and not for ever.
func TestCloseBeforeTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(memory.Network)
		a := testkit.Host(t, network, host.Config{})
		b := testkit.Host(t, network, host.Config{})
		proceed := make(chan struct{})
		read := make(chan string, 2)
		b.Handle("/slow/1", func(_ context.Context, s *host.Stream) error {
			<-proceed
			got, err := io.ReadAll(s)
			read <- string(got)
			return err
		})
		testkit.Connect(t, a, b)
		for _, end := range []func(*host.Stream) error{(*host.Stream).CloseWrite, (*host.Stream).Close} {
			s, err := a.NewStream(t.Context(), b.ID(), "/slow/1")
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprint(s, "data")
			start := time.Now()
			if err := end(s); err != nil || time.Since(start) > 100*time.Millisecond {
				t.Errorf("closing before the handler reads: %v after %v", err, time.Since(start))
			}
		}
		close(proceed)
		for range 2 {
			if got := <-read; got != "data" {
				t.Errorf("the remote read %q", got)
			}
		}
	})
}

// A connection that was closed is not given to anybody, and what reads events
// in a goroutine of the host ends with it.
func TestClosedConnIsNotUsed(t *testing.T) {
	a, b := testkit.Pair(t)
	b.Handle("/echo/1", echo)
	ended := make(chan struct{})
	events := a.Subscribe(16)
	a.Go(func(context.Context) {
		defer close(ended)
		for range events.Events() {
		}
	})
	for range 20 {
		c, err := a.Connect(t.Context(), testkit.Info(b))
		if err != nil {
			t.Fatal(err)
		}
		s, err := a.NewStream(t.Context(), b.ID(), "/echo/1")
		if err != nil {
			t.Fatal(err)
		}
		checkEcho(t, s, "hello")
		c.Close()
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	<-ended
}
