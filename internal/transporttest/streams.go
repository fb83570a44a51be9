package transporttest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/kith-p2p/kith/host"
)

// codes are those with which the tests reset streams and end connections: that
// of a resource limit, and one with more bits than a byte has.
const (
	streamCode uint32 = 0x1002
	connCode   uint32 = 0x1005
)

// both runs f with the dialer as the opener of streams, and with the listener.
func (c Case) both(t *testing.T, f func(t *testing.T, from, to *end)) {
	near, far := c.connect(t)
	f(t, near, far)
	f(t, far, near)
	until(t, "streams that have ended are not counted", func() bool { return near.Mux.NumStreams() == 0 && far.Mux.NumStreams() == 0 })
}

// bothAtOnce is both for what takes long.
func (c Case) bothAtOnce(t *testing.T, f func(t *testing.T, from, to *end)) {
	near, far := c.connect(t)
	t.Run("at once", func(t *testing.T) {
		t.Run("dialer", func(t *testing.T) {
			t.Parallel()
			f(t, near, far)
		})
		t.Run("listener", func(t *testing.T) {
			t.Parallel()
			f(t, far, near)
		})
	})
	until(t, "streams that have ended are not counted", func() bool { return near.Mux.NumStreams() == 0 && far.Mux.NumStreams() == 0 })
}

// Reads and writes of nothing return at once and change nothing.
func testEmpty(t *testing.T, c Case) {
	c.both(t, func(t *testing.T, from, to *end) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		a, err := from.Mux.OpenStream(ctx)
		check(t, err)
		empty := func(when string, s host.MuxedStream) {
			t.Helper()
			for _, p := range [][]byte{nil, {}} {
				r := await(t, "a write of nothing "+when, writes(s, p))
				if r.n != 0 || r.err != nil {
					t.Errorf("a write of nothing %s: %d, %v", when, r.n, r.err)
				}
				r = await(t, "a read of nothing "+when, async(func() result {
					n, err := s.Read(p)
					return result{n, err}
				}))
				if r.n != 0 || r.err != nil {
					t.Errorf("a read of nothing %s: %d, %v", when, r.n, r.err)
				}
			}
		}
		empty("on a new stream", a)
		write(t, a, "x")
		b := await(t, "the stream", to.streams)
		empty("with something to read", b)
		read(t, b, "x")
		empty("with nothing to read", b)
		waiting := reads(b)
		empty("while another reads", a)
		blocked(t, "a read", waiting)
		write(t, a, "y")
		if r := await(t, "a read", waiting); r.n != 1 || r.err != nil {
			t.Errorf("after writes of nothing: %d, %v", r.n, r.err)
		}
		check(t, a.Close())
		readEnd(t, b)
		check(t, b.Close())
	})
}

// Writes of all sizes arrive as one row of bytes, whatever the sizes of the reads.
func testSizes(t *testing.T, c Case) {
	sizes := []int{1, 2, 3, 125, 126, 127, 128, 1023, 1024, 1199, 1200, 1201, 4095, 4096, 4097}
	for n := 1 << 13; n <= 1<<17; n *= 2 {
		for d := -20; d <= 20; d += 5 {
			sizes = append(sizes, n+d)
		}
		sizes = append(sizes, n-1, n+1)
	}
	sizes = append(sizes, 1<<20)
	total := 0
	for _, n := range sizes {
		total += n
	}
	c.both(t, func(t *testing.T, from, to *end) {
		for _, readSize := range []int{7, 1500, 1 << 16} {
			want := total
			if readSize == 7 {
				want = 100_000
			}
			a, b := from.open(t, to)
			sent := async(func() error {
				src, left := content(12), want
				for _, n := range sizes {
					p := make([]byte, min(n, left))
					src.Read(p)
					if m, err := a.Write(p); err != nil || m != len(p) {
						return fmt.Errorf("a write of %d bytes: %d, %w", len(p), m, err)
					}
					clear(p) // they are the caller's again
					left -= len(p)
				}
				return a.CloseWrite()
			})
			received := async(func() error { return receive(pieces{b, readSize}, 12, want) })
			if err := await(t, "sending", sent); err != nil {
				t.Error(err)
			}
			if err := await(t, "receiving", received); err != nil {
				t.Errorf("reading up to %d bytes at once: %v", readSize, err)
			}
			check(t, a.Close())
			check(t, b.Close())
		}
	})
}

