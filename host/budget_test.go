package host

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/kith-p2p/kith/multiaddr"
)

// A treasury is a budget whose accounts are those of no connections.
type treasury struct {
	*budget
	accounts []*Account
	pending  []func(context.Context)
	refusals int
}

func newTreasury(streamMemory int) *treasury {
	m := new(treasury)
	m.budget = newBudget(Limits{StreamMemory: streamMemory},
		func(f func(context.Context)) bool { m.pending = append(m.pending, f); return true },
		func(f func(*Account)) {
			for _, a := range m.accounts {
				f(a)
			}
		},
		func(*LimitError) { m.refusals++ }, func(*LimitError) {})
	return m
}

// account opens one that gives back what it is asked for.
func (m *treasury) account(p *share, addr string) *Account {
	a := new(Account)
	a.shed = func(n int) { a.Release(min(n, a.Used())) }
	a.open(m.budget, p, addrGroup(multiaddr.MustParse(addr)))
	m.accounts = append(m.accounts, a)
	return a
}

// settle runs what was started.
func (m *treasury) settle() {
	for len(m.pending) > 0 {
		f := m.pending[0]
		m.pending = m.pending[1:]
		f(context.Background())
	}
}

// fill takes as much as there is to get, in pieces, and returns why there is no more.
func fill(a *Account, piece int) error {
	for {
		if err := a.Take(piece); err != nil {
			return err
		}
	}
}

func scopeOf(t *testing.T, err error) string {
	t.Helper()
	var full *LimitError
	if !errors.As(err, &full) {
		t.Fatalf("%v is no *LimitError", err)
	}
	if full.Used > full.Limit || full.Limit == 0 || !strings.Contains(full.Error(), "raise Limits.") {
		t.Errorf("%+v does not say what to do: %v", *full, full)
	}
	return full.Scope
}

// One peer gets half, one address group three quarters.
func TestBudgetShares(t *testing.T) {
	const kib = 1 << 10
	m := newTreasury(1 << 20)
	p := new(share)
	first, second := m.account(p, "/ip4/192.0.2.1/tcp/1"), m.account(p, "/ip4/198.51.100.1/tcp/1")
	if scope := scopeOf(t, fill(first, kib)); scope != "PeerStreamMemory" || first.Used() != 512*kib {
		t.Errorf("a peer has got %d bytes, then %s", first.Used(), scope)
	}
	if scope := scopeOf(t, second.Take(kib)); scope != "PeerStreamMemory" {
		t.Errorf("on its other connection a peer gets %s", scope)
	}
	neighbour := m.account(new(share), "/ip4/192.0.2.200/tcp/1")
	if scope := scopeOf(t, fill(neighbour, kib)); scope != "GroupStreamMemory" || neighbour.Used() != 256*kib {
		t.Errorf("the group's other peer has got %d bytes, then %s", neighbour.Used(), scope)
	}
	if err := m.account(new(share), "/ip4/203.0.113.1/tcp/1").Take(64 * kib); err != nil {
		t.Errorf("somebody else: %v", err)
	}
	if m.refusals != 3 {
		t.Errorf("%d refusals are counted, want 3", m.refusals)
	}
	for _, a := range m.accounts {
		a.Release(a.Used())
		a.close()
	}
	if m.used.Load() != 0 || p.used.Load() != 0 || len(m.groups) != 0 {
		t.Errorf("left: %d bytes, %d of the peer, %d groups", m.used.Load(), p.used.Load(), len(m.groups))
	}
}

// When all is taken, those who hold little get some, and those who hold the most give
// it back: a crowd that came first keeps nobody out.
func TestBudgetIsTakenFromTheRich(t *testing.T) {
	const kib = 1 << 10
	m := newTreasury(16 << 20)
	var crowd []*Account
	for _, addr := range []string{"/ip4/192.0.2.1/tcp/1", "/ip4/198.51.100.1/tcp/1", "/ip4/203.0.113.1/tcp/1", "/memory/1"} {
		for range 5 {
			crowd = append(crowd, m.account(new(share), addr))
		}
	}
	for _, a := range crowd {
		fill(a, 64*kib)
		m.settle()
	}
	honest := m.account(new(share), "/ip4/203.0.113.129/tcp/1") // of a group that is full of others
	for i := range 50 {                                         // 400 KiB: a fair share is 800
		if err := honest.Take(8 * kib); err != nil {
			t.Fatalf("after %d pieces: %v", i, err)
		}
		for _, a := range crowd {
			a.Take(64 * kib)
		}
		m.settle()
		if used := m.used.Load(); used > m.hard {
			t.Fatalf("%d bytes are taken of %d", used, m.hard)
		}
	}
	if honest.Used() != 400*kib {
		t.Errorf("the honest peer holds %d bytes", honest.Used())
	}
	sum := 0
	for _, a := range m.accounts {
		sum += a.Used()
		a.Release(a.Used())
	}
	if used := m.used.Load(); used != 0 {
		t.Errorf("%d bytes are lost, of %d", used, sum)
	}
}

