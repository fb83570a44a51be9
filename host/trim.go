//kith:pure

package host

import (
	"cmp"
	"maps"
	"math"
	"math/bits"
	"net/netip"
	"slices"
	"time"

	"github.com/kith-p2p/kith/peer"
)

// The connection manager: which connections end when there are too many.
//
// Connections are settled once they are older than the grace period. When more
// than the high watermark are settled, the least useful of them end until the low
// watermark is reached. Those in their grace are left alone: they may still turn
// out to be useful, and a flood of them does not push out who is settled. Only
// when the hard limit is reached, newcomers displace others one by one, and then
// those in their grace go first.
//
// The order in which connections go:
//
//  1. spare ones without streams: there is a better one with the same peer;
//  2. those with the peers of the lowest value;
//  3. those of the direction of which there are more;
//  4. of inbound ones, those of the address group with the most connections, and
//     in it of the address with the most (up to three count as one);
//  5. those without streams before those with;
//  6. when there is no room, those in their grace, the oldest first; then the
//     youngest first: who has been there for long stays.
//
// A protected peer keeps its best connection, whatever happens.

const (
	// maxTags is how many values of one peer are kept; with one more the least goes.
	// The tags are our own protocols', but their number can follow from what a peer does.
	maxTags = 64
	// maxStandings is how many peers without a connection keep their values, at about
	// 300 bytes each.
	maxStandings = 4096
	// maxValue bounds a value, in both directions: sums stay exact.
	maxValue = 1 << 40
)

// A trimmer decides which connections end. It knows what the program said of
// peers; the connections are told to it when it decides.
type trimmer struct {
	high, low int // watermarks; see Limits
	hard      int // Limits.Conns
	grace     time.Duration
	peers     map[peer.ID]*standing
}

// A standing is what the program said of a peer.
type standing struct {
	protected []string // tags, sorted
	values    []value
}

type value struct {
	tag      string
	v        float64
	halfLife time.Duration // 0: it does not decay
	at       time.Time
}

// now is what is left of the value.
func (v value) now(now time.Time) float64 {
	if age := now.Sub(v.at); v.halfLife > 0 && age > 0 {
		return v.v * math.Exp2(-float64(age)/float64(v.halfLife))
	}
	return v.v
}

// A link is what a decision needs to know of a connection.
type link struct {
	id           uint64 // in the order in which they were opened
	peer         peer.ID
	dir          Direction
	limited      bool
	stale        bool // it has not answered since a change of network
	replaced     bool // for a reason of its own another has taken its place
	first        bool // our peer's ID is less than ours: of two dials at once, that of the lesser counts
	group, owner netip.Prefix
	opened       time.Time
	streams      int
}

// simultaneous is how far apart two connections in opposite directions can be
// opened so that both sides dialed without knowing of the other: the length of a dial.
const simultaneous = dialTimeout

// better tells whether new streams go over a rather than b, which are with the
// same peer. Both sides come to the same answer.
//
// An unlimited connection is better than a limited one. Of two that were dialed at
// the same time, one by each side, it is that of the peer with the lesser ID.
// Otherwise the newer one is better: its dialer had a reason to make it, and has
// perhaps lost the other.
func better(a, b link) bool {
	switch {
	case a.stale != b.stale:
		return b.stale
	case a.replaced != b.replaced:
		return b.replaced
	case a.limited != b.limited:
		return b.limited
	case a.dir != b.dir && a.opened.Sub(b.opened).Abs() < simultaneous:
		return (a.dir == DirInbound) == a.first
	}
	return a.id > b.id
}

// protect notes that p must not lose its last connection, and tells whether that is new.
func (t *trimmer) protect(p peer.ID, tag string) {
	s := t.standing(p)
	if i, ok := slices.BinarySearch(s.protected, tag); !ok {
		s.protected = slices.Insert(s.protected, i, tag)
	}
}

// unprotect undoes protect and tells whether p is still protected under other tags.
func (t *trimmer) unprotect(p peer.ID, tag string) bool {
	s := t.peers[p]
	if s == nil {
		return false
	}
	if i, ok := slices.BinarySearch(s.protected, tag); ok {
		s.protected = slices.Delete(s.protected, i, i+1)
	}
	if len(s.protected) == 0 && len(s.values) == 0 {
		delete(t.peers, p)
	}
	return len(s.protected) > 0
}

