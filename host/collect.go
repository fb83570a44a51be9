package host

import (
	"context"
	"runtime"
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

// held is called when used bytes are held, with whatever locks there are.
func (b *budget) held(used int64) {
	if used > collectMin && !b.watched.Load() && b.watched.CompareAndSwap(false, true) && !b.spawn(b.watch) {
		b.watched.Store(false)
	}
}

// watch runs for as long as a lot is held.
func (b *budget) watch(ctx context.Context) {
	defer b.watched.Store(false)
	look := time.NewTicker(collectLook)
	defer look.Stop()
	var most int64
	for wait := time.Duration(0); ; wait -= collectLook {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
		used := b.used.Load()
		most = max(most, used)
		switch garbage := most - used; {
		case garbage < max(collectMin, most/2):
			if used <= collectMin {
				return
			}
		case wait <= 0:
			if worthwhile(garbage) {
				runtime.GC()
			}
			most, wait = used, collectEvery
		}
	}
}

func worthwhile(garbage int64) bool {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return uint64(garbage) >= m.HeapAlloc/collectShare
}