// pieces reads at most size bytes at once.
type pieces struct {
	r    io.Reader
	size int
}

func (p pieces) Read(b []byte) (int, error) { return p.r.Read(b[:min(p.size, len(b))]) }

// Streams follow each other, from both sides.
func testSequentialStreams(t *testing.T, c Case) {
	near, far := c.connect(t)
	near.echo()
	far.echo()
	done := make(chan error, 2)
	for _, e := range []*end{near, far} {
		go func() {
			for i := range c.Streams {
				if err := e.roundTrip(t.Context(), fmt.Sprint("stream ", i)); err != nil {
					done <- fmt.Errorf("stream %d: %w", i, err)
					return
				}
			}
			done <- nil
		}()
	}
	for range 2 {
		if err := await(t, "all streams", done); err != nil {
			t.Error(err)
		}
	}
	until(t, "streams that have ended are not counted", func() bool { return near.Mux.NumStreams() == 0 && far.Mux.NumStreams() == 0 })
}

// Streams are open at the same time, and each has its own bytes.
func testStreamsAtOnce(t *testing.T, c Case) {
	near, far := c.connect(t)
	far.echo()
	check(t, near.roundTrip(t.Context(), "served?")) // until then few streams may be taken
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	streams := make([]host.MuxedStream, c.Streams)
	for i := range streams {
		s, err := near.Mux.OpenStream(ctx)
		if err != nil {
			t.Fatalf("opening stream %d: %v", i, err)
		}
		streams[i] = s
		s.SetDeadline(time.Now().Add(patience))
		if _, err := s.Write(binary.BigEndian.AppendUint64(nil, uint64(i))); err != nil {
			t.Fatalf("writing on stream %d: %v", i, err)
		}
	}
	buf := make([]byte, 8)
	for i, s := range streams {
		if _, err := io.ReadFull(s, buf); err != nil {
			t.Fatalf("reading from stream %d: %v", i, err)
		}
		if got := binary.BigEndian.Uint64(buf); got != uint64(i) {
			t.Fatalf("stream %d has the bytes of stream %d", i, got)
		}
	}
	if n := near.Mux.NumStreams(); n != len(streams) {
		t.Errorf("%d streams are counted, %d are open", n, len(streams))
	}
	if n := far.Mux.NumStreams(); n != len(streams) {
		t.Errorf("the other side counts %d streams, %d are open", n, len(streams))
	}
	for i, s := range streams {
		if i%2 == 0 {
			check(t, s.Close())
		} else {
			check(t, s.Reset(streamCode))
		}
	}
	until(t, "streams that have ended are not counted", func() bool { return near.Mux.NumStreams() == 0 && far.Mux.NumStreams() == 0 })
	check(t, near.roundTrip(ctx, "one more"))
}

