package webrtc

import (
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/kith-p2p/kith/host"
)

// handshakeID is the channel of the Noise handshake.
const handshakeID = 0

// Windows of streams, between two Kith nodes.
const (
	// firstWindow is how much data of a stream a remote may send that nobody has
	// read, in bytes, without having been told of a window.
	firstWindow = 256 << 10

	// lastWindow is how far a window grows when its reader is faster than two
	// round trips, in bytes, and maxWindows what all may have grown by together.
	lastWindow = 4 << 20
	maxWindows = 12 << 20

	// smallMessage is up to how much data a message gets memory of its own size, in
	// bytes; with more it takes a whole block from a pool. With so much, it has less
	// than the 4096 bytes that go-libp2p reads at once.
	smallMessage = 4000

	// keepBuffer is up to which size the memory of a stream stays when all was
	// read, in bytes.
	keepBuffer = 16 << 10
)

// A StreamError tells that a stream was reset, by whom and with which code.
type StreamError struct {
	Code   uint32
	Remote bool
}

func (e *StreamError) Error() string {
	if e.Remote {
		return fmt.Sprintf("webrtc: the remote reset the stream (code %#x)", e.Code)
	}
	return fmt.Sprintf("webrtc: stream reset (code %#x)", e.Code)
}

// ErrorCode is the code that the stream was reset with.
func (e *StreamError) ErrorCode() uint32 { return e.Code }

// IsRemote tells whether the remote reset it.
func (e *StreamError) IsRemote() bool { return e.Remote }

type sendState uint8

const (
	sendOpen     sendState = iota
	sendFinished           // FIN is queued or sent
	sendAnswered           // the remote has all
	sendReset              // by us, or the remote wants no more
)

type readState uint8

const (
	readOpen   readState = iota
	readEOF              // FIN came; what was received can be read
	readReset            // by us or the remote
	readClosed           // CloseRead: what comes is thrown away
)

// A stream is a libp2p stream on a data channel. It implements host.MuxedStream.
// All is guarded by conn.mu.
type stream struct {
	conn *conn
	id   uint16
	ours bool

	// sending
	queue       []*outMessage
	queued      int  // bytes of queue that were not sent
	inFlight    int  // chunks
	active      bool // in sender.active
	announce    bool // the channel is not open yet
	unanswered  bool // the remote has said nothing on it
	finLate     bool // FIN was not answered in time
	finDeadline time.Time
	finQueued   int // what was queued when the wait for it began
	ssn         uint16
	sendState   sendState
	writeErr    error
	sent        uint64 // bytes of data
	allowed     uint64 // how many the remote allows, if it does so at all
	writable    sync.Cond
	writeUntil  deadline

	// receiving
	readState readState
	parser    parser
	buffer    []byte // from read on
	read      int
	consumed  uint64 // bytes of data
	granted   uint64 // how many we allow
	window    int
	grantedAt time.Time
	granting  *outMessage // not sent yet
	readErr   error
	readable  sync.Cond
	readUntil deadline

	// the end of the channel
	gone     bool // nobody here uses it any more
	ending   bool // our half is being ended
	outEnded bool
	inEnded  bool

	endsEarlier bool // the next request of the remote to end it means an earlier one with its ID
}

func newStream(c *conn, id uint16) *stream {
	s := &stream{conn: c, id: id, allowed: firstWindow, granted: firstWindow, window: firstWindow}
	s.writable.L, s.readable.L = &c.mu, &c.mu
	return s
}

// introduce gives the remote a window on the first stream of the connection, by
// which it learns that it may give us one.
func (s *stream) introduce() {
	if !s.conn.announced {
		s.conn.announced = true
		s.announceWindow()
	}
}

var _ host.MuxedStream = (*stream)(nil)

// Read reads data. See host.MuxedStream.
func (s *stream) Read(p []byte) (int, error) {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	for {
		switch {
		case s.readState == readReset || s.readState == readClosed:
			return 0, s.readErr
		case s.readUntil.passed():
			return 0, fmt.Errorf("webrtc: read: %w", os.ErrDeadlineExceeded)
		case s.read < len(s.buffer):
			n := copy(p, s.buffer[s.read:])
			s.read += n
			s.took(n)
			return n, nil
		case s.readState == readEOF:
			return 0, io.EOF
		case c.state == stateClosed:
			return 0, c.err
		}
		s.readable.Wait()
	}
}

