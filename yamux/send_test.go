package yamux

import (
	"bytes"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// TestBigWrite looks at how a large Write is cut, and how often it is written.
func TestBigWrite(t *testing.T) {
	p := newRawPeer(t, true, Config{})
	p.send(credit(flagSYN, 2, 1<<30))
	st := <-p.accepted
	mustWrite(t, st, "x")
	p.expect(data(flagACK, 2, "x"))
	want := make([]byte, 10*maxBurst)
	pattern(want, 0, 1)
	before := p.link.in // keep the link from filling up
	before.set(func() { before.max = 2 * len(want) })
	writes := p.session.conn.(*link).writes.Load()
	if n, err := st.Write(want); n != len(want) || err != nil {
		t.Fatalf("Write = %d, %v", n, err)
	}
	if n := p.session.conn.(*link).writes.Load() - writes; n > 13 { // the first two are smaller
		t.Errorf("%d writes for %d bytes", n, len(want))
	}
	for at := 0; at < len(want); {
		h, payload, err := p.next()
		if err != nil || h.flags != 0 || len(payload) != maxPayload {
			t.Fatalf("frame %+v, %v", h, err)
		}
		if !bytes.Equal(payload, want[at:at+len(payload)]) {
			t.Fatalf("wrong payload at %d", at)
		}
		at += len(payload)
	}

	// Only the first of several frames opens a stream.
	st = mustOpen(t, p.session)
	st.Write(want[:maxBurst])
	for i := range 4 {
		if h, _, err := p.next(); err != nil || h.flags == flagSYN != (i == 0) {
			t.Errorf("frame %d is %+v, %v", i, h, err)
		}
	}
}

// TestBackPressure has a connection that takes nothing: writers must wait, and
// not fill the memory, and all go on when it does.
func TestBackPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newRawPeer(t, true, Config{})
		p.link.in.max = 0
		done := make(chan error)
		const writers = 50
		for i := range writers {
			st := mustOpen(t, p.session)
			go func() {
				_, err := st.Write(make([]byte, 5000*i+1))
				done <- err
			}()
		}
		synctest.Wait()
		p.session.mu.Lock()
		if n := p.session.out.booked; n > maxQueued+maxPayload+headerLen {
			t.Errorf("%d bytes are queued", n)
		}
		p.session.mu.Unlock()
		go io.Copy(io.Discard, p.link)
		p.link.in.set(func() { p.link.in.max = plenty })
		for range writers {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
}

// TestNotCaptured has a writer with little to say, and the writing role, among
// others who write without end.
func TestNotCaptured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, 10_000, 10*time.Millisecond, Config{})
		go func() {
			for st := range p.accepted {
				go io.Copy(io.Discard, st)
			}
		}()
		defer close(p.accepted)
		for range 10 {
			st := mustOpen(t, p.client)
			time.AfterFunc(time.Millisecond, func() {
				for {
					if _, err := st.Write(make([]byte, 1000)); err != nil {
						return
					}
				}
			})
		}
		st := mustOpen(t, p.client)
		start := time.Now()
		if _, err := st.Write(make([]byte, 15_000)); err != nil { // more than fits
			t.Error(err)
		}
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("Write took %v", took)
		}
		time.Sleep(10 * time.Second)
	})
}

// TestCloseDrops closes with a code while data is queued: that is not sent any
// more, since it could keep the peer from the code.
func TestCloseDrops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newRawPeer(t, true, Config{})
		p.link.in.max = 0
		for range 5 {
			st := mustOpen(t, p.session)
			go st.Write([]byte("x"))
			synctest.Wait()
		}
		time.AfterFunc(farewellTimeout/2, func() { p.link.in.set(func() { p.link.in.max = plenty }) })
		p.session.CloseWithCode(0x1006)
		p.expect(data(flagSYN, 1, "x")) // was begun
		p.expect(frame(typeGoAway, 0, 0, 0x1006))
	})
}

