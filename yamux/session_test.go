package yamux

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// TestEcho is the plain use of both sides.
func TestEcho(t *testing.T) {
	p := newPair(t, plenty, 0, Config{})
	for _, from := range []*Session{p.client, p.server} {
		to := p.accepted
		if from == p.server {
			to = p.acceptedBack
		}
		near := mustOpen(t, from)
		mustWrite(t, near, "hello")
		if err := near.CloseWrite(); err != nil {
			t.Error(err)
		}
		far := <-to
		if near.ID() != far.ID() || near.ID()%2 == 1 != (from == p.client) {
			t.Errorf("ids %d and %d", near.ID(), far.ID())
		}
		got, err := io.ReadAll(far)
		if string(got) != "hello" || err != nil {
			t.Errorf("read %q, %v", got, err)
		}
		mustWrite(t, far, "bye")
		far.Close()
		if got, err := io.ReadAll(near); string(got) != "bye" || err != nil {
			t.Errorf("read %q, %v", got, err)
		}
		if err := near.Close(); err != nil {
			t.Error(err)
		}
		if n := p.client.NumStreams() + p.server.NumStreams(); n != 0 {
			t.Errorf("%d streams are left", n)
		}
	}
}

// TestPlainConn runs over TCP with Records, records of all sizes.
func TestPlainConn(t *testing.T) {
	client, _ := tcpPair(t, func(st *Stream) {
		go func() {
			io.Copy(st, st)
			st.Close()
		}()
	})
	want := make([]byte, 1<<20)
	for i := range want {
		want[i] = byte(i * i >> 7)
	}
	for _, n := range []int{1, 511, 512, 513, 4096, 65507, 65508, 1 << 20} {
		st := mustOpen(t, client)
		go func() {
			st.Write(want[:n])
			st.CloseWrite()
		}()
		got, err := io.ReadAll(st)
		if !bytes.Equal(got, want[:n]) || err != nil {
			t.Errorf("%d bytes: got %d, %v", n, len(got), err)
		}
		st.Close()
	}
}

// TestLazyOpen looks at what is on the wire for each way to begin a stream.
func TestLazyOpen(t *testing.T) {
	p := newRawPeer(t, true, Config{})
	unused := mustOpen(t, p.session)
	reading, writing, ending := mustOpen(t, p.session), mustOpen(t, p.session), mustOpen(t, p.session)
	if id := unused.ID(); id != 0 {
		t.Errorf("an unused stream has id %d", id)
	}
	p.expectQuiet()
	go reading.Read(make([]byte, 1))
	p.expect(credit(flagSYN, 1, 0))
	mustWrite(t, writing, "x")
	p.expect(data(flagSYN, 3, "x"))
	mustWrite(t, writing, "y")
	p.expect(data(0, 3, "y"))
	ending.CloseWrite()
	p.expect(credit(flagSYN|flagFIN, 5, 0))
	for _, end := range []func() error{unused.Close, func() error { return unused.Reset(1) }, mustOpen(t, p.session).Close} {
		if err := end(); err != nil {
			t.Error(err)
		}
	}
	mustOpen(t, p.session).Reset(1)
	p.expectQuiet()
	if n := len(p.session.opens); n != 3 {
		t.Errorf("%d streams count as unacknowledged, want 3", n)
	}
}

// TestACK looks at when streams of the peer are acknowledged.
func TestACK(t *testing.T) {
	p := newRawPeer(t, false, Config{})
	p.send(credit(flagSYN, 1, 0))
	st := <-p.accepted
	p.expectQuiet()
	mustWrite(t, st, "x")
	p.expect(data(flagACK, 1, "x"))
	mustWrite(t, st, "y")
	p.expect(data(0, 1, "y"))

	// Those that have said nothing, once there were 32 more or less, in one write.
	p.send(repeat(ackBatch-2, func(i int) []byte { return credit(flagSYN, uint32(2*i+3), 0) }))
	p.expectQuiet()
	writes := p.session.conn.(*link).writes.Load()
	p.send(credit(flagSYN, 2*ackBatch-1, 0))
	for i := range ackBatch - 1 {
		p.expect(credit(flagACK, uint32(2*i+3), 0))
	}
	if n := p.session.conn.(*link).writes.Load() - writes; n != 1 {
		t.Errorf("%d writes for the acknowledgements", n)
	}
	p.expectQuiet()

	// While most say something themselves, the others can wait.
	for range ackBatch - 1 {
		<-p.accepted
	}
	for i := range 3 * ackBatch {
		id := uint32(2*(ackBatch+i) + 1)
		p.send(credit(flagSYN, id, 0))
		st := <-p.accepted
		if i%8 > 0 {
			mustWrite(t, st, "z")
			p.expect(data(flagACK, id, "z"))
		}
	}
	p.expectQuiet()
}

