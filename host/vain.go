package host

import (
	"sync"
	"sync/atomic"
	"time"
)

// A stream that comes to nothing costs its remote next to nothing, and us an answer and
// up to 40 µs: one that ends without a protocol, that is refused, by us or by its handler
// because there are too many, or that the remote resets before we have answered. Who begins
// many is made to wait: its connection is not read meanwhile, so that it can send no more,
// and neither side has work. Streams that are served cost nothing, however many they are.
const (
	// vainBurst is how many a remote may begin at once: several times what honest ones
	// do that do not know our protocols, or have cancelled what they were about to ask.
	vainBurst = 100
	// vainInterval is for how long a connection then waits for each: 200 a second are
	// at most 1 % of a core.
	vainInterval = 5 * time.Millisecond
	// vainTurn is how many are waited for at once: to wake up costs more than a stream.
	vainTurn = 20
	// vainTogether is how many connections wait for so long each; more share what these
	// would have.
	vainTogether = 4
	// vainPause is the longest wait.
	vainPause = time.Second
	// vainPatience is after how long a connection ends whose remote goes on all the same,
	// and vainDebt when it ends at once, where waiting does not hold the remote up.
	vainPatience = 5 * time.Second
	vainDebt     = 1000 * vainInterval
)

// vain counts what of a connection came to nothing. Times are since the connection began.
type vain struct {
	settled atomic.Int64 // when all of it is made up for, a time.Duration

	mu    sync.Mutex
	since time.Duration // when there was nothing to make up for; negative: it was enough

	pause atomic.Pointer[time.Timer] // nil until the connection waits
	turn  int                        // streams that may be taken in at once; for Conn.accept alone
}

// add counts n more. It tells, once, when that is enough of the connection.
func (v *vain) add(n int, now time.Duration) (enough bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.since < 0 {
		return false
	}
	settled := time.Duration(v.settled.Load())
	if settled <= now {
		settled, v.since = now, now
	}
	v.settled.Store(int64(settled + time.Duration(n)*vainInterval))
	owes := v.owes(now)
	if enough = owes > vainDebt || owes > 0 && now-v.since >= vainPatience; enough {
		v.since = -1
	}
	return enough
}

// owes tells how long the connection has to wait.
func (v *vain) owes(now time.Duration) time.Duration {
	return max(0, time.Duration(v.settled.Load())-now-vainBurst*vainInterval)
}

// wait waits, unless the connection has ended, or until it does. The part of it that is
// for others, who wait at the same time, does not settle what the connection owes.
func (v *vain) wait(d, others time.Duration, ended *atomic.Bool) {
	if others > 0 {
		v.mu.Lock()
		v.settled.Add(int64(others))
		v.mu.Unlock()
	}
	timer := v.pause.Load()
	if timer == nil {
		timer = time.NewTimer(d)
		v.pause.Store(timer)
	} else {
		timer.Reset(d)
	}
	if !ended.Load() { // otherwise hurry may have come before
		<-timer.C
	}
	v.turn = vainTurn
}

// hurry ends the wait of a connection that has ended.
func (v *vain) hurry() {
	if timer := v.pause.Load(); timer != nil {
		timer.Reset(0)
	}
}
