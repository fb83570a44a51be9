package host

import (
	"context"
	"math"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/kith-p2p/kith/peer"
)

// MachineMemory is how many bytes of memory this process may use: what the machine has,
// its control groups grant and GOMEMLIMIT says, whichever is least. 0: not known.
func MachineMemory() int {
	least := systemMemory()
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 && (least == 0 || limit < int64(least)) {
		least = int(limit)
	}
	return least
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
	spawn    func(func(context.Context)) bool // for what shrinks others

	used     atomic.Int64
	growing  atomic.Int64 // of used: windows beyond what a muxer must grant; at most half
	refused  atomic.Uint64
	shedding atomic.Bool
	most     atomic.Pointer[largest] // as of the last look; nil: there was enough since

	mu     sync.Mutex
	peers  map[peer.ID]*share
	groups map[netip.Prefix]*share
}

// A share is what one peer or one address group holds.
type share struct {
	used     atomic.Int64
	conns    int        // of a group; guarded by budget.mu
	accounts []*Account // of a peer; guarded by budget.mu
}

// largest are the group and, in it, the peer that hold the most.
type largest struct{ group, peer *share }

// An Account is what one connection holds of the host's memory for streams. Whatever
// a remote causes is taken from it before it is made.
type Account struct {
	budget *budget
	id     peer.ID
	prefix netip.Prefix
	peer   *share
	group  *share
	shed   func(n int) // gives back at least n bytes, if there are so many; nil: cannot
	used   atomic.Int64
}

// overdraft is the part of the memory that is kept for those who hold little, for
// the time in which others give theirs back.
const overdraft = 8

func newBudget(l Limits, spawn func(func(context.Context)) bool) *budget {
	b := &budget{spawn: spawn, peers: make(map[peer.ID]*share), groups: make(map[netip.Prefix]*share)}
	b.hard = int64(l.StreamMemory)
	b.limit = b.hard - b.hard/overdraft
	b.maxPeer = b.hard / 2
	b.maxGroup = b.hard / 4 * 3
	return b
}

// open opens the account of a connection.
func (a *Account) open(b *budget, p peer.ID, group netip.Prefix, shed func(n int)) {
	a.budget, a.id, a.prefix, a.shed = b, p, group, shed
	b.mu.Lock()
	defer b.mu.Unlock()
	if a.peer = b.peers[p]; a.peer == nil {
		a.peer = new(share)
		b.peers[p] = a.peer
	}
	if a.group = b.groups[group]; a.group == nil {
		a.group = new(share)
		b.groups[group] = a.group
	}
	a.peer.accounts = append(a.peer.accounts, a)
	a.group.conns++
}

// close takes the account out of the shares. What is still taken is given back later,
// by who has taken it.
func (a *Account) close() {
	b := a.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	a.peer.accounts = slices.DeleteFunc(a.peer.accounts, func(k *Account) bool { return k == a })
	if len(a.peer.accounts) == 0 {
		delete(b.peers, a.id)
	}
	if a.group.conns--; a.group.conns == 0 {
		delete(b.groups, a.prefix)
	}
}

// Take takes n bytes, or tells with a *LimitError why it does not. It does not block.
func (a *Account) Take(n int) error {
	b, k := a.budget, int64(n)
	group := a.group.used.Add(k)
	own := a.peer.used.Add(k)
	used := b.used.Add(k)
	if used <= b.limit && own <= b.maxPeer && (group <= b.maxGroup || a.local()) {
		a.used.Add(k)
		return nil
	}
	return a.takeSlowly(k, group, own, used)
}

// Reserve is Take for who only wants to know whether.
func (a *Account) Reserve(n int) bool { return a.Take(n) == nil }

// Release gives n bytes back.
func (a *Account) Release(n int) {
	k := int64(n)
	a.used.Add(-k)
	a.group.used.Add(-k)
	a.peer.used.Add(-k)
	a.budget.used.Add(-k)
}

// Grow takes n bytes for a window that need not be as large. Of the memory half is
// for that, so that what has to be taken always finds some.
func (a *Account) Grow(n int) bool {
	b, k := a.budget, int64(n)
	if b.growing.Add(k) > b.hard/2 || b.used.Load()+k > b.limit || a.peer.used.Load()+k > b.maxPeer/2 || a.Take(n) != nil {
		b.growing.Add(-k)
		return false
	}
	return true
}

// Shrink gives back what Grow took.
func (a *Account) Shrink(n int) {
	a.budget.growing.Add(-int64(n))
	a.Release(n)
}

// Used is how much is taken, in bytes.
func (a *Account) Used() int { return int(a.used.Load()) }

