package yamux

import (
	"bytes"
	"errors"
	"io"
	"math"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

func repeat(n int, f func(i int) []byte) []byte {
	var b []byte
	for i := range n {
		b = append(b, f(i)...)
	}
	return b
}

// synRST opens a stream and resets it.
func synRST(i int) []byte {
	id := uint32(2*i + 1)
	return append(credit(flagSYN, id, 0), credit(flagRST, id, 0)...)
}

var zeros = make([]byte, 1<<20)

// TestViolations has one case for each thing that a peer must not do. Each ends
// the session at once, with GOAWAY(protocol error) and the reason.
func TestViolations(t *testing.T) {
	const full = initialWindow
	opened := func(rest ...[]byte) []byte { return append(credit(flagSYN, 1, 0), bytes.Join(rest, nil)...) }
	for _, c := range []struct {
		name   string
		client bool // the session under test
		cfg    Config
		frames []byte
		reason string
		opens  int // streams that accept gets to see
	}{
		{name: "version", frames: []byte{1, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0}, reason: "version 1"},
		{name: "type", frames: frame(4, flagSYN, 1, 0), reason: "unknown type 4"},
		{name: "unknown flag on data", frames: data(flagSYN|0x10, 1, ""), reason: "unknown flags 0x0011"},
		{name: "unknown flag on ping", frames: frame(typePing, flagSYN|0x8000, 0, 0), reason: "unknown flags 0x8001"},
		{name: "data on stream 0", frames: data(flagSYN, 0, ""), reason: "on stream 0"},
		{name: "credit on stream 0", frames: credit(0, 0, 1), reason: "on stream 0"},
		{name: "ping on a stream", frames: frame(typePing, flagSYN, 1, 0), reason: "on stream 1"},
		{name: "goaway on a stream", frames: frame(typeGoAway, 0, 7, 0), reason: "on stream 7"},
		{name: "ping without flag", frames: frame(typePing, 0, 0, 0), reason: "ping with flags 0x0000"},
		{name: "ping with both flags", frames: frame(typePing, flagSYN|flagACK, 0, 0), reason: "ping with flags 0x0003"},
		{name: "ping with FIN", frames: frame(typePing, flagSYN|flagFIN, 0, 0), reason: "ping with flags 0x0005"},
		{name: "SYN and ACK", frames: credit(flagSYN|flagACK, 1, 0), reason: "SYN and ACK"},

		{name: "server opens odd", client: true, frames: credit(flagSYN, 1, 0), reason: "id of ours"},
		{name: "client opens even", frames: credit(flagSYN, 2, 0), reason: "id of ours"},
		{name: "SYN on an open stream", frames: opened(credit(flagSYN, 1, 0)), reason: "second time", opens: 1},
		{name: "SYN with data on an open stream", frames: opened(data(flagSYN, 1, "x")), reason: "second time", opens: 1},
		{name: "SYN on a reset stream", frames: opened(credit(flagRST, 1, 0), credit(flagSYN, 1, 0)), reason: "second time", opens: 1},
		{name: "SYN on a refused stream", cfg: Config{MaxIncomingStreams: -1}, frames: opened(credit(flagSYN, 1, 0)), reason: "second time"},
		{name: "SYN and RST, then SYN", frames: append(credit(flagSYN|flagRST, 1, 0), credit(flagSYN, 1, 0)...), reason: "second time"},
		{name: "SYN on an id far behind", frames: append(credit(flagSYN, 2*usedIDs+3, 0), credit(flagSYN, 1, 0)...), reason: "second time", opens: 1},

		{name: "SYN with a byte too many", frames: frame(typeData, flagSYN, 1, full+1), reason: "over the initial window"},
		{name: "SYN with 16 MiB", frames: frame(typeData, flagSYN, 1, 1<<24), reason: "over the initial window"},
		{name: "SYN with 4 GiB", frames: frame(typeData, flagSYN, 1, math.MaxUint32), reason: "over the initial window"},
		{name: "SYN with FIN and a byte too many", frames: frame(typeData, flagSYN|flagFIN, 1, full+1), reason: "over the initial window"},
		{name: "SYN with RST and a byte too many", frames: frame(typeData, flagSYN|flagRST, 1, full+1), reason: "over the initial window"},
		{name: "SYN with too much credit", frames: credit(flagSYN, 1, math.MaxUint32), reason: "over 2^32-1"},
		{name: "SYN with one credit too much", frames: credit(flagSYN, 1, math.MaxUint32-full+1), reason: "over 2^32-1"},

		{name: "window exceeded", frames: opened(data(0, 1, string(zeros[:full])), data(0, 1, "x")), reason: "window has 0 left", opens: 1},
		{name: "window exceeded by one", frames: opened(data(0, 1, "x"), frame(typeData, 0, 1, full)), reason: "window has 262143 left", opens: 1},
		{name: "window exceeded at once", frames: opened(frame(typeData, 0, 1, math.MaxUint32)), reason: "window has 262144 left", opens: 1},
		{name: "window exceeded with FIN", frames: opened(frame(typeData, flagFIN, 1, full+1)), reason: "window has 262144 left", opens: 1},
		{name: "credit overflow", frames: opened(credit(0, 1, math.MaxUint32)), reason: "over 2^32-1", opens: 1},
		{name: "credit overflow in two steps", frames: opened(credit(0, 1, math.MaxUint32-full), credit(0, 1, 1)), reason: "credit of 1 bytes", opens: 1},
		{name: "credit overflow with ACK", frames: opened(credit(flagACK, 1, math.MaxUint32)), reason: "over 2^32-1", opens: 1},

		{name: "data after FIN", frames: opened(credit(flagFIN, 1, 0), data(0, 1, "x")), reason: "data after FIN", opens: 1},
		{name: "data after data with FIN", frames: opened(data(flagFIN, 1, "x"), data(0, 1, "x")), reason: "data after FIN", opens: 1},

		{name: "empty data", frames: opened(repeat(maxEmpty+1, func(int) []byte { return data(0, 1, "") })), reason: "empty frames", opens: 1},
		{name: "empty data with ACK", frames: opened(repeat(maxEmpty+1, func(int) []byte { return data(flagACK, 1, "") })), reason: "empty frames", opens: 1},
		{name: "no credit", frames: opened(repeat(maxEmpty+1, func(int) []byte { return credit(0, 1, 0) })), reason: "empty frames", opens: 1},
		{name: "FIN for ever", frames: opened(repeat(maxEmpty+2, func(int) []byte { return credit(flagFIN, 1, 0) })), reason: "empty frames", opens: 1},
		{name: "rapid reset", frames: repeat(maxResets+1, synRST), reason: "reset or refused", opens: maxResets + 1},
		{name: "rapid reset in one frame", frames: repeat(maxResets+1, func(i int) []byte { return credit(flagSYN|flagRST, uint32(2*i+1), 0) }), reason: "reset or refused"},
		{name: "rapid refusals", cfg: Config{MaxIncomingStreams: -1}, frames: repeat(maxResets+1, func(i int) []byte { return credit(flagSYN, uint32(2*i+1), 0) }), reason: "reset or refused"},
		{name: "pings", frames: repeat(maxPings+1, func(i int) []byte { return frame(typePing, flagSYN, 0, uint32(i)) }), reason: "pings too often"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newRawPeer(t, c.client, c.cfg)
			p.send(c.frames, zeros[:64]) // more is on its way when the session ends
			p.expectEnd(CodeProtocolError, c.reason)
			if n := len(p.accepted); n != c.opens {
				t.Errorf("accept got %d streams, want %d", n, c.opens)
			}
		})
	}
}