func (t *trimmer) protects(p peer.ID) bool {
	s := t.peers[p]
	return s != nil && len(s.protected) > 0
}

// setValue sets one of the values of p; 0 forgets it. connected tells of a peer.
func (t *trimmer) setValue(now time.Time, p peer.ID, tag string, v float64, halfLife time.Duration, connected func(peer.ID) bool) {
	if math.IsNaN(v) {
		v = 0
	}
	v = min(max(v, -maxValue), maxValue)
	if t.peers[p] == nil && v == 0 {
		return
	}
	s := t.standing(p)
	s.values = slices.DeleteFunc(s.values, func(k value) bool { return k.tag == tag })
	if v != 0 {
		if len(s.values) >= maxTags {
			least := slices.MinFunc(s.values, func(a, b value) int {
				return cmp.Or(cmp.Compare(math.Abs(a.now(now)), math.Abs(b.now(now))), cmp.Compare(a.tag, b.tag))
			})
			s.values = slices.DeleteFunc(s.values, func(k value) bool { return k.tag == least.tag })
		}
		s.values = append(s.values, value{tag, v, halfLife, now})
	}
	if len(s.protected) == 0 && len(s.values) == 0 {
		delete(t.peers, p)
	}
	t.forget(now, connected)
}

func (t *trimmer) standing(p peer.ID) *standing {
	s := t.peers[p]
	if s == nil {
		s = new(standing)
		if t.peers == nil {
			t.peers = make(map[peer.ID]*standing)
		}
		t.peers[p] = s
	}
	return s
}

// forget keeps the values of peers without a connection from becoming too many:
// half of them go, the least first.
func (t *trimmer) forget(now time.Time, connected func(peer.ID) bool) {
	if len(t.peers)-maxStandings <= t.hard { // not the sum: hard can be the largest int
		return
	}
	type idle struct {
		peer  peer.ID
		worth int64
	}
	var all []idle
	for _, p := range slices.SortedFunc(maps.Keys(t.peers), peer.ID.Compare) {
		if !t.protects(p) && !connected(p) {
			all = append(all, idle{p, t.worth(now, p)})
		}
	}
	slices.SortStableFunc(all, func(a, b idle) int { return cmp.Compare(a.worth, b.worth) })
	for _, i := range all[:(len(all)+1)/2] {
		delete(t.peers, i.peer)
	}
}

// worth is the sum of the values of p, in whole numbers: so what has decayed is
// worth nothing in the end, and many are worth the same.
func (t *trimmer) worth(now time.Time, p peer.ID) int64 {
	s := t.peers[p]
	if s == nil {
		return 0
	}
	var sum float64
	for _, v := range s.values {
		sum += v.now(now)
	}
	return int64(sum)
}

// trim tells which connections end now, the first to go first.
func (t *trimmer) trim(now time.Time, paths []link) []uint64 {
	settled := 0
	for _, p := range paths {
		if !t.inGrace(now, p) {
			settled++
		}
	}
	if settled <= t.high {
		return nil
	}
	going := t.order(now, paths, false)
	return going[:min(len(going), settled-t.low)]
}

// displace tells which connections end so that there is room for one more when
// there is none. There may be none that has to make way for newcomer.
func (t *trimmer) displace(now time.Time, paths []link, newcomer link) []uint64 {
	from := make(map[netip.Prefix]int)
	of := make(map[uint64]link, len(paths))
	for _, p := range paths {
		of[p.id] = p
		if p.dir == DirInbound {
			from[p.group]++
		}
	}
	worth := t.worth(now, newcomer.peer)
	if t.protects(newcomer.peer) {
		worth = math.MaxInt64
	}
	var going []uint64
	for _, id := range t.order(now, paths, true) {
		p := of[id]
		w := t.worth(now, p.peer)
		way := w < worth
		switch {
		case w > worth:
		case newcomer.dir == DirOutbound:
			// Our own dials: somebody wants them now.
			way = way || p.streams == 0 || p.dir == DirInbound && crowd(from[p.group]) > 0
		case p.dir == DirInbound && p.group != newcomer.group:
			// A group never gives way to one that has as many.
			few, many := from[newcomer.group]+1, from[p.group]
			way = way || many > few || many == few && p.streams == 0 && t.inGrace(now, p)
		}
		if way {
			going = append(going, id)
			from[p.group]--
		}
		// Where there are many connections, more than one place is made at once,
		// because to find them takes time.
		if len(going) == max(1, t.hard/128) {
			break
		}
	}
	return going
}

