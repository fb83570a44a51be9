package ping

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/testkit"
	"github.com/kith-p2p/kith/memory"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/tcp"
	"github.com/kith-p2p/kith/upgrade"
)

// pair makes two connected hosts, of which the second answers, and counts the
// streams on which it does.
func pair(t testing.TB) (a, b *host.Host, streams *atomic.Int32) {
	t.Helper()
	streams = new(atomic.Int32)
	network := new(memory.Network)
	a = testkit.Host(t, network, host.Config{})
	b = testkit.Host(t, network, host.Config{Trace: func(e host.Event) {
		if e, ok := e.(host.StreamOpened); ok && e.Dir == host.DirInbound && e.Protocol == ProtocolID {
			streams.Add(1)
		}
	}})
	Serve(b)
	testkit.Connect(t, a, b)
	return a, b, streams
}

// ping pings n times with a pause after each.
func ping(t *testing.T, h *host.Host, p peer.ID, n int, pause time.Duration) {
	t.Helper()
	done := 0
	for rtt, err := range Ping(t.Context(), h, p) {
		if err != nil || rtt < 0 {
			t.Fatalf("ping %d: %v, %v", done, rtt, err)
		}
		if done++; done == n {
			break
		}
		time.Sleep(pause)
	}
	if done != n {
		t.Errorf("%d pings, want %d", done, n)
	}
}

func TestPing(t *testing.T) {
	for _, c := range []struct {
		n       int
		pause   time.Duration
		streams int32
	}{
		{1, 0, 1},
		{100, 0, 1},
		{5, time.Second, 1},
		{20, time.Second, 4}, // others end streams that are old
		{5, time.Minute, 5},  // and those that are idle
		{7, 15 * time.Second, 7},
	} {
		synctest.Test(t, func(t *testing.T) {
			a, b, streams := pair(t)
			ping(t, a, b.ID(), c.n, c.pause)
			synctest.Wait()
			if streams.Load() != c.streams {
				t.Errorf("%d pings, one in %v, took %d streams, want %d", c.n, c.pause, streams.Load(), c.streams)
			}
			if n := b.ConnsTo(a.ID())[0].NumStreams(); n != 0 {
				t.Errorf("%d streams are left", n)
			}
		})
	}
}

func TestOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, streams := pair(t)
		for range 3 {
			if _, err := Once(t.Context(), a, b.ID()); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if n := b.ConnsTo(a.ID())[0].NumStreams(); n != 0 || streams.Load() != 3 {
			t.Errorf("%d streams were used, %d are left", streams.Load(), n)
		}
	})
}

func TestPingTCP(t *testing.T) {
	a, b := testkit.PairOver(t, "/ip4/127.0.0.1/tcp/0", func(u *upgrade.Upgrader) (*tcp.Transport, error) {
		return tcp.New(tcp.Config{Upgrader: u})
	})
	Serve(b)
	done := 0
	for rtt, err := range Ping(t.Context(), a, b.ID()) {
		if err != nil || rtt <= 0 {
			t.Fatalf("%v, %v", rtt, err)
		}
		if done++; done == 10 {
			break
		}
	}
}

// The bytes of each ping are other ones.
func TestPingIsRandom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, _ := pair(t)
		seen := make(map[[size]byte]bool)
		b.Handle(ProtocolID, func(_ context.Context, s *host.Stream) error {
			for {
				var got [size]byte
				if _, err := io.ReadFull(s, got[:]); err != nil {
					return nil
				}
				seen[got] = true
				s.Write(got[:])
			}
		})
		ping(t, a, b.ID(), 10, 0)
		synctest.Wait()
		if len(seen) != 10 || seen[[size]byte{}] {
			t.Errorf("10 pings had %d different contents", len(seen))
		}
	})
}

