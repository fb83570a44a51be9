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
// answer or fail fastest, and of those the ones over transports that connect in
// fewer round trips; each with the time after which it is tried even though those
// before it have not failed. Otherwise the order given is kept.
func rank(addrs []multiaddr.Addr) []planned {
	sorted := slices.Clone(addrs)
	slices.SortStableFunc(sorted, func(a, b multiaddr.Addr) int {
		return cmp.Or(cmp.Compare(a.Scope(), b.Scope()), cmp.Compare(effort(a), effort(b)))
	})
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

// effort orders transports by what a connection costs: QUIC takes one round trip,
// TCP three or so, and what was made for browsers more and is slower afterwards.
func effort(a multiaddr.Addr) (n int) {
	for c := range a.Components() {
		switch c.Code() {
		case multiaddr.QUICV1:
			n = 0
		case multiaddr.TCP:
			n = 1
		case multiaddr.WebTransport:
			n = 2
		case multiaddr.WS, multiaddr.WSS:
			n = 3
		case multiaddr.WebRTCDirect, multiaddr.WebRTC:
			n = 4
		}
	}
	return n
}
