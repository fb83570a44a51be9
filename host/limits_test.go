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
		return w.enter(group, func() { evicted = append(evicted, name) })
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
		tickets = append(tickets, w.enter("g", func() { evicted = append(evicted, name) }))
	}
	tickets[0].advance(StageSecuring)
	w.enter("g", func() {})
	if got := fmt.Sprint(evicted); got != "[b]" {
		t.Errorf("evicted %s, want b: a is older but has come further", got)
	}
}

func TestWaitroomRefusesWhereItDoesNotEvict(t *testing.T) {
	w := waitroom[string]{max: 4, perGroup: 2}
	none := func() { t.Error("evicted") }
	w.enter("a", none)
	w.enter("a", none)
	if w.enter("a", none) != nil {
		t.Error("a group got more than its share")
	}
	w.enter("b", none)
	w.enter("c", none)
	lost := 0
	w.groups["a"][0].evict = func() { lost++ }
	if w.enter("d", none) == nil || lost != 1 {
		t.Errorf("a newcomer to a full room must displace the largest group: %d lost", lost)
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