func TestPingErrors(t *testing.T) {
	var reset *host.StreamError
	var refused *host.ProtocolError
	for _, c := range []struct {
		name   string
		answer host.Handler // nil: the protocol is not spoken
		want   func(error) bool
		after  time.Duration
	}{
		{"not spoken", nil, func(err error) bool { return errors.As(err, &refused) }, 0},
		{"silence", func(ctx context.Context, s *host.Stream) error {
			<-ctx.Done()
			return nil
		}, func(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }, answerTimeout},
		{"half an echo", func(ctx context.Context, s *host.Stream) error {
			io.CopyN(s, s, size/2)
			<-ctx.Done()
			return nil
		}, func(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }, answerTimeout},
		{"half an echo and the end", func(_ context.Context, s *host.Stream) error {
			_, err := io.CopyN(s, s, size/2)
			return err
		}, func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }, 0},
		{"the end", func(context.Context, *host.Stream) error { return nil },
			func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }, 0},
		{"a reset", func(context.Context, *host.Stream) error { return &host.StreamError{Code: host.CodeGated} },
			func(err error) bool { return errors.As(err, &reset) && reset.Remote && reset.Code == host.CodeGated }, 0},
		{"one bit is wrong", func(_ context.Context, s *host.Stream) error {
			b := make([]byte, size)
			io.ReadFull(s, b)
			b[size-1] ^= 1
			s.Write(b)
			_, err := s.Read(b)
			if !errors.As(err, &reset) || reset.Code != host.CodeProtocolViolation {
				panic(err)
			}
			return nil
		}, func(err error) bool { return errors.Is(err, errOther) }, 0},
		{"the last echo again", func(_ context.Context, s *host.Stream) error {
			b := make([]byte, size)
			io.ReadFull(s, b)
			for range 2 {
				s.Write(b)
			}
			io.Copy(io.Discard, s)
			return nil
		}, func(err error) bool { return errors.Is(err, errOther) }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := new(memory.Network)
				a := testkit.Host(t, network, host.Config{})
				b := testkit.Host(t, network, host.Config{Trace: func(e host.Event) {
					if e, ok := e.(host.HandlerPanicked); ok {
						t.Errorf("the stream ended with %v", e.Value)
					}
				}})
				if c.answer != nil {
					b.Handle(ProtocolID, c.answer)
				}
				testkit.Connect(t, a, b)
				begin := time.Now()
				var failed error
				turns := 0
				for rtt, err := range Ping(t.Context(), a, b.ID()) {
					if failed != nil {
						t.Fatalf("the loop goes on after %v", failed)
					}
					if turns++; err == nil && turns < 10 {
						continue
					}
					if failed = err; rtt != 0 {
						t.Errorf("an error has the round trip %v", rtt)
					}
				}
				if !c.want(failed) || time.Since(begin) != c.after {
					t.Errorf("%v after %v", failed, time.Since(begin))
				}
				synctest.Wait()
			})
		})
	}
}

func TestPingCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, _ := pair(t)
		b.Handle(ProtocolID, func(ctx context.Context, s *host.Stream) error {
			<-ctx.Done()
			return nil
		})
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("enough"))
		defer cancel()
		begin := time.Now()
		if _, err := Once(ctx, a, b.ID()); err == nil || !errors.Is(err, context.Cause(ctx)) || time.Since(begin) != time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		var unknown *host.DialError
		if _, err := Once(t.Context(), a, testkit.Key(t).ID()); !errors.As(err, &unknown) {
			t.Errorf("a peer without an address: %v", err)
		}
	})
}

// three makes a host that serves and two that are connected to it.
func three(t *testing.T) (a, b, other *host.Host) {
	t.Helper()
	network := new(memory.Network)
	a, b, other = testkit.Host(t, network, host.Config{}), testkit.Host(t, network, host.Config{}), testkit.Host(t, network, host.Config{})
	Serve(b)
	testkit.Connect(t, a, b)
	testkit.Connect(t, other, b)
	return a, b, other
}

