package yamux

import (
	"errors"
	"os"
	"runtime"
	"slices"
	"time"
)

const (
	// maxPayload is the most that one data frame carries: with its header it fills
	// a Noise record (65535 bytes less the tag of 16) exactly.
	maxPayload = 65519 - headerLen

	// maxBurst is the most payload in one Conn.Write of an uncontended writer:
	// four full frames, which fit the largest buffer.
	maxBurst = 4 * maxPayload

	// minBurst is what is still written at once to a peer that takes a tenth of
	// a second for more: at 2 KiB/s a write ends within the default WriteTimeout.
	minBurst = maxPayload / 4

	// smallFrame is up to what size payload is copied behind other frames under
	// the lock. Larger ones get a buffer of their own, filled without a lock.
	smallFrame = 16 << 10

	// laterMax is up to what size a goroutine writes what a Write has queued: it runs
	// when the caller waits for something, so what the caller writes next, most often
	// the end of the stream, leaves with it. On streams of one byte there and back that
	// saves half of the system calls, a quarter of the time and 40 % of the CPU.
	laterMax = 1 << 10

	// mergeMax is up to what size small frames are gathered for one Conn.Write, where
	// the connection is not slow.
	mergeMax = maxPayload + headerLen

	// maxQueued is how many bytes may wait for the writing role; writers wait
	// when there are more.
	maxQueued = 128 << 10

	// inlineRounds is how often a writer, after its own data, also writes what
	// others have queued meanwhile, until a goroutine takes over.
	inlineRounds = 3
	allRounds    = -1

	// maxYield is how long a yield may take before it is done less often.
	maxYield = 2 * time.Millisecond

	// farewellTimeout is what a peer has for taking the last frames.
	farewellTimeout = 500 * time.Millisecond

	// lastWords is how long, after a failed write, the read loop looks for a
	// GOAWAY that says why.
	lastWords = 250 * time.Millisecond
)

// A sender is the way out of a session. Frames gather in two queues; who finds
// the writing role free takes it (takeRole), and must then call flush without
// any lock. Session.mu guards it all.
type sender struct {
	busy    bool      // someone has the writing role
	replies queue     // frames that go first: credit, pongs, refusals
	frames  queue     // all else, in the order in which it must arrive
	booked  int       // bytes in frames, and those that writers may still add
	line    []*Stream // whose writers wait to book
	turn    uint64    // the start of who was last let through; see book
	burst   int       // payload that an uncontended write may take at once

	yieldAt time.Duration // until when flush does not yield
	renewAt time.Duration // when the write deadline is to be set again
	tell    bool          // a GOAWAY is to be sent at the end
	failed  *SessionError // why writing is not possible any more
}

// takeRole gives the caller the writing role if it is free. s.mu is held.
func (s *Session) takeRole() bool {
	if s.out.busy {
		return false
	}
	s.out.busy = true
	return true
}

// flush writes what is queued until there is nothing, or for so many rounds;
// then a goroutine goes on. The caller has the writing role and no lock.
func (s *Session) flush(rounds int) {
	var admitted [8]*Stream
	for ; ; rounds-- {
		s.mu.Lock()
		now := s.yield()
		switch {
		case s.err != nil:
			s.mu.Unlock()
			s.farewell()
			return
		case s.out.frames.head == nil && s.out.replies.head == nil:
			s.out.busy = false
			s.mu.Unlock()
			return
		case rounds == 0:
			s.mu.Unlock()
			go s.flushAll()
			return
		}
		b := s.out.next()
		n := s.admit(admitted[:])
		if now >= s.out.renewAt {
			s.renewWriteDeadline(now)
		}
		s.mu.Unlock()
		wake(admitted[:n])

		_, err := s.conn.Write(b.data)
		size := len(b.data)
		b.free()
		if err != nil {
			s.writeFailed(err)
			return
		}
		if size > minBurst {
			s.adapt(size, s.now()-now)
		}
	}
}

// yield lets others run who are about to write, so that their frames leave in
// the same Conn.Write, and returns the time. It costs little when nobody else
// is to run. When others run long without writing, yields are left out until
// they have taken a fifth of the time only. s.mu is held, but not meanwhile.
func (s *Session) yield() (now time.Duration) {
	before, queued := s.now(), s.out.frames.size+s.out.replies.size
	if before < s.out.yieldAt || queued == 0 || queued > smallFrame {
		return before
	}
	s.mu.Unlock()
	runtime.Gosched()
	s.mu.Lock()
	now = s.now()
	if now-before > maxYield {
		s.out.yieldAt = now + 4*(now-before)
	}
	return now
}