// More streams than the remote takes wait or are refused; the connection lives on.
func testTooManyStreams(t *testing.T, c Case) {
	near, far := c.connect(t)
	first, other := near.open(t, far) // until it is served, few streams may be taken
	var open []host.MuxedStream
	var ended error
	for range c.Streams * 3 / 2 {
		limit := patience
		if len(open) >= c.Streams { // it may wait, in vain
			limit = quiet
		}
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		s, err := near.Mux.OpenStream(ctx)
		cancel()
		if err != nil {
			ended = err
			break
		}
		open = append(open, s)
		s.SetWriteDeadline(time.Now().Add(limit))
		if _, err := s.Write([]byte("!")); err != nil {
			break // refused already
		}
	}
	if ended != nil && !errors.Is(ended, context.DeadlineExceeded) {
		t.Errorf("opening stream %d: %v", len(open), ended)
	}
	if len(open) < c.Streams {
		t.Errorf("only %d streams were opened", len(open))
	}
	t.Logf("%d streams", len(open))
	for _, s := range append(open, first, other) {
		s.Close() // no reset: many of those are an attack
	}
	until(t, "the remote counts no streams", func() bool {
		for {
			select {
			case s := <-far.streams:
				s.Close()
				continue
			default:
			}
			return far.Mux.NumStreams() == 0 && near.Mux.NumStreams() == 0
		}
	})
	far.echo()
	check(t, near.roundTrip(t.Context(), "afterwards"))
}

// Much goes both ways at the same time, and all of it arrives.
func testBulk(t *testing.T, c Case) {
	near, far := c.connect(t)
	a, b := near.open(t, far)
	done := make(chan error, 4)
	for i, s := range []host.MuxedStream{a, b} {
		go func() {
			err := send(s, byte(i), c.Bulk)
			if err == nil {
				err = s.CloseWrite()
			}
			done <- err
		}()
		go func() { done <- receive(s, byte(1-i), c.Bulk) }()
	}
	timer := time.NewTimer(3 * patience)
	defer timer.Stop()
	for range 4 {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
				a.Reset(0) // nobody waits for the rest
				b.Reset(0)
			}
		case <-timer.C:
			t.Fatalf("not within %v: %d bytes each way\n%s", 3*patience, c.Bulk, stacks())
		}
	}
}

// One direction ends, the other goes on.
func testHalfClose(t *testing.T, c Case) {
	const size = 1 << 20
	c.both(t, func(t *testing.T, from, to *end) {
		for _, first := range []string{"the opener", "the other"} {
			a, b := from.open(t, to)
			if first == "the other" {
				a, b = b, a
			}
			write(t, a, "request")
			check(t, a.CloseWrite())
			read(t, b, "request")
			readEnd(t, b)
			readEnd(t, b) // and stays at the end
			if _, err := a.Write([]byte("x")); err == nil {
				t.Errorf("%s wrote after CloseWrite", first)
			}
			done := make(chan error, 2)
			go func() {
				err := send(b, 1, size)
				if err == nil {
					err = b.CloseWrite()
				}
				done <- err
			}()
			go func() { done <- receive(a, 1, size) }()
			for range 2 {
				if err := await(t, "the other direction", done); err != nil {
					t.Errorf("%s has closed its direction, the other: %v", first, err)
				}
			}
			readEnd(t, a)
			check(t, a.CloseWrite()) // once more is nothing
			check(t, a.Close())
			check(t, b.Close())
		}
		// The end alone, without a byte.
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		a, err := from.Mux.OpenStream(ctx)
		check(t, err)
		check(t, a.CloseWrite())
		b := await(t, "a stream without a byte", to.streams)
		readEnd(t, b)
		write(t, b, "answer")
		check(t, b.Close())
		read(t, a, "answer")
		readEnd(t, a)
		check(t, a.Close())
	})
}

// What is not wanted any more is thrown away; the other direction goes on.
func testCloseRead(t *testing.T, c Case) {
	c.both(t, func(t *testing.T, from, to *end) {
		a, b := from.open(t, to)
		waiting := reads(a)
		blocked(t, "a read", waiting)
		check(t, a.CloseRead())
		if r := await(t, "a read that CloseRead ends", waiting); r.err == nil || r.n != 0 {
			t.Errorf("a read that CloseRead ended: %d, %v", r.n, r.err)
		}
		if r := await(t, "a read after CloseRead", reads(a)); r.err == nil || r.err == io.EOF {
			t.Errorf("a read after CloseRead: %v", r.err)
		}
		// More than any window: it is thrown away, or refused, but nobody waits.
		sent := async(func() error { return send(b, 1, 8<<20) })
		var coded interface{ ErrorCode() uint32 }
		if err := await(t, "writing to who has closed its reading side", sent); err != nil && !errors.As(err, &coded) {
			t.Errorf("writing to who has closed its reading side: %v", err)
		}
		write(t, a, "still")
		read(t, b, "still")
		check(t, a.Close())
		readEnd(t, b)
		b.Close() // what it wrote may have been refused
	})
}