// local tells of a connection within this machine, or over something that has no
// addresses: there the address says nothing of who is behind it.
func (a *Account) local() bool { return !a.prefix.IsValid() || a.prefix.Addr().IsLoopback() }

// takeSlowly decides when there is not enough. What was added is still in the sums.
func (a *Account) takeSlowly(k, group, own, used int64) error {
	b := a.budget
	var err *LimitError
	switch {
	case own > b.maxPeer:
		err = &LimitError{Scope: "PeerStreamMemory", Limit: int(b.maxPeer), Used: int(own - k)}
	case group > b.maxGroup && !a.local():
		err = &LimitError{Scope: "GroupStreamMemory", Limit: int(b.maxGroup), Used: int(group - k)}
	case used > b.hard || !a.modest(group, own):
		err = &LimitError{Scope: "StreamMemory", Limit: int(b.hard), Used: int(used - k)}
	default:
		a.used.Add(k)
		return nil
	}
	a.group.used.Add(-k)
	a.peer.used.Add(-k)
	b.used.Add(-k)
	b.refused.Add(1)
	return err
}

// modest tells whether another holds so much more that this one gets some of it, and
// sees to it that the other gives it back.
func (a *Account) modest(group, own int64) bool {
	b := a.budget
	m := b.most.Load()
	if m == nil {
		m = b.look()
	}
	if !b.shedding.Swap(true) && !b.spawn(b.shed) {
		b.shedding.Store(false)
	}
	if m.group != a.group && !a.local() {
		return group <= m.group.used.Load()
	}
	return m.peer != a.peer && own <= m.peer.used.Load()
}

// look finds who holds the most.
func (b *budget) look() *largest {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := &largest{group: new(share), peer: new(share)}
	for _, g := range b.groups {
		if g.used.Load() > m.group.used.Load() {
			m.group = g
		}
	}
	for _, p := range b.peers {
		if p.used.Load() > m.peer.used.Load() && slices.ContainsFunc(p.accounts, func(a *Account) bool { return a.group == m.group }) {
			m.peer = p
		}
	}
	b.most.Store(m)
	return m
}

// shed has those who hold the most give back until there is some room again.
func (b *budget) shed(ctx context.Context) {
	defer b.shedding.Store(false)
	defer b.most.Store(nil)
	step := b.limit / 16
	for rounds := 0; b.used.Load() > b.limit-step && rounds < 64 && ctx.Err() == nil; rounds++ {
		m := b.look()
		want := max(m.peer.used.Load()/4, min(step, m.peer.used.Load()))
		b.mu.Lock()
		var fattest *Account
		for _, a := range m.peer.accounts {
			if a.shed != nil && (fattest == nil || a.used.Load() > fattest.used.Load()) {
				fattest = a
			}
		}
		b.mu.Unlock()
		if fattest == nil {
			return
		}
		fattest.shed(int(want))
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
	Limit   int    `json:"limit"` // -1: none
	Unit    string `json:"unit"`  // "bytes", or "" for a number
	Refused uint64 `json:"refused"`
}

// Limits are what the host goes by: those of its Config, with what follows from them.
func (h *Host) Limits() Limits { return h.limits }

// Usage tells what remotes make the host hold now.
func (h *Host) Usage() Usage {
	h.mu.RLock()
	conns, connMemory := h.numConns, h.connMemory
	h.mu.RUnlock()
	u := Usage{Conns: conns, HalfOpen: h.halfOpen.len(), UnnegotiatedStreams: h.unnegotiated.len(), KnownPeers: h.book.len()}
	add := func(name string, used, limit int, unit string, refused uint64) {
		if limit == math.MaxInt {
			limit = -1
		}
		u.Scopes = append(u.Scopes, Scope{name, used, limit, unit, refused})
	}
	l, streams := h.limits, int(h.budget.used.Load())
	book := u.KnownPeers * knownPeerCost
	add("Memory", connMemory+streams+book+u.HalfOpen*halfOpenCost, l.Memory, "bytes", 0)
	add("ConnMemory", connMemory, l.ConnMemory, "bytes", h.refusedConns.Load())
	add("StreamMemory", streams, l.StreamMemory, "bytes", h.budget.refused.Load())
	add("BookMemory", book, l.BookMemory, "bytes", 0)
	add("Conns", u.Conns, l.Conns, "", h.refusedConns.Load())
	add("HalfOpen", u.HalfOpen, l.HalfOpen, "", 0)
	add("UnnegotiatedStreams", u.UnnegotiatedStreams, l.UnnegotiatedStreams, "", 0)
	add("KnownPeers", u.KnownPeers, l.KnownPeers, "", 0)
	return u
}