// took accounts for n bytes that were read, and may give the remote room for more.
func (s *stream) took(n int) {
	c := s.conn
	r := &c.receive
	if s.read == len(s.buffer) {
		s.read = 0
		if s.buffer = s.buffer[:0]; cap(s.buffer) > keepBuffer {
			if cap(s.buffer) > lastWindow || s.readState != readOpen {
				s.buffer = nil
			}
		}
	}
	r.unread -= n
	s.consumed += uint64(n)
	if c.state == stateClosed {
		return
	}
	due := s.grant()
	// Without a window for each stream, and with all taken, the remote waits to hear of room.
	if room := r.room(c.kith); r.offered < maxUnread/4 && room >= maxUnread/2 {
		r.ackDue, due = true, true
	}
	if due {
		c.finish()
	}
}

// grant allows the remote to send more when it has used half of its window.
func (s *stream) grant() bool {
	c := s.conn
	if !c.kith || s.readState != readOpen || s.granting != nil && s.granting.sent < len(s.granting.buf) || s.consumed+uint64(s.window) < s.granted+uint64(s.window)/2 {
		return false
	}
	now := time.Now()
	if !s.grantedAt.IsZero() && s.window < lastWindow && c.windows+s.window <= maxWindows && now.Sub(s.grantedAt) < 2*c.send.srtt {
		c.windows += s.window
		s.window *= 2
	}
	s.grantedAt = now
	s.announceWindow()
	return true
}

func (s *stream) announceWindow() {
	s.granted = max(s.granted, s.consumed+uint64(s.window))
	s.granting = s.control(control{flag: flagNone, window: s.granted})
	if n := len(s.queue); n > 3 { // it need not wait for the data
		at := 1
		if s.queue[1].follows != nil {
			at = 2
		}
		copy(s.queue[at+1:], s.queue[at:n-1])
		s.queue[at] = s.granting
	}
}

// Write sends p. It waits while too much of the stream is to be sent.
func (s *stream) Write(p []byte) (int, error) {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	written := 0
	for len(p) > 0 {
		for {
			if err := s.cannotWrite(); err != nil {
				return written, err
			}
			if s.queued < maxQueued && (!c.kith || s.sent < s.allowed) {
				break
			}
			s.writable.Wait()
		}
		for len(p) > 0 && s.queued < maxQueued && (!c.kith || s.sent < s.allowed) {
			n := min(len(p), wholeMessage-messageOverhead)
			if c.kith {
				n = int(min(uint64(n), s.allowed-s.sent))
			}
			s.enqueueData(p[:n])
			s.sent += uint64(n)
			written += n
			p = p[n:]
		}
		c.finish()
	}
	if written == 0 { // an empty write tells of the state, and nothing else
		return 0, s.cannotWrite()
	}
	return written, nil
}

func (s *stream) cannotWrite() error {
	switch {
	case s.writeErr != nil:
		return s.writeErr
	case s.conn.state == stateClosed:
		return s.conn.err
	case s.sendState != sendOpen:
		return errWriteClosed
	case s.writeUntil.passed():
		return fmt.Errorf("webrtc: write: %w", os.ErrDeadlineExceeded)
	}
	return nil
}

var errWriteClosed = fmt.Errorf("webrtc: the stream was closed for writing: %w", net.ErrClosed)

func (s *stream) enqueueData(data []byte) {
	m := &outMessage{ppid: ppidBinary, refs: 1}
	if len(data) <= smallMessage {
		m.buf = appendData(make([]byte, 0, len(data)+messageOverhead), data)
		s.enqueue(m)
		return
	}
	m.pooled = messagePool.Get().(*[maxMessage]byte)
	m.buf = appendData(m.pooled[:0], data)
	if !s.conn.kith {
		// go-libp2p reads a length into 4096 bytes, and fails if more comes with it.
		m.follows = &outMessage{ppid: ppidBinary, refs: 1, buf: []byte{m.buf[0], m.buf[1]}}
		m.buf = m.buf[2:]
		s.enqueue(m.follows)
	}
	s.enqueue(m)
}

// enqueue lets a message be sent after those before it.
func (s *stream) enqueue(m *outMessage) {
	c := s.conn
	if s.ending || c.state == stateClosed {
		return
	}
	if s.announce {
		s.announce = false
		s.enqueue(&outMessage{buf: appendChannelOpen(nil), ppid: ppidControl, refs: 1})
	}
	s.queue = append(s.queue, m)
	s.queued += len(m.buf)
	if !s.active {
		s.active = true
		c.send.active = append(c.send.active, s)
	}
}

func (s *stream) control(k control) *outMessage {
	m := &outMessage{buf: appendControl(make([]byte, 0, 16), k), ppid: ppidBinary, refs: 1}
	s.enqueue(m)
	return m
}

// sentAll is called when nothing of the stream is under way.
func (s *stream) sentAll() {
	if len(s.queue) > 0 {
		return
	}
	s.conn.send.idle.Broadcast()
	s.settle()
}

