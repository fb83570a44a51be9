package drive

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A clock is a machine that rings at set times and echoes what it is told.
type clock struct {
	rings   []time.Time // ascending
	actions []string
}

func (c *clock) Timeout() time.Time {
	if len(c.rings) == 0 {
		return time.Time{}
	}
	return c.rings[0]
}

func (c *clock) HandleTimeout(now time.Time) {
	for len(c.rings) > 0 && !now.Before(c.rings[0]) {
		c.rings = c.rings[1:]
		c.actions = append(c.actions, "ring")
	}
}

func (c *clock) NextAction() (string, bool) {
	if len(c.actions) == 0 {
		return "", false
	}
	a := c.actions[0]
	c.actions = c.actions[1:]
	return a, true
}

func (c *clock) ringAt(at time.Time) {
	c.rings = append(c.rings, at)
	slices.SortFunc(c.rings, time.Time.Compare)
}

func (c *clock) say(words ...string) { c.actions = append(c.actions, words...) }

// A journal is what a loop did, line by line.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
}

func (j *journal) want(t *testing.T, lines ...string) {
	t.Helper()
	synctest.Wait()
	j.mu.Lock()
	defer j.mu.Unlock()
	if !slices.Equal(j.lines, lines) {
		t.Errorf("got %q\nwant %q", j.lines, lines)
	}
}

// start runs a loop over a clock and logs its actions with the time they came.
func start(t *testing.T, inbox int) (c *clock, l *Loop[string], log *journal, stop func()) {
	t.Helper()
	began := time.Now()
	c, log = &clock{}, new(journal)
	ctx, cancel := context.WithCancel(t.Context())
	l = Start(func(run func(context.Context)) { go run(ctx) }, c, inbox, func(a string) {
		log.add(fmt.Sprint(time.Since(began), " ", a))
	})
	return c, l, log, func() { cancel(); <-l.Done() }
}

func TestTimeouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l, log, stop := start(t, 0)
		defer stop()
		l.TryPost(func(now time.Time) {
			c.ringAt(now.Add(3 * time.Second))
			c.ringAt(now.Add(3 * time.Second))
			c.ringAt(now.Add(time.Minute))
			c.say("set")
		})
		log.want(t, "0s set")
		time.Sleep(time.Second)
		l.TryPost(func(now time.Time) { c.ringAt(now.Add(time.Second)) }) // an earlier one moves the timer
		time.Sleep(time.Second)
		log.want(t, "0s set", "2s ring")
		time.Sleep(10 * time.Second)
		log.want(t, "0s set", "2s ring", "3s ring", "3s ring")
		l.TryPost(func(time.Time) { c.rings = nil }) // no deadline: the timer is off
		time.Sleep(time.Hour)
		log.want(t, "0s set", "2s ring", "3s ring", "3s ring")
		l.TryPost(func(now time.Time) { c.ringAt(now.Add(-time.Second)) }) // one that has passed already
		log.want(t, "0s set", "2s ring", "3s ring", "3s ring", "1h0m12s ring")
	})
}

func TestActionsComeBeforeTheNextInput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &clock{}
		var log journal
		l := New(c, 0, log.add)
		for i := range 3 { // posted before Run: they wait
			l.TryPost(func(time.Time) {
				log.add(fmt.Sprint("input ", i))
				c.say("a", "b")
			})
		}
		ctx, cancel := context.WithCancel(t.Context())
		go l.Run(ctx)
		log.want(t, "input 0", "a", "b", "input 1", "a", "b", "input 2", "a", "b")
		cancel()
		<-l.Done()
	})
}

// A deadline is kept even though inputs never stop coming.
func TestFloodDoesNotStarveTheTimer(t *testing.T) {
	c := &clock{}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	l := New(c, 0, func(string) { cancel() })
	c.ringAt(time.Now().Add(time.Millisecond))
	go func() {
		for l.Post(ctx, func(time.Time) {}) == nil {
		}
	}()
	l.Run(ctx)
	if ctx.Err() != context.Canceled {
		t.Error("the deadline was never served")
	}
}

func TestFullInbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, l, log, stop := start(t, 2)
		defer stop()
		release := make(chan struct{})
		var ran atomic.Int32
		l.TryPost(func(time.Time) { <-release })
		synctest.Wait() // the loop is busy
		for i := range 3 {
			if got, want := l.TryPost(func(time.Time) { ran.Add(1) }), i < 2; got != want {
				t.Errorf("TryPost %d = %v, want %v", i, got, want)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.Post(ctx, func(time.Time) { ran.Add(1) }); err != context.DeadlineExceeded {
			t.Errorf("Post into a full inbox: %v, want the context's error", err)
		}
		posted := make(chan error)
		go func() { posted <- l.Post(t.Context(), func(time.Time) { ran.Add(1) }) }()
		synctest.Wait()
		close(release)
		if err := <-posted; err != nil {
			t.Errorf("Post, once there is room: %v", err)
		}
		log.want(t)
		if ran.Load() != 3 {
			t.Errorf("%d inputs ran, want the 3 accepted", ran.Load())
		}
	})
}

func TestCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l, log, stop := start(t, 0)
		var rings int
		if err := l.Call(t.Context(), func(time.Time) { rings = len(c.rings); c.say("called") }); err != nil || rings != 0 {
			t.Errorf("Call: %v, %d rings", err, rings)
		}
		log.want(t, "0s called")

		// A call whose context ends first, then one that ends with the loop.
		release := make(chan struct{})
		l.TryPost(func(time.Time) { <-release })
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("changed my mind")
		cancel(why)
		if err := l.Call(ctx, func(time.Time) {}); err != why {
			t.Errorf("Call: %v, want the context's cause", err)
		}
		called := make(chan error)
		go func() { called <- l.Call(t.Context(), func(time.Time) {}) }()
		synctest.Wait()
		go stop()
		synctest.Wait()
		close(release)
		if err := <-called; err != ErrStopped {
			t.Errorf("Call on a loop that stops: %v, want ErrStopped", err)
		}
	})
}

func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l, log, stop := start(t, 1)
		l.TryPost(func(now time.Time) { c.ringAt(now.Add(time.Second)) })
		synctest.Wait()
		stop()
		if err := l.Post(t.Context(), func(time.Time) {}); err != ErrStopped {
			t.Errorf("Post after the end: %v", err)
		}
		if err := l.Call(t.Context(), func(time.Time) {}); err != ErrStopped {
			t.Errorf("Call after the end: %v", err)
		}
		if l.TryPost(func(time.Time) {}) {
			t.Error("TryPost after the end was accepted")
		}
		time.Sleep(time.Minute)
		log.want(t) // the timer died with the loop

		// The machine is ours again: its last words are heard.
		c.say("bye")
		if a, ok := c.NextAction(); !ok || a != "bye" {
			t.Errorf("NextAction after Run = %q, %v", a, ok)
		}
	})
}

// Waiting posts are let go when the loop ends under them.
func TestStopReleasesPosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, l, _, stop := start(t, 1)
		release := make(chan struct{})
		l.TryPost(func(time.Time) { <-release })
		synctest.Wait()
		l.TryPost(func(time.Time) {})
		posted := make(chan error, 10)
		for range cap(posted) {
			go func() { posted <- l.Post(t.Context(), func(time.Time) {}) }()
		}
		synctest.Wait()
		go stop()
		synctest.Wait()
		close(release)
		for range cap(posted) {
			if err := <-posted; err != nil && err != ErrStopped {
				t.Errorf("Post on a loop that stops: %v", err)
			}
		}
	})
}

// A loop that has no deadline and no input sits still: synctest would report a
// deadlock if its timer were armed for nothing, and hang if it were spinning.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, _, log, stop := start(t, 0)
		time.Sleep(24 * time.Hour)
		log.want(t)
		stop()
	})
}

func BenchmarkPost(b *testing.B) {
	ctx, cancel := context.WithCancel(b.Context())
	c := &clock{}
	l := Start(func(run func(context.Context)) { go run(ctx) }, c, 0, func(string) {})
	input := func(time.Time) {}
	b.ReportAllocs()
	for b.Loop() {
		l.Post(ctx, input)
	}
	cancel()
	<-l.Done()
}

func BenchmarkCall(b *testing.B) {
	ctx, cancel := context.WithCancel(b.Context())
	c := &clock{}
	l := Start(func(run func(context.Context)) { go run(ctx) }, c, 0, func(string) {})
	b.ReportAllocs()
	for b.Loop() {
		l.Call(ctx, func(time.Time) {})
	}
	cancel()
	<-l.Done()
}
