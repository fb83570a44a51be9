package yamux

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// A Session is one connection that carries streams in both directions. Its
// methods may be called from any goroutine.
type Session struct {
	// set by New
	conn   Conn
	client bool
	cfg    Config // no zero values
	epoch  time.Time
	done   chan struct{} // closed when the session has ended
	closed chan struct{} // closed when the connection is, too, and nobody writes
	opens  chan struct{} // a token for each own stream that is unacknowledged

	flushAll func() // flush(allRounds): made once, since go allocates what it makes a closure of

	// owned by the read loop
	in     frameReader
	accept func(*Stream)
	used   idWindow
	pings  rate
	resets rate
	empty  rate

	heard atomic.Bool  // something was received since the keepalive timer fired
	held  atomic.Int64 // bytes that wait for readers, of all streams

	reserve reserve // what was taken of memory that is shared with other sessions

	// guarded by mu; see also send.go and ping.go
	mu        sync.Mutex
	err       *SessionError // why the session ended
	serving   bool
	streams   map[uint32]*Stream
	nextID    uint32
	incoming  int                 // of streams
	silent    int                 // streams of ours that have sent nothing yet, and have no id
	unacked   []uint32            // the peer's streams that we may not have acknowledged
	lingering map[uint32]lingerer // closed by us, not finished by the peer
	grown     int                 // sum of what windows have beyond their initial size
	out       sender
	ping      pinger
}

// New makes a session of c, which belongs to it from now on. The client is the
// side that initiated the security handshake. Serve must be called to run it,
// and Close in any case.
func New(c Conn, client bool, cfg Config) *Session {
	s := &Session{
		conn:    c,
		client:  client,
		cfg:     cfg.withDefaults(),
		epoch:   time.Now(),
		done:    make(chan struct{}),
		closed:  make(chan struct{}),
		opens:   make(chan struct{}, maxUnacked),
		streams: make(map[uint32]*Stream),
		nextID:  2,
	}
	if client {
		s.nextID = 1
	}
	s.out.burst = maxPayload
	s.flushAll = func() { s.flush(allRounds) }
	return s
}

// Serve runs the session until it ends and returns why, always a
// *SessionError. It calls accept for each stream that the peer opens, from the
// goroutine that reads the connection: while accept blocks nothing is read, which holds
// the peer up, so it must not wait for the peer, and what it does with the stream must
// not either; Reset never does. If accept is nil the peer's streams are refused. Serve
// is called once.
func (s *Session) Serve(accept func(*Stream)) error {
	s.mu.Lock()
	if s.serving || s.err != nil {
		s.mu.Unlock()
		<-s.done
		return s.Err()
	}
	s.serving = true
	s.accept = accept
	s.startKeepAlive()
	s.mu.Unlock()

	take := s.in.take
	for {
		if !s.conn.Ready() {
			s.in.wake()
		}
		record, err := s.conn.ReadRecord(take)
		if err != nil {
			s.in.wake()
			s.end(s.readFailure(err), false)
			return s.Err()
		}
		select {
		case <-s.done: // nobody is there for what still comes, however much that is
			<-s.closed
			s.conn.ReadRecord(nil)
			return s.Err()
		default:
		}
		if !s.heard.Load() {
			s.heard.Store(true)
		}
		if err := s.receive(record); err != nil {
			s.in.wake()
			s.end(err, !err.Remote)
			if err.Remote {
				// The connection is closed. To read that makes it give its buffers back:
				// 275 KB a connection, a quarter of the CPU of a dial.
				s.conn.ReadRecord(nil)
			}
			return s.Err()
		}
		s.in.drop()
	}
}