// take handles bytes that came on the channel.
func (s *stream) take(b []byte) {
	for {
		data, rest, done, err := s.parser.next(b)
		switch {
		case err != nil:
			s.reset(host.CodeProtocolViolation)
			return
		case done:
			s.handle(s.parser.control)
		case data == nil:
			return
		case s.readState == readOpen:
			s.store(data)
		default:
			s.consumed += uint64(len(data))
		}
		b = rest
	}
}

// store keeps data for Read.
func (s *stream) store(data []byte) {
	if s.read > 0 && len(s.buffer)+len(data) > cap(s.buffer) && s.read >= len(s.buffer)/2 {
		s.buffer = s.buffer[:copy(s.buffer, s.buffer[s.read:])]
		s.read = 0
	}
	if s.read == len(s.buffer) {
		s.readable.Broadcast()
	}
	s.buffer = append(s.buffer, data...)
	s.conn.receive.unread += len(data)
}

// handle acts on a message that has come whole.
func (s *stream) handle(k control) {
	c := s.conn
	if k.window != 0 {
		if !c.kith {
			c.kith = true
			for _, other := range c.streams {
				other.grant()
				other.writable.Broadcast()
			}
		}
		if k.window > s.allowed {
			s.allowed = k.window
			s.writable.Broadcast()
		}
	}
	switch k.flag {
	case flagFIN:
		if s.readState == readOpen {
			s.readState = readEOF
			s.readable.Broadcast()
		}
		if !s.inEnded && s.queued < maxQueued {
			s.control(control{flag: flagFINACK})
		}
	case flagFINACK:
		if s.sendState == sendFinished {
			s.sendState = sendAnswered
		}
	case flagStopSending:
		if s.sendState < sendAnswered {
			s.stopSending(&StreamError{Code: k.code, Remote: true})
		}
	case flagReset:
		if s.readState == readOpen {
			s.stopReading(readReset, &StreamError{Code: k.code, Remote: true})
		}
		if s.sendState < sendAnswered {
			s.stopSending(&StreamError{Code: k.code, Remote: true})
		}
	}
	s.settle()
}

// stopSending throws away what was not sent. A message whose start was sent must be ended.
func (s *stream) stopSending(err error) {
	s.sendState, s.writeErr = sendReset, err
	s.drop()
	s.writable.Broadcast()
}

// drop throws away what was not sent, but not the opening of the channel.
func (s *stream) drop() {
	keep := s.queue[:0]
	s.queued = 0
	for _, m := range s.queue {
		if m.begun() || m.ppid == ppidControl {
			keep = append(keep, m)
			s.queued += len(m.buf) - m.sent
		} else {
			m.release()
		}
	}
	clear(s.queue[len(keep):])
	s.queue = keep
	s.granting = nil
	if len(keep) == 0 && s.active {
		s.active = false
		list := s.conn.send.active
		for i, other := range list {
			if other == s {
				s.conn.send.active = append(list[:i:i], list[i+1:]...)
				break
			}
		}
	}
}

// stopReading throws away what was received and is not read.
func (s *stream) stopReading(state readState, err error) {
	s.readState, s.readErr = state, err
	if unread := len(s.buffer) - s.read; unread > 0 {
		s.conn.receive.unread -= unread
		s.consumed += uint64(unread)
	}
	s.buffer, s.read = nil, 0
	s.readable.Broadcast()
}

// settle ends our half of the channel when both directions of the stream are over.
func (s *stream) settle() {
	c := s.conn
	if c.state == stateClosed || s.id == handshakeID {
		return
	}
	if s.sendState == sendFinished && s.readState != readOpen && s.finDeadline.IsZero() {
		s.wait()
	}
	sendOver := s.sendState >= sendAnswered || s.finLate
	if !sendOver || s.readState == readOpen {
		return
	}
	if !s.gone {
		s.setGone()
	}
	if s.ending || len(s.queue) > 0 || s.inFlight > 0 {
		return
	}
	s.ending = true
	if s.announce { // the remote has never heard of it
		s.outEnded, s.inEnded = true, true
		s.forget()
		return
	}
	c.send.resetIDs = append(c.send.resetIDs, halfEnd{s.id, s})
}

func (s *stream) setGone() {
	s.gone = true
	s.readUntil.stop()
	s.writeUntil.stop()
}

// answered notes that the remote knows of the stream.
func (s *stream) answered() {
	if s.unanswered {
		s.unanswered = false
		s.conn.unanswered--
		s.conn.opened.Broadcast()
	}
}

