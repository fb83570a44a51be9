package host

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-p2p/kith/multiaddr"
)

// What was held and given back is collected, once, and nobody looks when little is held.
func TestGarbageIsCollected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		watchers := 0
		b := newBudget(Limits{StreamMemory: 1 << 30}, func(f func(context.Context)) bool {
			watchers++
			go func() {
				f(t.Context())
				watchers--
			}()
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
		if collections(); watchers != 0 {
			t.Error("somebody looks when no more than collectMin is held")
		}
		before := collections()
		// Far more than this test's heap, so that it is worth while.
		take(255 << 20)
		take(1)
		time.Sleep(2 * collectLook)
		if n := collections(); n != before || watchers != 1 {
			t.Errorf("%d collections while it is held, %d who look", n-before, watchers)
		}
		a.Release(a.Used())
		time.Sleep(2 * collectLook)
		if n := collections(); n != before+1 || watchers != 0 {
			t.Errorf("%d collections when it was given back, want 1, and %d who look", n-before, watchers)
		}
		take(collectMin + 1)
		time.Sleep(collectLook + 1)
		a.Release(collectMin / 2)
		time.Sleep(2 * collectLook)
		if n := collections(); n != before+1 || watchers != 0 {
			t.Errorf("%d collections for little, and %d who look", n-before-1, watchers)
		}
	})
}
