package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// A scriptedTransport answers dials as it is told: nothing comes back from an address
// that is not in answers.
type scriptedTransport struct {
	Transport
	key peer.PrivateKey

	mu      sync.Mutex
	answers map[string]answer
	dialed  []string
}

type answer struct {
	after time.Duration
	err   error         // nil: a connection
	opens time.Duration // the first sign of life; 0: at the end
}

func (s *scriptedTransport) CanDial(a multiaddr.Addr) bool { return !isName(a) }

func (s *scriptedTransport) Dial(ctx context.Context, addr multiaddr.Addr, _ peer.ID, progress func(Stage)) (TransportConn, error) {
	s.mu.Lock()
	s.dialed = append(s.dialed, addr.String())
	a, ok := s.answers[addr.String()]
	s.mu.Unlock()
	if !ok {
		a.after = time.Hour
	}
	if a.opens > 0 {
		time.AfterFunc(a.opens, func() { progress(StageOpened) })
	}
	select {
	case <-time.After(a.after):
	case <-ctx.Done():
		return TransportConn{}, ctx.Err()
	}
	if a.err != nil {
		return TransportConn{}, a.err
	}
	progress(StageOpened)
	progress(StageMuxed)
	return TransportConn{Mux: &idleMux{ended: make(chan struct{})}, RemoteAddr: addr, RemoteKey: s.key.Public()}, nil
}

func (s *scriptedTransport) answer(addr string, a answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.answers == nil {
		s.answers = make(map[string]answer)
	}
	s.answers[addr] = a
}

// take tells what was dialed since it was last asked.
func (s *scriptedTransport) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	dialed := s.dialed
	s.dialed = nil
	return dialed
}

// idleMux is a connection on which nothing happens.
type idleMux struct {
	once  sync.Once
	ended chan struct{}
}

func (m *idleMux) OpenStream(context.Context) (MuxedStream, error) { return nil, net.ErrClosed }
func (m *idleMux) Serve(func(MuxedStream)) error                   { <-m.ended; return net.ErrClosed }
func (m *idleMux) NumStreams() int                                 { return 0 }
func (m *idleMux) RTT() time.Duration                              { return 0 }

func (m *idleMux) CloseWithCode(uint32) error {
	m.once.Do(func() { close(m.ended) })
	return nil
}

// dialing runs f with a host whose one transport is scripted.
func dialing(t *testing.T, cfg Config, f func(t *testing.T, h *Host, s *scriptedTransport)) {
	synctest.Test(t, func(t *testing.T) {
		s := &scriptedTransport{key: testKey(t)}
		cfg.Identity, cfg.Transports = testKey(t), []Transport{s}
		h, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		f(t, h, s)
	})
}

