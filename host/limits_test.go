package host

import (
	"fmt"
	"testing"

	"github.com/kith-p2p/kith/multiaddr"
)

func TestWaitroomIsFair(t *testing.T) {
	w := waitroom[string]{max: 10, perGroup: 8, evictSelf: true}
	var evicted []string
	enter := func(group, name string) *ticket[string] {
		return w.enter(group, group, func() { evicted = append(evicted, name) })
	}
	for i := range 8 {
		enter("crowd", fmt.Sprint("crowd", i))
	}
	honest := enter("honest", "honest")
	enter("third", "third")
	if len(evicted) != 0 {
		t.Fatalf("evicted %v before the room was full", evicted)
	}
	// The room is full: the crowd pays, its oldest first.
	enter("fourth", "fourth")
	enter("fifth", "fifth")
	if got := fmt.Sprint(evicted); got != "[crowd0 crowd1]" {
		t.Errorf("evicted %s, want the two oldest of the crowd", got)
	}
	if !honest.leave() {
		t.Error("the honest one lost its place")
	}
	if honest.leave() {
		t.Error("a place was given back twice")
	}
	if w.total != 9 {
		t.Errorf("%d places taken, want 9", w.total)
	}
}

func TestWaitroomEvictsTheLeastAdvanced(t *testing.T) {
	w := waitroom[string]{max: 3, perGroup: 3, evictSelf: true}
	var evicted []string
	var tickets []*ticket[string]
	for _, name := range []string{"a", "b", "c"} {
		tickets = append(tickets, w.enter("g", "g", func() { evicted = append(evicted, name) }))
	}
	tickets[0].advance(StageSecuring)
	w.enter("g", "g", func() {})
	if got := fmt.Sprint(evicted); got != "[b]" {
		t.Errorf("evicted %s, want b: a is older but has come further", got)
	}
}

func TestWaitroomRefusesWhereItDoesNotEvict(t *testing.T) {
	w := waitroom[string]{max: 4, perGroup: 2}
	none := func() { t.Error("evicted") }
	w.enter("a", "a", none)
	w.enter("a", "a", none)
	if w.enter("a", "a", none) != nil {
		t.Error("a group got more than its share")
	}
	w.enter("b", "b", none)
	w.enter("c", "c", none)
	lost := 0
	w.groups["a"][0].evict = func() { lost++ }
	if w.enter("d", "d", none) == nil || lost != 1 {
		t.Errorf("a newcomer to a full room must displace the largest group: %d lost", lost)
	}
}

// Within a group, the owner that holds the most pays.
func TestWaitroomIsFairWithinAGroup(t *testing.T) {
	w := waitroom[string]{max: 9, perGroup: 3, evictSelf: true}
	var evicted []string
	for i, owner := range []string{"honest", "crowd", "crowd", "honest", "crowd"} {
		w.enter("g", owner, func() { evicted = append(evicted, fmt.Sprint(owner, i)) })
	}
	if got := fmt.Sprint(evicted); got != "[crowd1 honest0]" {
		t.Errorf("evicted %s, want the oldest of who held the most", got)
	}
}

// A crowd that has come further than a newcomer pays too: with one of those that
// wait where most of it does.
func TestWaitroomEvictsWhereMostWait(t *testing.T) {
	w := waitroom[string]{max: 4, perGroup: 4, evictSelf: true}
	var evicted []string
	for i := range 6 {
		ticket := w.enter("g", "g", func() { evicted = append(evicted, fmt.Sprint(i)) })
		if i < 4 {
			ticket.advance(StageSecured)
		}
	}
	if got := fmt.Sprint(evicted); got != "[0 1]" {
		t.Errorf("evicted %s, want the two oldest of the four that are the furthest", got)
	}
}

// Of groups that hold the same, the one that has waited longest pays.
func TestWaitroomEvictsTheOldestGroup(t *testing.T) {
	w := waitroom[int]{max: 64, perGroup: 8, evictSelf: true}
	var evicted []int
	for i := range 80 {
		w.enter(i, i, func() { evicted = append(evicted, i) })
	}
	for i, got := range evicted {
		if got != i {
			t.Fatalf("evicted %v, want the oldest first", evicted)
		}
	}
	if len(evicted) != 16 {
		t.Errorf("%d evicted, want 16", len(evicted))
	}
}

func TestAddrGroups(t *testing.T) {
	for _, c := range []struct{ addr, group, owner string }{
		{"/ip4/1.2.3.4/tcp/5", "1.2.3.0/24", "1.2.3.4/32"},
		{"/ip6/::ffff:1.2.3.4/tcp/5", "1.2.3.0/24", "1.2.3.4/32"},
		{"/ip6/2001:db8:1:2:3::4/tcp/5", "2001:db8:1::/48", "2001:db8:1::/56"},
		{"/memory/7", "invalid Prefix", "invalid Prefix"},
	} {
		a := multiaddr.MustParse(c.addr)
		if got := addrGroup(a).String(); got != c.group {
			t.Errorf("group of %s: %s, want %s", a, got, c.group)
		}
		if got := addrOwner(a).String(); got != c.owner {
			t.Errorf("owner of %s: %s, want %s", a, got, c.owner)
		}
	}
}
