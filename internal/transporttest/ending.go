package transporttest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/testkit"
)

// closeLimit is how long CloseWithCode may take: the second that it promises, and
// what a busy machine adds.
const closeLimit = 1500 * time.Millisecond

// The end of a connection ends all that waits on it, on both sides; both know who
// ended it, and why.
func testCloseConnection(t *testing.T, c Case) {
	const many = 50
	near, far := c.connect(t)
	for _, dialer := range []bool{true, false} {
		if !dialer {
			far, near = c.connect(t)
		}
		var ours, theirs []<-chan result
		for range many {
			a, b := near.open(t, far)
			ours, theirs = append(ours, reads(a)), append(theirs, reads(b))
		}
		a, b := near.open(t, far)
		fill(t, a, 9)
		ours = append(ours, floods(a, 9, 0))
		d, e := far.open(t, near)
		fill(t, d, 10)
		theirs = append(theirs, floods(d, 10, 0))
		blocked(t, "a read", ours[0])
		blocked(t, "a read", theirs[0])

		near.closeInTime(t, connCode)
		await(t, "the end of our Serve", near.served)
		await(t, "the end of the other side's Serve", far.served)
		for i := range ours {
			wantDead(t, "our own read or write", await(t, "our own reads to end", ours[i]).err)
			wantDead(t, "the remote's read or write", await(t, "the remote's reads to end", theirs[i]).err)
		}
		if near.err == nil || far.err == nil {
			t.Errorf("Serve returned %v and %v", near.err, far.err)
		}
		if !c.NoConnCodes {
			wantCode(t, "our own Serve", near.err, connCode, false)
			wantCode(t, "the remote's Serve", far.err, connCode, true)
		}
		for _, s := range []host.MuxedStream{a, b, d, e} {
			wantDead(t, "a write", await(t, "a write", writes(s, []byte("x"))).err)
			await(t, "Close", async(s.Close))
			await(t, "Reset", async(func() error { return s.Reset(0) }))
		}
		for _, e := range []*end{near, far} {
			_, err := e.Mux.OpenStream(t.Context())
			wantDead(t, "OpenStream", err)
			e.closeInTime(t, 0) // once more is nothing
			if n := e.Mux.NumStreams(); n != 0 {
				t.Errorf("%d streams are counted on a connection that has ended", n)
			}
		}
	}
}

// wantCode checks what Serve says of the end of its connection.
func wantCode(t testing.TB, what string, err error, code uint32, remote bool) {
	t.Helper()
	wantDead(t, what, err)
	var coded interface {
		ErrorCode() uint32
		IsRemote() bool
	}
	if !errors.As(err, &coded) {
		t.Errorf("%s: an error without ErrorCode and IsRemote: %v (%T)", what, err, err)
	} else if coded.ErrorCode() != code || coded.IsRemote() != remote {
		t.Errorf("%s: code %#x, by the remote: %v; want %#x, %v: %v", what, coded.ErrorCode(), coded.IsRemote(), code, remote, err)
	}
}

// closeInTime ends the connection within the time that is promised.
func (e *end) closeInTime(t testing.TB, code uint32) {
	t.Helper()
	took := testkit.Took(func() {
		await(t, "CloseWithCode", async(func() error { return e.Mux.CloseWithCode(code) }))
	})
	if took > closeLimit {
		t.Errorf("CloseWithCode took %v, want at most a second", took)
	}
}

// A connection ends while both sides open, use and end streams.
func testCloseWhileOpening(t *testing.T, c Case) {
	near, far := c.connect(t)
	near.echo()
	far.echo()
	var busy sync.WaitGroup
	begun := make(chan struct{}, 16)
	for i := range 16 {
		e := near
		if i%2 == 0 {
			e = far
		}
		busy.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			for n := 0; ; n++ {
				if err := e.roundTrip(ctx, fmt.Sprint("stream ", n)); err != nil {
					if errors.Is(err, io.EOF) || errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("using a connection that ends: %v", err)
					}
					return
				}
				if n == 3 {
					begun <- struct{}{}
				}
			}
		})
	}
	for range 16 {
		await(t, "streams to be under way", begun)
	}
	near.closeInTime(t, connCode)
	await(t, "the end of our Serve", near.served)
	await(t, "the end of the other side's Serve", far.served)
	finished := make(chan struct{})
	go func() {
		busy.Wait()
		close(finished)
	}()
	await(t, "all to notice", finished)
}

