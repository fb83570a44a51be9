package host

import (
	"sync"
	"time"
)

// answers sends the answers to proposals that have waited answerDelay for the first
// data of their handlers. All wait equally long, so a queue and one timer serve the
// streams of a host: a timer and its function for each were 2 of 8 allocations of
// an accepted stream. While no stream is accepted, nothing runs.
type answers struct {
	mu          sync.Mutex
	first, last *negotiation // in the order of their times
	timer       *time.Timer  // nil until the first
	armed       bool         // the timer runs
	ended       bool         // the host is closed
}

// waiting is the place of a negotiation in the queue.
type waiting struct {
	in         bool
	due        time.Time
	prev, next *negotiation
}

func (a *answers) add(g *negotiation, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended {
		return
	}
	g.late = waiting{in: true, due: now.Add(answerDelay), prev: a.last}
	if a.last == nil {
		a.first = g
	} else {
		a.last.late.next = g
	}
	a.last = g
	if a.armed {
		return
	}
	a.armed = true
	if a.timer == nil {
		a.timer = time.AfterFunc(answerDelay, a.send)
	} else {
		a.timer.Reset(answerDelay)
	}
}

// remove is for an answer that is sent. The timer goes on: to stop it would cost more
// than to find nothing due.
func (a *answers) remove(g *negotiation) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.drop(g)
}

func (a *answers) drop(g *negotiation) {
	w := g.late
	if !w.in {
		return
	}
	g.late = waiting{}
	if w.prev == nil {
		a.first = w.next
	} else {
		w.prev.late.next = w.next
	}
	if w.next == nil {
		a.last = w.prev
	} else {
		w.next.late.prev = w.prev
	}
}

// send sends what is due. Each has a goroutine: the remote may not be reading.
func (a *answers) send() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended {
		return
	}
	now := time.Now()
	for a.first != nil && !a.first.late.due.After(now) {
		g := a.first
		a.drop(g)
		if g.stream.conn.host.hold() {
			go g.sendLate()
		}
	}
	if a.armed = a.first != nil; a.armed {
		a.timer.Reset(a.first.late.due.Sub(now))
	}
}

func (g *negotiation) sendLate() {
	defer g.stream.conn.host.release()
	g.stream.flush(g)
}

// end is for when the host closes: what has not been sent never is.
func (a *answers) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ended = true
	if a.timer != nil {
		a.timer.Stop()
	}
}
