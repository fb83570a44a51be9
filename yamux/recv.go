package yamux

import (
	"errors"
	"fmt"
	"io"
	"math/bits"
)

// A frameReader is where the read loop is in the stream of frames.
type frameReader struct {
	head    [headerLen]byte // a header that came in pieces
	got     int             // how much of it there is
	left    uint32          // payload of the current data frame still to come
	to      *Stream         // whose it is; nil: it is skipped
	fin     bool            // the frame ends to
	opened  *Stream         // by the current frame; accept does not know it yet
	replied bool            // frames were queued that somebody must write
	chunk   *buffer         // holds the current record; nil: it lies in memory of the Conn
	reader  *Stream         // whose Read is to be woken
}

// take returns a buffer for a record that is likely to become, as it is, a part
// of a stream's queue. To copy it there took a tenth of a receiver's time: bulk
// data took 1.79 s of CPU a GiB, both ends, and 1.65 s since (with what wakeLater
// saves). The bound of queue.write holds for such buffers, too.
func (in *frameReader) take(n int) []byte {
	if n < minChunk || n > maxBuffer || 3*n < 2<<bits.Len(uint(n-1)) {
		return nil
	}
	in.chunk = newBuffer(n)
	return in.chunk.extend(n)
}

// hand gives up the chunk to who wants to keep p, the end of the current record.
// It returns nil when there is no chunk, or p would pin too much of it.
func (in *frameReader) hand(p []byte) *buffer {
	b := in.chunk
	if b == nil || 3*len(p) < 2*cap(b.data) || &p[len(p)-1] != &b.data[len(b.data)-1] {
		return nil
	}
	in.chunk = nil
	b.off = len(b.data) - len(p)
	return b
}

// drop frees the chunk of a record that nobody has kept.
func (in *frameReader) drop() {
	if in.chunk != nil {
		in.chunk.free()
		in.chunk = nil
	}
}

// wakeLater notes that st has something to read. Its Read is woken before the
// read loop waits, or takes something for another stream: so it finds all the
// records that came with one system call.
func (in *frameReader) wakeLater(st *Stream) {
	if in.reader != st {
		in.wake()
		in.reader = st
	}
}

func (in *frameReader) wake() {
	if in.reader != nil {
		in.reader.canRead.wake()
		in.reader = nil
	}
}

// receive handles one record. An error ends the session.
func (s *Session) receive(record []byte) *SessionError {
	in := &s.in
	for len(record) > 0 {
		if in.left == 0 {
			var h header
			if in.got == 0 && len(record) >= headerLen {
				h, record = parseHeader(record), record[headerLen:]
			} else {
				n := copy(in.head[in.got:], record)
				in.got, record = in.got+n, record[n:]
				if in.got < headerLen {
					break
				}
				h, in.got = parseHeader(in.head[:]), 0
			}
			if err := s.handle(h); err != nil {
				return err
			}
		}
		if in.left > 0 && len(record) > 0 {
			n := len(record)
			if uint64(n) > uint64(in.left) {
				n = int(in.left)
			}
			in.left -= uint32(n)
			if in.to != nil {
				in.to.receive(record[:n], in.fin && in.left == 0)
			}
			record = record[n:]
		}
		if st := in.opened; st != nil {
			in.opened = nil
			in.wake() // accept can take its time
			s.accept(st)
		}
	}
	if in.replied {
		in.replied = false
		return s.sendReplies()
	}
	return nil
}

// handle takes the header of a frame; payload is left to receive.
func (s *Session) handle(h header) *SessionError {
	if err := h.check(); err != nil {
		return err
	}
	switch h.typ {
	case typePing:
		return s.handlePing(h)
	case typeGoAway:
		return &SessionError{Code: h.length, Remote: true, Reason: goAwayReason(h.length)}
	case typeData:
		s.in.left, s.in.to, s.in.fin = h.length, nil, false
	}

	var st *Stream
	if h.flags&flagSYN != 0 {
		var err *SessionError
		if st, err = s.incomingStream(h); err != nil {
			return err
		}
		s.in.opened = st
	} else {
		st = s.lookup(h.id)
	}
	if st == nil {
		s.handleStray(h)
		return nil
	}
	if h.flags&flagRST != 0 {
		var code uint32
		if h.typ == typeWindowUpdate {
			code = h.length // never a credit
		}
		st.handleReset(code)
		return s.countReset()
	}
	if h.typ == typeWindowUpdate {
		return st.handleWindowUpdate(h)
	}
	return st.handleData(h)
}

