package host

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/kith-p2p/kith/peer"
)

// The order in which connections go, as it is documented and not as it is fast: what
// that of trim.go is compared with.

// plainDisplace tells which connections end so that there is room for one more when
// there is none. There may be none that has to make way for newcomer.
func (t *trimmer) plainDisplace(now time.Time, paths []link, newcomer link, most int) []uint64 {
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
	for _, id := range t.plainOrder(now, paths, true) {
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
		if len(going) == most {
			break
		}
	}
	return going
}

// A plainCandidate is a link that may go, with what puts it in order.
type plainCandidate struct {
	link
	spare bool // idle, and there is a better one
	worth int64
	grace bool
	own   int // the crowd of its address when it goes
	crowd int // the crowd of its group when it goes
}

func (c plainCandidate) busy() int { return min(c.streams, 1) }

// seniority puts who goes first first.
func seniority(a, b plainCandidate) int {
	switch {
	case a.grace && b.grace:
		return cmp.Compare(a.id, b.id)
	case a.grace != b.grace:
		return cmp.Compare(btoi(b.grace), btoi(a.grace))
	}
	return cmp.Compare(b.id, a.id)
}

// plainOrder lists the connections that may go, the first to go first; those in their
// grace only if anyAge is true.
func (t *trimmer) plainOrder(now time.Time, paths []link, anyAge bool) []uint64 {
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
	var lists [2][]plainCandidate // by direction
	for _, p := range paths {
		last := best[p.peer].id == p.id
		if last && t.protects(p.peer) {
			continue
		}
		c := plainCandidate{link: p, spare: !last && p.streams == 0, worth: t.worth(now, p.peer), grace: t.inGrace(now, p)}
		if anyAge || !c.grace {
			lists[p.dir] = append(lists[p.dir], c)
		}
	}
	weigh(lists[DirInbound], total)
	for _, l := range lists {
		slices.SortFunc(l, func(a, b plainCandidate) int {
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
func class(a, b plainCandidate) int {
	return cmp.Or(cmp.Compare(btoi(b.spare), btoi(a.spare)), cmp.Compare(a.worth, b.worth))
}

// weigh finds for each plainCandidate how large a crowd it is part of when it goes, if
// the largest crowd always gives one up. total is how many each group has.
func weigh(all []plainCandidate, total map[netip.Prefix]int) {
	// First the addresses, each for itself; then the groups, whose addresses are weighed.
	owned := make(map[netip.Prefix]int)
	for _, c := range all {
		owned[c.owner]++
	}
	slices.SortFunc(all, func(a, b plainCandidate) int {
		return cmp.Or(class(a, b), cmp.Compare(a.busy(), b.busy()), seniority(a, b))
	})
	for i := range all {
		c := &all[i]
		c.own = crowd(owned[c.owner])
		owned[c.owner]--
	}
	slices.SortFunc(all, func(a, b plainCandidate) int {
		return cmp.Or(class(a, b), cmp.Compare(b.own, a.own), cmp.Compare(a.busy(), b.busy()), seniority(a, b))
	})
	for i := range all {
		c := &all[i]
		c.crowd = crowd(total[c.group])
		total[c.group]--
	}
}

// crowdedWorld makes connections of all kinds at random: crowds and singles, spare and busy
// ones, peers that are protected or worth something, both directions.
func crowdedWorld(rng *rand.Rand, core *trimmer, n int) []link {
	groups, peers := 1+rng.IntN(2*n), 1+rng.IntN(2*n)
	paths := make([]link, n)
	for i := range paths {
		p := link{id: uint64(1 + i), peer: someone(rng.IntN(peers)), opened: epoch.Add(time.Duration(i-n) * time.Second / 2), limited: rng.IntN(9) == 0, stale: rng.IntN(9) == 0}
		if p.dir = Direction(btoi(rng.IntN(4) == 0)); p.dir == DirInbound {
			g := rng.IntN(1 + rng.IntN(groups)) // some have many more than others
			p = p.from(fmt.Sprintf("1.%d.%d.%d", g/256, g%256, rng.IntN(1+rng.IntN(20))))
		}
		if rng.IntN(3) == 0 {
			p.streams = rng.IntN(3)
		}
		paths[i] = p
		switch rng.IntN(12) {
		case 0:
			core.protect(p.peer, "x")
		case 1:
			core.setValue(epoch, p.peer, "x", float64(rng.IntN(5)-2), time.Minute, nil)
		}
	}
	rng.Shuffle(n, func(i, j int) { paths[i], paths[j] = paths[j], paths[i] })
	return paths
}

// The order is the documented one, for trimming and for all kinds of newcomers.
func TestOrderIsThePlainOne(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 7))
		n := 1 + rng.IntN(200)
		core := &trimmer{hard: n, grace: 20 * time.Second}
		paths := crowdedWorld(rng, core, n)
		for _, anyAge := range []bool{false, true} {
			if got, want := core.ids(epoch, paths, anyAge), core.plainOrder(epoch, paths, anyAge); !slices.Equal(got, want) {
				t.Fatalf("seed %d: they go in the order %d, want %d", seed, got, want)
			}
		}
		l := core.lineUp(epoch, core.assess(epoch, paths))
		for range 20 { // kinds of newcomers to one line: what it skips for one it does not for others
			p := link{id: 1 << 40, peer: someone(rng.IntN(2 * n)), dir: Direction(rng.IntN(2)), opened: epoch}
			if p.dir == DirInbound {
				p = p.from(fmt.Sprintf("1.%d.%d.1", rng.IntN(2), rng.IntN(256)))
			}
			want := core.plainDisplace(epoch, paths, p, 1)
			for range 2 { // the same again: it is still there
				if got := core.nextOf(&l, epoch, paths, p); !slices.Equal(got, want) {
					t.Fatalf("seed %d: for %+v %d makes way, want %d", seed, p, got, want)
				}
			}
		}
		// Many of one kind in a row, each of whom takes the place that it finds. They
		// are not let in, so that all find the same.
		p := link{id: 1 << 40, peer: someone(5 * n), dir: Direction(rng.IntN(2)), opened: epoch}.from("9.9.9.9")
		left := slices.Clone(paths)
		var got []uint64
		for range n {
			id := core.nextOf(&l, epoch, left, p)
			if len(id) == 0 {
				break
			}
			got = append(got, id...)
			left = slices.DeleteFunc(left, func(p link) bool { return p.id == id[0] })
		}
		want := core.plainDisplace(epoch, paths, p, n)
		// Connections that were not their peer's best become it when that has gone.
		protected := func(id uint64) bool {
			return core.protects(paths[slices.IndexFunc(paths, func(p link) bool { return p.id == id })].peer)
		}
		got, want = slices.DeleteFunc(got, protected), slices.DeleteFunc(want, protected)
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d: %d make way for many, want %d", seed, got, want)
		}
	}
}
