package host

import (
	"context"
	"errors"
	"math"
	"net/netip"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
)

// MachineMemory is how many bytes of memory this process may use: what the machine has,
// its control groups grant and GOMEMLIMIT says, whichever is least. 0: not known.
func MachineMemory() int {
	least := systemMemory()
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 && (least == 0 || limit < int64(least)) {
		least = int(min(limit, math.MaxInt))
	}
	return least
}

// byteCount gives a number of units in bytes: the largest int if that cannot hold them,
// as on machines of 32 bits with more memory than a process can use. 0: it is not a number.
func byteCount(text string, unit uint64) int {
	n, err := strconv.ParseUint(text, 10, 64)
	if errors.Is(err, strconv.ErrRange) || err == nil && n > math.MaxInt/unit {
		return math.MaxInt
	}
	return int(n * unit)
}

// A budget is the memory for streams and what they hold, which remotes share. Taking
// and giving back is a few atomic operations; only when the memory runs out somebody
// looks for who has the most.
//
// The rule is fairness by address group, then by peer: nobody takes more than a fixed
// part, and when there is nothing left, who holds the most of all gives some back,
// so that whoever holds less gets it.
type budget struct {
	limit    int64 // beyond it, only who does not hold the most gets more
	hard     int64 // nobody gets more
	maxPeer  int64
	maxGroup int64
	spawn    func(func(context.Context)) bool // for shed
	each     func(func(*Account))             // calls a function for all accounts
	refused  func(*LimitError)                // is told of what was refused
	ended    func(*LimitError)                // is told of what had to be given back

	used     atomic.Int64
	growing  atomic.Int64 // of used: windows beyond what a muxer must grant; at most half
	shedding atomic.Bool
	garbage  *garbage                // may be nil
	most     atomic.Pointer[largest] // as of the last look; nil: there was enough since
	holds    holds                   // see Stream.Take

	mu     sync.Mutex
	groups map[netip.Prefix]*group
}

// A share is what one peer holds, on all its connections.
type share struct {
	used    atomic.Int64 // bytes
	streams atomic.Int32 // that it opened and that are served
}

// A group is what the inbound connections of one address group hold.
type group struct {
	prefix netip.Prefix
	used   atomic.Int64 // bytes
	conns  int          // guarded by budget.mu
}

// largest is who holds the most: an address group and in it a peer, or a peer with
// whom an address group has nothing to do.
type largest struct {
	group *group // nil: none
	peer  *share // nil: nobody holds anything
}

// An Account is what one connection holds of the host's memory for streams. Whatever
// a remote causes is taken from it before it is made.
type Account struct {
	budget *budget
	peer   *share
	group  *group      // nil: we dialed, or the address says nothing of who is behind it
	shed   func(n int) // gives back at least n bytes, if there are so many; nil: cannot
	used   atomic.Int64
}

// overdraft is the part of the memory that is kept for those who hold little, for
// the time in which others give theirs back.
const overdraft = 8

// slack is the part of the memory that a transport may not have taken yet.
const slack = 64

// maxShedding bounds how often shed looks again for who holds the most.
const maxShedding = 64

func newBudget(l Limits, spawn func(func(context.Context)) bool, each func(func(*Account)), refused, ended func(*LimitError)) *budget {
	b := &budget{spawn: spawn, each: each, refused: refused, ended: ended}
	b.hard = int64(l.StreamMemory)
	b.limit = b.hard - b.hard/overdraft
	b.maxPeer = b.hard / 2
	b.maxGroup = b.hard / 4 * 3
	return b
}

// open opens the account of a connection with the peer that has the share p, which came
// from an address group or from none.
func (a *Account) open(b *budget, p *share, from netip.Prefix) {
	a.budget, a.peer = b, p
	if !distant(from) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if a.group = b.groups[from]; a.group == nil {
		if b.groups == nil {
			b.groups = make(map[netip.Prefix]*group)
		}
		a.group = &group{prefix: from}
		b.groups[from] = a.group
	}
	a.group.conns++
}

// close takes the account out of its group. What is still taken is given back later,
// by who has taken it.
func (a *Account) close() {
	if a.group == nil {
		return
	}
	b := a.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	if a.group.conns--; a.group.conns == 0 {
		delete(b.groups, a.group.prefix)
	}
}

