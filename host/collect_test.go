package host

import (
	"testing"
	"testing/synctest"
	"time"
)

// fakeMemory is a process whose garbage a test makes.
type fakeMemory struct {
	cycles        uint64
	live, rubbish uint64 // bytes
	looks         int
	collections   []time.Time
	took          time.Duration
}

func (m *fakeMemory) look() (cycles, mapped uint64) {
	m.looks++
	return m.cycles, m.live + m.rubbish
}

func (m *fakeMemory) collect() {
	m.collections = append(m.collections, time.Now())
	time.Sleep(m.took)
	m.rubbish = 0
}

// rest lets a minute pass and tells how often was looked and collected meanwhile, and
// whether it is over.
func (m *fakeMemory) rest(g *garbage) (looks, collections int, over bool) {
	looks, collections = m.looks, len(m.collections)
	time.Sleep(time.Minute)
	synctest.Wait()
	return m.looks - looks, len(m.collections) - collections, !g.stirred.Load()
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
		before := len(m.collections)

		m.rubbish = m.live/collectShare - 1
		g.stir()
		if _, n, over := m.rest(g); n > 0 || !over {
			t.Errorf("for little: %d collections, over: %v", n, over)
		}

		m.rubbish = m.live
		g.stir()
		for range 20 { // the runtime collects by itself
			time.Sleep(collectLook * (collectCalm - 1))
			m.cycles++
		}
		if n := len(m.collections) - before; n > 0 {
			t.Errorf("%d collections beside those of the runtime, want none", n)
		}
		if _, n, over := m.rest(g); n != 2 || !over {
			t.Errorf("after the last of those: %d collections, over: %v", n, over)
		}
	})
}

// What the runtime has collected by itself is looked through once more, although it goes on.
func TestGarbageAfterTheRuntime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &fakeMemory{live: 20 << 20}
		g := &garbage{memory: m, least: m.live}
		defer g.end()
		life := func(seconds int, rubbish uint64) {
			m.rubbish = rubbish
			for range seconds {
				g.stir()
				m.cycles++
				time.Sleep(time.Second)
			}
		}
		life(60, 4<<20)
		life(10, 50<<20)
		if n := len(m.collections); n > 0 {
			t.Errorf("%d collections before the end of the attack", n)
		}
		life(60, 4<<20)
		if n := len(m.collections); n != 1 {
			t.Errorf("%d collections after it, want 1", n)
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
				for end := time.Now().Add(time.Hour); time.Now().Before(end); time.Sleep(time.Second) {
					m.rubbish = c.rubbish
					g.stir()
				}
				if n := len(m.collections); n < c.min || n > c.max {
					t.Errorf("%d collections in an hour, want %d to %d", n, c.min, c.max)
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
