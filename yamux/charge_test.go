package yamux

import (
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
)

// ledger is a Memory of so many bytes.
type ledger struct {
	mu          sync.Mutex
	left        int
	taken, grew int
	windows     int // what Grow may take
	shrinkBy    int // what Grow asks for
}

func (l *ledger) Reserve(n int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n <= 0 {
		panic("nothing is reserved")
	}
	if l.taken+l.grew+n > l.left {
		return false
	}
	l.taken += n
	return true
}

func (l *ledger) Release(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.taken -= n; n <= 0 || l.taken < 0 {
		panic("more was released than reserved")
	}
}

func (l *ledger) Grow(n int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.shrinkBy > 0 {
		return -l.shrinkBy
	}
	n = min(n, l.left-l.taken-l.grew, l.windows-l.grew)
	l.grew += n
	return n
}

func (l *ledger) Shrink(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.grew -= n; n <= 0 || l.grew < 0 {
		panic("more shrank than grew")
	}
}

func (l *ledger) state() (taken, grew int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.taken, l.grew
}

// A chargedPeer is a raw peer of a session that takes its memory from a ledger.
type chargedPeer struct {
	*rawPeer
	pongs chan struct{}
}

func newChargedPeer(t *testing.T, l *ledger) *chargedPeer {
	p := &chargedPeer{newRawPeer(t, false, Config{}), make(chan struct{}, 1)}
	p.session.Charge(l) // nothing has come yet
	go func() {
		for {
			h, _, err := p.next()
			if err != nil {
				return
			}
			if h.typ == typePing && h.flags == flagACK {
				p.pongs <- struct{}{}
			}
		}
	}()
	return p
}

// sync returns when all that was sent is handled.
func (p *chargedPeer) sync() {
	p.send(frame(typePing, flagSYN, 0, 7))
	<-p.pongs
}

// What waits for readers is taken from the shared memory before it is kept, and given
// back when it was read.
func TestChargeForUnread(t *testing.T) {
	l := &ledger{left: 1 << 20}
	p := newChargedPeer(t, l)
	p.send(data(flagSYN, 1, strings.Repeat("x", freeBytes)))
	st := <-p.accepted
	p.sync()
	if taken, _ := l.state(); taken != 0 {
		t.Errorf("%d bytes are taken for a small message", taken)
	}
	sent := freeBytes
	for range 5 {
		p.send(data(0, 1, strings.Repeat("y", 50_000)))
		sent += 50_000
		p.sync()
		if taken, _ := l.state(); taken < sent-freeBytes || taken > sent+sent/2 {
			t.Errorf("%d bytes are taken for %d", taken, sent)
		}
	}
	if n, err := io.ReadFull(st, make([]byte, sent)); err != nil {
		t.Fatal(n, err)
	}
	if taken, _ := l.state(); taken != 0 {
		t.Errorf("%d bytes are taken for nothing", taken)
	}
}

