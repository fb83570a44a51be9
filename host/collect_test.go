package host

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-p2p/kith/multiaddr"
)

// What was held and given back is collected, once, and nobody looks when little is held.
func TestGarbageIsCollected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var looks atomic.Int32
		b := newBudget(Limits{StreamMemory: 1 << 30}, func(f func(context.Context)) bool {
			looks.Add(1)
			go f(t.Context())
			return true
		}, nil, func(*LimitError) {}, func(*LimitError) {})
		var a Account
		a.open(b, new(share), addrGroup(multiaddr.MustParse("/ip4/5.6.7.8/tcp/1")))
		take := func(n int) {
			if err := a.Take(n); err != nil {
				t.Fatal(err)
			}
		}
		collections := func() (n uint32) {
			synctest.Wait()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.NumForcedGC
		}
		take(collectMin)
		time.Sleep(time.Minute)
		if n := looks.Load(); n != 0 {
			t.Errorf("%d looks when no more than collectMin is held", n)
		}
		before := collections()
		// Far more than this test's heap, so that it is worth while.
		take(255 << 20)
		take(1)
		time.Sleep(2 * collectLook)
		if n := collections(); n != before || looks.Load() == 0 {
			t.Errorf("%d collections while it is held, after %d looks", n-before, looks.Load())
		}
		// ends tells whether nobody looks any more.
		ends := func() bool {
			before := looks.Load()
			time.Sleep(time.Minute)
			synctest.Wait()
			return looks.Load() == before
		}
		a.Release(a.Used())
		time.Sleep(2 * collectLook)
		if n := collections(); n != before+1 || !ends() {
			t.Errorf("%d collections when it was given back, want 1, and an end", n-before)
		}
		take(collectMin + 1)
		time.Sleep(2 * collectLook)
		a.Release(collectMin / 2)
		time.Sleep(2 * collectLook)
		if n := collections(); n != before+1 || !ends() {
			t.Errorf("%d collections for little, want an end", n-before-1)
		}
	})
}