// next takes out what is to be written next. s.mu is held.
func (o *sender) next() *buffer {
	if o.replies.head == nil {
		b := o.frames.pop()
		o.booked -= len(b.data)
		return b
	}
	if h := o.frames.head; h != nil && len(h.data) <= smallFrame {
		copy(o.replies.extend(len(h.data), mergeMax), h.data)
		o.booked -= len(h.data)
		o.frames.pop().free()
	}
	return o.replies.pop()
}

// gather is up to what size small frames are gathered now.
func (o *sender) gather() int { return min(o.burst, mergeMax) }

// adapt sizes single writes to what the connection takes in some milliseconds,
// so that on a slow one nothing waits long behind them, and none times out.
func (s *Session) adapt(size int, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case took > 100*time.Millisecond:
		s.out.burst = max(s.out.burst/2, minBurst)
	case took < 20*time.Millisecond && size >= s.out.burst:
		s.out.burst = min(s.out.burst*2, maxBurst)
	}
}

// renewWriteDeadline sets the write deadline once in a while instead of for
// each write: a write has between 7/8 of the timeout and all of it. s.mu is held.
func (s *Session) renewWriteDeadline(now time.Duration) {
	timeout := s.cfg.WriteTimeout
	if timeout > 0 {
		s.conn.SetWriteDeadline(s.epoch.Add(now + timeout))
		s.out.renewAt = now + timeout/8
	} else {
		s.out.renewAt = 1<<63 - 1
	}
}

// post queues a frame without payload for st. It returns whether the caller
// got the writing role. st.mu is held.
func (s *Session) post(st *Stream, typ uint8, flags uint16, length uint32) (role bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return false
	}
	if flags&flagRST == 0 {
		flags |= s.stamp(st)
	}
	s.queue(typ, flags, st.id, length)
	return s.takeRole()
}

// queue queues a frame without payload behind all others. Who calls it sees to it
// that it is written. s.mu is held.
func (s *Session) queue(typ uint8, flags uint16, id, length uint32) {
	putHeader(s.out.frames.extend(headerLen, s.out.gather()), typ, flags, id, length)
	s.out.booked += headerLen
}

// postData queues p, for which room was booked, as data of st: copied, or as
// frames that were made of it before. st.mu is held.
func (s *Session) postData(st *Stream, p []byte, frames *buffer) (role bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return false, s.err
	}
	flags := s.stamp(st)
	if frames == nil {
		b := s.out.frames.extend(headerLen+len(p), s.out.gather())
		putHeader(b, typeData, flags, st.id, uint32(len(p)))
		copy(b[headerLen:], p)
	} else {
		for b := frames.data; len(b) > 0; b = b[min(len(b), headerLen+maxPayload):] {
			putHeader(b, typeData, flags, st.id, uint32(min(len(b)-headerLen, maxPayload)))
			flags = 0
		}
		s.out.frames.push(frames)
	}
	return s.takeRole(), nil
}

// makeFrames copies p, with room for the headers of its frames.
func makeFrames(p []byte) *buffer {
	b := newBuffer(wireLen(len(p)))
	for len(p) > 0 {
		n := min(len(p), maxPayload)
		copy(b.extend(headerLen + n)[headerLen:], p)
		p = p[n:]
	}
	return b
}

// wireLen is what n bytes of payload take with their headers.
func wireLen(n int) int { return n + (n+maxPayload-1)/maxPayload*headerLen }

// stamp returns the flags that st's next frame must carry; its first one gives
// it an id, in the order in which the frames are sent. Both locks are held.
func (s *Session) stamp(st *Stream) (flags uint16) {
	switch {
	case st.id == 0:
		st.id = s.nextID
		s.nextID += 2
		s.streams[st.id] = st
		s.silent--
		return flagSYN
	case st.needsACK:
		st.needsACK = false
		return flagACK
	}
	return 0
}