// Take takes n bytes, or tells with a *LimitError why it does not. It does not block.
func (a *Account) Take(n int) error {
	b, k := a.budget, int64(n)
	var of int64
	if a.group != nil {
		of = a.group.used.Add(k)
	}
	own := a.peer.used.Add(k)
	used := b.used.Add(k)
	a.used.Add(k)
	if used > collectHeld {
		b.garbage.stir()
	}
	if used <= b.limit && own <= b.maxPeer && of <= b.maxGroup {
		return nil
	}
	if err := a.judge(k, of, own, used); err != nil {
		a.Release(n)
		b.refused(err)
		return err
	}
	return nil
}

// Owe takes n bytes that are there already. When that is more than the peer may have,
// it has to give back.
func (a *Account) Owe(n int) {
	b, k := a.budget, int64(n)
	var of int64
	if a.group != nil {
		of = a.group.used.Add(k)
	}
	own := a.peer.used.Add(k)
	used := b.used.Add(k)
	a.used.Add(k)
	if used > collectHeld {
		b.garbage.stir()
	}
	switch {
	case own > b.maxPeer && a.shed != nil:
		b.ended(&LimitError{Scope: "PeerStreamMemory", Limit: int(b.maxPeer), Used: int(own)})
		b.spawn(func(context.Context) { a.shed(int(own - b.maxPeer)) })
	case used > b.limit:
		a.modest(of, own)
	}
}

// Reserve is Take for who only wants to know whether.
func (a *Account) Reserve(n int) bool { return a.Take(n) == nil }

// Release gives n bytes back.
func (a *Account) Release(n int) {
	k := int64(n)
	a.used.Add(-k)
	a.budget.used.Add(-k)
	a.peer.used.Add(-k)
	if a.group != nil {
		a.group.used.Add(-k)
	}
}

// Grow takes up to n bytes for a window that need not be as large, and returns how many.
// Of the memory half is for that, and of a peer's part what it holds otherwise leaves of
// half, so that what has to be taken always finds some.
//
// A peer may hold as much as there is left of that, so two get a third each and three
// a quarter: some is always left for one more. Who holds more than that, since others
// have come, is told so by a number below 0: by so much its windows should shrink.
func (a *Account) Grow(n int) int {
	b, k := a.budget, int64(n)
	left := min(b.hard/2-b.growing.Load(), b.limit-b.used.Load(), b.maxPeer/2)
	room := left - a.peer.used.Load()
	if room < 0 {
		return int(max(room, -math.MaxInt32))
	}
	if k = min(k, room/2); k <= 0 || a.Take(int(k)) != nil {
		return 0
	}
	b.growing.Add(k)
	return int(k)
}

// Shrink gives back what Grow took.
func (a *Account) Shrink(n int) {
	a.budget.growing.Add(-int64(n))
	a.Release(n)
}

// Slack is how many bytes all connections of a transport together may hold before they
// are taken, where that cannot be done for each.
func (a *Account) Slack() int { return max(int(a.budget.hard/slack), 1) }

// Used is how much is taken, in bytes.
func (a *Account) Used() int { return int(a.used.Load()) }

// judge decides when there is not enough for the k bytes that have been added to the sums.
func (a *Account) judge(k, of, own, used int64) *LimitError {
	b := a.budget
	switch {
	case own > b.maxPeer:
		return &LimitError{Scope: "PeerStreamMemory", Limit: int(b.maxPeer), Used: int(own - k)}
	case of > b.maxGroup:
		return &LimitError{Scope: "GroupStreamMemory", Limit: int(b.maxGroup), Used: int(of - k)}
	case used > b.hard || !a.modest(of, own):
		return &LimitError{Scope: "StreamMemory", Limit: int(b.hard), Used: int(used - k)}
	}
	return nil
}

// modest tells whether another holds more, so that this one gets some of it, and sees
// to it that the other gives it back. It takes no lock, since muxers hold theirs.
func (a *Account) modest(of, own int64) bool {
	b := a.budget
	if !b.shedding.Swap(true) && !b.spawn(b.shed) {
		b.shedding.Store(false)
	}
	m := b.most.Load()
	if m == nil { // nobody has looked yet
		return max(of, own) <= b.hard/overdraft/2
	}
	if m.group == nil || m.group != a.group {
		return max(of, own) <= m.used()
	}
	return m.peer != a.peer && own <= m.peer.used.Load()
}

