package host

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-p2p/kith/multiaddr"
)

// roamers connects so many peers, and makes the inquiries about all of them.
func roamers(t *testing.T, h *Host, n int, make func(i int) *puppet) (r *roaming, all []*inquiry) {
	t.Helper()
	r = &roaming{host: h, dials: newSlots(maxProbes)}
	for i := range n {
		m := make(i)
		m.ended = newEnd()
		// Without an IP: nobody looks for a route.
		c, err := h.addConn(TransportConn{Mux: m, LocalAddr: multiaddr.MustParse("/memory/1"), RemoteAddr: multiaddr.MustParse("/memory/2"), RemoteKey: puppetKeys()[i]}, DirOutbound, false)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, &inquiry{conn: c, wanted: r.wants(c)})
	}
	return r, all
}

func newSlots(n int) chan struct{} { return make(chan struct{}, n) }
func newEnd() chan struct{}        { return make(chan struct{}) }

// After a change of network 10,000 connections, of which most are dead, are told apart
// well within the time for it, and those that are used are asked first.
func TestManyDeadConnections(t *testing.T) {
	puppetKeys()
	synctest.Test(t, func(t *testing.T) {
		const n, wanted = 10_000, 500
		h := crowdedHost(t, n, Config{})
		var asked, used atomic.Int32
		r, all := roamers(t, h, n, func(i int) *puppet {
			m := &puppet{delay: 300 * time.Millisecond}
			m.answers.Store(i%10 == 0)
			if i >= n-wanted { // the last are used
				m.streams.Store(1)
				m.asked = func() { used.Add(1); asked.Add(1) }
			} else {
				m.asked = func() {
					if used.Load() <= wanted-maxProbes {
						t.Error("one that nobody uses was asked before those that are used")
					}
					asked.Add(1)
				}
			}
			return m
		})
		ctx, cancel := context.WithTimeout(t.Context(), followTimeout)
		defer cancel()
		ended := newEnd()
		go func() {
			r.check(ctx, all)
			close(ended)
		}()
		time.Sleep(2 * patience)
		if asked.Load() != n {
			t.Errorf("%d of %d were asked", asked.Load(), n)
		}
		for i, c := range h.Conns() {
			if dead := i%10 != 0; c.stale.Load() != dead {
				t.Fatalf("connection %d is taken for dead: %v", i, !dead)
			}
		}
		<-ended
	})
}

// A late answer counts, and who is dead is closed when its peer has come otherwise.
func TestLateAnswersOfConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := crowdedHost(t, 100, Config{})
		late := &puppet{delay: patience + farewell/2}
		late.answers.Store(true)
		dead := new(puppet)
		r, all := roamers(t, h, 2, func(i int) *puppet { return []*puppet{late, dead}[i] })
		other := &puppet{ended: newEnd()}
		if _, err := h.addConn(TransportConn{Mux: other, LocalAddr: multiaddr.MustParse("/memory/1"), RemoteAddr: multiaddr.MustParse("/memory/3"), RemoteKey: puppetKeys()[1]}, DirOutbound, false); err != nil {
			t.Fatal(err)
		}
		r.check(t.Context(), all)
		if all[0].conn.stale.Load() || all[0].conn.ended.Load() {
			t.Error("who answers late is taken for dead")
		}
		if code := dead.code.Load(); code != ConnCodeSupplanted {
			t.Errorf("the dead connection was closed with code %#x", code)
		}
	})
}

// Close ends what a change of network has set going.
func TestCloseWhileAsking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := crowdedHost(t, 1000, Config{})
		r, all := roamers(t, h, 500, func(int) *puppet { return new(puppet) })
		done := false
		h.spawn(func(ctx context.Context) {
			r.check(ctx, all)
			done = true
		})
		time.Sleep(patience / 2)
		start := time.Now()
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		if !done || time.Since(start) > time.Second {
			t.Errorf("closed after %v, all ended: %v", time.Since(start), done)
		}
	})
}
