package identify

import (
	"net/netip"
	"time"

	"github.com/kith-p2p/kith/multiaddr"
)

// What others may ask of us. Signatures are checked for what comes in, so these
// are bounds on CPU.
var (
	// pushLimit is how often a peer's news is read: as often as go-libp2p does.
	pushLimit = rate{every: 5 * time.Second, burst: 10}
	// groupLimit is the same for all peers of one IPv4 /24 or IPv6 /48, so that a
	// peer that connects anew under another name does not begin with a full burst
	// for ever. Loopback is exempt.
	groupLimit = rate{every: time.Second, burst: 50}
	// requestLimit is how often a peer may ask who we are. One does once, some
	// every few minutes.
	requestLimit = rate{every: time.Second, burst: 20}
)

const (
	// maxServing is how many streams of a connection are served at a time: a
	// request, and a push that follows one still being read, and as many again.
	maxServing = 4
	// maxBudgets and maxGroups are how many peers and address groups are
	// remembered, at about 150 bytes each; forgetting one costs a burst.
	maxBudgets = 4096
	maxGroups  = 1024
)

// A rate lets burst events through at once, and then one every interval.
type rate struct {
	every time.Duration
	burst int
}

// A bucket counts the events of one rate. The zero value is full.
type bucket struct {
	refilled time.Time // when the whole burst can be had again
}

// take lets an event through, or not.
func (b *bucket) take(r rate, now time.Time) bool {
	if b.wait(r, now) > 0 {
		return false
	}
	if b.full(now) {
		b.refilled = now
	}
	b.refilled = b.refilled.Add(r.every)
	return true
}

// wait tells how long it is until an event is let through.
func (b *bucket) wait(r rate, now time.Time) time.Duration {
	if b.full(now) {
		return 0 // and the difference could be larger than a Duration
	}
	return max(0, b.refilled.Sub(now)-time.Duration(r.burst-1)*r.every)
}

func (b *bucket) full(now time.Time) bool { return !b.refilled.After(now) }

// A budget is what one peer may still ask. It outlives the peer's connections.
type budget struct {
	pushes, requests bucket
}

func (b *budget) full(now time.Time) bool {
	return b.pushes.full(now) && b.requests.full(now)
}

// ledger keeps buckets or budgets. One that is full says nothing and need not be kept.
type ledger[K comparable, V any, P interface {
	*V
	full(now time.Time) bool
}] map[K]P

// of finds or makes the entry of k. When there are max entries, those that are
// full are forgotten, and if there is none, any.
func (l ledger[K, V, P]) of(k K, max int, now time.Time) P {
	v := l[k]
	if v != nil {
		return v
	}
	if len(l) >= max {
		for k, v := range l {
			if v.full(now) {
				delete(l, k)
			}
		}
	}
	for k := range l {
		if len(l) < max {
			break
		}
		delete(l, k)
	}
	v = new(V)
	l[k] = v
	return v
}

// group is the part of an address that one party can be expected to own; there
// is none for an address within this machine.
func group(addr multiaddr.Addr) (netip.Prefix, bool) {
	p, ok := addr.Prefix(24, 48)
	return p, ok && addr.Scope() != multiaddr.ScopeMachine
}
