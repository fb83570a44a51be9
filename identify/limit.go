package identify

import (
	"net/netip"
	"time"

	"github.com/kith-p2p/kith/multiaddr"
)

// What one connection may ask of us. Signatures are checked for what comes in, so
// these are bounds on CPU.
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
	// refusalLimit is how many streams are refused before the connection is
	// closed. A refusal costs little, but not nothing.
	refusalLimit = rate{every: 100 * time.Millisecond, burst: 100}
)

const (
	// maxServing is how many streams of a connection are served at a time: a
	// request, and a push that follows one still being read, and as many again.
	maxServing = 4
	// maxGroups is how many address groups are kept; forgetting one costs a burst.
	maxGroups = 1024
)

// A rate lets burst events through at once, and then one every interval.
type rate struct {
	every time.Duration
	burst int
}

// A bucket counts the events of one rate. The zero value is full.
type bucket struct {
	full time.Time // when the whole burst can be had again
}

// take lets an event through, or not.
func (b *bucket) take(r rate, now time.Time) bool {
	if b.wait(r, now) > 0 {
		return false
	}
	if b.full.Before(now) {
		b.full = now
	}
	b.full = b.full.Add(r.every)
	return true
}

// wait tells how long it is until an event is let through.
func (b *bucket) wait(r rate, now time.Time) time.Duration {
	if !b.full.After(now) {
		return 0 // and the difference could be larger than a Duration
	}
	return max(0, b.full.Sub(now)-time.Duration(r.burst-1)*r.every)
}

// groups holds a bucket for each address group.
type groups map[netip.Prefix]bucket

// take lets an event of whoever is at addr through, or not.
func (g groups) take(addr multiaddr.Addr, r rate, now time.Time) bool {
	ip, ok := addr.IP()
	ip = ip.Unmap().WithZone("")
	if !ok || ip.IsLoopback() {
		return true
	}
	bits := 48
	if ip.Is4() {
		bits = 24
	}
	group, err := ip.Prefix(bits)
	if err != nil {
		return true
	}
	b, known := g[group]
	if !known && len(g) >= maxGroups {
		g.trim(now)
	}
	took := b.take(r, now)
	g[group] = b
	return took
}

// trim makes room: buckets that are full again say nothing, and if there is none,
// any one has to go.
func (g groups) trim(now time.Time) {
	for k, b := range g {
		if !b.full.After(now) {
			delete(g, k)
		}
	}
	for k := range g {
		if len(g) < maxGroups {
			break
		}
		delete(g, k)
	}
}
