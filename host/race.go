//kith:pure

package host

import (
	"slices"
	"time"
)

// A race is the course of one dial: which step starts when. Times are those since
// the start of the dial. The zero value is a race in which nobody runs.
type race struct {
	waiting  []*step // in the order of their delays
	deferred []*step // their ports were busy; they start when another step has ended
	reserve  []*step // they start when all others have failed
	running  int
	fair     time.Duration // when the one that started last should have answered
}

// from tells when steps that are added at now have their turn, at the earliest.
func (r *race) from(now time.Duration) time.Duration {
	if r.running == 0 && len(r.waiting) == 0 {
		return now
	}
	return max(now, r.fair)
}

// add lets more steps take part; those of placeLast when nothing else is left.
func (r *race) add(steps []*step) {
	for _, s := range steps {
		if s.place == placeLast {
			r.reserve = append(r.reserve, s)
			continue
		}
		i := len(r.waiting)
		for i > 0 && r.waiting[i-1].delay > s.delay {
			i--
		}
		r.waiting = slices.Insert(r.waiting, i, s)
	}
}

// next gives the step that starts now, which counts as running from then on. If
// there is none it tells how long to wait for one; a negative time: until a step that
// runs has ended. over: no step is left.
func (r *race) next(now time.Duration) (s *step, wait time.Duration, over bool) {
	if r.running == 0 && len(r.waiting) == 0 {
		if r.waiting, r.deferred = r.deferred, nil; len(r.waiting) == 0 {
			r.waiting, r.reserve = r.reserve, nil
		}
	}
	switch {
	case len(r.waiting) > 0 && (r.running == 0 || r.waiting[0].delay <= now):
		s = r.waiting[0]
		r.waiting = slices.Delete(r.waiting, 0, 1)
		r.running++
		r.fair = now + s.expect
		return s, 0, false
	case len(r.waiting) > 0:
		return nil, r.waiting[0].delay - now, false
	}
	return nil, -1, r.running == 0
}

// hold lets no further step start before until, since one that runs has answered and
// is likely to succeed by then.
func (r *race) hold(until time.Duration) {
	if r.running == 0 || len(r.waiting) == 0 {
		return
	}
	if later := until - r.waiting[0].delay; later > 0 {
		for _, s := range r.waiting {
			s.delay += later
		}
	}
}

// holdUntil is until when an attempt that began at start and had its first sign of life
// opened later may be expected to succeed: TCP and what is above it take two or three
// round trips. All times are bounded by what a person waits.
func holdUntil(start, opened time.Duration) time.Duration {
	return start + min(3*opened+minDelay, 2*maxDelay)
}

// busy takes back a step that next gave, since its port is busy. It has another
// chance when a step of this race ends; if none runs it has none, and kept is false.
func (r *race) busy(s *step) (kept bool) {
	r.running--
	if r.running > 0 {
		r.deferred = append(r.deferred, s)
	}
	return r.running > 0
}

// skipped takes back a step that next gave and that is not to be tried.
func (r *race) skipped() { r.running-- }

// failed notes that a step has ended without a connection: the next one starts at
// once, and those after it as much sooner.
func (r *race) failed(now time.Duration) {
	r.running--
	for _, s := range r.deferred {
		s.delay = now
	}
	r.waiting = append(r.deferred, r.waiting...)
	r.deferred = nil
	if len(r.waiting) == 0 || r.waiting[0].delay <= now {
		return
	}
	sooner := r.waiting[0].delay - now
	for _, s := range r.waiting {
		s.delay -= sooner
	}
}

// alone tells that one step runs, and that no other is left.
func (r *race) alone() bool {
	return r.running == 1 && len(r.waiting) == 0 && len(r.deferred) == 0 && len(r.reserve) == 0
}
