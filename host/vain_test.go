package host

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-p2p/kith/multistream"
)

func TestVain(t *testing.T) {
	// ends adds n every so often for a minute and tells when that was enough, and how
	// often there was something to wait for.
	ends := func(n int, every time.Duration) (at time.Duration, waits int) {
		var v vain
		for now := time.Duration(0); now < time.Minute; now += every {
			if v.add(n, now) {
				return now, waits
			}
			if v.owes(now) > 0 {
				waits++
			}
		}
		return 0, waits
	}
	for _, c := range []struct {
		name  string
		n     int
		every time.Duration
		at    time.Duration // 0: it does not end
		waits bool
	}{
		{"seldom", vainBurst, vainBurst * vainInterval, 0, false},
		{"as often as one may", 1, vainInterval, 0, false},
		{"twice as often", 2, vainInterval, vainPatience, true},
		{"many at once, seldom", 1000, 10 * time.Second, 0, true},
	} {
		if at, waits := ends(c.n, c.every); at != c.at || waits > 0 != c.waits {
			t.Errorf("%s: ended at %v, waited %d times", c.name, at, waits)
		}
	}

	var v vain
	if v.owes(0) > 0 || v.add(vainBurst, time.Hour) || v.owes(time.Hour) > 0 {
		t.Error("a burst has to wait")
	}
	if v.add(3, time.Hour); v.owes(time.Hour) != 3*vainInterval || v.owes(time.Hour+3*vainInterval) != 0 {
		t.Errorf("three more wait for %v", v.owes(time.Hour))
	}
	if !v.add(1000, time.Hour) || v.add(1000, time.Hour) {
		t.Error("too many at once are noticed not at all, or twice")
	}
}

// A scriptedStream is one of a remote that has said something, and reset it or says no more.
type scriptedStream struct {
	said  []byte
	reset bool

	code    atomic.Uint32
	expired chan struct{} // closed at the read deadline
	timer   *time.Timer
}

type remoteReset struct{ error }

func (remoteReset) ErrorCode() uint32 { return 0 }
func (remoteReset) IsRemote() bool    { return true }

func (s *scriptedStream) Read(p []byte) (int, error) {
	if len(s.said) > 0 {
		n := copy(p, s.said)
		s.said = s.said[n:]
		return n, nil
	}
	if s.reset {
		return 0, remoteReset{errors.New("reset")}
	}
	<-s.expired
	return 0, context.DeadlineExceeded
}

func (s *scriptedStream) Write(p []byte) (int, error) {
	if s.reset {
		return 0, remoteReset{errors.New("reset")}
	}
	return len(p), nil
}

func (s *scriptedStream) Close() error      { return nil }
func (s *scriptedStream) CloseRead() error  { return nil }
func (s *scriptedStream) CloseWrite() error { return nil }
func (s *scriptedStream) Reset(code uint32) error {
	s.code.Store(code)
	return nil
}
func (s *scriptedStream) SetDeadline(t time.Time) error    { return s.SetReadDeadline(t) }
func (s *scriptedStream) SetWriteDeadline(time.Time) error { return nil }
func (s *scriptedStream) SetReadDeadline(t time.Time) error {
	if s.timer != nil {
		s.timer.Stop()
	}
	expired := make(chan struct{})
	s.expired = expired
	if !t.IsZero() {
		s.timer = time.AfterFunc(time.Until(t), func() { close(expired) })
	}
	return nil
}

// accepts has c take in a stream, and tells how long it waited before it did.
func (c *Conn) accepts(s *scriptedStream) time.Duration {
	start := time.Now()
	c.accept(s, func() { c.serveStream(context.Background(), c.takeAccepted()) })
	return time.Since(start)
}

