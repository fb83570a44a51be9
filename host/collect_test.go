package host

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fakeMemory is a process whose garbage a test makes.
type fakeMemory struct {
	live uint64 // bytes
	took time.Duration

	mu          sync.Mutex
	cycles      uint64
	rubbish     uint64 // bytes
	looks       int
	collections []time.Time
}

func (m *fakeMemory) look() (cycles, mapped uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.looks++
	return m.cycles, m.live + m.rubbish
}

func (m *fakeMemory) collect() {
	m.mu.Lock()
	m.collections = append(m.collections, time.Now())
	m.mu.Unlock()
	time.Sleep(m.took)
	m.fill(0)
}

// fill sets how much rubbish there is.
func (m *fakeMemory) fill(rubbish uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rubbish = rubbish
}

// cycle notes a collection of the runtime's own.
func (m *fakeMemory) cycle() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cycles++
}

// done tells of all looks and collections.
func (m *fakeMemory) done() (looks int, collections []time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.looks, slices.Clone(m.collections)
}

// rest lets a minute pass and tells how often was looked and collected meanwhile, and
// whether it is over.
func (m *fakeMemory) rest(g *garbage) (looks, collections int, over bool) {
	before, begun := m.done()
	time.Sleep(time.Minute)
	synctest.Wait()
	after, ended := m.done()
	return after - before, len(ended) - len(begun), !g.stirred.Load()
}

func TestGarbageIsCollected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &fakeMemory{live: 20 << 20, rubbish: 50 << 20}
		g := &garbage{memory: m}
		if looks, _, _ := m.rest(g); looks > 0 {
			t.Errorf("%d looks before anything happened", looks)
		}
		start := time.Now()
		g.stir()
		g.stir()
		// The second is for what was let go after the first.
		if looks, n, over := m.rest(g); n != 2 || !over || looks > collectCalm+int(collectEvery/collectLook)+4 {
			t.Errorf("after an attack: %d collections in %d looks, over: %v", n, looks, over)
		} else if first, second := m.collections[0].Sub(start), m.collections[1].Sub(start); first > collectEvery+collectLook || second > 2*(collectEvery+collectLook) {
			t.Errorf("collected after %v and %v", first, second)
		}

		m.fill(m.live/collectShare - 1)
		g.stir()
		if _, n, over := m.rest(g); n > 0 || !over {
			t.Errorf("for little: %d collections, over: %v", n, over)
		}

		_, before := m.done()
		m.fill(m.live)
		g.stir()
		for range 20 { // the runtime collects by itself
			time.Sleep(collectLook * (collectCalm - 1))
			m.cycle()
		}
		if _, all := m.done(); len(all) > len(before) {
			t.Errorf("%d collections beside those of the runtime, want none", len(all)-len(before))
		}
		if _, n, over := m.rest(g); n != 2 || !over {
			t.Errorf("after the last of those: %d collections, over: %v", n, over)
		}
	})
}

// notTheSame is about as long as collectLook: what a test does and a look never come at
// the same time.
const notTheSame = collectLook + time.Millisecond

// What the runtime has collected by itself is looked through once more, although it goes on.
func TestGarbageAfterTheRuntime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &fakeMemory{live: 20 << 20}
		g := &garbage{memory: m, least: m.live}
		defer g.end()
		life := func(seconds int, rubbish uint64) {
			m.fill(rubbish)
			for range seconds {
				g.stir()
				m.cycle()
				time.Sleep(notTheSame)
			}
		}
		life(60, 4<<20)
		life(10, 50<<20)
		if _, all := m.done(); len(all) > 0 {
			t.Errorf("%d collections before the end of the attack", len(all))
		}
		life(60, 4<<20)
		if _, all := m.done(); len(all) != 1 {
			t.Errorf("%d collections after it, want 1", len(all))
		}
	})
}

// Garbage that comes again and again is not collected all the time.
func TestGarbageIsCollectedSeldom(t *testing.T) {
	for name, c := range map[string]struct {
		live, rubbish uint64
		took          time.Duration
		min, max      int // collections in an hour
	}{
		"much of a small process":   {20 << 20, 20 << 20, 0, 100, int(time.Hour / collectEvery)},
		"little of a large one":     {1 << 30, 1 << 30 / 7, 0, 4, 12},
		"collections that are slow": {1 << 30, 1 << 30, time.Second, 10, int(time.Hour / time.Second / collectCost)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &fakeMemory{live: c.live, took: c.took}
				g := &garbage{memory: m, least: c.live}
				for end := time.Now().Add(time.Hour); time.Now().Before(end); time.Sleep(notTheSame) {
					m.fill(c.rubbish)
					g.stir()
				}
				if _, all := m.done(); len(all) < c.min || len(all) > c.max {
					t.Errorf("%d collections in an hour, want %d to %d", len(all), c.min, c.max)
				}
				g.end()
			})
		})
	}
}

// What this process says of itself is so.
func TestProcessMemory(t *testing.T) {
	var m goMemory
	_, before := m.look()
	rubbish := make([]byte, 64<<20)
	for i := range rubbish {
		rubbish[i] = 1
	}
	if _, held := m.look(); held < before+48<<20 {
		t.Errorf("64 MiB more are %d bytes", int64(held)-int64(before))
	}
	rubbish = nil
	m.collect()
	if _, after := m.look(); after > before+16<<20 {
		t.Errorf("%d bytes more are left", int64(after)-int64(before))
	}
}