// remoteEnded is called when the remote has ended its half of the channel.
func (s *stream) remoteEnded() {
	if s.endsEarlier && s.readState == readOpen {
		s.endsEarlier = false
		return
	}
	s.inEnded = true
	s.answered()
	if s.id == handshakeID {
		return
	}
	if s.readState == readOpen {
		s.stopReading(readReset, &StreamError{Remote: true})
	}
	if s.sendState < sendAnswered {
		s.stopSending(&StreamError{Remote: true})
	}
	s.settle()
	s.forget()
}

// forget lets the ID be used again when both halves have ended.
func (s *stream) forget() {
	if !s.outEnded || !s.inEnded || s.conn.streams[s.id] != s {
		return
	}
	s.answered()
	delete(s.conn.streams, s.id)
	if s.ours {
		s.conn.numOurs--
		s.conn.opened.Broadcast()
	}
	s.conn.windows -= s.window - firstWindow
}

// Close ends both directions. What was written still arrives.
func (s *stream) Close() error {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == stateClosed {
		return nil
	}
	s.finishWriting()
	s.closeReading()
	s.setGone()
	s.settle()
	c.finish()
	return nil
}

// CloseWrite lets the remote read io.EOF after what was written.
func (s *stream) CloseWrite() error {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == stateClosed {
		return c.err
	}
	s.finishWriting()
	s.settle()
	c.finish()
	return nil
}

func (s *stream) finishWriting() {
	if s.sendState != sendOpen {
		return
	}
	s.sendState = sendFinished
	s.control(control{flag: flagFIN})
	s.writable.Broadcast()
}

// CloseRead throws away what comes.
func (s *stream) CloseRead() error {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == stateClosed {
		return c.err
	}
	s.closeReading()
	s.settle()
	c.finish()
	return nil
}

var errReadClosed = fmt.Errorf("webrtc: the stream was closed for reading: %w", net.ErrClosed)

func (s *stream) closeReading() {
	switch s.readState {
	case readOpen:
		s.stopReading(readClosed, errReadClosed)
		s.control(control{flag: flagStopSending})
	case readEOF:
		s.stopReading(readClosed, errReadClosed)
	}
}

// wait gives the remote some time to answer FIN.
func (s *stream) wait() {
	s.finDeadline = time.Now().Add(finAckWait)
	s.finQueued = s.queued
	s.conn.closing = append(s.conn.closing, s)
}

// waited is called when that time is over. A remote that still takes data gets more.
func (s *stream) waited() {
	switch {
	case s.sendState != sendFinished:
	case s.queued == 0:
		s.finLate = true
		s.settle()
	case s.queued < s.finQueued:
		s.wait()
	default:
		s.stopSending(&StreamError{})
		s.control(control{flag: flagReset})
		s.settle()
	}
}

// Reset ends both directions at once.
func (s *stream) Reset(code uint32) error {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == stateClosed {
		return nil
	}
	s.reset(code)
	c.finish()
	return nil
}

func (s *stream) reset(code uint32) {
	err := &StreamError{Code: code}
	sending, reading := s.sendState < sendAnswered, s.readState == readOpen
	if sending {
		s.stopSending(err)
		s.control(control{flag: flagReset, code: code})
	}
	if reading {
		s.control(control{flag: flagStopSending, code: code})
	}
	if s.readState != readClosed && s.readState != readReset {
		s.stopReading(readReset, err)
	}
	s.setGone()
	s.settle()
}

// SetDeadline sets both deadlines.
func (s *stream) SetDeadline(t time.Time) error {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	s.readUntil.set(t, &s.readable, s.gone)
	s.writeUntil.set(t, &s.writable, s.gone)
	return nil
}

// SetReadDeadline sets when Read ends.
func (s *stream) SetReadDeadline(t time.Time) error {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	s.readUntil.set(t, &s.readable, s.gone)
	return nil
}

// SetWriteDeadline sets when Write ends.
func (s *stream) SetWriteDeadline(t time.Time) error {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	s.writeUntil.set(t, &s.writable, s.gone)
	return nil
}

// A deadline wakes those that wait when it passes.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (d *deadline) set(t time.Time, waiting *sync.Cond, gone bool) {
	d.stop()
	d.at = t
	waiting.Broadcast()
	if wait := time.Until(t); !t.IsZero() && wait > 0 && !gone {
		d.timer = time.AfterFunc(wait, func() {
			waiting.L.Lock()
			defer waiting.L.Unlock()
			waiting.Broadcast()
		})
	}
}

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}

// A handshakeChannel is the channel of the Noise handshake as a net.Conn.
type handshakeChannel struct {
	*stream
}

func (h handshakeChannel) Close() error         { return nil }
func (h handshakeChannel) LocalAddr() net.Addr  { return h.conn.socket.conn.LocalAddr() }
func (h handshakeChannel) RemoteAddr() net.Addr { return h.conn.addr }