// A stream that is reset while its protocol is agreed on comes to nothing, before the
// proposal was read and after.
func TestResetUnansweredIsVain(t *testing.T) {
	dialing(t, Config{}, func(t *testing.T, h *Host, _ *scriptedTransport) {
		h.Handle("/read/1", func(_ context.Context, s *Stream) error {
			_, err := io.ReadAll(s)
			return err
		})
		proposal := multistream.AppendProposal(nil, "/read/1")
		for _, said := range [][]byte{nil, proposal[:23], proposal, append(proposal, 1)} {
			c := h.connectIdle(t, testKey(t), DirInbound, "", "/ip4/5.6.7.8/tcp/1", nil)
			for i := range vainBurst + 2*vainTurn + 1 {
				waited := c.accepts(&scriptedStream{said: said, reset: true})
				synctest.Wait()
				if want := i > vainBurst && (i-vainBurst)%vainTurn == 0; waited > 0 != want {
					t.Fatalf("%q: stream %d waited for %v", said, i, waited)
				}
			}
			c.Close()
		}
	})
}

// Many who wait get no more together than a few would, and a wait ends with its connection.
func TestVainTogether(t *testing.T) {
	dialing(t, Config{}, func(t *testing.T, h *Host, _ *scriptedTransport) {
		const conns = 5 * vainTogether
		var accepted atomic.Int64
		var all []*Conn
		start := time.Now()
		for range conns {
			c := h.connectIdle(t, testKey(t), DirInbound, "", "/ip4/5.6.7.8/tcp/1", nil)
			all = append(all, c)
			go func() {
				for !c.ended.Load() && time.Since(start) < vainPatience-time.Second {
					c.accepts(&scriptedStream{reset: true})
					accepted.Add(1)
				}
			}()
		}
		time.Sleep(time.Second) // by then all wait
		synctest.Wait()
		before := accepted.Load()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n, most := accepted.Load()-before, int64(2*time.Second/vainInterval)*vainTogether*3/2; n == 0 || n > most {
			t.Errorf("%d connections had %d streams taken in, want some and at most %d", conns, n, most)
		}
		left := time.Now()
		for _, c := range all {
			c.Close()
		}
		synctest.Wait()
		if took := time.Since(left); took > 0 || h.pacing.Load() > 0 {
			t.Errorf("%v after their connections ended %d still wait", took, h.pacing.Load())
		}
	})
}

// A tenth of a second is given to the streams that one peer may have, of all peers together.
func TestExpectedStreams(t *testing.T) {
	limits := Limits{InboundStreamsPerPeer: 10, UnnegotiatedStreamsPerPeer: 4, UnnegotiatedStreams: 10}
	dialing(t, Config{Limits: limits}, func(t *testing.T, h *Host, _ *scriptedTransport) {
		var streams []*scriptedStream
		accept := func(c *Conn, n int) {
			for range n {
				s := new(scriptedStream)
				streams = append(streams, s)
				c.accepts(s)
				synctest.Wait()
			}
		}
		refused := func() (n int) {
			for _, s := range streams {
				if s.code.Load() == CodeResourceLimit {
					n++
				}
			}
			return n
		}
		first := h.connectIdle(t, testKey(t), DirInbound, "", "/ip4/5.6.7.8/tcp/1", nil)
		second := h.connectIdle(t, testKey(t), DirInbound, "", "/ip4/5.6.7.9/tcp/1", nil)
		accept(first, 7)
		accept(second, 3)
		if n := h.unnegotiated.len(); n != 0 || h.expected.Load() != 10 {
			t.Errorf("%d streams have a place and %d are expected, want 0 and 10", n, h.expected.Load())
		}
		accept(second, 5)
		if n := h.unnegotiated.len(); n != 4 || h.expected.Load() != 10 || refused() != 1 {
			t.Errorf("%d streams have a place, %d are expected and %d refused, want 4, 10 and 1", n, h.expected.Load(), refused())
		}
		time.Sleep(proposalDelay)
		synctest.Wait()
		if n := h.unnegotiated.len(); n != 8 || h.expected.Load() != 0 {
			t.Errorf("%d streams have a place and %d are expected, want 8 and 0", n, h.expected.Load())
		}
		time.Sleep(negotiationTimeout)
		synctest.Wait()
		if n := h.unnegotiated.len(); n != 0 || h.expected.Load() != 0 {
			t.Errorf("%d streams have a place and %d are expected in the end", n, h.expected.Load())
		}
	})
}
