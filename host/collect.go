package host

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"time"
)

// What remotes had us hold is garbage when they have gone. The runtime collects it when as
// much again was allocated, or after two minutes: a host that is calm after an attack would
// keep the memory. So there is a collection when nothing else brings one about, and what is
// free goes back to the system.
const (
	// collectMin and collectShare are how much more memory the process has to have than after
	// the last collection, in bytes and as a part of that.
	collectMin   = 2 << 20
	collectShare = 8
	// collectLook is the pause between two looks, and collectCalm how many of them have to
	// be without a collection of the runtime's own: it sees to its garbage while it allocates.
	collectLook = time.Second
	collectCalm = 4
	// collectEvery is the least time between two collections. It doubles, up to collectSeldom,
	// with each that gives back little, and is at least collectCost times as long as one takes.
	collectEvery  = 5 * time.Second
	collectSeldom = 10 * time.Minute
	collectCost   = 200
	// collectHeld is how many bytes somebody has to hold for it to be a reason to look. The
	// others are connections that come, and streams that come to nothing.
	collectHeld = 1 << 20
)

// garbage decides when there is a collection. Who stirs it has it look, until the process
// is calm and has no more memory than it needs.
type garbage struct {
	stirred atomic.Bool // it looks, now and again

	mu    sync.Mutex
	timer *time.Timer // of the next look
	ended bool        // the host is closed

	// One look at a time uses the rest.
	memory processMemory
	cycles uint64    // collections of the runtime's own, at the last look
	calm   int       // looks since there was one
	least  uint64    // what the process had after the last collection
	most   uint64    // what it had most since then, or since it fell to half
	next   time.Time // there may be one
	pause  time.Duration
	once   bool // there will be one then, for what was let go since
}

// processMemory is what the runtime says, and does.
type processMemory interface {
	look() (cycles, mapped uint64)
	collect()
}

// stir is called when remotes have the host do something, with whatever locks there are.
func (g *garbage) stir() {
	if g == nil || g.stirred.Load() || !g.stirred.CompareAndSwap(false, true) {
		return
	}
	g.calm = 0
	g.lookLater()
}

// lookLater looks after a while, in which there is no goroutine for it.
func (g *garbage) lookLater() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		return
	}
	g.timer = time.AfterFunc(collectLook, func() {
		if g.look(time.Now()) {
			g.lookLater()
		} else {
			g.stirred.Store(false)
		}
	})
}

// end ends the looks: a timer would keep all that the host has.
func (g *garbage) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ended = true
	if g.timer != nil {
		g.timer.Stop()
	}
}

// look collects when it is time for it, and tells whether to look again.
func (g *garbage) look(now time.Time) (again bool) {
	cycles, mapped := g.memory.look()
	g.calm++
	if cycles != g.cycles {
		g.cycles, g.calm = cycles, 0
	}
	g.most = max(g.most, mapped)
	switch {
	case g.once:
	case mapped < g.most/2: // the runtime has collected the most of it, and keeps a little
		g.once, g.most, g.next = true, mapped, later(g.next, now.Add(collectEvery))
	case g.calm < collectCalm:
		return true
	case mapped < g.least+max(collectMin, g.least/collectShare):
		return false
	}
	if now.Before(g.next) {
		return true
	}
	g.memory.collect()
	took := time.Since(now)
	g.cycles, g.least = g.memory.look()
	g.most = g.least
	much := g.least < mapped-mapped/collectShare
	g.pause = min(max(collectEvery, 2*g.pause), collectSeldom)
	if much {
		g.pause = collectEvery
	}
	g.next = now.Add(max(g.pause, collectCost*took))
	g.once = much && !g.once // connections end one after the other
	return g.once
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// goMemory is the memory of this process.
type goMemory struct{}

func (goMemory) look() (cycles, mapped uint64) {
	s := []metrics.Sample{{Name: "/gc/cycles/automatic:gc-cycles"}, {Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64(), s[1].Value.Uint64() - s[2].Value.Uint64()
}

func (goMemory) collect() {
	runtime.GC() // what a sync.Pool holds is let go by the second collection
	debug.FreeOSMemory()
}
