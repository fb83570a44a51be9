package host

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
)

// When there is no place for another connection, an address group that has many
// gives one up for a newcomer: otherwise a few hundred silent connections would keep
// everybody else out for as long as they like. All of this runs with h.mu held.

// full tells which limit keeps out one more connection that takes cost bytes; nil: none.
func (h *Host) full(cost int) error {
	if h.numConns-h.leaving >= h.limits.Conns {
		return &LimitError{Scope: "Conns", Limit: h.limits.Conns, Used: h.numConns}
	}
	if used := h.connMemory - h.leavingMemory; used > h.limits.ConnMemory-cost {
		return &LimitError{Scope: "ConnMemory", Limit: h.limits.ConnMemory, Used: used}
	}
	return nil
}

// crowd finds the address group that gives up a connection for one more of the
// group newcomer: the one that was accepted most often, if after that it still does
// not have less. There may be none.
func (h *Host) crowd(newcomer netip.Prefix) (crowd netip.Prefix, ok bool) {
	most := h.perGroup[newcomer] + 1
	for group, n := range h.perGroup {
		if n > most {
			crowd, most, ok = group, n, true
		}
	}
	return crowd, ok
}

// makeRoom closes a connection of a crowd for c, if there has to be one.
func (h *Host) makeRoom(c *Conn) error {
	full := h.full(c.cost)
	if full == nil {
		return nil
	}
	crowd, ok := h.crowd(c.group())
	if !ok {
		h.refusedConns.Add(1)
		return full
	}
	victim := h.dispensable(crowd)
	victim.leaving = true
	h.leaving++
	h.leavingMemory += victim.cost
	h.countGroup(crowd, -1)
	h.start(func(context.Context) { victim.CloseWithCode(ConnCodeGarbageCollected) })
	return nil
}

// dispensable picks from a group that has connections: of the address with the
// most of them, one without streams before others, the oldest.
func (h *Host) dispensable(group netip.Prefix) *Conn {
	var in []*Conn
	held := make(map[netip.Prefix]int)
	for _, with := range h.conns {
		for _, c := range with {
			if c.dir == DirInbound && !c.leaving && c.group() == group {
				in = append(in, c)
				held[addrOwner(c.addr)]++
			}
		}
	}
	return slices.MinFunc(in, func(a, b *Conn) int {
		return cmp.Or(
			cmp.Compare(held[addrOwner(b.addr)], held[addrOwner(a.addr)]),
			cmp.Compare(min(a.NumStreams(), 1), min(b.NumStreams(), 1)),
			cmp.Compare(a.id, b.id),
		)
	})
}

// group is the address group from which a connection came; that of our own dials is none.
func (c *Conn) group() netip.Prefix {
	if c.dir == DirOutbound {
		return netip.Prefix{}
	}
	return addrGroup(c.addr)
}

// countGroup adds n to the connections that were accepted from a group.
func (h *Host) countGroup(group netip.Prefix, n int) {
	if h.perGroup[group] += n; h.perGroup[group] == 0 {
		delete(h.perGroup, group)
	}
}