func open(t *testing.T, from *host.Host, to peer.ID) *host.Stream {
	t.Helper()
	s, err := from.NewStream(t.Context(), to, ProtocolID)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// echoed tells whether a ping sent on s comes back.
func echoed(s *host.Stream) error {
	sent, got := bytes.Repeat([]byte{7}, size), make([]byte, size)
	if _, err := s.Write(sent); err != nil {
		return err
	}
	if _, err := io.ReadFull(s, got); err != nil {
		return err
	}
	if !bytes.Equal(sent, got) {
		return errOther
	}
	return nil
}

func TestResponderStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, other := three(t)
		var streams []*host.Stream
		for range maxStreams {
			s := open(t, a, b.ID())
			if err := echoed(s); err != nil {
				t.Fatal(err)
			}
			streams = append(streams, s)
		}
		var reset *host.StreamError
		if err := echoed(open(t, a, b.ID())); !errors.As(err, &reset) || reset.Code != host.CodeResourceLimit {
			t.Errorf("one stream too many: %v", err)
		}
		if err := echoed(open(t, other, b.ID())); err != nil {
			t.Errorf("another peer: %v", err)
		}
		// The specification's way to end: the write side first.
		streams[0].CloseWrite()
		if _, err := streams[0].Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the end of a stream: %v", err)
		}
		synctest.Wait()
		if err := echoed(open(t, a, b.ID())); err != nil {
			t.Errorf("after one stream has ended: %v", err)
		}
	})
}

func TestResponderIdle(t *testing.T) {
	for name, first := range map[string]int{"nothing": 0, "one ping": size, "half a ping": size / 2, "a ping and a half": size * 3 / 2} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b, _ := pair(t)
				s := open(t, a, b.ID())
				begin := time.Now()
				s.Write(make([]byte, first))
				got, err := io.ReadAll(s)
				if len(got) != first/size*size || err == nil || time.Since(begin) != idleTimeout {
					t.Errorf("%d bytes came back, then %v after %v", len(got), err, time.Since(begin))
				}
			})
		})
	}
}

// A peer that does not read its echoes holds one ping of ours and its window, and
// not for ever.
func TestResponderNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, _ := pair(t)
		s := open(t, a, b.ID())
		begin := time.Now()
		var err error
		for err == nil {
			_, err = s.Write(make([]byte, 1<<10))
		}
		var reset *host.StreamError
		if !errors.As(err, &reset) || !reset.Remote || time.Since(begin) > time.Minute+idleTimeout {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
	})
}

// Pings without pause are answered at a pace, and others are served meanwhile.
func TestResponderFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, other := three(t)
		s := open(t, a, b.ID())
		go func() {
			b := make([]byte, 1<<10)
			for {
				if _, err := s.Write(b); err != nil {
					return
				}
			}
		}()
		var echoes atomic.Int64
		go func() {
			b := make([]byte, size)
			for {
				if _, err := io.ReadFull(s, b); err != nil {
					return
				}
				echoes.Add(1)
			}
		}()
		begin := time.Now()
		time.Sleep(10 * time.Second)
		if want := pingBurst + int64(time.Since(begin)/pingInterval); echoes.Load() > want+10 || echoes.Load() < want-10 {
			t.Errorf("%d pings were answered in 10 s, want %d", echoes.Load(), want)
		}
		if rtt, err := Once(t.Context(), other, b.ID()); err != nil || rtt > 0 {
			t.Errorf("another peer's ping took %v: %v", rtt, err)
		}
		s.Reset(0)
	})
}

// BenchmarkPing counts what both sides allocate for one ping.
func BenchmarkPing(b *testing.B) {
	x, y, _ := pair(b)
	b.ReportAllocs()
	b.ResetTimer()
	n := 0
	for _, err := range Ping(b.Context(), x, y.ID()) {
		if err != nil {
			b.Fatal(err)
		}
		if n++; n >= b.N {
			break
		}
	}
}

// BenchmarkResponder counts what the answering side allocates, against a peer
// that allocates nothing.
func BenchmarkResponder(b *testing.B) {
	x, y, _ := pair(b)
	s, err := x.NewStream(b.Context(), y.ID(), ProtocolID)
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, size)
	b.ReportAllocs()
	for b.Loop() {
		s.Write(buf)
		if _, err := io.ReadFull(s, buf); err != nil {
			b.Fatal(err)
		}
	}
}