func testKey(t *testing.T) peer.PrivateKey {
	t.Helper()
	key, err := peer.GenerateKey(peer.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func at(p peer.ID, texts ...string) peer.AddrInfo {
	info := peer.AddrInfo{ID: p}
	for _, text := range texts {
		info.Addrs = append(info.Addrs, multiaddr.MustParse(text))
	}
	return info
}

// connects tells how long it takes until there is a connection, and ends it.
func connects(t *testing.T, h *Host, to peer.AddrInfo) time.Duration {
	t.Helper()
	start := time.Now()
	c, err := h.Connect(t.Context(), to)
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(start)
	c.Close()
	synctest.Wait()
	return took
}

// An address that has shown a sign of life within its time has the time to succeed
// alone; one that then says nothing more does not hold up the others for long.
func TestSignOfLife(t *testing.T) {
	const first, second = "/ip4/8.8.8.8/udp/1/quic-v1", "/ip4/8.8.8.8/tcp/1"
	for _, c := range []struct {
		name      string
		opens, at time.Duration
		took      time.Duration
		dials     int
	}{
		{"two round trips, of which one takes less than its time", delayPublic - 1, 2 * delayPublic, 2 * delayPublic, 1},
		{"it opens and says no more", 50 * time.Millisecond, time.Minute, 50*3*time.Millisecond + minDelay + time.Millisecond, 2},
		{"it opens at once, as where something in between answers, and says no more", time.Millisecond, time.Minute, delayPublic + time.Millisecond, 2},
		{"it opens too late", delayPublic + time.Millisecond, time.Minute, delayPublic + time.Millisecond, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			dialing(t, Config{}, func(t *testing.T, h *Host, s *scriptedTransport) {
				s.answer(first, answer{after: c.at, opens: c.opens})
				s.answer(second, answer{after: time.Millisecond})
				if took := connects(t, h, at(s.key.ID(), first, second)); took != c.took {
					t.Errorf("took %v, want %v", took, c.took)
				}
				if dialed := s.take(); len(dialed) != c.dials {
					t.Errorf("dialed %v", dialed)
				}
			})
		})
	}
}

// Of ten addresses nine are dead: the live one is found in 350 ms, and from then on at once.
func TestDeadAddresses(t *testing.T) {
	const handshake = 20 * time.Millisecond
	for live := range 10 {
		dialing(t, Config{}, func(t *testing.T, h *Host, s *scriptedTransport) {
			var texts []string
			for i := range 10 {
				texts = append(texts, fmt.Sprintf("/ip4/8.8.8.%d/tcp/4001", i+1))
			}
			s.answer(texts[live], answer{after: handshake})
			to := at(s.key.ID(), texts...)
			if took := connects(t, h, to); took > maxStagger+handshake {
				t.Errorf("the live one is number %d: %v", live, took)
			}
			s.take()
			if took := connects(t, h, to); took != handshake {
				t.Errorf("the second time: %v", took)
			}
			if dialed := s.take(); len(dialed) != 1 {
				t.Errorf("dialed the second time: %v", dialed)
			}
		})
	}
}

// A user waits neither for dials in the background nor because of them.
func TestUserDoesNotWaitForTheBackground(t *testing.T) {
	dialing(t, Config{}, func(t *testing.T, h *Host, s *scriptedTransport) {
		const dead, live = "/ip4/8.8.8.8/tcp/1", "/ip4/8.8.8.8/tcp/2"
		p := s.key.ID()
		refused := errors.New("connection refused")
		s.answer(live, answer{err: refused})
		if _, err := h.ConnectBackground(t.Context(), at(p, live)); !errors.Is(err, refused) {
			t.Fatal(err)
		}
		var skip *SkipError
		if _, err := h.ConnectBackground(t.Context(), at(p, live)); !errors.Is(err, ErrBackoff) || !errors.As(err, &skip) || !skip.Until.After(time.Now()) {
			t.Fatalf("there is no backoff: %v", err)
		}
		s.answer(live, answer{after: time.Millisecond})
		s.take()

		// All turns are taken, and the dial of the peer in question waits for one.
		for range maxBackgroundDials {
			go h.ConnectBackground(t.Context(), at(testID(t), dead))
		}
		synctest.Wait()
		waiting := make(chan error)
		go func() {
			_, err := h.ConnectBackground(t.Context(), at(p, live))
			waiting <- err
		}()
		synctest.Wait()
		if n := len(s.take()); n != maxBackgroundDials {
			t.Errorf("%d dials run", n)
		}
		if took := connects(t, h, at(p, live)); took != time.Millisecond {
			t.Errorf("the user waited %v", took)
		}
		if err := <-waiting; err != nil {
			t.Errorf("who waited in the background has nothing of it: %v", err)
		}

		// The dial runs already, but keeps off the address.
		time.Sleep(attemptTimeout) // the turns are free again
		h.forgetSetbacks()
		s.answer(live, answer{err: refused})
		if _, err := h.ConnectBackground(t.Context(), at(p, live)); !errors.Is(err, refused) {
			t.Fatal(err)
		}
		s.answer(live, answer{after: time.Millisecond})
		const slow = "/ip4/9.9.9.9/tcp/1"
		go func() {
			_, err := h.ConnectBackground(t.Context(), at(p, slow))
			waiting <- err
		}()
		time.Sleep(time.Second)
		s.take()
		if took := connects(t, h, at(p)); took != time.Millisecond {
			t.Errorf("the user waited %v for a dial that ran", took)
		}
		if dialed := s.take(); !slices.Equal(dialed, []string{live}) {
			t.Errorf("for the user were dialed %v", dialed)
		}
		<-waiting
	})
}

type stalledDNS struct{}

func (stalledDNS) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (d stalledDNS) LookupTXT(ctx context.Context, _ string) ([]string, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// Addresses without names do not wait for names.
func TestNamesDoNotDelay(t *testing.T) {
	dialing(t, Config{Resolver: stalledDNS{}}, func(t *testing.T, h *Host, s *scriptedTransport) {
		const live = "/ip4/8.8.8.8/tcp/1"
		s.answer(live, answer{after: time.Millisecond})
		if took := connects(t, h, at(s.key.ID(), "/dnsaddr/a.example", live)); took != time.Millisecond {
			t.Errorf("it took %v", took)
		}
		start := time.Now()
		_, err := h.Connect(t.Context(), at(testID(t), "/dnsaddr/a.example", "/dns4/b.example/tcp/1"))
		if took := time.Since(start); took != resolveTimeout || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after %v: %v", took, err)
		}
	})
}

// The events of a dial tell all of it, in order, and nothing afterwards.
func TestDialEvents(t *testing.T) {
	var mu sync.Mutex
	var log []string
	note := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		log = append(log, fmt.Sprintf(format, args...))
	}
	dns := &fakeDNS{ips: map[string][]netip.Addr{"ip4 a.example": {netip.MustParseAddr("9.9.9.9")}}}
	trace := func(e Event) {
		switch e := e.(type) {
		case DialStarted:
			note("%d started %v", e.ID, e.Addrs)
		case DialResolved:
			note("%d resolved %v", e.ID, e.Addrs)
		case DialRanked:
			for _, s := range e.Steps {
				note("%d ranked %v %s: %s", e.ID, s.Delay, s.Addr, s.Why)
			}
			for _, s := range e.Skipped {
				note("%d skipped %s: %v", e.ID, s.Addr, s.Err)
			}
		case DialAttempted:
			note("%d attempted %s after %v: %v %v %v", e.ID, e.Attempt.Addr, e.Attempt.Delay, e.Attempt.Elapsed, e.Attempt.Stage, e.Attempt.Err)
		case DialEnded:
			note("%d ended after %v: %v", e.ID, e.Elapsed, e.Conn != nil)
		}
	}
	dialing(t, Config{Resolver: dns, Trace: trace}, func(t *testing.T, h *Host, s *scriptedTransport) {
		s.answer("/ip4/9.9.9.9/tcp/2", answer{after: 5 * time.Millisecond})
		connects(t, h, at(s.key.ID(), "/ip4/8.8.8.8/tcp/1", "/ip4/224.0.0.1/tcp/1", "/dns4/a.example/tcp/2"))
		time.Sleep(time.Minute)
	})
	want := []string{
		"1 started [/ip4/8.8.8.8/tcp/1 /ip4/224.0.0.1/tcp/1 /dns4/a.example/tcp/2]",
		"1 ranked 0s /ip4/8.8.8.8/tcp/1: it was not tried in this network yet",
		"1 skipped /ip4/224.0.0.1/tcp/1: host: 224.0.0.1 is not the address of one machine",
		"1 resolved [/ip4/9.9.9.9/tcp/2]",
		"1 ranked 150ms /ip4/9.9.9.9/tcp/2: it was not tried in this network yet",
		"1 attempted /ip4/9.9.9.9/tcp/2 after 150ms: 5ms using the connection <nil>",
		"1 attempted /ip4/8.8.8.8/tcp/1 after 0s: 155ms opening the connection host: another address was faster",
		"1 ended after 155ms: true",
	}
	for i := range max(len(log), len(want)) {
		var got, wanted string
		if i < len(log) {
			got = log[i]
		}
		if i < len(want) {
			wanted = want[i]
		}
		if got != wanted {
			t.Errorf("event %d:\n%s, want\n%s", i, got, wanted)
		}
	}
}

// Who gives up learns what was tried until then.
func TestGivingUpADial(t *testing.T) {
	dialing(t, Config{}, func(t *testing.T, h *Host, s *scriptedTransport) {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := h.Connect(ctx, at(s.key.ID(), "/ip4/8.8.8.8/tcp/1", "/ip4/8.8.8.8/tcp/2"))
		var failed *DialError
		if !errors.As(err, &failed) || !errors.Is(err, context.DeadlineExceeded) || len(failed.Attempts) != 2 {
			t.Fatal(err)
		}
		if a, b := failed.Attempts[0], failed.Attempts[1]; a.Skipped() || a.Elapsed != 100*time.Millisecond || !b.Skipped() {
			t.Errorf("%+v, %+v", a, b)
		}
	})
}