// TestCombine has many writers find the writing role taken. What they leave is
// written at once, answers first, and nobody waits for that.
func TestCombine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newRawPeer(t, true, Config{})
		p.link.in.max = headerLen + 3 // one write fits
		first := mustOpen(t, p.session)
		mustWrite(t, first, "one")
		go first.Write([]byte("two")) // waits in Conn.Write
		synctest.Wait()
		var more []*Stream
		for range 50 {
			st := mustOpen(t, p.session)
			mustWrite(t, st, "hello")
			st.CloseWrite()
			more = append(more, st)
		}
		more[0].Reset(9)
		p.send(frame(typePing, flagSYN, 0, 77))
		synctest.Wait()

		writes := p.session.conn.(*link).writes.Load()
		p.link.in.set(func() { p.link.in.max = plenty })
		p.expect(data(flagSYN, 1, "one"))
		p.expect(data(0, 1, "two"))
		p.expect(frame(typePing, flagACK, 0, 77))
		for _, st := range more {
			p.expect(data(flagSYN, st.ID(), "hello"))
			p.expect(credit(flagFIN, st.ID(), 0))
		}
		p.expect(credit(flagRST, more[0].ID(), 9))
		if n := p.session.conn.(*link).writes.Load() - writes; n != 1 {
			t.Errorf("%d writes", n)
		}
	})
}

// TestNeverWaits has a connection that takes nothing. Reading, resetting and
// opening must go on as if it did.
func TestNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newRawPeer(t, false, Config{})
		p.link.in.max = 0
		start := time.Now()
		p.send(data(flagSYN, 1, string(zeros[:initialWindow])), data(flagSYN, 3, "x"))
		st := <-p.accepted
		if _, err := io.ReadFull(st, make([]byte, initialWindow)); err != nil { // causes credit to be sent
			t.Error(err)
		}
		(<-p.accepted).Reset(1)
		own := mustOpen(t, p.session)
		own.SetDeadline(time.Now().Add(time.Millisecond))
		own.Read(make([]byte, 1))
		mustOpen(t, p.session).Close()
		st.CloseRead()
		if took := time.Since(start); took > time.Millisecond {
			t.Errorf("took %v", took)
		}
	})
}

// TestIDWindow compares the memory of used ids with a set.
func TestIDWindow(t *testing.T) {
	for _, first := range []uint32{1, 2} {
		var w idWindow
		used := make(map[uint32]bool)
		id := func(index uint32) uint32 { return 2*index + first }
		newest := uint32(0)
		for i := range uint32(20_000) {
			// Steps ahead of all sizes, and back.
			index := newest + i*i*7919%11
			switch i % 7 {
			case 3:
				index -= min(index, i*31%usedIDs)
			case 5:
				index -= min(index, usedIDs+i%100)
			case 6:
				if i%1000 == 6 {
					index += 3 * usedIDs / 2
				}
			}
			want := !used[index] && (index+usedIDs > newest || newest == 0)
			if got := w.use(id(index)); got != want {
				t.Fatalf("step %d: use(%d) = %v, want %v", i, id(index), got, want)
			}
			used[index] = true
			newest = max(newest, index)
		}
	}
}

// asNetConn lets a link be a net.Conn.
type asNetConn struct{ *link }

func (asNetConn) LocalAddr() net.Addr         { return nil }
func (asNetConn) RemoteAddr() net.Addr        { return nil }
func (asNetConn) SetDeadline(time.Time) error { return nil }

// TestRecordsIdle makes sure that Records holds a large buffer only while data
// streams in.
func TestRecordsIdle(t *testing.T) {
	near, far := newLink(plenty, 0)
	r := Records(asNetConn{near}).(*records)
	far.Write(zeros[:100_000])
	for got := 0; got < 100_000; {
		b, err := r.ReadRecord(nil)
		if err != nil {
			t.Fatal(err)
		}
		got += len(b)
	}
	if r.large == nil {
		t.Error("bulk is read in small pieces")
	}
	far.Write([]byte("x"))
	r.ReadRecord(nil)
	far.Write([]byte("y"))
	if b, err := r.ReadRecord(nil); string(b) != "y" || err != nil || r.large != nil {
		t.Errorf("ReadRecord = %q, %v; large buffer %v", b, err, r.large)
	}
	far.Close()
	if b, err := r.ReadRecord(nil); err != io.EOF {
		t.Errorf("ReadRecord = %q, %v", b, err)
	}
}