// incomingStream opens a stream of the peer, or refuses it and returns nil.
// All that can be wrong with its first frame is looked at before.
func (s *Session) incomingStream(h header) (*Stream, *SessionError) {
	if (h.id%2 == 1) == s.client {
		return nil, violation(fmt.Sprintf("stream %d has an id of ours", h.id))
	}
	if h.typ == typeData && h.length > initialWindow {
		return nil, violation(fmt.Sprintf("stream %d opens with %d bytes, over the initial window", h.id, h.length))
	}
	if h.typ == typeWindowUpdate && h.flags&flagRST == 0 && h.length > maxCredit-initialWindow {
		return nil, violation(fmt.Sprintf("stream %d opens with a credit of %d bytes, over 2^32-1 in all", h.id, h.length))
	}
	if !s.used.use(h.id) {
		return nil, violation(fmt.Sprintf("stream %d is opened a second time", h.id))
	}
	if h.flags&flagRST != 0 { // it comes and goes in one frame
		return nil, s.countReset()
	}

	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return nil, nil
	}
	if s.accept == nil || s.incoming >= s.cfg.MaxIncomingStreams {
		s.reply(typeWindowUpdate, flagRST, h.id, codeResourceLimit)
		s.mu.Unlock()
		return nil, s.countReset()
	}
	st := newStream(s, true)
	st.id = h.id
	s.streams[h.id] = st
	s.incoming++
	s.unacked = append(s.unacked, h.id)
	full := len(s.unacked) >= ackBatch
	s.mu.Unlock()
	if full {
		s.acknowledge()
	}
	return st, nil
}

// acknowledge sends what ACKs are missing. Most streams have sent theirs with
// a frame of their own by then.
func (s *Session) acknowledge() {
	s.mu.Lock()
	ids := s.unacked
	var waiting [ackBatch]*Stream
	n := 0
	for _, id := range ids {
		if st := s.streams[id]; st != nil {
			waiting[n] = st
			n++
		}
	}
	s.mu.Unlock()
	ids = ids[:0]
	for _, st := range waiting[:n] {
		if st.waitsForACK() {
			ids = append(ids, st.id)
		}
	}
	if len(ids) > ackBatch/2 {
		for _, st := range waiting[:n] {
			st.acknowledge()
		}
		ids = ids[:0]
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unacked = ids
}

// handleStray takes a frame for a stream that does not exist (any more). Its
// payload is skipped.
func (s *Session) handleStray(h header) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.lingering[h.id]
	if !ok {
		return
	}
	if l.unacked && h.flags&flagACK != 0 {
		l.unacked = false
		s.releaseOpen()
	}
	if h.flags&(flagFIN|flagRST) != 0 {
		s.lingering[h.id] = l
		s.unlinger(h.id)
		return
	}
	if h.typ == typeData {
		if h.length >= l.allowance {
			// Not as a reply: our last bytes and FIN may still wait to be written.
			s.queue(typeWindowUpdate, flagRST, h.id, 0)
			s.in.replied = true
			s.unlinger(h.id)
			return
		}
		l.allowance -= h.length
	}
	s.lingering[h.id] = l
}

// reply queues an answer of the read loop. s.mu is held.
func (s *Session) reply(typ uint8, flags uint16, id, length uint32) {
	s.prompt(typ, flags, id, length)
	s.in.replied = true
}

// prompt queues a frame that goes before data. Who calls it sees to it that
// it is written. s.mu is held.
func (s *Session) prompt(typ uint8, flags uint16, id, length uint32) {
	putHeader(s.out.replies.extend(headerLen, mergeMax), typ, flags, id, length)
}

// sendReplies has the answers written, but not by the read loop, which must
// never wait for a peer that does not read.
func (s *Session) sendReplies() *SessionError {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.out.replies.size > maxReplies {
		return violation("it causes answers and does not read them")
	}
	if s.takeRole() {
		go s.flushAll()
	}
	return nil
}

// countReset bounds how often the peer resets streams or has them refused.
func (s *Session) countReset() *SessionError {
	if s.resets.exceeds(maxResets, resetSpan, s.now()) {
		return violation(fmt.Sprintf("over %d streams reset or refused in %v", maxResets, resetSpan))
	}
	return nil
}

// countEmpty bounds how many frames the peer sends that change nothing.
func (s *Session) countEmpty() *SessionError {
	if s.empty.exceeds(maxEmpty, emptySpan, s.now()) {
		return violation(fmt.Sprintf("over %d empty frames in %v", maxEmpty, emptySpan))
	}
	return nil
}

// readFailure says why there is nothing more to read.
func (s *Session) readFailure(err error) *SessionError {
	if errors.Is(err, io.EOF) {
		return &SessionError{Remote: true, Reason: "connection closed"}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.out.failed != nil {
		return s.out.failed
	}
	return &SessionError{Reason: "read: " + err.Error()}
}

func goAwayReason(code uint32) string {
	switch code {
	case CodeNormal:
		return "goodbye"
	case CodeProtocolError:
		return "protocol error"
	case CodeInternalError:
		return "internal error"
	}
	return "goaway"
}
