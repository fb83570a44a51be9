package yamux

import (
	"io"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"
)

// heap returns the live heap in bytes.
func heap() int64 {
	runtime.GC()
	runtime.GC() // pools are emptied by the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// silent is a connection on which nothing comes in.
type silent chan struct{}

func (c silent) ReadRecord(func(int) []byte) ([]byte, error) {
	<-c
	return nil, io.EOF
}
func (c silent) Ready() bool                      { return false }
func (c silent) Write(p []byte) (int, error)      { return len(p), nil }
func (c silent) Close() error                     { close(c); return nil }
func (c silent) SetReadDeadline(time.Time) error  { return nil }
func (c silent) SetWriteDeadline(time.Time) error { return nil }

// ackAll is a peer that acknowledges each stream and has no state.
func ackAll(l *link) {
	p := rawPeer{link: l}
	for {
		h, _, err := p.next()
		if err != nil {
			return
		}
		switch {
		case h.typ == typePing:
			p.send(frame(typePing, flagACK, 0, h.length))
		case h.flags&flagSYN != 0:
			p.send(credit(flagACK, h.id, 0))
		}
	}
}

// TestMemory counts what idle sessions and streams hold, all that belongs to
// them: in maps, channels, timers.
func TestMemory(t *testing.T) {
	if race {
		return // counts its own
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1))

	t.Run("stream of the opener", func(t *testing.T) {
		const n = 10_000
		p := newRawPeer(t, true, Config{})
		go ackAll(p.link)
		streams := make([]*Stream, n)
		goroutines := runtime.NumGoroutine()
		before := heap()
		for i := range streams {
			streams[i] = mustOpen(t, p.session)
			streams[i].Write([]byte("x"))
		}
		p.session.Ping(t.Context()) // nothing is on its way any more
		per := (heap() - before) / n
		t.Logf("%d bytes", per)
		if per > 500 {
			t.Errorf("%d bytes, want at most 500", per)
		}
		if more := runtime.NumGoroutine() - goroutines; more > 0 {
			t.Errorf("%d goroutines more", more)
		}
		runtime.KeepAlive(streams)
	})
	t.Run("stream of the acceptor, used", func(t *testing.T) {
		const n = 10_000
		p := newRawPeer(t, false, Config{MaxIncomingStreams: n})
		go io.Copy(io.Discard, p.link)
		streams := make([]*Stream, n)
		before := heap()
		for i := range streams {
			p.send(data(flagSYN, uint32(2*i+1), "hello"))
			streams[i] = <-p.accepted
			mustRead(t, streams[i], "hello")
			mustWrite(t, streams[i], "hello")
		}
		per := (heap() - before) / n
		t.Logf("%d bytes", per)
		if per > 500 {
			t.Errorf("%d bytes, want at most 500", per)
		}
		runtime.KeepAlive(streams)
	})
	t.Run("stream with a byte unread", func(t *testing.T) {
		const n = 1000
		p := newRawPeer(t, false, Config{MaxIncomingStreams: n})
		go io.Copy(io.Discard, p.link)
		streams := make([]*Stream, n)
		before := heap()
		for i := range streams {
			p.send(data(flagSYN, uint32(2*i+1), "x"))
			streams[i] = <-p.accepted
		}
		per := (heap() - before) / n
		t.Logf("%d bytes", per)
		if per > 700 {
			t.Errorf("%d bytes, want at most 700", per)
		}
		runtime.KeepAlive(streams)
	})
	t.Run("session", func(t *testing.T) {
		const n = 1000
		conns, sessions := make([]silent, n), make([]*Session, n)
		for i := range n {
			conns[i] = make(silent)
		}
		started := make(chan struct{})
		goroutines := runtime.NumGoroutine()
		before := heap()
		for i := range sessions {
			sessions[i] = New(conns[i], true, Config{})
			go func() {
				started <- struct{}{}
				sessions[i].Serve(nil)
			}()
			<-started
		}
		per := (heap() - before) / n
		t.Logf("%d bytes", per)
		if per > 2000 {
			t.Errorf("%d bytes, want at most 2000", per)
		}
		if more := runtime.NumGoroutine() - goroutines; more > n {
			t.Errorf("%d goroutines for %d sessions", more, n)
		}
		for i := range sessions {
			sessions[i].Close()
		}
	})
}

