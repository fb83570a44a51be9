package host

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A limit that is reached again and again is told of at once, then once a second, and
// nothing is forgotten.
func TestLimitReached(t *testing.T) {
	puppetKeys()
	synctest.Test(t, func(t *testing.T) {
		h := crowdedHost(t, 10, Config{Limits: Limits{Grace: -1}})
		seen := h.Subscribe(10_000)
		for n := range 10 {
			if _, err := h.enter(n, single(n), DirInbound, new(puppet)); err != nil {
				t.Fatal(err)
			}
		}
		for n := range 1000 { // in 2.5 s
			_, err := h.enter(100+n, single(100+n), DirInbound, new(puppet))
			var full *LimitError
			if !errors.As(err, &full) || full.Scope != "Conns" {
				t.Fatalf("a newcomer was refused with %v", err)
			}
			time.Sleep(2500 * time.Microsecond)
		}
		if _, err := h.enter(2000, single(2000), DirOutbound, new(puppet)); err != nil { // an own dial displaces
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		seen.Close()
		events, refused, ended := 0, uint64(0), uint64(0)
		for e := range seen.Events() {
			if e, ok := e.(LimitReached); ok {
				if e.Err.Scope != "Conns" || e.Err.Limit != 10 || e.Err.Used != 10 {
					t.Errorf("%+v", e.Err)
				}
				events++
				refused += e.Refused
				ended += e.Ended
			}
		}
		if events < 3 || events > 4 || refused != 1000 || ended != 1 {
			t.Errorf("%d events tell of %d refused and %d ended", events, refused, ended)
		}
	})
}

func TestCrowds(t *testing.T) {
	var k crowds
	groups := settled(3)
	for _, step := range []struct{ group, one, largest int }{{0, 1, 1}, {0, 1, 2}, {1, 1, 2}, {1, 1, 2}, {1, 1, 3}, {0, -1, 3}, {1, -1, 2}, {1, -1, 1}, {2, 1, 1}, {0, -1, 1}, {1, -1, 1}, {2, -1, 0}} {
		if k.add(groups[step.group].group, step.one); k.largest() != step.largest {
			t.Fatalf("after %+v the largest has %d", step, k.largest())
		}
	}
	if len(k.n) != 0 || k.of(groups[0].group) != 0 {
		t.Errorf("%v is left", k.n)
	}
}
