//kith:pure

package host

import (
	"cmp"
	"slices"
	"time"

	"github.com/kith-p2p/kith/multiaddr"
)

// Delays between one address of a peer and the next: the time in which a good
// one answers, so that the second is rarely dialed. As in RFC 8305 for public
// addresses.
const (
	delayPublic  = 250 * time.Millisecond
	delayPrivate = 30 * time.Millisecond
)

type planned struct {
	addr  multiaddr.Addr
	delay time.Duration // from the start of the dial
}

// rank orders the addresses of a peer for a dial: nearer ones first, as they
// answer or fail fastest, each with the time after which it is tried even though
// those before it have not failed. Within a scope the order given is kept.
func rank(addrs []multiaddr.Addr) []planned {
	sorted := slices.Clone(addrs)
	slices.SortStableFunc(sorted, func(a, b multiaddr.Addr) int { return cmp.Compare(a.Scope(), b.Scope()) })
	var plan []planned
	var at time.Duration
	for _, a := range sorted {
		if slices.ContainsFunc(plan, func(p planned) bool { return p.addr == a }) {
			continue
		}
		plan = append(plan, planned{a, at})
		if a.Scope() == multiaddr.ScopeInternet {
			at += delayPublic
		} else {
			at += delayPrivate
		}
	}
	return plan
}
