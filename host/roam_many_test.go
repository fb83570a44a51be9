//go:build !race

// Go 1.26's race detector ends this test now and then with a failed check of its own
// (tsan_rtl.cpp:346) or a fault, however few connections there are.

package host

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

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
