package yamux

import (
	"io"
	"sync"
	"time"
)

// A Stream is one of the streams of a Session. Its methods may be called from
// any goroutine. A direction is open until its error is set; the two errors
// are all the state that a stream has.
type Stream struct {
	session *Session

	mu sync.Mutex // guards all that follows, but see the last group

	id       uint32 // 0 until the first frame; changes with Session.mu held, too
	inbound  bool   // opened by the peer; never changes
	needsACK bool   // our next frame acknowledges the stream
	unacked  bool   // it holds a token of Session.opens
	gone     bool   // the session has forgotten it
	eof      bool   // the peer has sent FIN
	writing  bool   // a Write has its turn

	readErr    error // why nothing more comes, once what was received is read
	canRead    wait
	reader     sleepers // of canRead: nearly every stream waits to read, few to write
	received   queue
	waiting    []byte        // of a Read that waits, to be filled by the read loop
	filled     int           // bytes of it
	recvCredit uint32        // what the peer may still send
	arriving   uint32        // what it has begun to send: the rest of the current frame
	window     uint32        // what it may send without being read
	updated    time.Duration // when we last granted credit; 0: never

	writeErr   error // why nothing more goes
	canWrite   wait
	sendCredit uint32 // what the peer still takes

	// guarded by Session.mu: of a writer in the session's line
	wanted     int    // payload that it would queue; 0: it is not in line
	booked     int    // payload that it may queue
	start, end uint64 // of its place in the line; see book
}

func newStream(s *Session, inbound bool) *Stream {
	st := &Stream{
		session:    s,
		inbound:    inbound,
		needsACK:   inbound,
		unacked:    !inbound,
		recvCredit: initialWindow,
		window:     initialWindow,
		sendCredit: initialWindow,
	}
	st.reader.cond.L = &st.mu
	st.canRead.sleepers = &st.reader
	return st
}

// ID returns the stream's number on the wire, or 0 while nothing was sent.
func (st *Stream) ID() uint32 {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.id
}

// Close ends both directions: the peer reads what was written and then io.EOF;
// what it has sent and still sends is discarded. Like Write it may wait for the
// connection, unless there is a write deadline. The error is that of CloseWrite.
func (st *Stream) Close() error {
	st.mu.Lock()
	st.closeRead()
	err, role := st.closeWrite()
	st.flushAndUnlock(role)
	return err
}

// CloseWrite ends the direction to the peer, which reads what was written and
// then io.EOF. It may wait as Close does. If the stream or the session failed
// before, that error is returned.
func (st *Stream) CloseWrite() error {
	st.mu.Lock()
	err, role := st.closeWrite()
	st.flushAndUnlock(role)
	return err
}

// CloseRead ends the direction from the peer, which is not told: what it has
// sent and still sends is discarded.
func (st *Stream) CloseRead() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.closeRead()
	if st.returnCredit() {
		go st.session.flushAll()
	}
	return nil
}

// Reset ends both directions at once and tells the peer the code, unless both
// have ended before. What was received and not read is discarded; so does the
// peer, unless it has all of it. Reset never waits.
func (st *Stream) Reset(code uint32) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if !st.gone && st.id != 0 && st.session.post(st, typeWindowUpdate, flagRST, code) {
		go st.session.flushAll()
	}
	if st.readErr == io.EOF {
		st.readErr = nil // nobody wants the rest
	}
	st.abort(&StreamError{Code: code})
	return nil
}

// closeRead closes the reading side. st.mu is held.
func (st *Stream) closeRead() {
	if st.readErr != nil && st.readErr != io.EOF {
		return
	}
	st.readErr = errReadClosed
	st.discard()
	st.canRead.wake()
	st.settle()
}

// closeWrite queues FIN and closes the writing side. st.mu is held.
func (st *Stream) closeWrite() (err error, role bool) {
	if st.writeErr == errWriteClosed {
		return nil, false
	}
	if st.writeErr != nil {
		return st.writeErr, false
	}
	// A stream that is closed before it was used never existed for the peer.
	if st.id != 0 || st.readErr == nil {
		role = st.session.post(st, typeWindowUpdate, flagFIN, 0)
		if st.readErr == errReadClosed && !st.eof && st.recvCredit == 0 {
			// The peer would wait for credit for ever.
			role = st.session.post(st, typeWindowUpdate, flagRST, 0) || role
		}
	}
	st.writeErr = errWriteClosed
	st.canWrite.wake()
	st.settle()
	return nil, role
}

// closedHere tells whether the stream was closed by us only, so that the peer
// may go on sending. st.mu is held.
func (st *Stream) closedHere() bool {
	return st.readErr == errReadClosed && st.writeErr == errWriteClosed && !st.eof && st.recvCredit > 0
}

