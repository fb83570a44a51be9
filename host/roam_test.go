package host

import (
	"context"
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
