package quic

import (
	"sync"
	"sync/atomic"
	"time"

	quicgo "github.com/quic-go/quic-go"

	"github.com/kith-p2p/kith/host"
)

const (
	// ConnCost is what a connection takes while it is idle, in bytes.
	ConnCost = 52 << 10
	// StreamCost is what a stream takes that is served, in bytes, without what is unread.
	StreamCost = 9 << 10

	// meterInterval is how often is looked at what connections hold unread: quic-go
	// takes what comes within the windows without asking. A look at one that has
	// streams takes 0.1 µs.
	meterInterval = 500 * time.Millisecond

	// packetOverhead is what a packet carries at least beside the data of streams, in bytes.
	packetOverhead = 40
)

// meters are those of an endpoint's connections.
type meters struct {
	mu   sync.Mutex
	of   map[*quicgo.Conn]*Meter
	none chan struct{} // closed when there are none; nil: run does not run
}

// A Meter charges a connection's memory to the host's account: its window before
// that grows, and what it holds unread as soon as it is seen. The latter is an
// estimate: what has come, less what was read.
type Meter struct {
	conn    *quicgo.Conn
	owner   *meters
	account *host.Account // set by Charge

	read    atomic.Int64 // bytes read of all streams
	streams atomic.Int64 // open, in both directions
	waiting atomic.Int64 // of them those on which somebody waits for data
	grown   atomic.Int64 // bytes of the connection's window beyond the initial one

	// owned by look; held is also read by end, with meters.mu held
	held  int64 // taken for what is unread, beyond grown
	from  int64 // received, less overhead and read, when nothing was unread
	quiet bool  // the last look found all streams waited on
}

// Meter makes the meter of a connection. Its owner calls Charge when the host knows
// the connection, and End when that has ended.
func (e *Endpoint) Meter(conn *quicgo.Conn) *Meter { return &Meter{conn: conn, owner: &e.meters} }

// Charge has the meter take from a what the connection holds from now on.
func (m *Meter) Charge(a *host.Account) {
	o := m.owner
	o.mu.Lock()
	defer o.mu.Unlock()
	m.account = a
	m.from = m.surplus()
	if o.of == nil {
		o.of = make(map[*quicgo.Conn]*Meter)
	}
	o.of[m.conn] = m
	if o.none == nil {
		o.none = make(chan struct{})
		go o.run(o.none)
	}
}

// End gives everything back.
func (m *Meter) End() {
	m.owner.mu.Lock()
	defer m.owner.mu.Unlock()
	m.end()
}

func (m *Meter) end() {
	o := m.owner
	if o.of[m.conn] != m {
		return
	}
	if delete(o.of, m.conn); len(o.of) == 0 {
		close(o.none)
		o.none = nil
	}
	if m.held > 0 {
		m.account.Release(int(m.held))
	}
	if grown := m.grown.Swap(0); grown > 0 {
		m.account.Shrink(int(grown))
	}
}

// Shed ends the connection: quic-go does not tell which streams hold how much.
func (m *Meter) Shed(int) { closeConn(m.conn, host.ConnCodeResourceLimit) }

// NumStreams is how many streams are open: Opened and not Left.
func (m *Meter) NumStreams() int { return int(m.streams.Load()) }

// Opened and Left count streams.
func (m *Meter) Opened() { m.streams.Add(1) }

// Left is Opened undone.
func (m *Meter) Left() { m.streams.Add(-1) }

// Read reads from a stream of the connection.
func (m *Meter) Read(s *quicgo.Stream, p []byte) (int, error) {
	m.waiting.Add(1)
	n, err := s.Read(p)
	m.waiting.Add(-1)
	if n > 0 {
		m.read.Add(int64(n))
	}
	return n, err
}

// allow decides for quic-go whether the window of a connection may grow.
func (o *meters) allow(conn *quicgo.Conn, delta uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	m := o.of[conn]
	if m == nil {
		return true // no host counts
	}
	got := m.account.Grow(int(delta))
	if got == int(delta) {
		m.grown.Add(int64(delta))
		return true
	}
	if got > 0 {
		m.account.Shrink(got)
	}
	return false
}

// run looks at all connections now and then, as long as there are any.
func (o *meters) run(none chan struct{}) {
	tick := time.NewTicker(meterInterval)
	defer tick.Stop()
	for {
		select {
		case <-none:
			return
		case <-tick.C:
		}
		o.mu.Lock()
		for _, m := range o.of {
			if m.conn.Context().Err() != nil {
				m.end()
			} else {
				m.look()
			}
		}
		o.mu.Unlock()
	}
}

// surplus is what has come and was not read, up to a constant.
func (m *Meter) surplus() int64 {
	stats := m.conn.ConnectionStats()
	return int64(stats.BytesReceived) - packetOverhead*int64(stats.PacketsReceived) - m.read.Load()
}

// look charges what is unread now. meters.mu is held.
func (m *Meter) look() {
	streams := m.streams.Load()
	if streams == 0 && m.held == 0 {
		m.quiet = true
		return
	}
	// Where somebody waits for data there is none; twice in a row, since a Read can
	// have begun just now.
	all := m.waiting.Load() >= streams
	if m.quiet && all {
		m.from = m.surplus()
	}
	m.quiet = all
	unread := m.surplus() - m.from
	if unread < 0 {
		m.from += unread
	}
	grown := m.grown.Load()
	unread = min(max(unread, 0), initialConnWindow+grown)
	switch more := max(unread-grown, 0) - m.held; {
	case more > 0:
		m.account.Owe(int(more))
		m.held += more
	case more < 0:
		m.account.Release(int(-more))
		m.held += more
	}
}