// Close loses nothing that was written before.
func testCloseArrives(t *testing.T, c Case) {
	c.both(t, func(t *testing.T, from, to *end) {
		for _, size := range []int{1, 1000, 100_000, 2 << 20} {
			a, b := from.open(t, to)
			write(t, b, "nobody reads this")
			sent := async(func() error {
				err := send(a, 2, size)
				if err == nil {
					err = a.Close()
				}
				return err
			})
			received := async(func() error { return receive(b, 2, size) })
			if err := await(t, "sending", sent); err != nil {
				t.Errorf("sending %d bytes and closing: %v", size, err)
			}
			if err := await(t, "receiving", received); err != nil {
				t.Errorf("receiving %d bytes from who has closed: %v", size, err)
			}
			if r := await(t, "a read after Close", reads(a)); r.err == nil {
				t.Error("read after Close")
			}
			if r := await(t, "a write after Close", writes(a, []byte("x"))); r.err == nil {
				t.Error("wrote after Close")
			}
			check(t, a.Close()) // once more is nothing
			check(t, b.Close())
		}
		// The same, to a reader who begins only then.
		a, b := from.open(t, to)
		write(t, a, "the last words")
		check(t, a.Close())
		read(t, b, "the last words")
		readEnd(t, b)
		check(t, b.Close())
	})
}

// Close of a stream ends what it is used for.
func testCloseWhileWriting(t *testing.T, c Case) {
	c.both(t, func(t *testing.T, from, to *end) {
		a, b := from.open(t, to)
		fill(t, a, 3)
		writing, reading := floods(a, 3, 0), reads(a)
		blocked(t, "a write", writing)
		blocked(t, "a read", reading)
		closed := async(a.Close)
		if r := await(t, "a write that Close ends", writing); r.err == nil {
			t.Errorf("a write that Close ended: %d, %v", r.n, r.err)
		}
		if r := await(t, "a read that Close ends", reading); r.err == nil {
			t.Errorf("a read that Close ended: %d, %v", r.n, r.err)
		}
		await(t, "Close", closed)
		b.Reset(0)
	})
}

// Who writes to a stream that the other side has closed is told in the end, and
// does not wait for ever.
func testWriteToClosed(t *testing.T, c Case) {
	c.both(t, func(t *testing.T, from, to *end) {
		for _, filled := range []bool{false, true} {
			a, b := from.open(t, to)
			if filled {
				fill(t, b, 3)
			}
			check(t, a.Close())
			r := await(t, "writing to a stream that is closed", floods(b, 3, 0))
			if r.err == nil || errors.Is(r.err, os.ErrDeadlineExceeded) || r.n > fillMax/4 {
				t.Errorf("writing to a stream that is closed: %v after %d bytes", r.err, r.n)
			}
			b.Close()
		}
	})
}