// The other side's process is killed: everything that waits for it ends.
func testKilled(t *testing.T, c Case) {
	listening := startChild(t, c, order{Role: "listen"})
	dialed, err := c.node(t).dial(t.Context(), listening.addr, listening.id)
	check(t, err)
	dialed.closes(t)

	b := c.node(t)
	l := b.listen(t, c.Listen(t)[0])
	dialing := startChild(t, c, order{Role: "dial", Addr: l.Addr(), Peer: b.id})
	accepted := await(t, "the connection from another process", l.conns).closes(t)

	var waiting []<-chan result
	for _, e := range []*end{dialed, accepted} {
		waiting = append(waiting, reads(e.openHeld(t)))
		s := e.openHeld(t)
		fill(t, s, 11)
		waiting = append(waiting, floods(s, 11, 0))
	}
	for _, w := range waiting {
		blocked(t, "a read or write", w)
	}
	limit := 5*time.Second + c.Silence*3/2
	start := time.Now()
	listening.kill(t)
	dialing.kill(t)
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for i, w := range waiting {
		select {
		case r := <-w:
			wantDead(t, "a read or write", r.err)
		case <-timer.C:
			t.Fatalf("not within %v of the end of the other process: read or write %d fails\n%s", limit, i, stacks())
		}
	}
	t.Logf("noticed within %v", time.Since(start).Round(time.Millisecond))
	for _, e := range []*end{dialed, accepted} {
		await(t, "the end of Serve", e.served)
		_, err := e.Mux.OpenStream(t.Context())
		wantDead(t, "OpenStream", err)
		if e.err == nil {
			t.Error("Serve returned nil")
		}
	}
}

// openHeld opens a stream to a child, which never reads from it again.
func (e *end) openHeld(t testing.TB) host.MuxedStream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := e.Mux.OpenStream(ctx)
	check(t, err)
	write(t, s, "!")
	read(t, s, "!")
	return s
}

// The other side's process is stopped: its connections stay open, and it withholds
// everything. Our side can still do all that does not need it.
func testStopped(t *testing.T, c Case) {
	const most = 64 // streams whose windows are more than the system holds
	child := startChild(t, c, order{Role: "listen"})
	e, err := c.node(t).dial(t.Context(), child.addr, child.id)
	check(t, err)
	e.closes(t)
	var held []host.MuxedStream
	for range most {
		held = append(held, e.openHeld(t))
	}
	child.stop(t)
	var waiting []<-chan result
	// A write without a deadline may be the one that is in the system's hands when
	// that is full: yamux then waits for its connection.
	for _, s := range held[:2] {
		check(t, s.SetWriteDeadline(time.Now().Add(time.Hour)))
	}
	for _, s := range held {
		waiting = append(waiting, reads(s), writes(s, make([]byte, 1<<20)))
	}
	for _, w := range waiting {
		blocked(t, "a read or write", w)
		break
	}

	took := testkit.Took(func() {
		s := held[0]
		check(t, await(t, "Reset", async(func() error { return s.Reset(streamCode) })))
		check(t, await(t, "deadlines to be set", async(func() error { return held[1].SetDeadline(past) })))
		for i, w := range waiting[:4] {
			switch r := await(t, "reads and writes to end", w); i {
			case 0, 1:
				c.wantReset(t, "a read or write", r.err, streamCode, false)
			default:
				wantTimeout(t, "a read or write", r.err)
			}
		}
	})
	if took > closeLimit {
		t.Errorf("a reset and a deadline took %v", took)
	}
	e.closeInTime(t, connCode)
	await(t, "the end of Serve", e.served)
	for _, w := range waiting[4:] {
		wantDead(t, "a read or write", await(t, "reads and writes to end", w).err)
	}
}

// What has ended leaves nothing behind in what goes on: no connection in its
// transport and its listener, and no stream in its connection.
func testNothingKept(t *testing.T, c Case) {
	const (
		conns, streams = 40, 1000
		perConn        = 8 << 10 // bytes, far below what a connection has while it lives
		perStream      = 200
	)
	a, b := c.node(t), c.node(t)
	l := b.listen(t, c.Listen(t)[0])
	round := func() {
		for range conns {
			near, err := a.dial(t.Context(), l.Addr(), b.id)
			check(t, err)
			far := await(t, "the accepted connection", l.conns)
			far.echo()
			check(t, near.roundTrip(t.Context(), "hello"))
			near.Mux.CloseWithCode(0)
			await(t, "the end of Serve", near.served)
			await(t, "the end of Serve", far.served)
			far.Mux.CloseWithCode(0)
		}
	}
	wantSteady(t, "a connection", conns, perConn, round)

	near, far := c.connect(t)
	far.echo()
	wantSteady(t, "a stream", streams, perStream, func() {
		for range streams {
			check(t, near.roundTrip(t.Context(), "hello"))
		}
		until(t, "streams that have ended are not counted", func() bool { return near.Mux.NumStreams() == 0 && far.Mux.NumStreams() == 0 })
	})
}

// wantSteady makes sure that what lives on the heap does not grow with each round
// of n things by more than most bytes a thing.
func wantSteady(t *testing.T, what string, n, most int, round func()) {
	t.Helper()
	round()
	before := heap()
	round()
	round()
	grown := func() int { return (heap() - before) / (2 * n) }
	first := grown()
	last := first
	for deadline := time.Now().Add(patience); last > most; last = grown() { // timers may hold some for a while
		if time.Now().After(deadline) {
			t.Fatalf("%s leaves %d bytes, and %d when they are looked for again", what, first, last)
		}
		<-time.After(patience / 100)
	}
	t.Logf("%s leaves %d bytes, at first %d", what, last, first)
}

// heap is how many bytes live.
func heap() int {
	runtime.GC()
	runtime.GC() // the second one empties what pools still keep
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}