// TestUnacknowledged opens as many streams as may be unacknowledged.
func TestUnacknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newRawPeer(t, true, Config{KeepAlive: -1})
		for range maxUnacked {
			st := mustOpen(t, p.session)
			go st.Write([]byte("x"))
		}
		opened := make(chan *Stream)
		for range 2 {
			go func() {
				st, err := p.session.Open(t.Context())
				if err != nil {
					t.Error(err)
				}
				opened <- st
			}()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := p.session.Open(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Open = %v", err)
		}
		for i := range maxUnacked {
			h, _, _ := p.next()
			if h.flags != flagSYN || h.id != uint32(2*i+1) {
				t.Fatalf("frame %d is %+v: ids must ascend", i, h)
			}
		}
		p.send(credit(flagACK, 1, 0), credit(flagACK, 1, 0)) // twice is once
		<-opened
		synctest.Wait()
		select {
		case <-opened:
			t.Fatal("opened a stream too many")
		default:
		}
		p.send(credit(flagRST, 3, 0)) // a refusal counts, too
		<-opened
	})
}

// TestUnacknowledgedClosed makes sure that streams closed at once count until
// the peer has acknowledged them: it may not have seen them yet.
func TestUnacknowledgedClosed(t *testing.T) {
	p := newRawPeer(t, true, Config{})
	for _, answer := range [][]byte{credit(flagACK, 1, 0), credit(flagFIN, 3, 0), credit(flagRST, 5, 0), data(flagACK, 7, "x")} {
		st := mustOpen(t, p.session)
		mustWrite(t, st, "x")
		st.Close()
		p.expect(data(flagSYN, st.ID(), "x"))
		p.expect(credit(flagFIN, st.ID(), 0))
		if n := len(p.session.opens); n != 1 {
			t.Errorf("%d streams count as unacknowledged, want 1", n)
		}
		p.send(answer)
		p.expectQuiet()
		if n := len(p.session.opens); n != 0 {
			t.Errorf("after %x: %d streams count as unacknowledged", answer, n)
		}
	}
}

func TestIDsUsedUp(t *testing.T) {
	p := newPair(t, plenty, 0, Config{})
	p.client.nextID = 1<<32 - 1 - 2*maxUnacked - 2
	if _, err := p.client.Open(t.Context()); err != nil {
		t.Error(err)
	}
	p.client.nextID += 2
	if _, err := p.client.Open(t.Context()); err == nil {
		t.Error("Open goes on after the last id")
	}
}

func TestReset(t *testing.T) {
	p := newPair(t, plenty, 0, Config{})
	near, far := p.open(t)
	mustWrite(t, far, "lost")
	if err := near.Reset(0x1234); err != nil {
		t.Error(err)
	}
	expectReset(t, near, 0x1234, false)
	for {
		if _, err := far.Read(make([]byte, 1)); err != nil {
			break
		}
	}
	expectReset(t, far, 0x1234, true)
	if n := p.client.NumStreams() + p.server.NumStreams(); n != 0 {
		t.Errorf("%d streams are left", n)
	}
	var reset *StreamError
	if err := far.CloseWrite(); !errors.As(err, &reset) {
		t.Errorf("CloseWrite = %v", err)
	}
	if err := far.Reset(1); err != nil {
		t.Error(err)
	}

	// Nobody wants to read any more what came before the end.
	near, far = p.open(t)
	mustWrite(t, near, "lost")
	near.CloseWrite()
	p.client.Ping(t.Context())
	far.Reset(6)
	expectReset(t, far, 6, false)
	if held := p.server.held.Load(); held != 0 {
		t.Errorf("%d bytes are held", held)
	}

	// What is over is not reset.
	near, far = p.open(t)
	mustWrite(t, near, "kept")
	near.CloseWrite()
	far.Reset(5)
	expectEOFAfterWrite := func(st *Stream) {
		if _, err := st.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Write = %v", err)
		}
	}
	expectEOFAfterWrite(near)
	if _, err := near.Read(make([]byte, 1)); !errors.As(err, &reset) || reset.Code != 5 {
		t.Errorf("Read = %v", err)
	}
}

func TestCloseWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, plenty, 0, Config{})
		near, far := p.open(t)
		wrote := make(chan error)
		go func() {
			_, err := near.Write(make([]byte, initialWindow+1))
			wrote <- err
		}()
		synctest.Wait()
		for range 2 {
			if err := near.CloseWrite(); err != nil {
				t.Error(err)
			}
		}
		if err := <-wrote; !errors.Is(err, net.ErrClosed) {
			t.Errorf("the Write that waited: %v", err)
		}
		if _, err := near.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Write after CloseWrite: %v", err)
		}
		if n, err := near.Write(nil); n != 0 || err != nil {
			t.Errorf("Write of nothing = %d, %v", n, err)
		}
		got, err := io.ReadAll(far)
		if len(got) != initialWindow-len("hi") || err != nil {
			t.Errorf("read %d bytes, %v", len(got), err)
		}
		mustWrite(t, far, "still open")
		mustRead(t, near, "still open")
	})
}

