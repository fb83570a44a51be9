package host

import (
	"net/netip"
	"sync"

	"github.com/kith-p2p/kith/multiaddr"
)

// Limits bounds what remotes can make a host hold. Zero means the default,
// negative means no limit.
type Limits struct {
	// Conns is the number of connections, both directions. Default 1024: at
	// about 15 KiB each, 15 MiB.
	Conns int
	// ConnsPerPeer is the number of connections with one peer. Default 8: one a
	// transport and some for races.
	ConnsPerPeer int
	// ConnsPerIP is the number of inbound connections from one IPv4 address or one
	// IPv6 /56; loopback is exempt. Default 64: an office or a carrier's NAT gets
	// in, a single machine cannot take all places.
	ConnsPerIP int
	// HalfOpen is the number of inbound connections that have not yet proved who
	// they are. When it is reached, the address group with the most of them loses
	// its oldest among the least advanced. Default 256: at about 24 KiB each, 6 MiB.
	HalfOpen int
	// HalfOpenPerGroup bounds those of one IPv4 /24 or IPv6 /48. Default 128.
	HalfOpenPerGroup int
	// InboundStreamsPerPeer is the number of streams that one peer may have open
	// to us. Default 1024.
	InboundStreamsPerPeer int
	// UnnegotiatedStreamsPerPeer bounds those of one peer on which no protocol is
	// agreed yet. Default 64: an honest opener sends its proposal at once.
	UnnegotiatedStreamsPerPeer int
	// UnnegotiatedStreams bounds those of all peers; when it is reached, the peer
	// with the most of them loses its oldest. Default 1024.
	UnnegotiatedStreams int
	// KnownPeers is the number of peers without a connection whose addresses are
	// kept. Default 8192: at most about 4 KiB each.
	KnownPeers int
}

func (l Limits) withDefaults() Limits {
	set := func(v *int, def int) {
		if *v == 0 {
			*v = def
		} else if *v < 0 {
			*v = int(^uint(0) >> 1)
		}
	}
	set(&l.Conns, 1024)
	set(&l.ConnsPerPeer, 8)
	set(&l.ConnsPerIP, 64)
	set(&l.HalfOpen, 256)
	set(&l.HalfOpenPerGroup, 128)
	set(&l.InboundStreamsPerPeer, 1024)
	set(&l.UnnegotiatedStreamsPerPeer, 64)
	set(&l.UnnegotiatedStreams, 1024)
	set(&l.KnownPeers, 8192)
	return l
}

// addrGroup is the part of an address that one party can be expected to own:
// an IPv4 /24 or an IPv6 /48. Addresses without an IP are one group.
func addrGroup(a multiaddr.Addr) netip.Prefix {
	return prefixOf(a, 24, 48)
}

// addrOwner is the part of an address that one machine or household has: an IPv4
// address or an IPv6 /56.
func addrOwner(a multiaddr.Addr) netip.Prefix {
	return prefixOf(a, 32, 56)
}

func prefixOf(a multiaddr.Addr, bits4, bits6 int) netip.Prefix {
	ip, ok := a.IP()
	if !ok {
		return netip.Prefix{}
	}
	// An IPv4-mapped address is the IPv4 address, or a limit would count it apart.
	ip = ip.Unmap().WithZone("")
	bits := bits6
	if ip.Is4() {
		bits = bits4
	}
	p, _ := ip.Prefix(bits)
	return p
}

// A waitroom holds what remotes have begun and not finished: half-open
// connections by address group, streams without a protocol by peer. It is shared
// fairly: when it is full, the group that holds the most gives up a place.
type waitroom[K comparable] struct {
	max       int
	perGroup  int
	evictSelf bool // a full group gives up one of its own for the newcomer, instead of refusing it

	mu     sync.Mutex
	total  int
	groups map[K][]*ticket[K] // in order of arrival
}

// A ticket is one place in a waitroom.
type ticket[K comparable] struct {
	room  *waitroom[K]
	group K
	evict func() // does not block

	// guarded by room.mu
	stage Stage
	gone  bool
}

// enter takes a place, or returns nil. evict is called, at most once, if the
// place is lost before leave.
func (w *waitroom[K]) enter(group K, evict func()) *ticket[K] {
	t := &ticket[K]{room: w, group: group, evict: evict}
	var victim *ticket[K]
	w.mu.Lock()
	if w.groups == nil {
		w.groups = make(map[K][]*ticket[K])
	}
	own := len(w.groups[group])
	switch {
	case own >= w.perGroup:
		if !w.evictSelf {
			w.mu.Unlock()
			return nil
		}
		victim = w.pick(group)
	case w.total >= w.max:
		largest, n := group, own
		for g, ts := range w.groups {
			if len(ts) > n {
				largest, n = g, len(ts)
			}
		}
		// A newcomer never displaces a group that holds less than its own.
		if n == 0 || (largest == group && !w.evictSelf) {
			w.mu.Unlock()
			return nil
		}
		victim = w.pick(largest)
	}
	if victim != nil {
		w.remove(victim)
	}
	w.groups[group] = append(w.groups[group], t)
	w.total++
	w.mu.Unlock()
	if victim != nil {
		victim.evict()
	}
	return t
}

// pick finds the oldest of the least advanced of a group. w.mu is held.
func (w *waitroom[K]) pick(group K) *ticket[K] {
	var found *ticket[K]
	for _, t := range w.groups[group] {
		if found == nil || t.stage < found.stage {
			found = t
		}
	}
	return found
}

// remove takes t out. w.mu is held.
func (w *waitroom[K]) remove(t *ticket[K]) {
	ts := w.groups[t.group]
	for i := range ts {
		if ts[i] == t {
			copy(ts[i:], ts[i+1:])
			ts[len(ts)-1] = nil
			ts = ts[:len(ts)-1]
			break
		}
	}
	if len(ts) == 0 {
		delete(w.groups, t.group)
	} else {
		w.groups[t.group] = ts
	}
	t.gone = true
	w.total--
}

// advance notes how far the holder came.
func (t *ticket[K]) advance(s Stage) {
	t.room.mu.Lock()
	defer t.room.mu.Unlock()
	t.stage = max(t.stage, s)
}

// leave gives the place back and tells whether it was still held.
func (t *ticket[K]) leave() bool {
	t.room.mu.Lock()
	defer t.room.mu.Unlock()
	if t.gone {
		return false
	}
	t.room.remove(t)
	return true
}

// len tells how many places are taken.
func (w *waitroom[K]) len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.total
}
