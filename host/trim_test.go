package host

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// epoch is when the tests of cores happen.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// someone is the peer with a number.
func someone(n int) peer.ID {
	id, err := peer.IDFromBytes(append([]byte{0x12, 32}, fmt.Appendf(nil, "%032d", n)...))
	if err != nil {
		panic(err)
	}
	return id
}

// from places a link at an IP.
func (p link) from(ip string) link {
	a := multiaddr.MustParse("/ip4/" + ip + "/tcp/1")
	p.group, p.owner = addrGroup(a), addrOwner(a)
	return p
}

// settled makes inbound links of different peers from different groups, each
// a minute older than the next; the last is a minute old.
func settled(n int) []link {
	paths := make([]link, n)
	for i := range paths {
		paths[i] = link{id: uint64(i + 1), peer: someone(i + 1), opened: epoch.Add(time.Duration(i-n) * time.Minute)}.from(fmt.Sprintf("10.%d.%d.1", i/256, i%256))
	}
	return paths
}

// assess notes in links what is known of their peers.
func (t *trimmer) assess(now time.Time, paths []link) []link {
	paths = slices.Clone(paths)
	for i, p := range paths {
		paths[i].worth, paths[i].protected = t.worth(now, p.peer), t.protects(p.peer)
	}
	return paths
}

// ids is order with the numbers of the links.
func (t *trimmer) ids(now time.Time, paths []link, anyAge bool) []uint64 {
	var ids []uint64
	going, _ := t.order(now, t.assess(now, paths), anyAge)
	for _, i := range going {
		ids = append(ids, paths[i].id)
	}
	return ids
}

// comes is what matters of a newcomer.
func (t *trimmer) comes(now time.Time, paths []link, p link) newcomer {
	n := newcomer{p.dir, t.worth(now, p.peer), 1 + many(paths, p.group)}
	if t.protects(p.peer) {
		n.worth = math.MaxInt64
	}
	return n
}

// many counts the inbound links of a group.
func many(paths []link, group netip.Prefix) (n int) {
	for _, p := range paths {
		if p.dir == DirInbound && p.group == group {
			n++
		}
	}
	return n
}

// displace tells who makes way for a newcomer, from a line made now.
func (t *trimmer) displace(now time.Time, paths []link, p link) []uint64 {
	l := t.lineUp(now, t.assess(now, paths))
	return t.nextOf(&l, now, paths, p)
}

// nextOf is who makes way next in a line that may have been made earlier.
func (t *trimmer) nextOf(l *line, now time.Time, paths []link, p link) []uint64 {
	id, found := l.next(t.comes(now, paths, p), func(id uint64) (seat, bool) { return t.looks(now, paths, id) })
	if !found {
		return nil
	}
	return []uint64{id}
}

// looks is what a host tells a line of one connection.
func (t *trimmer) looks(now time.Time, paths []link, id uint64) (seat, bool) {
	at := slices.IndexFunc(paths, func(p link) bool { return p.id == id })
	if at < 0 {
		return seat{}, false
	}
	p := t.assess(now, paths[at:at+1])[0]
	best := !slices.ContainsFunc(paths, func(q link) bool { return q.peer == p.peer && q.id != p.id && better(q, p) })
	return t.seatOf(now, p, many(paths, p.group)), !p.protected || !best
}

