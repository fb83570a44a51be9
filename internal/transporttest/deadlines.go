package transporttest

import (
	"io"
	"testing"
	"time"
)

var past = time.Unix(1, 0)

// A deadline in the past ends what waits and what comes; the stream lives on.
func testDeadlinePast(t *testing.T, c Case) {
	c.both(t, func(t *testing.T, from, to *end) {
		a, b := from.open(t, to)
		waiting := reads(a)
		blocked(t, "a read", waiting)
		check(t, a.SetReadDeadline(past))
		wantTimeout(t, "a read that waited", await(t, "a read after its deadline", waiting).err)
		wantTimeout(t, "a read", await(t, "a read after its deadline", reads(a)).err)
		write(t, a, "reads only") // the other direction has no deadline
		read(t, b, "reads only")
		write(t, b, "kept")
		check(t, a.SetReadDeadline(time.Time{}))
		read(t, a, "kept")

		check(t, a.SetWriteDeadline(past))
		if r := await(t, "a write after its deadline", writes(a, []byte("not sent"))); r.n != 0 {
			t.Errorf("a write after its deadline wrote %d bytes", r.n)
		} else {
			wantTimeout(t, "a write", r.err)
		}
		write(t, b, "writes only")
		read(t, a, "writes only")
		check(t, a.SetWriteDeadline(time.Time{}))
		write(t, a, "sent")
		read(t, b, "sent")

		check(t, a.SetDeadline(past))
		wantTimeout(t, "a read", await(t, "a read after its deadline", reads(a)).err)
		wantTimeout(t, "a write", await(t, "a write after its deadline", writes(a, []byte("x"))).err)
		check(t, a.SetDeadline(time.Time{}))
		write(t, a, "all well")
		read(t, b, "all well")
		check(t, a.Close())
		readEnd(t, b)
		check(t, b.Close())
	})
}

// A read that waits follows its deadline.
func testDeadlineMoved(t *testing.T, c Case) {
	c.bothAtOnce(t, func(t *testing.T, from, to *end) {
		a, b := from.open(t, to)
		check(t, a.SetReadDeadline(time.Now().Add(quiet/5)))
		start := time.Now()
		wantTimeout(t, "a read", await(t, "a deadline to pass", reads(a)).err)
		if waited := time.Since(start); waited < quiet/10 {
			t.Errorf("a read ended %v before its deadline", quiet/5-waited)
		}

		check(t, a.SetReadDeadline(time.Now().Add(time.Hour)))
		waiting := reads(a)
		blocked(t, "a read", waiting)
		check(t, a.SetReadDeadline(time.Now().Add(quiet/5))) // sooner
		wantTimeout(t, "a read", await(t, "a deadline that was moved to now", waiting).err)

		waiting = nil
		for _, away := range []time.Time{time.Now().Add(time.Hour), {}} { // later, and never
			for soon := quiet; ; soon *= 2 {
				at := time.Now().Add(soon)
				check(t, a.SetReadDeadline(at))
				if waiting == nil {
					waiting = reads(a)
				}
				check(t, a.SetReadDeadline(away))
				late := time.Now().After(at) // on a busy machine
				select {
				case r := <-waiting:
					waiting = nil
					if late {
						continue
					}
					t.Errorf("a read ended with a deadline that was moved from %v to %v: %v", at, away, r.err)
				case <-time.After(soon * 3 / 2):
				}
				break
			}
		}
		if waiting == nil {
			waiting = reads(a)
		}
		write(t, b, "at last")
		if r := await(t, "a read without a deadline", waiting); r.err != nil || r.n == 0 {
			t.Errorf("a read without a deadline: %d, %v", r.n, r.err)
		}
		check(t, a.Close())
		check(t, b.Close())
	})
}

// A write that waits follows its deadline, and tells how much went.
func testDeadlineOfWrites(t *testing.T, c Case) {
	c.both(t, func(t *testing.T, from, to *end) {
		a, b := from.open(t, to)
		at := fill(t, a, 8)

		waiting := floods(a, 8, at)
		blocked(t, "a write", waiting)
		check(t, a.SetWriteDeadline(past))
		r := await(t, "a write after its deadline", waiting)
		wantTimeout(t, "a write that waited", r.err)

		check(t, a.SetWriteDeadline(time.Now().Add(time.Hour)))
		waiting = floods(a, 8, r.n)
		blocked(t, "a write", waiting)
		check(t, a.SetWriteDeadline(time.Now().Add(quiet/5)))
		r = await(t, "a write after its deadline", waiting)
		wantTimeout(t, "a write whose deadline was moved", r.err)

		check(t, a.SetWriteDeadline(time.Time{}))
		rest := content(8)
		io.CopyN(io.Discard, rest, int64(r.n))
		piece := make([]byte, 64<<10)
		rest.Read(piece)
		waiting = writes(a, piece)
		received := async(func() error { return receive(b, 8, r.n+len(piece)) })
		if w := await(t, "a write that is read", waiting); w.err != nil || w.n != len(piece) {
			t.Errorf("a write that is read at last: %d of %d bytes, %v", w.n, len(piece), w.err)
		}
		check(t, a.CloseWrite())
		if err := await(t, "what was written between deadlines", received); err != nil {
			t.Errorf("what was written between deadlines: %v", err)
		}
		check(t, a.Close())
		check(t, b.Close())
	})
}