// TestQueueMemory bounds what queued payload takes, in pieces of any size.
func TestQueueMemory(t *testing.T) {
	for _, piece := range []int{1, 2, 3, 7, 63, 64, 65, 100, 129, 200, 1000, 1400, 5000, 16384, 20000, 33000, 40000, 65507} {
		var q queue
		p := make([]byte, piece)
		for q.size < 1<<14+2*piece {
			q.write(p)
			memory := 0
			for b := q.head; b != nil; b = b.next {
				memory += cap(b.data) + 48
			}
			if memory > q.size*3/2+400 {
				t.Errorf("pieces of %d bytes: %d bytes take %d", piece, q.size, memory)
				break
			}
		}
		q.clear()
	}
}

// TestAllocations counts what using a stream allocates at both ends: the two
// streams, and now and then a larger map.
// A large record becomes a part of the queue without a copy, when it is mostly
// one stream's: what it pins is within the bound of the queue.
func TestQueueTakesRecord(t *testing.T) {
	p := newRawPeer(t, false, Config{})
	go io.Copy(io.Discard, p.link)
	big, odd := strings.Repeat("b", 50_000), strings.Repeat("o", 30_000)
	p.send(data(flagSYN, 1, ""))
	st := <-p.accepted
	small := func() string { return string(data(0, 1, "small")) }
	for _, c := range []struct {
		frames, want string
		off          int // of the last buffer; 0: a copy
	}{
		{string(data(0, 1, big)), big, headerLen},
		{small() + string(data(0, 1, big)), "small" + big, 2*headerLen + len("small")},
		{string(data(0, 1, big)) + small(), big + "small", 0},
		{string(data(0, 1, odd)) + string(data(0, 1, odd)), odd + odd, 0},
		{string(data(0, 1, odd[:20_000])), odd[:20_000], 0}, // a third of 32 KiB were wasted
	} {
		p.send([]byte(c.frames))
		p.send(frame(typePing, flagSYN, 0, 7)) // another record: the one before is over
		got := make([]byte, len(c.want))
		for {
			st.mu.Lock()
			size, off, kept := st.received.size, 0, 0
			for b := st.received.head; b != nil; b = b.next {
				off, kept = b.off, kept+cap(b.data)
			}
			st.mu.Unlock()
			if size < len(c.want) {
				runtime.Gosched()
				continue
			}
			if off != c.off || 2*kept > 3*size+2*(4<<10) {
				t.Errorf("%d bytes: offset %d in the last buffer, %d bytes kept; want offset %d", size, off, kept, c.off)
			}
			break
		}
		if _, err := io.ReadFull(st, got); err != nil || string(got) != c.want {
			t.Errorf("%d bytes came with %v, and differ", len(got), err)
		}
	}
}

func TestAllocations(t *testing.T) {
	if race {
		return
	}
	accepted := make(chan *Stream, 1)
	client, _ := tcpPair(t, func(st *Stream) { accepted <- st })
	go func() {
		buf := make([]byte, 10)
		for st := range accepted {
			n, _ := st.Read(buf)
			st.Write(buf[:n])
			if _, err := st.Read(buf); err != io.EOF {
				t.Error(err)
			}
			st.Close()
		}
	}()
	buf := make([]byte, 10)
	one := func() {
		st := mustOpen(t, client)
		st.Write(buf[:5])
		if n, err := io.ReadFull(st, buf[:5]); n != 5 || err != nil {
			t.Error(n, err)
		}
		st.CloseWrite()
		if _, err := st.Read(buf); err != io.EOF {
			t.Error(err)
		}
		st.Close()
	}
	if n := testing.AllocsPerRun(2000, one); n > 2 {
		t.Errorf("%v allocations", n)
	}
	close(accepted)
}