// Windows get half of the memory, and there is always some left for one more.
func TestBudgetOfWindows(t *testing.T) {
	m := newTreasury(64 << 20)
	var last int
	for i := range 4 {
		a := m.account(new(share), "/memory/1")
		got := 0
		for {
			n := a.Grow(256 << 10)
			if n <= 0 {
				break
			}
			got += n
		}
		if got == 0 || got > 32<<20/(i+1) {
			t.Errorf("peer %d has got %d bytes", i, got)
		}
		last = got
	}
	if last < 1<<20 {
		t.Errorf("the last one gets %d bytes", last)
	}
	if n := m.accounts[0].Grow(0); n >= 0 {
		t.Errorf("who has much is not told that others have little: %d", n)
	}
	for _, a := range m.accounts {
		a.Shrink(a.Used())
	}
	if m.used.Load() != 0 || m.growing.Load() != 0 {
		t.Errorf("%d bytes are lost, %d of windows", m.used.Load(), m.growing.Load())
	}
}

// All parts fit into the memory, whatever it is, and the numbers that others rely on
// can be reached.
func TestLimitsFollow(t *testing.T) {
	for _, bytes := range []int64{0, 256 * mib, 1 << 30, 4 << 30, 64 << 30} {
		machine := int(min(bytes, math.MaxInt))
		l := Limits{}.Resolve(machine)
		sum := l.ConnMemory + l.StreamMemory + l.BookMemory + l.HalfOpen*halfOpenCost + l.HalfOpening()*quicOpeningCost
		if sum > l.Memory || sum < l.Memory*9/10 {
			t.Errorf("machine of %d MiB: the parts have %d bytes, the memory %d", machine/mib, sum, l.Memory)
		}
		if l.Memory < minMemory || l.Memory > maxMemory || l.Conns < 1024 || l.InboundStreamsPerPeer < 1024 || l.HalfOpen != 256 {
			t.Errorf("machine of %d MiB: %+v", machine/mib, l)
		}
		if l.InboundStreamsPerPeer*streamCost > l.PeerStreamMemory() {
			t.Errorf("machine of %d MiB: a peer has memory for %d of its %d streams", machine/mib, l.PeerStreamMemory()/streamCost, l.InboundStreamsPerPeer)
		}
		if l != l.Resolve(machine) {
			t.Errorf("limits change when they are resolved again: %+v", l)
		}
	}
	for memory := leastMemory; memory < minMemory; memory += 64 << 10 {
		l := Limits{Memory: memory}.Resolve(0)
		if sum := l.ConnMemory + l.StreamMemory + l.BookMemory + l.HalfOpen*halfOpenCost + l.HalfOpening()*quicOpeningCost; sum > memory {
			t.Errorf("of %d KiB the parts have %d", memory>>10, sum>>10)
		}
	}
	big := Limits{Memory: 1 << 30}.Resolve(0)
	if big.Conns < 12_000 || big.ConnMemory < 10_000*64<<10 || big.InboundStreamsPerPeer < 10_000 {
		t.Errorf("1 GiB is not enough for 10,000 connections, or streams: %+v", big)
	}
	none := Limits{Memory: -1}.Resolve(1 << 30)
	if none.Memory != math.MaxInt || none.StreamMemory != math.MaxInt || none.ConnMemory != math.MaxInt || none.Conns != big.Conns {
		t.Errorf("without a limit of memory: %+v", none)
	}
	rows := Limits{Conns: 7}.Rows(1 << 30)
	i := slices.IndexFunc(rows, func(r LimitRow) bool { return r.Name == "Conns" })
	if i < 0 || rows[i].Value != 7 || rows[i].From != "set" {
		t.Errorf("what was set is not shown: %+v", rows)
	}
	rows = Limits{Memory: mib, Conns: 5000}.Rows(0)
	if from := rows[i].From; from != "set; but ConnMemory has room for 19, over TCP" {
		t.Errorf("5000 connections in 1 MiB: %q", from)
	}
	for _, r := range rows {
		if r.From == "" || r.What == "" {
			t.Errorf("%+v does not say enough", r)
		}
	}
}