// TestViolationWakesAll ends a session that has someone waiting at each place.
func TestViolationWakesAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newRawPeer(t, false, Config{})
		p.send(credit(flagSYN, 1, 0))
		st := <-p.accepted
		unused := mustOpen(t, p.session)
		waits := make(chan error)
		go func() { _, err := st.Read(make([]byte, 1)); waits <- err }()
		go func() { _, err := st.Write(make([]byte, initialWindow+1)); waits <- err }()
		go func() { _, err := p.session.Ping(t.Context()); waits <- err }()
		go func() {
			for range maxUnacked {
				if _, err := p.session.Open(t.Context()); err != nil {
					waits <- err
					break
				}
			}
		}()
		synctest.Wait()
		start := time.Now()
		p.send(frame(9, 0, 0, 0))
		for range 4 {
			var end *SessionError
			if err := <-waits; !errors.As(err, &end) || end.Code != CodeProtocolError || !errors.Is(err, net.ErrClosed) {
				t.Errorf("woken with %v", err)
			}
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("woken after %v", took)
		}
		for _, err := range []error{st.Close(), unused.CloseWrite()} {
			if _, isEnd := err.(*SessionError); !isEnd && err != nil {
				t.Errorf("close after the end: %v", err)
			}
		}
		if _, err := unused.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Write after the end: %v", err)
		}
		if _, err := unused.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read after the end: %v", err)
		}
		if _, err := p.session.Open(t.Context()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Open after the end: %v", err)
		}
		if err := p.session.Serve(nil); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Serve after the end: %v", err)
		}
	})
}

