package host

import (
	"cmp"
	"context"
	"errors"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/kith-p2p/kith/peer"
)

// tendEvery is how often connections are looked after while there is something to
// do: one has too many, or more than one with the same peer.
const tendEvery = time.Second

// lookChunk is how many connections are looked at while the host's lock is held: in
// about a tenth of a millisecond.
const lookChunk = 256

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

// full tells which limit keeps out one more connection that takes cost bytes; nil: none.
func (h *Host) full(cost int) *LimitError {
	if len(h.all)-h.leaving >= h.limits.Conns {
		return &LimitError{Scope: "Conns", Limit: h.limits.Conns, Used: len(h.all)}
	}
	if used := h.connMemory - h.leavingMemory; used > h.limits.ConnMemory-cost {
		return &LimitError{Scope: "ConnMemory", Limit: h.limits.ConnMemory, Used: used}
	}
	return nil
}

// errNoLine tells that the connections have to be lined up before there can be room.
var errNoLine = errors.New("host: no line")

// makeRoom ends connections for c, if there have to be any. h.mu is held.
func (h *Host) makeRoom(c *Conn) error {
	n := newcomer{c.dir, h.trimmer.worth(c.opened, c.remote), h.groups.of(c.group()) + 1}
	if h.trimmer.protects(c.remote) {
		n.worth = math.MaxInt64
	}
	for {
		full := h.full(c.cost)
		if full == nil {
			return nil
		}
		if h.line.stale(c.opened) {
			return errNoLine
		}
		looks := 0
		id, found := h.line.next(n, func(id uint64) (seat, bool) {
			if looks++; looks > lookChunk {
				return seat{}, false
			}
			return h.seatNow(c.opened, id)
		})
		if looks > lookChunk && h.line.at.Before(c.opened) {
			h.line = line{} // it is not like that any more
			return errNoLine
		}
		if !found {
			h.refusals.note(full)
			return full
		}
		h.giveUp(id, full)
	}
}

// lineUp makes a new line, unless another has while this one waited. It holds h.mu for
// moments only.
func (h *Host) lineUp(now time.Time) {
	h.lining.Lock()
	defer h.lining.Unlock()
	h.mu.RLock()
	last, stale := h.lastID, h.line.stale(now)
	h.mu.RUnlock()
	if !stale {
		return
	}
	now = time.Now()
	l := h.trimmer.lineUp(now, h.look(now))
	h.mu.Lock()
	defer h.mu.Unlock()
	h.line = l
	// They stand at the end who have come during the look.
	from, _ := h.find(last + 1)
	for _, c := range h.all[from:] {
		h.joinLine(c)
	}
}

// joinLine puts c at the end of the line, if there is one. h.mu is held.
func (h *Host) joinLine(c *Conn) {
	if h.line.at.IsZero() {
		return
	}
	if p, ok := h.seatNow(c.opened, c.id); ok {
		h.line.join(p)
	}
}

// leaveLine forgets the line when nobody needs it. h.mu is held.
func (h *Host) leaveLine(now time.Time) {
	if !h.line.at.IsZero() && h.line.stale(now) {
		h.line = line{}
	}
}

// look tells of the connections that stay for now, in the order in which they were
// opened. It holds h.mu for moments only, since it can take a while.
func (h *Host) look(now time.Time) []link {
	h.mu.RLock()
	all := slices.Clone(h.all)
	h.mu.RUnlock()
	links := make([]link, 0, len(all))
	for some := range slices.Chunk(all, lookChunk) {
		h.mu.RLock()
		for _, c := range some {
			if !c.leaving {
				links = append(links, h.linkOf(now, c))
			}
		}
		h.mu.RUnlock()
	}
	return links
}

// linkOf tells of one connection. h.mu is held.
func (h *Host) linkOf(now time.Time, c *Conn) link {
	l := h.rankOf(c)
	l.peer, l.group, l.owner, l.streams = c.remote, c.group(), addrOwner(c.addr), c.mux.NumStreams()
	l.worth, l.protected = h.trimmer.worth(now, c.remote), h.trimmer.protects(c.remote)
	return l
}

// seatNow tells what is so now of a connection in the line; ok is false if it is gone
// or must stay. h.mu is held.
func (h *Host) seatNow(now time.Time, id uint64) (p seat, ok bool) {
	i, found := h.find(id)
	if !found {
		return p, false
	}
	c := h.all[i]
	if c.leaving || h.trimmer.protects(c.remote) && h.bestOf(c.remote, nil) == c {
		return p, false
	}
	return h.trimmer.seatOf(now, h.linkOf(now, c), h.groups.of(c.group())), true
}

// find gives the index in h.all of the connection with a number, or that of the next. h.mu is held.
func (h *Host) find(id uint64) (i int, found bool) {
	return slices.BinarySearchFunc(h.all, id, func(c *Conn, id uint64) int { return cmp.Compare(c.id, id) })
}

// giveUp ends a connection for the sake of a limit. h.mu is held.
func (h *Host) giveUp(id uint64, limit *LimitError) {
	i, found := h.find(id)
	if !found || h.all[i].leaving {
		return
	}
	c := h.all[i]
	c.leaving = true
	h.leaving++
	h.leavingMemory += c.cost
	if c.dir == DirInbound {
		h.groups.add(c.group(), -1)
	}
	h.refusals.end(limit)
	h.start(func(context.Context) { c.CloseWithCode(ConnCodeGarbageCollected) })
}

// trim ends connections above the high watermark. It holds h.mu for moments only.
func (h *Host) trim(now time.Time) {
	h.mu.RLock()
	high, low := h.marks()
	n := len(h.all) - h.leaving
	h.mu.RUnlock()
	if n <= high {
		return
	}
	limit := &LimitError{Scope: "HighWater", Limit: high, Used: n}
	for some := range slices.Chunk(h.trimmer.trim(now, h.look(now), high, low), lookChunk) {
		h.mu.Lock()
		for _, id := range some {
			if _, ok := h.seatNow(now, id); ok {
				h.giveUp(id, limit)
			}
		}
		h.mu.Unlock()
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
	h.trim(now)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.leaveLine(now)
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
	return len(h.all)-h.leaving > high || len(h.spares) > 0
}

// marks gives the watermarks for connections such as there are: ConnMemory bounds
// them as Conns does, and has to leave as much room. h.mu is held.
func (h *Host) marks() (high, low int) {
	high, low = h.limits.HighWater, h.limits.LowWater
	n, used := len(h.all)-h.leaving, h.connMemory-h.leavingMemory
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
