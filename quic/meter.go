package quic

import (
	"io"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	quicgo "github.com/quic-go/quic-go"
	"golang.org/x/net/ipv4"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/udp"
)

const (
	// ConnCost is what a connection takes while it is idle, in bytes.
	ConnCost = 52 << 10
	// StreamCost is what a stream takes that is served, in bytes, without what is unread.
	StreamCost = 9 << 10

	// meterInterval is how often is looked at what connections hold unread, when not
	// enough has come to look at once: to give back what was read since. A look at a
	// connection takes 0.1 µs.
	meterInterval = 500 * time.Millisecond

	// packetOverhead is what a packet carries beside the data of streams, in bytes: the
	// least that one with data has in practice. One that only acknowledges has less.
	packetOverhead = 40

	// ackOverhead is by how much acknowledging one of our packets may take more, in bytes.
	ackOverhead = 16

	// Of what has come beyond data that was read, so much is taken for what was no data,
	// when somebody waits for data on all streams: so many bytes of each packet, one of
	// so many bytes (what was sent twice), and so many once (looking for the largest
	// packet on the path), and as many for the handshake. Somebody also waits where data has a gap in front, so it must
	// not be all.
	forgivenPacket = 24
	forgivenShare  = 16
	forgivenOnce   = 16 << 10

	// maxSpread bounds what is charged: so many times what the windows let in. Small
	// frames take more of a packet than their data, and much more memory; but datagrams
	// that nobody reads are not held, and look the same.
	maxSpread = 4
)

// meters are those of an endpoint's connections. What comes within the windows quic-go
// takes without asking, so it is charged when it has come: in all sockets together no
// more than slack comes, less what is read, without a look at all connections. The
// socket is not read meanwhile.
type meters struct {
	net   atomic.Int64 // bytes that came in packets, less what was read of streams
	slack atomic.Int64 // bytes; 0: nobody is charged
	seen  atomic.Int64 // net at the last look

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

	read      atomic.Int64 // bytes read of all streams, or of no use to anybody any more
	streams   atomic.Int64 // open, in both directions
	receiving atomic.Int64 // those that may hold data, or may get some
	waiting   atomic.Int64 // of them those on which somebody waits for data
	grown     atomic.Int64 // bytes of the connection's window beyond the initial one

	// owned by look; held is also read by end, with meters.mu held
	held    int64 // taken for what is unread, beyond grown
	from    int64 // surplus when nothing was unread
	grace   int64 // left of forgivenOnce
	packets int64 // received when something was forgiven last
	bytes   int64 // the same
	quiet   bool  // the last look found all streams waited on
}

// Meter makes the meter of a connection. Its owner calls Charge when the host knows
// the connection, and End when that has ended.
func (e *Endpoint) Meter(conn *quicgo.Conn) *Meter {
	return &Meter{conn: conn, owner: &e.meters, grace: forgivenOnce}
}