// TestDefined has what a peer may do although it means little.
func TestDefined(t *testing.T) {
	t.Run("frames for unknown streams are skipped", func(t *testing.T) {
		p := newRawPeer(t, false, Config{})
		p.send(data(0, 5, "lost"), credit(0, 5, math.MaxUint32), credit(flagFIN, 2, 0), credit(flagRST, 99, 1),
			data(flagFIN|flagACK, 4, "lost"), frame(typePing, flagACK, 0, 7))
		p.expectQuiet()
	})
	t.Run("header and payload in pieces of one byte", func(t *testing.T) {
		p := newRawPeer(t, false, Config{})
		for _, b := range append(data(flagSYN, 1, "hello"), data(flagFIN, 1, " you")...) {
			p.link.Write([]byte{b})
		}
		st := <-p.accepted
		mustRead(t, st, "hello you")
		if _, err := st.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("Read = %v, want EOF", err)
		}
	})
	t.Run("opening with payload of any allowed size", func(t *testing.T) {
		for _, n := range []int{0, 1, initialWindow - 1, initialWindow} {
			p := newRawPeer(t, false, Config{})
			p.send(data(flagSYN|flagFIN, 1, string(zeros[:n])))
			got, err := io.ReadAll(<-p.accepted)
			if len(got) != n || err != nil {
				t.Errorf("read %d bytes, %v; want %d", len(got), err, n)
			}
		}
	})
	t.Run("the largest credit", func(t *testing.T) {
		p := newRawPeer(t, false, Config{})
		p.send(credit(flagSYN, 1, math.MaxUint32-initialWindow))
		st := <-p.accepted
		go st.Write(zeros)
		for got := 0; got < len(zeros); {
			_, payload, err := p.next()
			if err != nil {
				t.Fatal(err)
			}
			got += len(payload)
		}
	})
	t.Run("a pong that is not the answer", func(t *testing.T) {
		p := newRawPeer(t, false, Config{})
		answered := make(chan error, 1)
		go func() { _, err := p.session.Ping(t.Context()); answered <- err }()
		p.expect(frame(typePing, flagSYN, 0, 1))
		p.send(frame(typePing, flagACK, 0, 0), frame(typePing, flagACK, 0, 2))
		p.expectQuiet()
		if len(answered) > 0 || p.session.RTT() != 0 {
			t.Error("a wrong answer was taken")
		}
		p.send(frame(typePing, flagACK, 0, 1), frame(typePing, flagACK, 0, 1))
		if err := <-answered; err != nil {
			t.Error(err)
		}
	})
	t.Run("ids out of order", func(t *testing.T) {
		p := newRawPeer(t, false, Config{})
		for _, id := range []uint32{9, 3, 1, 7, 5, 2*usedIDs + 1, 11} {
			p.send(credit(flagSYN, id, 0))
			if got := (<-p.accepted).ID(); got != id {
				t.Errorf("accepted %d, want %d", got, id)
			}
		}
		p.expectQuiet()
	})
	t.Run("too many streams", func(t *testing.T) {
		p := newRawPeer(t, false, Config{MaxIncomingStreams: 2})
		p.send(credit(flagSYN, 1, 0), credit(flagSYN, 3, 0), data(flagSYN, 5, "lost"))
		p.expect(credit(flagRST, 5, codeResourceLimit))
		(<-p.accepted).Reset(1)
		p.expect(credit(flagRST, 1, 1))
		p.send(credit(flagSYN, 7, 0))
		<-p.accepted
		if st := <-p.accepted; st.ID() != 7 {
			t.Errorf("accepted %d", st.ID())
		}
	})
	t.Run("no streams are accepted", func(t *testing.T) {
		near, far := newLink(plenty, 0)
		s := New(near, false, Config{})
		go s.Serve(nil)
		defer s.Close()
		p := &rawPeer{t: t, link: far}
		p.send(credit(flagSYN, 1, 0))
		p.expect(credit(flagRST, 1, codeResourceLimit))
	})
	t.Run("RST is never a credit", func(t *testing.T) {
		p := newRawPeer(t, false, Config{})
		p.send(credit(flagSYN, 1, 0), credit(flagRST, 1, math.MaxUint32))
		expectReset(t, <-p.accepted, math.MaxUint32, true)
		p.expectQuiet()
	})
	t.Run("RST on data has no code, and its payload is skipped", func(t *testing.T) {
		p := newRawPeer(t, false, Config{})
		p.send(data(flagSYN, 1, "lost"), data(flagRST, 1, "payload"))
		st := <-p.accepted
		p.expectQuiet()
		expectReset(t, st, 0, true)
	})
	t.Run("what was received before FIN outlives RST", func(t *testing.T) {
		p := newRawPeer(t, false, Config{})
		p.send(data(flagSYN|flagFIN, 1, "kept"), credit(flagRST, 1, 7))
		st := <-p.accepted
		p.expectQuiet()
		mustRead(t, st, "kept")
		if _, err := st.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("Read = %v, want EOF", err)
		}
		var reset *StreamError
		if _, err := st.Write([]byte("x")); !errors.As(err, &reset) || reset.Code != 7 || !reset.Remote {
			t.Errorf("Write = %v", err)
		}
	})
	t.Run("GOAWAY ends all; what follows is not looked at", func(t *testing.T) {
		for _, code := range []uint32{CodeNormal, CodeProtocolError, CodeInternalError, 0x1001} {
			p := newRawPeer(t, false, Config{})
			p.send(frame(typeGoAway, 0, 0, code), credit(flagSYN, 1, 0))
			p.expectError(code, true, "")
			if len(p.accepted) > 0 {
				t.Error("a stream was accepted after GOAWAY")
			}
			if _, _, err := p.next(); err != io.EOF {
				t.Errorf("after GOAWAY the session said something: %v", err)
			}
		}
	})
	t.Run("the end of the connection", func(t *testing.T) {
		p := newRawPeer(t, false, Config{})
		p.send(data(flagSYN, 1, "kept"))
		st := <-p.accepted
		p.link.Close()
		p.expectError(CodeNormal, true, "connection closed")
		mustRead(t, st, "kept")
		if _, err := st.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read = %v", err)
		}
	})
}