// book asks for room for want bytes of payload of st and returns how many
// may be queued now. If 0, st is in line: its writer is woken when it should
// ask again. st.mu is held.
//
// The line is fair by bytes, whatever the size of the writes (start-time fair
// queueing): a stream's next frame starts where its last one ended, counted in
// bytes, or where the line is now if that is later; the least start goes first.
func (s *Session) book(st *Stream, want int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case st.booked > 0: // it was in line, and admitted
		n := st.booked
		st.booked = 0
		return n
	case s.err != nil:
		return want // postData will say
	case !s.out.busy && s.out.booked == 0:
		want = min(want, s.out.burst)
	default:
		want = min(want, s.out.burst, maxPayload)
	}
	if st.wanted > 0 { // it is in line
		return 0
	}
	st.start = max(st.end, s.out.turn)
	st.end = st.start + uint64(want)
	if len(s.out.line) == 0 && s.out.booked < maxQueued {
		s.out.turn = st.start
		s.out.booked += wireLen(want)
		return want
	}
	st.wanted = want
	s.out.line = append(s.out.line, st)
	return 0
}

// unbook gives up what book has given or will give to st. st.mu is held.
func (s *Session) unbook(st *Stream, payload int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	if st.wanted > 0 {
		st.wanted = 0
		s.out.leaveLine(slices.Index(s.out.line, st))
	}
	if payload += st.booked; payload > 0 {
		st.booked = 0
		s.out.booked -= wireLen(payload)
		var admitted [1]*Stream
		if s.admit(admitted[:]) > 0 {
			go wake(admitted[:]) // not now: only one stream may be locked at a time
		}
	}
}

// admit books room for who waits in line, and returns how many of them it put
// into admitted, to be woken. s.mu is held.
func (s *Session) admit(admitted []*Stream) (n int) {
	for n < len(admitted) && len(s.out.line) > 0 && s.out.booked < maxQueued {
		first := 0
		for i, st := range s.out.line {
			if st.start < s.out.line[first].start {
				first = i
			}
		}
		st := s.out.line[first]
		s.out.leaveLine(first)
		s.out.turn = st.start
		st.booked, st.wanted = st.wanted, 0
		s.out.booked += wireLen(st.booked)
		admitted[n] = st
		n++
	}
	return n
}

func (o *sender) leaveLine(i int) {
	if o.line = slices.Delete(o.line, i, i+1); len(o.line) == 0 {
		o.line = nil
	}
}

// wake lets admitted writers go on. The lock makes sure that each is waiting.
func wake(admitted []*Stream) {
	for i, st := range admitted {
		st.mu.Lock()
		st.canWrite.wake()
		st.mu.Unlock()
		admitted[i] = nil
	}
}

// writeFailed ends the session after a failed write. The caller has the
// writing role and no lock.
func (s *Session) writeFailed(err error) {
	failure := &SessionError{Reason: "write: " + err.Error()}
	timeout := errors.Is(err, os.ErrDeadlineExceeded)
	if timeout {
		failure.Reason = "the peer did not read in time"
	}
	s.mu.Lock()
	s.out.failed = failure
	listen := s.serving && s.err == nil && !timeout
	if listen {
		s.conn.SetReadDeadline(time.Now().Add(lastWords))
	}
	s.mu.Unlock()
	if listen {
		select {
		case <-s.done:
		case <-time.After(2 * lastWords): // the read loop does not read
		}
	}
	s.end(failure, false)
	s.farewell()
}

// farewell is the last use of the writing role, after the session has ended:
// the peer gets what is queued, and GOAWAY, if it is to be told; then the
// connection is closed.
func (s *Session) farewell() {
	s.mu.Lock()
	tell := s.out.tell && s.out.failed == nil
	if s.err.Code != CodeNormal {
		s.out.replies.clear()
		s.out.frames.clear()
	}
	putHeader(s.out.frames.extend(headerLen, mergeMax), typeGoAway, 0, 0, s.err.Code)
	replies, frames := s.out.replies, s.out.frames
	s.out.replies, s.out.frames = queue{}, queue{}
	s.mu.Unlock()

	for _, q := range []*queue{&replies, &frames} {
		for b := q.pop(); b != nil; b = q.pop() {
			if tell {
				_, err := s.conn.Write(b.data)
				tell = err == nil
			}
			b.free()
		}
	}
	s.conn.Close()
	close(s.closed)
}