// Whatever comes, and is read meanwhile, a session holds no more than it has taken, at any
// time; streams for which there is nothing left are reset.
func TestChargeCovers(t *testing.T) {
	const streams, frames = 16, 24
	l := &ledger{left: 400_000, windows: 100_000}
	p := newChargedPeer(t, l)
	var open []*Stream
	check := func() {
		t.Helper()
		held := 0
		for _, st := range open {
			st.mu.Lock()
			held += st.beyond(st.received.size)
		}
		taken, _ := l.state()
		for _, st := range open {
			st.mu.Unlock()
		}
		if held > taken+freeBytes {
			t.Fatalf("%d bytes are held, and %d taken", held, taken)
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for i := range streams {
		p.send(data(flagSYN, uint32(2*i+1), "x"))
		open = append(open, <-p.accepted)
	}
	var readers sync.WaitGroup
	for i, st := range open {
		if i%4 == 3 {
			continue // it is never read
		}
		pieces := rand.New(rand.NewPCG(3, uint64(i)))
		readers.Go(func() {
			for {
				if _, err := st.Read(make([]byte, 1+pieces.IntN(30_000))); err != nil {
					return
				}
			}
		})
	}
	for range frames {
		for i := range open {
			p.send(data(0, uint32(2*i+1), strings.Repeat("y", random.IntN(initialWindow/frames))))
			check()
		}
	}
	p.sync()
	check()
	p.session.Close()
	readers.Wait()
	if taken, grew := l.state(); taken != 0 || grew != 0 {
		t.Errorf("%d and %d bytes are taken by a session that ended", taken, grew)
	}
}

// The stream for which there is no memory is reset, and tells why; the session goes on.
func TestChargeRefused(t *testing.T) {
	l := &ledger{left: 100_000}
	p := newChargedPeer(t, l)
	p.send(data(flagSYN, 1, strings.Repeat("x", 90_000)))
	p.send(data(flagSYN, 3, strings.Repeat("x", 90_000)))
	first, second := <-p.accepted, <-p.accepted
	p.sync()
	var reset *StreamError
	if _, err := second.Read(make([]byte, 1)); !errors.As(err, &reset) || reset.Code != codeResourceLimit || reset.Remote {
		t.Errorf("Read: %v, want a reset by this side with code %#x", err, codeResourceLimit)
	}
	if n, err := io.ReadFull(first, make([]byte, 90_000)); err != nil {
		t.Error(n, err)
	}
	if taken, _ := l.state(); taken != 0 {
		t.Errorf("%d bytes are taken for nothing", taken)
	}
}

// A session that has ended holds nothing of the shared memory, whatever is unread.
func TestChargeEnds(t *testing.T) {
	l := &ledger{left: 1 << 20}
	p := newChargedPeer(t, l)
	p.send(data(flagSYN, 1, strings.Repeat("x", 200_000)))
	st := <-p.accepted
	p.sync()
	p.session.Close()
	if taken, grew := l.state(); taken != 0 || grew != 0 {
		t.Errorf("%d and %d bytes are taken by a session that ended", taken, grew)
	}
	if n, err := io.ReadFull(st, make([]byte, 200_000)); err != nil {
		t.Error(n, err)
	}
	if taken, _ := l.state(); taken != 0 {
		t.Errorf("%d bytes are taken after reading", taken)
	}
}

// Shed resets the streams that hold the most.
func TestShed(t *testing.T) {
	l := &ledger{left: 1 << 20}
	p := newChargedPeer(t, l)
	var streams []*Stream
	for i := range 4 {
		p.send(data(flagSYN, uint32(2*i+1), strings.Repeat("x", 50_000*(i+1))))
		streams = append(streams, <-p.accepted)
	}
	p.sync()
	p.session.Shed(300_000)
	for i, st := range streams {
		_, err := st.Read(make([]byte, 1))
		if want := i >= 2; (err != nil) != want {
			t.Errorf("stream %d: %v, want it reset: %v", i, err, want)
		}
	}
}

// Windows grow with the shared memory, give it back, and shrink when others need it.
func TestChargeForWindows(t *testing.T) {
	l := &ledger{left: 4 << 20, windows: initialWindow / 2}
	p := newChargedPeer(t, l)
	s := p.session
	p.send(data(flagSYN, 1, "x"))
	st := <-p.accepted
	mustRead(t, st, "x")
	s.mu.Lock()
	s.ping.rtt = time.Hour // every use of a window is quick
	s.mu.Unlock()
	use := func() uint32 {
		t.Helper()
		st.mu.Lock()
		window := st.window
		st.mu.Unlock()
		for range 2 {
			p.send(data(0, 1, strings.Repeat("w", int(window)/2)))
			if n, err := io.ReadFull(st, make([]byte, window/2)); err != nil {
				t.Fatal(n, err)
			}
		}
		st.mu.Lock()
		defer st.mu.Unlock()
		return st.window
	}
	use()
	if window := use(); window != initialWindow*3/2 {
		t.Errorf("the window is %d bytes, want %d: all that there is of memory", window, initialWindow*3/2)
	}
	l.mu.Lock()
	l.shrinkBy = initialWindow / 4
	l.mu.Unlock()
	use()
	if window := use(); window != initialWindow {
		t.Errorf("the window is %d bytes, want %d: others need the rest", window, initialWindow)
	}
	if _, grew := l.state(); grew != 0 {
		t.Errorf("%d bytes are taken for windows that have not grown", grew)
	}
}