// Open returns a new stream. Nothing is sent: the stream reaches the peer with
// its first Write, CloseWrite, or Read that has to wait. Open waits while the
// peer has 256 streams of ours to acknowledge.
func (s *Session) Open(ctx context.Context) (*Stream, error) {
	select {
	case s.opens <- struct{}{}:
	default:
		select {
		case s.opens <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.done:
			return nil, s.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, s.err
	}
	// Ids are taken with the first frame, by at most maxUnacked streams at once.
	if s.nextID > math.MaxUint32-2*maxUnacked-2 {
		s.releaseOpen()
		return nil, errNoIDs
	}
	s.silent++
	return newStream(s, false), nil
}

// Close ends the session and all its streams, and closes the connection. What
// streams have written is sent first if the peer takes it within half a
// second. Close returns within a second, whatever the peer does.
func (s *Session) Close() error { return s.CloseWithCode(CodeNormal) }

// CloseWithCode is Close with a code for the peer, which also ends up in the
// *SessionError of this side.
func (s *Session) CloseWithCode(code uint32) error {
	s.end(&SessionError{Code: code, Reason: "closed"}, true)
	select {
	case <-s.closed:
	case <-time.After(2 * farewellTimeout): // the connection does not keep its write deadline
		s.conn.Close()
	}
	return nil
}

// Done is closed when the session has ended.
func (s *Session) Done() <-chan struct{} { return s.done }

// Err returns why the session ended, a *SessionError, or nil while it has not.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		return nil
	}
	return s.err
}

// NumStreams returns how many streams are open, of both sides, and of ours also those
// that have sent nothing yet.
func (s *Session) NumStreams() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.streams) + s.silent
}

// end ends the session for everyone at once, with the first error that it is
// called with. If tell is true the peer is told with GOAWAY. No lock is held.
func (s *Session) end(err *SessionError, tell bool) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	s.err = err
	close(s.done)
	streams, line := s.streams, s.out.line
	s.streams, s.out.line = nil, nil
	s.lingering, s.unacked, s.silent = nil, nil, 0
	s.stopPings()
	s.reserve.end(s.grown)
	s.out.tell = tell
	mine := s.takeRole()
	if tell {
		s.conn.SetWriteDeadline(time.Now().Add(farewellTimeout))
	}
	s.mu.Unlock()

	for _, st := range streams {
		st.fail(err)
	}
	for _, st := range line { // among them may be some that are not open yet
		st.fail(err)
	}
	if !tell {
		s.conn.Close() // also ends a write under way
	}
	if mine {
		s.farewell()
	}
}

// lookup returns an open stream, or nil.
func (s *Session) lookup(id uint32) *Stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.streams[id]
}

// A lingerer is what is left of a stream that we closed and the peer has not.
type lingerer struct {
	allowance uint32 // bytes that the peer may still send
	unacked   bool   // it holds a token of opens
}

// forget takes a stream out of the session. Both st.mu and s.mu are held.
func (s *Session) forget(st *Stream) {
	if s.err != nil {
		return
	}
	s.shrink(int(st.window) - initialWindow)
	if st.id != 0 {
		delete(s.streams, st.id)
	} else {
		s.silent--
	}
	if st.inbound {
		s.incoming--
	}
	switch {
	case st.id != 0 && st.closedHere():
		s.linger(st.id, lingerer{min(st.recvCredit, lingerBytes), st.unacked})
	case st.unacked:
		s.releaseOpen()
	}
}

func (s *Session) linger(id uint32, l lingerer) {
	if s.lingering == nil {
		s.lingering = make(map[uint32]lingerer)
	}
	if len(s.lingering) >= maxLingering {
		for other := range s.lingering {
			s.unlinger(other)
			break
		}
	}
	s.lingering[id] = l
}

// finished is called when the peer ends a stream in a frame that it had begun
// before we closed the stream.
func (s *Session) finished(id uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unlinger(id)
}

func (s *Session) unlinger(id uint32) {
	if s.lingering[id].unacked {
		s.releaseOpen()
	}
	delete(s.lingering, id)
}

// releaseOpen lets another stream open. s.mu is held.
func (s *Session) releaseOpen() {
	select {
	case <-s.opens:
	default:
	}
}

// now is the time since the session began.
func (s *Session) now() time.Duration { return time.Since(s.epoch) }