func (m *largest) used() int64 {
	switch {
	case m.group != nil:
		return m.group.used.Load()
	case m.peer != nil:
		return m.peer.used.Load()
	}
	return 0
}

// look finds who holds the most.
func (b *budget) look() *largest {
	var m largest
	b.each(func(a *Account) {
		if a.group == nil && a.peer.used.Load() > m.used() {
			m = largest{peer: a.peer}
		} else if a.group != nil && a.group.used.Load() > m.used() {
			m = largest{group: a.group}
		}
	})
	if m.group != nil {
		b.each(func(a *Account) {
			if a.group == m.group && (m.peer == nil || a.peer.used.Load() > m.peer.used.Load()) {
				m.peer = a.peer
			}
		})
	}
	b.most.Store(&m)
	return &m
}

// shed has those who hold the most give back until there is some room again.
func (b *budget) shed(ctx context.Context) {
	defer b.shedding.Store(false)
	defer b.most.Store(nil)
	step := b.limit / 16
	for rounds := 0; b.used.Load()-b.holds.ending.Load() > b.limit-step && rounds < maxShedding && ctx.Err() == nil; rounds++ {
		m := b.look()
		var fattest *Account
		b.each(func(a *Account) {
			if a.peer == m.peer && a.shed != nil && (fattest == nil || a.used.Load() > fattest.used.Load()) {
				fattest = a
			}
		})
		if fattest == nil {
			return
		}
		b.ended(&LimitError{Scope: "StreamMemory", Limit: int(b.hard), Used: int(b.used.Load())})
		n := int(max(m.peer.used.Load()/4, step/4))
		if n -= b.holds.shed(fattest, n); n > 0 {
			fattest.shed(n)
		}
	}
}

// Usage is how much of its limits a host has given away.
type Usage struct {
	Conns               int
	HalfOpen            int
	UnnegotiatedStreams int
	KnownPeers          int // with a connection and without

	Scopes []Scope // the same and more, in bytes where that is what is counted
}

// A Scope is one limit and what of it is used.
type Scope struct {
	Name    string `json:"name"` // the field of Limits
	Used    int    `json:"used"`
	Limit   int    `json:"limit"`   // -1: none
	Unit    string `json:"unit"`    // "bytes", or "" for a number
	Refused uint64 `json:"refused"` // how often it was used up, or what one party may have of it
}

// Limits are what the host goes by: those of its Config, with what follows from them.
func (h *Host) Limits() Limits { return h.limits }

// accounts calls f for the accounts of all connections.
func (h *Host) accounts(f func(*Account)) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for _, c := range h.all {
		f(&c.account)
	}
}

// Usage tells what remotes make the host hold now.
func (h *Host) Usage() Usage {
	h.mu.RLock()
	conns, connMemory := len(h.all), h.connMemory
	h.mu.RUnlock()
	u := Usage{Conns: conns, HalfOpen: h.halfOpen.len(), UnnegotiatedStreams: h.unnegotiated.len()}
	var book int
	u.KnownPeers, book = h.book.usage()
	add := func(name string, used, limit int, unit string, refused uint64) {
		if limit == math.MaxInt {
			limit = -1
		}
		u.Scopes = append(u.Scopes, Scope{name, used, limit, unit, refused})
	}
	l, streams := h.limits, int(h.budget.used.Load())
	add("Memory", connMemory+streams+book+u.HalfOpen*halfOpenCost, l.Memory, "bytes", 0)
	add("ConnMemory", connMemory, l.ConnMemory, "bytes", h.refusals.count("ConnMemory"))
	add("StreamMemory", streams, l.StreamMemory, "bytes", h.refusals.count("StreamMemory", "PeerStreamMemory", "GroupStreamMemory", "InboundStreamsPerPeer"))
	add("BookMemory", book, l.BookMemory, "bytes", 0)
	add("Conns", u.Conns, l.Conns, "", h.refusals.count("Conns", "ConnsPerPeer", "ConnsPerIP"))
	add("HalfOpen", u.HalfOpen, l.HalfOpen, "", h.refusals.count("HalfOpen", "HalfOpenPerGroup"))
	add("UnnegotiatedStreams", u.UnnegotiatedStreams, l.UnnegotiatedStreams, "", h.refusals.count("UnnegotiatedStreams", "UnnegotiatedStreamsPerPeer"))
	return u
}