func (t *trimmer) inGrace(now time.Time, p link) bool { return now.Sub(p.opened) < t.grace }

// crowd tells how much a group has too many of: up to three may be one household.
func crowd(n int) int { return bits.Len(uint(n) / 4) }

// A candidate is a link that may go, with what puts it in order.
type candidate struct {
	link
	spare bool // idle, and there is a better one
	worth int64
	grace bool
	own   int // the crowd of its address when it goes
	crowd int // the crowd of its group when it goes
}

func (c candidate) busy() int { return min(c.streams, 1) }

// seniority puts who goes first first.
func seniority(a, b candidate) int {
	switch {
	case a.grace && b.grace:
		return cmp.Compare(a.id, b.id)
	case a.grace != b.grace:
		return cmp.Compare(btoi(b.grace), btoi(a.grace))
	}
	return cmp.Compare(b.id, a.id)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// order lists the connections that may go, the first to go first; those in their
// grace only if anyAge is true.
func (t *trimmer) order(now time.Time, paths []link, anyAge bool) []uint64 {
	best := make(map[peer.ID]link)
	total := make(map[netip.Prefix]int) // inbound, by group
	left := [2]int{}                    // by direction
	for _, p := range paths {
		if b, ok := best[p.peer]; !ok || better(p, b) {
			best[p.peer] = p
		}
		if p.dir == DirInbound {
			total[p.group]++
		}
		left[p.dir]++
	}
	var lists [2][]candidate // by direction
	for _, p := range paths {
		last := best[p.peer].id == p.id
		if last && t.protects(p.peer) {
			continue
		}
		c := candidate{link: p, spare: !last && p.streams == 0, worth: t.worth(now, p.peer), grace: t.inGrace(now, p)}
		if anyAge || !c.grace {
			lists[p.dir] = append(lists[p.dir], c)
		}
	}
	weigh(lists[DirInbound], total)
	for _, l := range lists {
		slices.SortFunc(l, func(a, b candidate) int {
			return cmp.Or(
				class(a, b),
				cmp.Compare(b.crowd, a.crowd),
				cmp.Compare(b.own, a.own),
				cmp.Compare(a.busy(), b.busy()),
				seniority(a, b),
			)
		})
	}
	in, out := lists[DirInbound], lists[DirOutbound]
	going := make([]uint64, 0, len(in)+len(out))
	for len(in)+len(out) > 0 {
		from := &in
		if len(in) == 0 || len(out) > 0 && cmp.Or(class(out[0], in[0]), cmp.Compare(left[DirInbound], left[DirOutbound])) < 0 {
			from = &out
		}
		left[(*from)[0].dir]--
		going = append(going, (*from)[0].id)
		*from = (*from)[1:]
	}
	return going
}

// class compares what comes before all fairness.
func class(a, b candidate) int {
	return cmp.Or(cmp.Compare(btoi(b.spare), btoi(a.spare)), cmp.Compare(a.worth, b.worth))
}

// weigh finds for each candidate how large a crowd it is part of when it goes, if
// the largest crowd always gives one up. total is how many each group has.
func weigh(all []candidate, total map[netip.Prefix]int) {
	// First the addresses, each for itself; then the groups, whose addresses are weighed.
	owned := make(map[netip.Prefix]int)
	for _, c := range all {
		owned[c.owner]++
	}
	slices.SortFunc(all, func(a, b candidate) int {
		return cmp.Or(class(a, b), cmp.Compare(a.busy(), b.busy()), seniority(a, b))
	})
	for i := range all {
		c := &all[i]
		c.own = crowd(owned[c.owner])
		owned[c.owner]--
	}
	slices.SortFunc(all, func(a, b candidate) int {
		return cmp.Or(class(a, b), cmp.Compare(b.own, a.own), cmp.Compare(a.busy(), b.busy()), seniority(a, b))
	})
	for i := range all {
		c := &all[i]
		c.crowd = crowd(total[c.group])
		total[c.group]--
	}
}
