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
//
// To put all connections in order takes a moment, so for those that are displaced it
// is done seldom, and not under the host's lock: see line.

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
	hard  int // Limits.Conns
	grace time.Duration
	peers map[peer.ID]*standing // of it what is in links is told to lineUp and trim
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
	worth        int64 // the peer's
	protected    bool  // the peer is
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

// trim tells which connections end now with these watermarks, the first to go first.
func (t *trimmer) trim(now time.Time, paths []link, high, low int) []uint64 {
	settled := 0
	for _, p := range paths {
		if !t.inGrace(now, p) {
			settled++
		}
	}
	if settled <= high {
		return nil
	}
	going, _ := t.order(now, paths, false)
	going = going[:min(len(going), settled-low)]
	ids := make([]uint64, len(going))
	for i, at := range going {
		ids[i] = paths[at].id
	}
	return ids
}

// A newcomer is what matters of a connection for which there is no room.
type newcomer struct {
	dir   Direction
	worth int64 // of its peer; the largest if that is protected
	few   int   // inbound connections of its address group, with it
}

// A seat is what matters of a connection whose place a newcomer would take.
type seat struct {
	id    uint64
	worth int64
	many  int // inbound connections of its address group
	dir   Direction
	idle  bool // it has no streams
	young bool // it is in its grace
}

// yields tells whether the connection makes way for n.
func (p seat) yields(n newcomer) bool {
	switch {
	case p.worth != n.worth:
		return p.worth < n.worth
	case n.dir == DirOutbound: // somebody wants it now
		return p.idle || p.dir == DirInbound && crowd(p.many) > 0
	case p.dir == DirInbound: // a group never gives way to one that has as many
		return p.many > n.few || p.many == n.few && p.idle && p.young
	}
	return false
}

// A line is who makes way when there is no room, the first to go first: all
// connections in their order as of one look at them, then those that have come since,
// as they came. It is good for a while, since whoever takes a place looks again at
// the one who has it.
type line struct {
	at      time.Time // of the look; zero: there was none
	n       int       // connections that there were
	seats   []seat
	come    int // of seats, since the look
	skipped []skip
}

// A skip tells how many at the front of a line make no way for a newcomer.
type skip struct {
	newcomer
	n int
}

const (
	// A line is made anew when it is older than lineAge for each connection in it: with
	// 10,000 a second. A look takes half a microsecond for each, so that looking takes
	// at most a two-hundredth of the time.
	lineAge = 100 * time.Microsecond
	// lineNews is the part of the line that may have come since the look: with 10,000
	// connections each newcomer is charged with 10 microseconds of looking.
	lineNews = 16
	// maxSkipped is how many kinds of newcomers are remembered, at 32 bytes each.
	maxSkipped = 64
)

// lineUp makes a line of the connections.
func (t *trimmer) lineUp(now time.Time, paths []link) line {
	going, many := t.order(now, paths, true)
	l := line{at: now, n: len(paths), seats: make([]seat, len(going), len(going)+len(paths)/lineNews+1)}
	for i, at := range going {
		l.seats[i] = t.seatOf(now, paths[at], many[at])
	}
	return l
}

// seatOf is the seat of a connection from whose group there are many.
func (t *trimmer) seatOf(now time.Time, p link, many int) seat {
	return seat{id: p.id, worth: p.worth, many: many, dir: p.dir, idle: p.streams == 0, young: t.inGrace(now, p)}
}

// stale tells whether it is time for a new line.
func (l *line) stale(now time.Time) bool {
	return l.at.IsZero() || now.Sub(l.at) > lineAge*time.Duration(l.n) || l.come > l.n/lineNews
}

// join puts who has come at the end.
func (l *line) join(p seat) {
	if !l.at.IsZero() {
		l.seats = append(l.seats, p)
		l.come++
	}
}

// next finds the first in line that makes way for n. look tells what is so now of
// one that did when it was lined up; ok is false when it is gone, or must stay.
func (l *line) next(n newcomer, look func(id uint64) (now seat, ok bool)) (id uint64, found bool) {
	from, mine := 0, -1
	for i, k := range l.skipped {
		// Who makes no way for one does so even less for another from a larger group.
		if k.dir == n.dir && k.worth == n.worth && k.few <= n.few {
			from = max(from, k.n)
		}
		if k.newcomer == n {
			mine = i
		}
	}
	for ; from < len(l.seats); from++ {
		if p := l.seats[from]; p.yields(n) {
			if now, ok := look(p.id); ok && now.yields(n) {
				id, found = p.id, true
				break
			}
		}
	}
	if mine < 0 {
		if len(l.skipped) == maxSkipped {
			l.skipped = l.skipped[:0]
		}
		mine = len(l.skipped)
		l.skipped = append(l.skipped, skip{newcomer: n})
	}
	l.skipped[mine].n = from
	return id, found
}

func (t *trimmer) inGrace(now time.Time, p link) bool { return now.Sub(p.opened) < t.grace }

// crowd tells how much a group has too many of: up to three may be one household.
func crowd(n int) int { return bits.Len(uint(n) / 4) }

// crowds counts the inbound connections of address groups.
type crowds struct {
	n     map[netip.Prefix]int
	sizes []int // so many groups have so many; the last is not 0
}

