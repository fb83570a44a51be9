package host

import (
	"context"
	"runtime"
	"sync/atomic"
	"time"
)

// What remotes had us hold is garbage when they have gone, and the runtime collects it
// when as much again was allocated: a host that is calm after an attack would keep it for
// minutes. So when a lot was given back, there is a collection.
const (
	// collectMin is how many bytes are a lot.
	collectMin = 16 << 20
	// collectShare is of which part of the heap they are: a collection takes as long as
	// the heap is large, and the program has its own objects there.
	collectShare = 5
	// collectEvery is the pause between two collections, and collectLook that between
	// two looks at what is held.
	collectEvery = 10 * time.Second
	collectLook  = time.Second
)

// garbage is how the budget notices that. Only one look at a time uses it.
type garbage struct {
	watched atomic.Bool   // somebody looks, now and again
	most    int64         // bytes that were held since the last collection
	wait    time.Duration // until the next one may be
}

// held is called when used bytes are held, with whatever locks there are.
func (b *budget) held(used int64) {
	if used > collectMin && !b.garbage.watched.Load() && b.garbage.watched.CompareAndSwap(false, true) {
		b.lookAgain()
	}
}

// lookAgain looks after a while, in which there is no goroutine for it.
func (b *budget) lookAgain() {
	time.AfterFunc(collectLook, func() {
		if !b.spawn(b.collect) {
			b.garbage.watched.Store(false)
		}
	})
}

// collect has garbage collected if there is enough, and looks again while a lot is held.
func (b *budget) collect(context.Context) {
	g, used := &b.garbage, b.used.Load()
	g.most = max(g.most, used)
	g.wait = max(g.wait-collectLook, 0)
	switch given := g.most - used; {
	case given < max(collectMin, g.most/2):
		if used <= collectMin {
			g.most = 0
			g.watched.Store(false)
			return
		}
	case g.wait == 0:
		if worthwhile(given) {
			runtime.GC()
		}
		g.most, g.wait = used, collectEvery
	}
	b.lookAgain()
}

func worthwhile(given int64) bool {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return uint64(given) >= m.HeapAlloc/collectShare
}
