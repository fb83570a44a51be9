package host

import (
	"net/netip"
	"slices"
	"sync"

	"github.com/kith-p2p/kith/multiaddr"
)

// addrGroup is the part of an address that one party can be expected to own:
// an IPv4 /24 or an IPv6 /48. Addresses without an IP are one group.
func addrGroup(a multiaddr.Addr) netip.Prefix {
	p, _ := a.Prefix(24, 48)
	return p
}

// addrOwner is the part of an address that one machine or household has: an IPv4
// address or an IPv6 /56.
func addrOwner(a multiaddr.Addr) netip.Prefix {
	ip, _ := a.IP()
	return ownerOf(ip)
}

func ownerOf(ip netip.Addr) netip.Prefix {
	bits := 56
	if ip = plain(ip); ip.Is4() {
		bits = 32
	}
	p, _ := ip.Prefix(bits)
	return p
}

// distant tells of a part of the addresses, of which who connects from there has one
// among others. Who is within this machine, or has no IP address, has none.
func distant(part netip.Prefix) bool { return part.IsValid() && !part.Addr().IsLoopback() }

// A waitroom holds what remotes have begun and not finished: half-open
// connections by address group, streams without a protocol by peer. It is shared
// fairly: when it is full, the group that holds the most gives up a place, and in
// it the owner who holds the most.
type waitroom[K comparable] struct {
	max       int
	perGroup  int
	evictSelf bool   // a full group gives up one of its own for the newcomer, instead of refusing it
	name      string // of the limit in max
	groupName string // of that in perGroup
	refusals  *refusalLog

	mu      sync.Mutex
	total   int
	groups  map[K][]*ticket[K] // in order of arrival
	held    map[K]int          // what pick counts in
	arrived uint64             // tickets so far
}

// A ticket is one place in a waitroom.
type ticket[K comparable] struct {
	room  *waitroom[K]
	group K
	owner K      // a part of group, or all of it
	evict func() // does not block

	// guarded by room.mu
	number uint64 // in order of arrival
	stage  Stage
	gone   bool
}

// enter takes a place, or returns nil. evict is called, at most once, if the
// place is lost before leave.
func (w *waitroom[K]) enter(group, owner K, evict func()) *ticket[K] {
	t := &ticket[K]{room: w, group: group, owner: owner, evict: evict}
	var victim *ticket[K]
	w.mu.Lock()
	if w.groups == nil {
		w.groups, w.held = make(map[K][]*ticket[K]), make(map[K]int)
	}
	full := w.groups[group]
	reached := LimitError{Scope: w.groupName, Used: len(full), Limit: w.perGroup}
	if len(full) < w.perGroup {
		full = nil
		if w.total >= w.max {
			full = w.largest()
			reached = LimitError{Scope: w.name, Used: w.total, Limit: w.max}
		}
	}
	if full != nil {
		// A newcomer never displaces a group that holds less than its own.
		if full[0].group == group && !w.evictSelf {
			w.refusals.note(&reached)
			w.mu.Unlock()
			return nil
		}
		w.refusals.end(&reached)
		victim = w.pick(full)
		w.remove(victim)
	}
	t.number = w.arrived
	w.arrived++
	w.groups[group] = append(w.groups[group], t)
	w.total++
	w.mu.Unlock()
	if victim != nil {
		victim.evict()
	}
	return t
}

// largest finds the group that holds the most, of several the one whose oldest
// place is the oldest. w.mu is held.
func (w *waitroom[K]) largest() (found []*ticket[K]) {
	for _, ts := range w.groups {
		if len(ts) > len(found) || len(ts) == len(found) && ts[0].number < found[0].number {
			found = ts
		}
	}
	return found
}

// pick finds who gives up a place in a group: the owner with the most, and of
// its places the oldest at the stage where most of them wait. Who is honest does
// not wait anywhere for long, so it is among the youngest wherever it is: to be
// rid of it, others have to be many at every stage. w.mu is held.
func (w *waitroom[K]) pick(group []*ticket[K]) *ticket[K] {
	clear(w.held)
	for _, t := range group {
		w.held[t.owner]++
	}
	owner := group[0].owner
	for _, t := range group {
		if w.held[t.owner] > w.held[owner] {
			owner = t.owner
		}
	}
	var at [StageMuxed + 1]int
	stage := StageStart
	for _, t := range group {
		if t.owner == owner {
			at[t.stage]++
		}
	}
	for s, n := range at {
		if n > at[stage] {
			stage = Stage(s)
		}
	}
	i := slices.IndexFunc(group, func(t *ticket[K]) bool { return t.owner == owner && t.stage == stage })
	return group[i]
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