func (k *crowds) of(group netip.Prefix) int { return k.n[group] }

// largest is how many the largest group has.
func (k *crowds) largest() int { return len(k.sizes) - 1 }

// add counts one more in a group, or with -1 one less.
func (k *crowds) add(group netip.Prefix, one int) {
	if k.n == nil {
		k.n, k.sizes = make(map[netip.Prefix]int), make([]int, 1)
	}
	n := k.n[group] + one
	if n-one > 0 {
		k.sizes[n-one]--
	}
	if n == 0 {
		delete(k.n, group)
	} else {
		k.n[group] = n
		if n == len(k.sizes) {
			k.sizes = append(k.sizes, 0)
		}
		k.sizes[n]++
	}
	for len(k.sizes) > 1 && k.sizes[len(k.sizes)-1] == 0 {
		k.sizes = k.sizes[:len(k.sizes)-1]
	}
}

// A candidate is a link that may go, with what puts it in order.
type candidate struct {
	at           int    // in the list of links
	class        uint64 // what comes before all fairness: whether it is spare, and its worth
	own, crowd   uint8  // those of its address and its group when it goes
	last         uint64 // whether it is busy, and its seniority
	owner, group int    // in the tallies
}

// classOf puts spare connections first, then those with the peers of the lowest value.
func classOf(spare bool, worth int64) uint64 {
	c := uint64(worth + maxTags*maxValue)
	if !spare {
		c |= 1 << 63
	}
	return c
}

// lastOf puts those without streams first; of them those in their grace, the oldest
// first, and then the youngest first.
func lastOf(p link, grace bool) uint64 {
	const ids = 1<<62 - 1
	var k uint64
	if p.streams > 0 {
		k = 1 << 63
	}
	if grace {
		return k | p.id&ids
	}
	return k | 1<<62 | ^p.id&ids
}

// A tally counts the connections of each of some prefixes.
type tally struct {
	index map[netip.Prefix]int
	n     []int
}

// add gives the number of the prefix, with more connections than before.
func (t *tally) add(p netip.Prefix, more int) int {
	i, known := t.index[p]
	if !known {
		i = len(t.n)
		t.index[p] = i
		t.n = append(t.n, 0)
	}
	t.n[i] += more
	return i
}

// order lists the connections that may go, as indexes of paths, the first to go
// first; those in their grace only if anyAge is true. It also tells for each of paths how
// many inbound ones are of its group.
func (t *trimmer) order(now time.Time, paths []link, anyAge bool) (going, many []int) {
	best := make(map[peer.ID]int, len(paths))
	groups := tally{index: make(map[netip.Prefix]int, len(paths))}
	owners := tally{index: make(map[netip.Prefix]int, len(paths))}
	left := [2]int{}               // by direction
	many = make([]int, len(paths)) // at first the numbers of their groups
	for i, p := range paths {
		if b, ok := best[p.peer]; !ok || better(p, paths[b]) {
			best[p.peer] = i
		}
		if p.dir == DirInbound {
			many[i] = groups.add(p.group, 1)
		}
		left[p.dir]++
	}
	lists := [2][]candidate{make([]candidate, 0, left[0]), make([]candidate, 0, left[1])} // by direction
	for i, p := range paths {
		last, grace := best[p.peer] == i, t.inGrace(now, p)
		if last && p.protected || grace && !anyAge {
			continue
		}
		c := candidate{at: i, class: classOf(!last && p.streams == 0, p.worth), last: lastOf(p, grace)}
		if p.dir == DirInbound {
			c.group, c.owner = many[i], owners.add(p.owner, 1)
			many[i] = groups.n[many[i]]
		}
		lists[p.dir] = append(lists[p.dir], c)
	}
	in, out := lists[DirInbound], lists[DirOutbound]
	// How large a crowd each is part of when it goes, if the largest always gives one
	// up: first the addresses, each for itself; then the groups, whose addresses are weighed.
	slices.SortFunc(in, candidate.compare)
	for i := range in {
		n := &owners.n[in[i].owner]
		in[i].own = uint8(crowd(*n))
		*n--
	}
	slices.SortFunc(in, candidate.compare)
	for i := range in {
		n := &groups.n[in[i].group]
		in[i].crowd = uint8(crowd(*n))
		*n--
	}
	slices.SortFunc(in, candidate.compare)
	slices.SortFunc(out, candidate.compare)
	going = make([]int, 0, len(in)+len(out))
	for len(in)+len(out) > 0 {
		from := &in
		if len(in) == 0 || len(out) > 0 && cmp.Or(cmp.Compare(out[0].class, in[0].class), cmp.Compare(left[DirInbound], left[DirOutbound])) < 0 {
			from = &out
		}
		left[paths[(*from)[0].at].dir]--
		going = append(going, (*from)[0].at)
		*from = (*from)[1:]
	}
	return going, many
}

// compare puts who goes first first.
func (c candidate) compare(b candidate) int {
	switch {
	case c.class != b.class:
		return cmp.Compare(c.class, b.class)
	case c.crowd != b.crowd:
		return cmp.Compare(b.crowd, c.crowd)
	case c.own != b.own:
		return cmp.Compare(b.own, c.own)
	}
	return cmp.Compare(c.last, b.last)
}
