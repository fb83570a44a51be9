package yamux

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A link is a connection in memory, made for a test: with a bound on what is
// under way, a delay, and counters.
type link struct {
	in, out *lane
	record  []byte
	writes  atomic.Int64
	closed  sync.Once
}

// A lane is one direction of a link.
type lane struct {
	mu      sync.Mutex
	changed sync.Cond
	data    [][]byte
	due     []time.Time // when each is there
	size    int
	max     int
	delay   time.Duration
	broken  bool // closed by the reader
	ended   bool // closed by the writer
	read    limit
	write   limit
}

type limit struct {
	at    time.Time
	timer *time.Timer
}

// newLink returns both ends of a link that holds up to max bytes a direction.
func newLink(max int, delay time.Duration) (a, b *link) {
	x, y := &lane{max: max, delay: delay}, &lane{max: max, delay: delay}
	x.changed.L, y.changed.L = &x.mu, &y.mu
	return &link{in: x, out: y}, &link{in: y, out: x}
}

func (l *link) ReadRecord(take func(n int) []byte) ([]byte, error) {
	if l.record == nil {
		l.record = make([]byte, 64<<10)
	}
	n, err := l.Read(l.record)
	if err == nil && take != nil {
		if taken := take(n); taken != nil {
			n = copy(taken, l.record[:n])
			clear(l.record[:n])
			return taken[:n], nil
		}
	}
	return l.record[:n], err
}

func (l *link) Ready() bool {
	l.in.mu.Lock()
	defer l.in.mu.Unlock()
	return len(l.in.data) > 0 && !time.Now().Before(l.in.due[0])
}

func (l *link) Read(p []byte) (int, error) {
	n := l.in
	n.mu.Lock()
	defer n.mu.Unlock()
	for {
		switch {
		case n.broken:
			return 0, net.ErrClosed
		case !n.read.at.IsZero() && !time.Now().Before(n.read.at):
			return 0, os.ErrDeadlineExceeded
		case len(n.data) > 0 && !time.Now().Before(n.due[0]):
			m := copy(p, n.data[0])
			if n.data[0] = n.data[0][m:]; len(n.data[0]) == 0 {
				n.data, n.due = n.data[1:], n.due[1:]
			}
			n.size -= m
			n.changed.Broadcast()
			return m, nil
		case len(n.data) == 0 && n.ended:
			return 0, io.EOF
		}
		n.changed.Wait()
	}
}

func (l *link) Write(p []byte) (total int, err error) {
	l.writes.Add(1)
	n := l.out
	n.mu.Lock()
	defer n.mu.Unlock()
	for len(p) > 0 {
		switch {
		case n.broken, n.ended:
			return total, net.ErrClosed
		case !n.write.at.IsZero() && !time.Now().Before(n.write.at):
			return total, os.ErrDeadlineExceeded
		case n.size < n.max:
			m := min(len(p), n.max-n.size)
			n.data = append(n.data, append([]byte(nil), p[:m]...))
			n.due = append(n.due, time.Now().Add(n.delay))
			n.size += m
			total, p = total+m, p[m:]
			if n.delay > 0 {
				time.AfterFunc(n.delay, n.changed.Broadcast)
			}
			n.changed.Broadcast()
			continue
		}
		n.changed.Wait()
	}
	return total, nil
}

func (l *link) Close() error {
	l.closed.Do(func() {
		l.in.set(func() { l.in.broken = true })
		l.out.set(func() { l.out.ended = true })
	})
	return nil
}

func (n *lane) set(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
	n.changed.Broadcast()
}

func (n *lane) setLimit(l *limit, t time.Time) error {
	n.set(func() {
		l.at = t
		if l.timer != nil {
			l.timer.Stop()
		}
		if !t.IsZero() {
			l.timer = time.AfterFunc(time.Until(t), n.changed.Broadcast)
		}
	})
	return nil
}

func (l *link) SetReadDeadline(t time.Time) error  { return l.in.setLimit(&l.in.read, t) }
func (l *link) SetWriteDeadline(t time.Time) error { return l.out.setLimit(&l.out.write, t) }

// stopTimers ends the link's own timers, for tests that count them.
func (l *link) stopTimers() {
	for _, n := range []*lane{l.in, l.out} {
		n.setLimit(&n.read, time.Time{})
		n.setLimit(&n.write, time.Time{})
	}
}

// A pair is two sessions that talk to each other.
type pair struct {
	client, server *Session
	cc, sc         *link
	accepted       chan *Stream // those of the client
	acceptedBack   chan *Stream // those of the server
	ended          chan error
}

const plenty = 1 << 20

func newPair(t testing.TB, max int, delay time.Duration, cfg Config) *pair {
	t.Helper()
	cc, sc := newLink(max, delay)
	p := &pair{
		client:       New(cc, true, cfg),
		server:       New(sc, false, cfg),
		cc:           cc,
		sc:           sc,
		accepted:     make(chan *Stream, 4096),
		acceptedBack: make(chan *Stream, 4096),
		ended:        make(chan error, 2),
	}
	go func() { p.ended <- p.client.Serve(func(st *Stream) { p.acceptedBack <- st }) }()
	go func() { p.ended <- p.server.Serve(func(st *Stream) { p.accepted <- st }) }()
	t.Cleanup(p.close)
	return p
}

func (p *pair) close() {
	p.client.Close()
	p.server.Close()
	p.cc.stopTimers()
	p.sc.stopTimers()
}

// open returns both ends of a new stream of the client, which sends "hi" on it.
func (p *pair) open(t testing.TB) (near, far *Stream) {
	t.Helper()
	near = mustOpen(t, p.client)
	mustWrite(t, near, "hi")
	far = <-p.accepted
	mustRead(t, far, "hi")
	return near, far
}

func mustOpen(t testing.TB, s *Session) *Stream {
	t.Helper()
	st, err := s.Open(t.Context())
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return st
}

func mustWrite(t testing.TB, st *Stream, text string) {
	t.Helper()
	if n, err := st.Write([]byte(text)); n != len(text) || err != nil {
		t.Fatalf("Write of %d bytes = %d, %v", len(text), n, err)
	}
}

func mustRead(t testing.TB, st *Stream, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(st, got); err != nil || string(got) != want {
		t.Fatalf("Read = %q, %v; want %q", got, err, want)
	}
}