// abort ends what is still open of both directions with err. st.mu is held.
func (st *Stream) abort(err error) {
	if st.readErr == nil {
		st.readErr = err
		st.discard()
	}
	if st.writeErr == nil {
		st.writeErr = err
	}
	st.canRead.wake()
	st.canWrite.wake()
	st.settle()
}

// fail ends the stream with its session. What was received can still be read.
func (st *Stream) fail(err error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.readErr == nil {
		st.readErr = err
	}
	if st.writeErr == nil {
		st.writeErr = err
	}
	st.canRead.wake()
	st.canWrite.wake()
	st.settle()
}

// settle has the session forget the stream when both directions have ended.
// st.mu is held.
func (st *Stream) settle() {
	if st.readErr == nil || st.writeErr == nil || st.gone {
		return
	}
	st.gone = true
	st.canRead.stop()
	st.canWrite.stop()
	st.session.mu.Lock()
	defer st.session.mu.Unlock()
	st.session.forget(st)
}

// flushAndUnlock unlocks st.mu and, if role is true, sees to it that what is
// queued is written: a caller with a deadline must not wait for that.
func (st *Stream) flushAndUnlock(role bool) {
	inline := st.canWrite.until == 0
	st.mu.Unlock()
	switch {
	case !role:
	case inline:
		st.session.flush(inlineRounds)
	default:
		go st.session.flushAll()
	}
}

// handleReset takes RST from the peer.
func (st *Stream) handleReset(code uint32) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.abort(&StreamError{Code: code, Remote: true})
}

// handleFIN takes the end of what the peer sends. st.mu is held.
func (st *Stream) handleFIN() {
	st.eof = true
	if st.gone {
		st.session.finished(st.id)
		return
	}
	if st.readErr == nil {
		st.readErr = io.EOF
		st.canRead.wake()
	}
	st.settle()
}

// waitsForACK tells whether the peer's stream has yet to be acknowledged.
func (st *Stream) waitsForACK() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.needsACK && !st.gone
}

// acknowledge queues an ACK if none was sent yet.
func (st *Stream) acknowledge() {
	st.mu.Lock()
	defer st.mu.Unlock()
	if !st.needsACK || st.gone {
		return
	}
	s := st.session
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reply(typeWindowUpdate, s.stamp(st), st.id, 0)
}

// SetDeadline is SetReadDeadline and SetWriteDeadline.
func (st *Stream) SetDeadline(t time.Time) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.setDeadline(&st.canRead, t)
	st.setDeadline(&st.canWrite, t)
	return nil
}

// SetReadDeadline makes Read fail at t with an error that wraps
// os.ErrDeadlineExceeded; the zero time: never. It costs no timer until a Read
// has to wait.
func (st *Stream) SetReadDeadline(t time.Time) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.setDeadline(&st.canRead, t)
	return nil
}

// SetWriteDeadline makes Write fail at t with an error that wraps
// os.ErrDeadlineExceeded; the zero time: never.
func (st *Stream) SetWriteDeadline(t time.Time) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.setDeadline(&st.canWrite, t)
	return nil
}

// A wait is one direction of a stream as seen by who waits for it.
type wait struct {
	until    time.Duration // the deadline, on the clock of Session.now; 0: none
	sleepers *sleepers     // nil until somebody had to wait
}

type sleepers struct {
	cond  sync.Cond
	timer *time.Timer   // nil until there was a deadline
	set   time.Duration // when the timer fires; 0: it does not
}

// wake wakes all who wait. Stream.mu is held.
func (w *wait) wake() {
	if w.sleepers != nil {
		w.sleepers.cond.Broadcast()
	}
}

func (w *wait) stop() {
	if w.sleepers != nil && w.sleepers.timer != nil {
		w.sleepers.timer.Stop()
		w.sleepers.set = 0
	}
}

func (st *Stream) setDeadline(w *wait, t time.Time) {
	w.until = 0
	if !t.IsZero() {
		w.until = max(t.Sub(st.session.epoch), 1)
	}
	w.wake() // who waits looks at the new deadline
}

func (st *Stream) expired(w *wait) bool {
	return w.until != 0 && w.until <= st.session.now()
}

// wait waits for a wake or the deadline; st.mu is held. A timer that is early,
// because the deadline was moved, is left alone: it wakes in vain once, which
// costs less than setting it for each deadline.
func (st *Stream) wait(w *wait) {
	if w.sleepers == nil {
		w.sleepers = &sleepers{cond: sync.Cond{L: &st.mu}}
	}
	z := w.sleepers
	if w.until != 0 && (z.set == 0 || w.until < z.set) {
		z.set = w.until
		in := w.until - st.session.now()
		if z.timer != nil {
			z.timer.Reset(in)
		} else {
			z.timer = time.AfterFunc(in, func() {
				st.mu.Lock()
				defer st.mu.Unlock()
				z.set = 0
				z.cond.Broadcast()
			})
		}
	}
	z.cond.Wait()
}
