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
	// vainTogether is how many connections wait for so long each; more share what these
	// would have.
	vainTogether = 8
	// vainPause is the longest wait before one stream, and vainNap before the connection
	// looks whether it has ended.
	vainPause = time.Second
	vainNap   = 100 * time.Millisecond
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

// owes tells how long the connection has to wait before it takes one more stream.
func (v *vain) owes(now time.Duration) time.Duration {
	return max(0, time.Duration(v.settled.Load())-now-vainBurst*vainInterval)
}
