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
	inbound bool // opened by the peer

	mu sync.Mutex // guards all that follows, but see the last group

	id       uint32 // 0 until the first frame; changes with Session.mu held, too
	needsACK bool   // our next frame acknowledges the stream
	unacked  bool   // it holds a token of Session.opens
	gone     bool   // the session has forgotten it
	eof      bool   // the peer has sent FIN
	writing  bool   // a Write has its turn

	readErr    error // why nothing more comes, once what was received is read
	canRead    sync.Cond
	readUntil  deadline
	received   queue
	waiting    []byte        // of a Read that waits, to be filled by the read loop
	filled     int           // bytes of it
	recvCredit uint32        // what the peer may still send
	arriving   uint32        // what it has begun to send: the rest of the current frame
	window     uint32        // what it may send without being read
	updated    time.Duration // when we last granted credit; 0: never

	writeErr   error // why nothing more goes
	canWrite   sync.Cond
	writeUntil deadline
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
	st.canRead.L = &st.mu
	st.canWrite.L = &st.mu
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
		go st.session.flush(allRounds)
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
		go st.session.flush(allRounds)
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
	st.canRead.Broadcast()
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
	st.canWrite.Broadcast()
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
	st.canRead.Broadcast()
	st.canWrite.Broadcast()
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
	st.canRead.Broadcast()
	st.canWrite.Broadcast()
	st.settle()
}

// settle has the session forget the stream when both directions have ended.
// st.mu is held.
func (st *Stream) settle() {
	if st.readErr == nil || st.writeErr == nil || st.gone {
		return
	}
	st.gone = true
	st.readUntil.stop()
	st.writeUntil.stop()
	st.session.mu.Lock()
	defer st.session.mu.Unlock()
	st.session.forget(st)
}

// flushAndUnlock unlocks st.mu and, if role is true, sees to it that what is
// queued is written: a caller with a deadline must not wait for that.
func (st *Stream) flushAndUnlock(role bool) {
	inline := st.writeUntil.at == 0
	st.mu.Unlock()
	switch {
	case !role:
	case inline:
		st.session.flush(inlineRounds)
	default:
		go st.session.flush(allRounds)
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
		st.canRead.Broadcast()
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
	st.setDeadline(&st.readUntil, &st.canRead, t)
	st.setDeadline(&st.writeUntil, &st.canWrite, t)
	return nil
}

// SetReadDeadline makes Read fail at t with an error that wraps
// os.ErrDeadlineExceeded; the zero time: never. It costs no timer until a Read
// has to wait.
func (st *Stream) SetReadDeadline(t time.Time) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.setDeadline(&st.readUntil, &st.canRead, t)
	return nil
}

// SetWriteDeadline makes Write fail at t with an error that wraps
// os.ErrDeadlineExceeded; the zero time: never.
func (st *Stream) SetWriteDeadline(t time.Time) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.setDeadline(&st.writeUntil, &st.canWrite, t)
	return nil
}

// A deadline is that of one direction. Times are those of Session.now.
type deadline struct {
	at    time.Duration // 0: none
	timer *time.Timer   // wakes who waits; nil until somebody did
	set   time.Duration // when the timer fires; 0: it does not
}

func (st *Stream) setDeadline(d *deadline, cond *sync.Cond, t time.Time) {
	d.at = 0
	if !t.IsZero() {
		d.at = max(t.Sub(st.session.epoch), 1)
	}
	cond.Broadcast() // who waits looks at the new deadline
}

func (st *Stream) expired(d *deadline) bool {
	return d.at != 0 && d.at <= st.session.now()
}

// wait waits for cond or the deadline; st.mu is held. A timer that is early,
// because the deadline was moved, is left alone: it wakes in vain once, which
// costs less than setting it for each deadline.
func (st *Stream) wait(cond *sync.Cond, d *deadline) {
	if d.at != 0 && (d.set == 0 || d.at < d.set) {
		d.set = d.at
		in := d.at - st.session.now()
		if d.timer != nil {
			d.timer.Reset(in)
		} else {
			d.timer = time.AfterFunc(in, func() {
				st.mu.Lock()
				defer st.mu.Unlock()
				d.set = 0
				cond.Broadcast()
			})
		}
	}
	cond.Wait()
}

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
		d.set = 0
	}
}