// The documented order, one rule a case. Each changes links 1 to 4, of which
// otherwise 4 goes first, because it is the youngest.
func TestTrimOrder(t *testing.T) {
	for name, c := range map[string]struct {
		change func(t *trimmer, p []link)
		want   []uint64
	}{
		"the youngest first": {func(*trimmer, []link) {}, []uint64{4, 3, 2, 1}},
		"a spare one before all": {func(t *trimmer, p []link) {
			p[0].peer = p[1].peer // 2 is newer and therefore better
			t.setValue(epoch, p[0].peer, "x", 5, 0, nil)
		}, []uint64{1, 4, 3, 2}},
		"a spare one with streams is not idle": {func(_ *trimmer, p []link) {
			p[0].peer, p[0].streams = p[1].peer, 1
		}, []uint64{4, 3, 2, 1}},
		"the least value first": {func(t *trimmer, p []link) {
			t.setValue(epoch, p[3].peer, "x", 2, 0, nil)
			t.setValue(epoch, p[2].peer, "x", 1, 0, nil)
			t.setValue(epoch, p[1].peer, "x", -1, 0, nil)
		}, []uint64{2, 1, 3, 4}},
		"less than 1 is worth nothing": {func(t *trimmer, p []link) {
			t.setValue(epoch, p[3].peer, "x", 0.9, 0, nil)
		}, []uint64{4, 3, 2, 1}},
		"values add up": {func(t *trimmer, p []link) {
			t.setValue(epoch, p[3].peer, "x", 0.5, 0, nil)
			t.setValue(epoch, p[3].peer, "y", 0.5, 0, nil)
		}, []uint64{3, 2, 1, 4}},
		"protected peers stay": {func(t *trimmer, p []link) {
			t.protect(p[3].peer, "x")
			t.protect(p[2].peer, "x")
			t.protect(p[2].peer, "y")
			if !t.unprotect(p[2].peer, "y") || t.unprotect(p[2].peer, "x") {
				panic("unprotect")
			}
		}, []uint64{3, 2, 1}},
		"the direction with more": {func(_ *trimmer, p []link) {
			p[0].dir, p[1].dir, p[2].dir = DirOutbound, DirOutbound, DirOutbound
		}, []uint64{3, 2, 4, 1}},
		"those in use last": {func(_ *trimmer, p []link) {
			p[3].streams, p[2].streams = 1, 9
		}, []uint64{2, 1, 4, 3}},
		"those in their grace not at all": {func(_ *trimmer, p []link) {
			p[3].opened = epoch.Add(-10 * time.Second)
		}, []uint64{3, 2, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			core := &trimmer{hard: 8, grace: 20 * time.Second}
			paths := settled(4)
			c.change(core, paths)
			if got := core.ids(epoch, paths, false); !slices.Equal(got, c.want) {
				t.Errorf("they go in the order %d, want %d", got, c.want)
			}
			shuffled := slices.Clone(paths)
			rand.New(rand.NewPCG(1, 2)).Shuffle(4, func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
			if got := core.ids(epoch, shuffled, false); !slices.Equal(got, c.want) {
				t.Errorf("told in another order they go in the order %d, want %d", got, c.want)
			}
		})
	}
}

// Groups and addresses with many connections lose them until they have as many as others.
func TestTrimCrowds(t *testing.T) {
	core := &trimmer{hard: 100, grace: 20 * time.Second}
	paths := settled(30)
	for i := range 12 { // the oldest are a crowd of three addresses, and in use
		paths[i].streams = 1
		paths[i] = paths[i].from(fmt.Sprintf("1.1.1.%d", max(0, i-9))) // ten of one
	}
	// The address gives up seven, then the group two, then all are equal.
	want := []uint64{10, 9, 8, 7, 6, 5, 4, 12, 11, 30}
	if got := core.ids(epoch, paths, false)[:10]; !slices.Equal(got, want) {
		t.Errorf("they go in the order %d, want %d", got, want)
	}
}

func TestTrimMarks(t *testing.T) {
	core := &trimmer{hard: 24, grace: 20 * time.Second}
	paths := settled(20)
	young := func(id int) link {
		return link{id: uint64(id), peer: someone(id), opened: epoch.Add(-time.Second)}.from("9.9.9.9")
	}
	// Those in their grace do not count: they do not push out who is settled.
	for i := range 4 {
		paths = append(paths, young(21+i))
	}
	if got := core.trim(epoch, paths, 20, 15); len(got) != 0 {
		t.Errorf("%d go at the high watermark", got)
	}
	// Half a minute later they are settled, and go first: they are a crowd, and the youngest.
	if got, want := core.trim(epoch.Add(30*time.Second), paths, 20, 15), []uint64{24, 23, 22, 21, 20, 19, 18, 17, 16}; !slices.Equal(got, want) {
		t.Errorf("%d go above the high watermark, want %d", got, want)
	}
}

func TestDisplace(t *testing.T) {
	for name, c := range map[string]struct {
		change   func(t *trimmer, p []link)
		newcomer link
		want     []uint64
	}{
		"nobody makes way for one of many":    {func(*trimmer, []link) {}, link{}.from("10.0.3.7"), nil},
		"nor who is settled for a single one": {func(*trimmer, []link) {}, link{}.from("1.1.1.1"), nil},
		"who is in his grace does, the oldest": {func(_ *trimmer, p []link) {
			p[2].opened, p[3].opened = epoch.Add(-2*time.Second), epoch.Add(-time.Second)
		}, link{}.from("1.1.1.1"), []uint64{3}},
		"if it is not in use": {func(_ *trimmer, p []link) {
			p[2].opened, p[3].opened, p[2].streams = epoch.Add(-2*time.Second), epoch.Add(-time.Second), 1
		}, link{}.from("1.1.1.1"), []uint64{4}},
		"one of two makes way though it is in use": {func(_ *trimmer, p []link) {
			for i := range p {
				p[i].streams = 1
			}
			p[0], p[1] = p[0].from("2.2.2.1"), p[1].from("2.2.2.2")
		}, link{}.from("1.1.1.1"), []uint64{2}},
		"anybody idle for our own dial": {func(*trimmer, []link) {}, link{dir: DirOutbound}, []uint64{4}},
		"nobody busy for our own dial": {func(_ *trimmer, p []link) {
			for i := range p {
				p[i].streams = 1
			}
		}, link{dir: DirOutbound}, nil},
		"who is worth less": {func(t *trimmer, p []link) {
			t.setValue(epoch, someone(0), "x", 1, 0, nil)
			p[3].streams = 1
		}, link{peer: someone(0)}.from("10.0.3.7"), []uint64{3}},
		"not who is worth more": {func(t *trimmer, p []link) {
			for _, p := range p {
				t.setValue(epoch, p.peer, "x", 1, 0, nil)
			}
		}, link{dir: DirOutbound}, nil},
		"anybody for who is protected": {func(t *trimmer, p []link) {
			t.protect(someone(0), "x")
			t.setValue(epoch, p[3].peer, "x", 1, 0, nil)
		}, link{peer: someone(0)}.from("10.0.3.7"), []uint64{3}},
		"but not the protected": {func(t *trimmer, p []link) {
			t.protect(someone(0), "x")
			for _, p := range p {
				t.protect(p.peer, "x")
			}
		}, link{peer: someone(0)}.from("1.1.1.1"), nil},
	} {
		t.Run(name, func(t *testing.T) {
			core := &trimmer{hard: 4, grace: 20 * time.Second}
			paths := settled(4)
			c.change(core, paths)
			if got := core.displace(epoch, paths, c.newcomer); !slices.Equal(got, c.want) {
				t.Errorf("%d go, want %d", got, c.want)
			}
		})
	}
}

func TestValuesDecay(t *testing.T) {
	core := &trimmer{hard: 8}
	none := func(peer.ID) bool { return false }
	a := someone(1)
	core.setValue(epoch, a, "x", 8, time.Minute, none)
	core.setValue(epoch, a, "y", 1, 0, none)
	for minutes, want := range []int64{9, 5, 3, 2, 1} {
		if got := core.worth(epoch.Add(time.Duration(minutes)*time.Minute), a); got != want {
			t.Errorf("worth %d after %d minutes, want %d", got, minutes, want)
		}
	}
	core.setValue(epoch, a, "x", 0, 0, none)
	core.setValue(epoch, a, "y", 0, 0, none)
	if len(core.peers) != 0 {
		t.Error("a peer without values is remembered")
	}
	for i := range 2 * maxTags {
		core.setValue(epoch, a, fmt.Sprint(i), float64(1+i), 0, none)
	}
	if n := len(core.peers[a].values); n != maxTags {
		t.Errorf("%d values of one peer are kept", n)
	}
	if w := core.worth(epoch, a); w != 64*(65+128)/2 {
		t.Errorf("worth %d: the greatest values are not kept", w)
	}
	core.protect(someone(0), "x")
	for i := range 3 * maxStandings {
		core.setValue(epoch, someone(1+i), "x", float64(1+i), 0, none)
		if n := len(core.peers); n > core.hard+maxStandings {
			t.Fatalf("the values of %d peers are kept", n)
		}
	}
	if !core.protects(someone(0)) || core.worth(epoch, someone(3*maxStandings)) == 0 {
		t.Error("the wrong ones were forgotten")
	}
}

// Both ends of a pair choose the same connection, and there is always a best one.
func TestBetterIsAnOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	for range 20_000 {
		n := 2 + rng.IntN(4)
		near, far := make([]link, n), make([]link, n)
		at := epoch
		for i := range near {
			at = at.Add(time.Duration(1+rng.IntN(20)) * time.Second)
			near[i] = link{id: uint64(i), dir: Direction(rng.IntN(2)), limited: rng.IntN(3) == 0, first: true, opened: at}
			far[i] = near[i]
			far[i].dir, far[i].first = 1-near[i].dir, false
		}
		for i := range n {
			for j := range n {
				if i != j && better(near[i], near[j]) == better(near[j], near[i]) {
					t.Fatalf("%+v and %+v: neither is better", near[i], near[j])
				}
				if better(near[i], near[j]) != better(far[i], far[j]) {
					t.Fatalf("%+v and %+v: the ends do not agree", near[i], near[j])
				}
				for k := range n {
					if better(near[i], near[j]) && better(near[j], near[k]) && !better(near[i], near[k]) {
						t.Fatalf("%+v > %+v > %+v > the first", near[i], near[j], near[k])
					}
				}
			}
		}
	}
}