// A reset reaches both sides, with its code.
func testReset(t *testing.T, c Case) {
	c.both(t, func(t *testing.T, from, to *end) {
		for _, first := range []string{"the opener", "the other"} {
			for _, code := range []uint32{0, 1, streamCode} {
				a, b := from.open(t, to)
				if first == "the other" {
					a, b = b, a
				}
				write(t, a, "may be lost")
				check(t, await(t, "Reset", async(func() error { return a.Reset(code) })))
				r := await(t, "a read after Reset", reads(a))
				c.wantReset(t, "our own read", r.err, code, false)
				r = await(t, "a write after Reset", writes(a, []byte("x")))
				c.wantReset(t, "our own write", r.err, code, false)

				rest := await(t, "the remote's reads", async(func() result {
					n, err := io.Copy(io.Discard, plain{rw{b}})
					return result{int(n), err}
				}))
				if rest.err == nil {
					rest.err = io.EOF
				}
				c.wantReset(t, "the remote's read", rest.err, code, true)
				c.wantReset(t, "the remote's next read", await(t, "a read", reads(b)).err, code, true)
				c.wantReset(t, "the remote's write", await(t, "a write", writes(b, []byte("x"))).err, code, true)
				// Once more is nothing.
				a.Reset(code + 1)
				b.Reset(code + 1)
				a.Close()
				b.Close()
			}
		}
	})
}

// rw is a stream without anything that io.Copy could use.
type rw struct{ io.ReadWriter }

// A reset ends reads and writes that wait, on both sides.
func testResetWhileBlocked(t *testing.T, c Case) {
	c.both(t, func(t *testing.T, from, to *end) {
		for _, first := range []string{"the opener", "the other"} {
			a, b := from.open(t, to)
			if first == "the other" {
				a, b = b, a
			}
			fillBoth(t, a, b)
			// Reading would let the other write: reads wait on a stream of their own.
			aWrites, bWrites := floods(a, 1, 0), floods(b, 2, 0)
			blocked(t, "our own write", aWrites)
			blocked(t, "the remote's write", bWrites)
			check(t, await(t, "Reset", async(func() error { return a.Reset(streamCode) })))
			c.wantReset(t, "our own write", await(t, "our own write to end", aWrites).err, streamCode, false)
			c.wantReset(t, "the remote's write", await(t, "the remote's write to end", bWrites).err, streamCode, true)
			b.Reset(0)

			a, b = from.open(t, to)
			if first == "the other" {
				a, b = b, a
			}
			aReads, bReads := reads(a), reads(b)
			blocked(t, "our own read", aReads)
			blocked(t, "the remote's read", bReads)
			check(t, await(t, "Reset", async(func() error { return a.Reset(streamCode) })))
			c.wantReset(t, "our own read", await(t, "our own read to end", aReads).err, streamCode, false)
			c.wantReset(t, "the remote's read", await(t, "the remote's read to end", bReads).err, streamCode, true)
			b.Reset(0)
		}
	})
}

// Who does not read makes its writer wait, and nobody else.
func testSlowReader(t *testing.T, c Case) {
	near, far := c.connect(t)
	a, b := near.open(t, far)
	d, e := far.open(t, near)
	went, back := fillBoth(t, a, d)
	near.echo()
	far.echo()
	for i := range 100 {
		check(t, near.roundTrip(t.Context(), fmt.Sprint("beside the slow one ", i)))
		check(t, far.roundTrip(t.Context(), fmt.Sprint("beside the slow one ", i)))
	}
	// All that was taken arrives when it is read at last.
	for _, s := range []struct {
		from, to host.MuxedStream
		seed     byte
		n        int
	}{{a, b, 1, went}, {d, e, 2, back}} {
		received := async(func() error { return receive(s.to, s.seed, s.n) })
		check(t, await(t, "CloseWrite", async(s.from.CloseWrite)))
		if err := await(t, "what a slow reader reads", received); err != nil {
			t.Errorf("what a slow reader reads: %v", err)
		}
		s.from.Close()
		s.to.Close()
	}
}