// expectReset makes sure that a stream is reset, and what it had is gone.
func expectReset(t *testing.T, st *Stream, code uint32, remote bool) {
	t.Helper()
	_, readErr := st.Read(make([]byte, 1))
	_, writeErr := st.Write([]byte("x"))
	for _, err := range []error{readErr, writeErr} {
		var reset *StreamError
		if !errors.As(err, &reset) || reset.ErrorCode() != code || reset.IsRemote() != remote {
			t.Errorf("error %v, want a reset with code %#x, remote %v", err, code, remote)
		}
	}
}

// TestClosedStream has what a peer may send on a stream that we closed.
func TestClosedStream(t *testing.T) {
	closed := func(t *testing.T) *rawPeer {
		p := newRawPeer(t, false, Config{})
		p.send(credit(flagSYN, 1, 0))
		if err := (<-p.accepted).Close(); err != nil {
			t.Error(err)
		}
		p.expect(credit(flagACK|flagFIN, 1, 0))
		return p
	}
	lingering := func(p *rawPeer) int {
		p.session.mu.Lock()
		defer p.session.mu.Unlock()
		return len(p.session.lingering)
	}
	t.Run("a little data, then FIN", func(t *testing.T) {
		p := closed(t)
		p.send(data(0, 1, "late"), credit(0, 1, 5))
		p.expectQuiet()
		if n := lingering(p); n != 1 {
			t.Errorf("%d streams linger, want 1", n)
		}
		p.send(data(flagFIN, 1, "later"), data(0, 1, "ignored"))
		p.expectQuiet()
		if n := lingering(p); n != 0 {
			t.Errorf("%d streams linger, want 0", n)
		}
	})
	t.Run("more data than it may be", func(t *testing.T) {
		p := closed(t)
		p.send(data(0, 1, string(zeros[:lingerBytes-1])))
		p.expectQuiet()
		p.send(data(0, 1, "x"))
		p.expect(credit(flagRST, 1, 0))
		p.send(data(0, 1, string(zeros[:1000])))
		p.expectQuiet()
	})
	t.Run("RST", func(t *testing.T) {
		p := closed(t)
		p.send(credit(flagRST, 1, 3))
		p.expectQuiet()
		if n := lingering(p); n != 0 {
			t.Errorf("%d streams linger, want 0", n)
		}
	})
	t.Run("closed with the window full", func(t *testing.T) {
		p := newRawPeer(t, false, Config{})
		p.send(data(flagSYN, 1, string(zeros[:initialWindow])))
		st := <-p.accepted
		p.expectQuiet()
		st.Close()
		p.expect(credit(flagACK|flagFIN, 1, 0))
		p.expect(credit(flagRST, 1, 0)) // or its writer would wait for ever
		p.expectQuiet()
	})
	t.Run("closed in the middle of a frame", func(t *testing.T) {
		p := newRawPeer(t, false, Config{})
		p.send(frame(typeData, flagSYN|flagFIN, 1, 10, []byte("12345")...))
		st := <-p.accepted
		mustRead(t, st, "12345")
		st.Close()
		p.expect(credit(flagACK|flagFIN, 1, 0))
		p.send([]byte("67890"))
		p.expectQuiet()
		if n := lingering(p); n != 0 {
			t.Errorf("%d streams linger, want 0", n)
		}
	})
	t.Run("very many", func(t *testing.T) {
		p := newRawPeer(t, false, Config{})
		for i := range 3 * maxLingering {
			p.send(credit(flagSYN, uint32(2*i+1), 0))
			(<-p.accepted).Close()
			p.expect(credit(flagACK|flagFIN, uint32(2*i+1), 0))
		}
		if n := lingering(p); n != maxLingering {
			t.Errorf("%d streams linger, want %d", n, maxLingering)
		}
	})
	t.Run("only the reading side closed", func(t *testing.T) {
		p := newRawPeer(t, false, Config{})
		p.send(data(flagSYN, 1, "lost"))
		st := <-p.accepted
		st.CloseRead()
		if _, err := st.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read = %v", err)
		}
		p.expectQuiet()
		// The peer is not told, and must not be stuck: credit comes back.
		p.send(data(0, 1, string(zeros[:initialWindow/2-4])))
		p.expect(credit(flagACK, 1, initialWindow/2))
		p.expect(frame(typePing, flagSYN, 0, 1)) // much is coming in: how far away is the peer?
		mustWrite(t, st, "still")
		p.expect(data(0, 1, "still"))
	})
}