// Charge has the meter take from a what the connection holds from now on.
func (m *Meter) Charge(a *host.Account) {
	o := m.owner
	o.mu.Lock()
	defer o.mu.Unlock()
	m.account = a
	// The remote may have sent more than the handshake by now.
	m.from, m.packets, m.bytes = m.surplus()
	m.from = min(m.from, forgivenOnce)
	o.slack.Store(int64(a.Slack()))
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

// A Reader reads a stream of a metered connection.
type Reader struct {
	meter  *Meter
	stream *quicgo.Stream
	read   atomic.Int64 // bytes; below 0: end has counted the rest
	over   atomic.Bool  // it holds nothing, and nothing more comes
}

// ended is what Reader.read is set to.
const ended = math.MinInt64 / 2

// Begin makes r the reader of a stream of the connection that m is for.
func (r *Reader) Begin(m *Meter, s *quicgo.Stream) {
	r.meter, r.stream = m, s
	m.receiving.Add(1)
}

// Read reads from the stream.
func (r *Reader) Read(p []byte) (int, error) {
	m := r.meter
	m.waiting.Add(1)
	n, err := r.stream.Read(p)
	m.waiting.Add(-1)
	if n > 0 && r.read.Add(int64(n)) > 0 {
		m.took(n)
	}
	if err == io.EOF && r.over.CompareAndSwap(false, true) {
		m.receiving.Add(-1)
	}
	return n, err
}

// Leave is to be called when nobody will read any more. quic-go keeps what has come until
// the remote has said how much that was.
func (r *Reader) Leave() {
	if !r.over.Load() {
		r.stream.SetReceiveFinalSizeCallback(r.end)
	}
}

func (r *Reader) end(size int64) {
	if r.over.CompareAndSwap(false, true) {
		r.meter.receiving.Add(-1)
		r.meter.took(int(size - r.read.Swap(ended)))
	}
}

// took notes that n bytes are not held any more.
func (m *Meter) took(n int) {
	m.read.Add(int64(n))
	m.owner.net.Add(int64(-n))
}

// Datagram notes that a datagram of n bytes was read.
func (m *Meter) Datagram(n int) { m.took(n) }

// A wire is what quic-go reads and writes. It tells the meters what comes, and sends to
// the other family (see family.go).
type wire struct {
	*udp.QUICConn
	socket *socket
}

// ReadBatch reads packets, at least one.
func (c wire) ReadBatch(ms []ipv4.Message, flags int) (int, error) {
	n, err := c.QUICConn.ReadBatch(ms, flags)
	bytes := 0
	for i := range n {
		bytes += ms[i].N - packetOverhead
	}
	c.socket.endpoint.meters.arrived(bytes)
	return n, err
}

// ReadFrom reads one packet, where quic-go does not know how to read several.
func (c wire) ReadFrom(p []byte) (int, net.Addr, error) {
	n, from, err := c.QUICConn.ReadFrom(p)
	if err == nil {
		c.socket.endpoint.meters.arrived(n - packetOverhead)
	}
	return n, from, err
}

// arrived notes that packets with n bytes beside packetOverhead came, before quic-go
// gets them.
func (o *meters) arrived(n int) {
	if net := o.net.Add(int64(n)); net-o.seen.Load() > o.slack.Load() && o.slack.Load() > 0 {
		o.look()
	}
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
		o.look()
	}
}

// look charges what all connections hold.
func (o *meters) look() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seen.Store(o.net.Load())
	for _, m := range o.of {
		if m.conn.Context().Err() != nil {
			m.end()
		} else {
			m.look()
		}
	}
}

// surplus is what has come that was neither read nor is accounted for, up to a constant, and
// how much came.
func (m *Meter) surplus() (left, packets, bytes int64) {
	stats := m.conn.ConnectionStats()
	packets, bytes = int64(stats.PacketsReceived), int64(stats.BytesReceived)
	return bytes - packetOverhead*packets - ackOverhead*int64(stats.PacketsSent) - m.read.Load(), packets, bytes
}

// look charges what is unread now. meters.mu is held.
func (m *Meter) look() {
	receiving := m.receiving.Load()
	surplus, packets, bytes := m.surplus()
	unread := surplus - m.from
	if unread < 0 {
		m.from, unread = surplus, 0
	}
	// Twice in a row, since a Read can have begun just now.
	all := m.waiting.Load() >= receiving
	if m.quiet && all && unread > 0 {
		usual := forgivenPacket*(packets-m.packets) + (bytes-m.bytes)/forgivenShare
		forgiven := min(unread, usual+m.grace)
		m.grace -= max(forgiven-usual, 0)
		m.packets, m.bytes = packets, bytes
		m.from += forgiven
		unread -= forgiven
	}
	m.quiet = all
	grown := m.grown.Load()
	unread = min(unread, maxSpread*(wideConnWindow+grown+receiving*wideStreamWindow))
	switch more := max(unread-grown, 0) - m.held; {
	case more > 0:
		m.account.Owe(int(more))
		m.held += more
	case more < 0:
		m.account.Release(int(-more))
		m.held += more
	}
}