// TestCloseWakes ends each direction while somebody waits for it.
func TestCloseWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, end := range map[string]func(*Stream) error{
			"Close":     (*Stream).Close,
			"CloseRead": func(st *Stream) error { st.CloseWrite(); return st.CloseRead() },
			"Reset":     func(st *Stream) error { return st.Reset(1) },
		} {
			p := newPair(t, plenty, 0, Config{})
			near, _ := p.open(t)
			waits := make(chan error)
			go func() { _, err := near.Read(make([]byte, 1)); waits <- err }()
			go func() { _, err := near.Write(make([]byte, 2*initialWindow)); waits <- err }()
			synctest.Wait()
			if err := end(near); err != nil {
				t.Error(err)
			}
			for range 2 {
				var reset *StreamError
				if err := <-waits; err == nil || errors.As(err, &reset) == errors.Is(err, net.ErrClosed) {
					t.Errorf("%s: woken with %v", name, err)
				}
			}
		}
	})
}

// TestSlowReader has one stream whose data nobody reads, beside a fast one.
func TestSlowReader(t *testing.T) {
	p := newPair(t, plenty, 0, Config{})
	slow, _ := p.open(t)
	go slow.Write(make([]byte, 2*initialWindow))
	near, far := p.open(t)
	go func() {
		near.Write(make([]byte, 32<<20))
		near.CloseWrite()
	}()
	if n, err := io.Copy(io.Discard, far); n != 32<<20 || err != nil {
		t.Errorf("read %d bytes, %v", n, err)
	}
}

// TestBudget has a peer that fills the windows of streams that nobody reads.
func TestBudget(t *testing.T) {
	const budget = 4 * initialWindow
	p := newRawPeer(t, false, Config{Budget: budget})
	for i := range 4 {
		p.send(data(flagSYN, uint32(2*i+1), string(zeros[:initialWindow])))
	}
	p.send(data(flagSYN, 9, "x"))
	p.expect(credit(flagRST, 9, codeResourceLimit))
	p.expectQuiet()
	if held := p.session.held.Load(); held != budget {
		t.Errorf("%d bytes are held", held)
	}
	// Room that is made can be used again.
	(<-p.accepted).Reset(0)
	p.expect(credit(flagRST, 1, 0))
	st := <-p.accepted
	if _, err := io.ReadFull(st, make([]byte, initialWindow-1)); err != nil {
		t.Error(err)
	}
	if held := p.session.held.Load(); held != budget-2*initialWindow+1 {
		t.Errorf("%d bytes are held", held)
	}
	for len(p.accepted) > 0 {
		(<-p.accepted).Close()
	}
	st.CloseRead()
	if held := p.session.held.Load(); held != 0 {
		t.Errorf("%d bytes are held", held)
	}
}

func TestCloseSession(t *testing.T) {
	t.Run("what was written arrives", func(t *testing.T) {
		p := newPair(t, plenty, 0, Config{})
		near, far := p.open(t)
		mustWrite(t, near, "last words")
		near.CloseWrite()
		p.client.CloseWithCode(CodeNormal)
		if got, err := io.ReadAll(far); string(got) != "last words" || err != nil {
			t.Errorf("read %q, %v", got, err)
		}
		<-p.server.Done()
		var end *SessionError
		if err := p.server.Err(); !errors.As(err, &end) || end.Code != CodeNormal || !end.Remote {
			t.Errorf("the peer's error: %v", err)
		}
		if err := p.client.Err(); !errors.As(err, &end) || end.Code != CodeNormal || end.IsRemote() {
			t.Errorf("own error: %v", err)
		}
		for range 2 {
			if err := <-p.ended; !errors.Is(err, net.ErrClosed) {
				t.Error(err)
			}
		}
	})
	t.Run("with a code", func(t *testing.T) {
		p := newPair(t, plenty, 0, Config{})
		_, far := p.open(t)
		p.client.CloseWithCode(0x1006)
		<-p.server.Done()
		var end *SessionError
		if _, err := far.Read(make([]byte, 1)); !errors.As(err, &end) || end.ErrorCode() != 0x1006 || !end.Remote {
			t.Errorf("Read = %v", err)
		}
	})
	t.Run("twice, and never served", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			near, _ := newLink(0, 0)
			s := New(near, true, Config{})
			st := mustOpen(t, s)
			start := time.Now()
			for range 2 {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
			if took := time.Since(start); took > time.Second {
				t.Errorf("took %v", took)
			}
			if _, err := st.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Write = %v", err)
			}
			if _, err := s.Ping(t.Context()); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Ping = %v", err)
			}
		})
	})
	t.Run("in accept", func(t *testing.T) {
		cc, sc := newLink(plenty, 0)
		client, server := New(cc, true, Config{}), New(sc, false, Config{})
		go client.Serve(nil)
		st := mustOpen(t, client)
		mustWrite(t, st, "x")
		if err := server.Serve(func(*Stream) { server.CloseWithCode(7) }); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		<-client.Done()
		client.Close()
	})
}