// Several who do not read hold up nobody else either.
func testSlowReaders(t *testing.T, c Case) {
	near, far := c.connect(t)
	var full []<-chan result
	for i := range c.Unread {
		a, _ := near.open(t, far)
		if i%2 == 1 {
			a, _ = far.open(t, near)
		}
		full = append(full, filling(a, 1))
	}
	for _, f := range full {
		if r := await(t, "streams that nobody reads are full", f); r.err != nil {
			t.Fatalf("writing to who does not read, after %d bytes: %v", r.n, r.err)
		}
	}
	near.echo()
	far.echo()
	for i := range 10 {
		check(t, near.roundTrip(t.Context(), fmt.Sprint("beside the slow ones ", i)))
		check(t, far.roundTrip(t.Context(), fmt.Sprint("beside the slow ones ", i)))
	}
}

// What is thrown away unread comes back as credit: otherwise a connection would
// stand still in the end.
func testCreditReturns(t *testing.T, c Case) {
	const size, most = 512 << 10, 72
	near, far := c.connect(t)
	for i := range most {
		a, b := near.open(t, far)
		if i%2 == 1 {
			a, b = b, a
		}
		sent := async(func() error { return send(b, 1, size) })
		read, err := io.CopyN(io.Discard, plain{rw{a}}, 20_000)
		if err != nil {
			t.Fatalf("on stream %d, after %d bytes: %v", i, read, err)
		}
		switch i / 2 % 3 {
		case 0:
			a.Close()
		case 1:
			a.Reset(streamCode)
		case 2:
			a.CloseRead()
		}
		await(t, "the end of a write that nobody reads", sent)
		b.Reset(0)
		a.Reset(0)
	}
	until(t, "streams that have ended are not counted", func() bool { return near.Mux.NumStreams() == 0 && far.Mux.NumStreams() == 0 })
	a, b := near.open(t, far)
	sent := async(func() error {
		if err := send(a, 1, 16*size); err != nil {
			return err
		}
		return a.Close()
	})
	if err := await(t, "receiving", async(func() error { return receive(b, 1, 16*size) })); err != nil {
		t.Error(err)
	}
	check(t, await(t, "sending", sent))
	b.Close()
}

// Everything that can be done is done at the same time, in any order; nothing is
// expected but that it ends.
func testAllAtOnce(t *testing.T, c Case) {
	near, far := c.connect(t)
	near.echo()
	far.echo()
	var all sync.WaitGroup
	for i := range 32 {
		e, r := near, rand.New(rand.NewPCG(uint64(i), 1))
		if i%2 == 0 {
			e = far
		}
		all.Go(func() {
			for range 10 {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				s, err := e.Mux.OpenStream(ctx)
				cancel()
				if err != nil {
					t.Errorf("opening: %v", err)
					return
				}
				s.SetDeadline(time.Now().Add(patience))
				var users sync.WaitGroup
				users.Go(func() { io.Copy(io.Discard, plain{rw{s}}) })
				size := r.IntN(200_000)
				users.Go(func() { send(s, 1, size) })
				users.Go(func() { send(s, 2, 50_000) })
				users.Go(func() { s.SetReadDeadline(time.Now().Add(quiet)) })
				ways := []func(){
					func() { s.Close() }, func() { s.CloseWrite() }, func() { s.Reset(streamCode) }, func() { s.CloseRead() },
					func() { s.SetDeadline(time.Unix(1, 0)) },
				}
				for range 2 {
					way := ways[r.IntN(len(ways))]
					users.Go(way)
				}
				users.Wait()
				s.Reset(0)
			}
		})
	}
	finished := make(chan struct{})
	go func() {
		all.Wait()
		close(finished)
	}()
	timer := time.NewTimer(2 * patience)
	defer timer.Stop()
	select {
	case <-finished:
	case <-timer.C:
		t.Fatalf("not within %v: all streams end\n%s", 2*patience, stacks())
	}
	until(t, "streams that have ended are not counted", func() bool { return near.Mux.NumStreams() == 0 && far.Mux.NumStreams() == 0 })
	check(t, near.roundTrip(t.Context(), "afterwards"))
	check(t, far.roundTrip(t.Context(), "afterwards"))
}