// TestClosedInOrder has a stream that we closed reset, since the peer sends too much
// on it, while our last bytes still wait to be written: they go first.
func TestClosedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := newLink(plenty, 0)
		near.out.max = 1
		p := &rawPeer{t: t, session: New(near, false, Config{}), link: far, accepted: make(chan *Stream, 1), served: make(chan error, 1)}
		go func() { p.served <- p.session.Serve(func(st *Stream) { p.accepted <- st }) }()
		p.send(data(flagSYN, 1, "request"))
		st := <-p.accepted
		st.SetWriteDeadline(time.Now().Add(time.Hour)) // so that nothing here waits
		mustWrite(t, st, "answer")
		synctest.Wait() // it is being written
		mustWrite(t, st, "more")
		st.Close()
		p.send(data(0, 1, string(zeros[:initialWindow-len("request")])))
		synctest.Wait()
		p.expect(data(flagACK, 1, "answer"))
		p.expect(data(0, 1, "more"))
		p.expect(credit(flagFIN, 1, 0))
		p.expect(credit(flagRST, 1, 0))
		p.session.Close()
		far.Close()
		<-p.served
	})
}

// TestClosedMeanwhile has a stream closed between the look-up of a frame's stream and
// the frame: what comes with it counts. Otherwise the peer would be out of credit
// before it is told that nobody reads, and its writer would wait for ever.
func TestClosedMeanwhile(t *testing.T) {
	near, far := newLink(plenty, 0)
	defer far.Close()
	s := New(near, false, Config{})
	defer s.Close()
	s.accept = func(*Stream) {}
	if err := s.handle(header{typ: typeWindowUpdate, flags: flagSYN, id: 1}); err != nil {
		t.Fatal(err)
	}
	st := s.in.opened
	st.Close()
	if err := st.handleData(header{typ: typeData, id: 1, length: 1000}); err != nil || s.in.to != nil {
		t.Fatalf("data for a stream that was closed: %v, for %v", err, s.in.to)
	}
	if err := s.handle(header{typ: typeData, id: 1, length: initialWindow - 1000}); err != nil {
		t.Fatal(err)
	}
	if n := len(s.lingering); n != 0 {
		t.Errorf("%d streams linger whose peer has no credit left", n)
	}
}

// TestRepliesNotRead has a peer that causes answers, slowly, and never reads.
func TestRepliesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := newLink(plenty, 0)
		near.out.max = 1
		s := New(near, false, Config{WriteTimeout: -1})
		served := make(chan error)
		go func() { served <- s.Serve(nil) }()
		defer s.Close()
		for range 10 {
			far.Write(repeat(maxPings, func(i int) []byte { return frame(typePing, flagSYN, 0, 1) }))
			time.Sleep(pingSpan + time.Millisecond)
		}
		var end *SessionError
		if err := <-served; !errors.As(err, &end) || end.Code != CodeProtocolError {
			t.Errorf("Serve = %v", err)
		}
	})
}