// A small world of connections that come and go at random. What must always hold is
// checked after every step.
func TestTrimInvariants(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { trimWorld(t, rand.New(rand.NewPCG(seed, 1))) })
	}
}

func trimWorld(t *testing.T, rng *rand.Rand) {
	core, high, low := &trimmer{hard: 50, grace: 20 * time.Second}, 40, 30
	now := epoch
	var conns []link
	var lastID uint64
	count := func(p peer.ID) (n int) {
		for _, c := range conns {
			if c.peer == p {
				n++
			}
		}
		return n
	}
	drop := func(ids []uint64) {
		for i, id := range ids {
			at := slices.IndexFunc(conns, func(c link) bool { return c.id == id })
			if at < 0 || slices.Contains(ids[:i], id) {
				t.Fatalf("%d goes and is not there", id)
			}
			gone := conns[at]
			conns = slices.Delete(conns, at, at+1)
			if core.protects(gone.peer) && count(gone.peer) == 0 {
				t.Fatalf("a protected peer lost its last connection")
			}
		}
	}
	for range 2000 {
		now = now.Add(time.Duration(rng.ExpFloat64() * float64(time.Second)))
		p := someone(rng.IntN(100))
		switch rng.IntN(10) {
		case 0:
			if rng.IntN(3) == 0 {
				core.protect(p, "x")
			} else {
				core.unprotect(p, "x")
			}
		case 1:
			core.setValue(now, p, "x", float64(rng.IntN(7)-3), time.Minute, func(peer.ID) bool { return false })
		case 2:
			if len(conns) > 0 {
				conns[rng.IntN(len(conns))].streams = rng.IntN(3)
			}
		case 3:
			if len(conns) > 0 {
				at := rng.IntN(len(conns)) // it ends of itself
				conns = slices.Delete(conns, at, at+1)
			}
		default:
			lastID++
			c := link{id: lastID, peer: p, dir: Direction(rng.IntN(2)), opened: now, limited: rng.IntN(9) == 0}
			if c.dir == DirInbound {
				c = c.from(fmt.Sprintf("1.1.%d.%d", rng.IntN(20), rng.IntN(4)))
			}
			if len(conns) >= core.hard {
				going := core.displace(now, conns, c)
				if len(going) > 1 {
					t.Fatalf("%d go for one", going)
				}
				if len(going) == 0 {
					break
				}
				drop(going)
			}
			conns = append(conns, c)
		}
		settled := func() (n, fixed int) {
			for _, c := range conns {
				if !core.inGrace(now, c) {
					n++
					if core.protects(c.peer) {
						fixed++
					}
				}
			}
			return n, fixed
		}
		before, _ := settled()
		young := len(conns) - before
		drop(core.trim(now, core.assess(now, conns), high, low))
		after, fixed := settled()
		switch {
		case len(conns)-after != young:
			t.Fatal("one in its grace was trimmed")
		case before <= high && after != before:
			t.Fatalf("%d trimmed to %d below the high watermark", before, after)
		case before > high && after != low && after > fixed:
			t.Fatalf("%d trimmed to %d, of which %d are protected", before, after, fixed)
		case len(conns) > core.hard:
			t.Fatalf("%d connections", len(conns))
		}
	}
}

