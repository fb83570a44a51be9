package netwatch

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// watching runs watch with inputs of the test's.
func watching(t *testing.T, notices chan bool) (state *atomic.Pointer[string], changes *atomic.Int32) {
	state, changes = new(atomic.Pointer[string]), new(atomic.Int32)
	home := "home"
	state.Store(&home)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		watch(ctx, notices, func() string { return *state.Load() }, func() { changes.Add(1) })
	}()
	t.Cleanup(func() { cancel(); <-done })
	return state, changes
}

func expect(t *testing.T, changes *atomic.Int32, after time.Duration, want int32) {
	t.Helper()
	time.Sleep(after)
	synctest.Wait()
	if n := changes.Load(); n != want {
		t.Errorf("%d changes, want %d", n, want)
	}
}

func TestNotices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		notices := make(chan bool)
		state, changes := watching(t, notices)
		notices <- false
		expect(t, changes, time.Second, 0) // all is as it was
		away := "away"
		state.Store(&away)
		for range 100 { // one change makes many notices
			notices <- false
			time.Sleep(time.Millisecond)
		}
		expect(t, changes, settle+time.Millisecond, 1)
		for range 1000 { // no end of them does not hold it up
			notices <- false
			time.Sleep(time.Millisecond)
		}
		expect(t, changes, time.Second, 1)
		notices <- true // down and up again
		expect(t, changes, time.Second, 2)
		expect(t, changes, time.Hour, 2)
		close(notices)
		expect(t, changes, time.Hour, 2)
		state.Store(new(string))
		expect(t, changes, pollEvery, 3)
	})
}

func TestPolling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		state, changes := watching(t, nil)
		expect(t, changes, time.Hour, 0)
		away := "away"
		state.Store(&away)
		expect(t, changes, pollEvery, 1)
	})
}

// A machine whose links change all the time does not keep us busy, and the last
// change is told.
func TestBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		notices := make(chan bool)
		_, changes := watching(t, notices)
		for range 100 {
			notices <- true
			time.Sleep(100 * time.Millisecond)
		}
		expect(t, changes, 2*refill, burst+10)
		expect(t, changes, time.Hour, burst+10)
	})
}

// What this machine tells is the same as long as nothing happens.
func TestLook(t *testing.T) {
	notices, look, stop := listen()
	for _, look := range []func() string{look, interfaces} {
		a, b := look(), look()
		for tries := 0; a != b && tries < 100; tries++ { // something has happened
			a, b = b, look()
		}
		if a == "" || a != b {
			t.Errorf("told %q and then %q", a, b)
		}
	}
	stop()
	if notices != nil {
		if _, ok := <-notices; ok {
			t.Error("a notice after the end")
		}
	}
}
