package host

import (
	"context"
	"math"
	"net/netip"
	"time"

	"github.com/kith-p2p/kith/peer"
)

// tendEvery is how often connections are looked after while there is something to
// do: one has too many, or more than one with the same peer.
const tendEvery = time.Second

// Protect keeps the host from closing its last connection with p for lack of room,
// until Unprotect is called with the same tag. The tag tells who wants it, such as
// a protocol's name.
func (h *Host) Protect(p peer.ID, tag string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.trimmer.protect(p, tag)
}

// Unprotect undoes Protect with the same tag, and tells whether p is still protected
// under another.
func (h *Host) Unprotect(p peer.ID, tag string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.trimmer.unprotect(p, tag)
}

// Protected tells whether p is protected under any tag.
func (h *Host) Protected(p peer.ID) bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.trimmer.protects(p)
}

// Value tells how useful p is: of connections that have to end, those with the
// peers of the lowest value go first. The values under different tags add up, and
// what is left of their sum counts in whole numbers. A value halves every halfLife;
// 0 keeps it as it is until it is set anew. Setting it to 0 forgets it. Values of
// at most 2^40 and 64 tags a peer are kept, those of peers without a connection
// as long as they are not too many.
func (h *Host) Value(p peer.ID, tag string, v float64, halfLife time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.trimmer.setValue(time.Now(), p, tag, v, halfLife, func(p peer.ID) bool { return len(h.conns[p]) > 0 })
}

// Worth is the sum of the values of p now.
func (h *Host) Worth(p peer.ID) int64 {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.trimmer.worth(time.Now(), p)
}

// crowded tells whether there is a connection that could make way for a newcomer of
// a group: a look before the handshake, while displace decides after it. h.mu is held.
func (h *Host) crowded(newcomer netip.Prefix) bool {
	few := h.perGroup[newcomer]
	for group, n := range h.perGroup {
		if group != newcomer && n > few {
			return true
		}
	}
	return false
}

// full tells which limit keeps out one more connection that takes cost bytes; nil: none.
func (h *Host) full(cost int) *LimitError {
	if h.numConns-h.leaving >= h.limits.Conns {
		return &LimitError{Scope: "Conns", Limit: h.limits.Conns, Used: h.numConns}
	}
	if used := h.connMemory - h.leavingMemory; used > h.limits.ConnMemory-cost {
		return &LimitError{Scope: "ConnMemory", Limit: h.limits.ConnMemory, Used: used}
	}
	return nil
}

// makeRoom ends connections for c, if there have to be any. h.mu is held.
func (h *Host) makeRoom(c *Conn) error {
	for {
		full := h.full(c.cost)
		if full == nil {
			return nil
		}
		h.refusals.note(full)
		going := h.trimmer.displace(c.opened, h.allLinks(), h.linkOf(c))
		if len(going) == 0 {
			return full
		}
		h.giveUp(going)
	}
}

// allLinks lists the connections that stay for now. h.mu is held.
func (h *Host) allLinks() []link {
	all := make([]link, 0, h.numConns)
	for _, with := range h.conns {
		for _, c := range with {
			if !c.leaving {
				all = append(all, h.linkOf(c))
			}
		}
	}
	return all
}

func (h *Host) linkOf(c *Conn) link {
	l := h.rankOf(c)
	l.peer, l.group, l.owner, l.streams = c.remote, c.group(), addrOwner(c.addr), c.mux.NumStreams()
	return l
}

// giveUp ends connections. h.mu is held.
func (h *Host) giveUp(ids []uint64) {
	going := make(map[uint64]bool, len(ids))
	for _, id := range ids {
		going[id] = true
	}
	for _, with := range h.conns {
		for _, c := range with {
			if !going[c.id] || c.leaving {
				continue
			}
			c.leaving = true
			h.leaving++
			h.leavingMemory += c.cost
			if c.dir == DirInbound {
				h.countGroup(c.group(), -1)
			}
			h.start(func(context.Context) { c.CloseWithCode(ConnCodeGarbageCollected) })
		}
	}
}

// tend sees to it that connections are looked after soon. h.mu is held.
func (h *Host) tend() {
	now := time.Now()
	switch {
	case !h.untidy() && len(h.migrations) == 0:
	case !h.tending:
		h.tendAt = now.Add(tendEvery)
		h.tending = h.spawn(h.tendLoop)
	case h.tendAt.Sub(now) > tendEvery:
		h.tendAt = now.Add(tendEvery)
		select {
		case h.tendSoon <- struct{}{}:
		default:
		}
	}
}

// tendLoop runs while there is something to look after.
func (h *Host) tendLoop(ctx context.Context) {
	timer := time.NewTimer(tendEvery)
	defer timer.Stop()
	for {
		wait := tendEvery
		select {
		case <-timer.C:
			if wait = h.tendNow(time.Now()); wait == 0 {
				return
			}
		case <-h.tendSoon:
		case <-ctx.Done():
			return
		}
		timer.Reset(wait)
	}
}

// tendNow looks after the connections, and tells when to do it again; 0: no more.
func (h *Host) tendNow(now time.Time) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.trimmer.high, h.trimmer.low = h.marks(); h.numConns-h.leaving > h.trimmer.high {
		h.giveUp(h.trimmer.trim(now, h.allLinks()))
	}
	h.tendSpares(now)
	next := h.tendMigrations(now)
	h.tendAt = now.Add(tendEvery)
	if h.untidy() {
		return tendEvery
	}
	if next.IsZero() {
		h.tending = false
		return 0
	}
	wait := max(next.Sub(now), tendEvery)
	h.tendAt = now.Add(wait)
	return wait
}

// untidy tells whether there is something to look after all the time. h.mu is held.
func (h *Host) untidy() bool {
	high, _ := h.marks()
	return h.numConns-h.leaving > high || len(h.spares) > 0
}

// marks gives the watermarks for connections such as there are: ConnMemory bounds
// them as Conns does, and has to leave as much room. h.mu is held.
func (h *Host) marks() (high, low int) {
	high, low = h.limits.HighWater, h.limits.LowWater
	n, used := h.numConns-h.leaving, h.connMemory-h.leavingMemory
	if n == 0 || used == 0 || high == math.MaxInt {
		return high, low
	}
	if most := (h.limits.ConnMemory - h.limits.ConnMemory/6) / (used/n + 1); most < high {
		high, low = most, min(low, most-most/6)
	}
	return high, low
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