// An inbound flood, of one network or of many, does not push out the honest: not
// those who are there, nor those who come in the meantime and use their connection.
func TestFloodSparesTheHonest(t *testing.T) {
	for _, c := range []struct {
		name     string
		networks int
	}{{"one network", 1}, {"64 networks", 64}, {"4096 networks", 4096}} {
		t.Run(c.name, func(t *testing.T) {
			core := &trimmer{hard: 1024, grace: 20 * time.Second}
			conns := settled(600)
			honest := make(map[uint64]bool)
			for i := range conns {
				honest[conns[i].id] = true
			}
			now, id, refused := epoch, uint64(600), 0
			var l line
			enter := func(p link) {
				id++
				p.id, p.peer, p.opened = id, someone(int(id)), now
				if len(conns) >= core.hard {
					if l.stale(now) {
						l = core.lineUp(now, conns)
					}
					going := core.nextOf(&l, now, conns, p)
					if len(going) == 0 {
						if p.streams > 0 {
							refused++
						}
						return
					}
					conns = slices.DeleteFunc(conns, func(k link) bool { return slices.Contains(going, k.id) })
				}
				conns = append(conns, p)
				l.join(core.seatOf(now, p, many(conns, p.group)))
				if p.streams > 0 {
					honest[p.id] = true
				}
			}
			for i := range 3000 {
				now = now.Add(10 * time.Millisecond) // 100 a second for half a minute
				n := i % c.networks
				enter(link{}.from(fmt.Sprintf("1.%d.%d.%d", n/256, n%256, i%200)))
				if i%100 == 50 {
					enter(link{streams: 1}.from(fmt.Sprintf("2.2.%d.1", i/100)))
				}
				if i%100 == 0 {
					going := core.trim(now, conns, 820, 684)
					conns = slices.DeleteFunc(conns, func(k link) bool { return slices.Contains(going, k.id) })
				}
			}
			left := 0
			for _, p := range conns {
				if honest[p.id] {
					left++
				}
			}
			if refused > 0 || left != 630 {
				t.Errorf("%d of 630 honest connections are left, %d newcomers were refused", left, refused)
			}
		})
	}
}

// With no limit on connections the bound on standings does not overflow.
func TestValuesWithoutLimit(t *testing.T) {
	l := Limits{Conns: -1}.Resolve(0)
	tr := trimmer{hard: l.Conns}
	now := time.Now()
	for n := range 10 {
		tr.setValue(now, someone(n), "a", 5, 0, func(peer.ID) bool { return false })
	}
	for n := range 10 {
		if w := tr.worth(now, someone(n)); w != 5 {
			t.Errorf("the value of peer %d is %d", n, w)
		}
	}
}
