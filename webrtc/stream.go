package webrtc

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/sctp"

	"github.com/kith-p2p/kith/host"
)

// handshakeID is the channel of the Noise handshake.
const handshakeID = 0

// The messages that open a data channel with no label, reliable and in order.
// https://www.rfc-editor.org/rfc/rfc8832.html#section-5
const (
	channelOpen    = 3
	channelAck     = 2
	channelOpenLen = 12
)

// Bounds of a stream.
const (
	// maxQueued is how much of a stream waits for the remote's acknowledgement, in
	// bytes, before Write does.
	maxQueued = 512 << 10

	// lowAllowance is how much a stream may send while the remote's window is low,
	// because it does not read some stream, in bytes. A quarter of the window is
	// kept for that: it does not know which, and does not tell.
	lowAllowance = 16 << 10

	// While the window is low and nothing is under way that would be answered, a
	// piece of a stream that waits asks for news of it: as soon as the first of these,
	// then later and later up to the second. Two packets are answered at once, which
	// is not worth their space when it has taken long.
	probeMin, probeMax   = 5 * time.Millisecond, time.Second
	probeSize, probeLate = 2 * fragmentSize, 64

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
	sendFinished           // FIN was sent
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
type stream struct {
	conn *conn
	id   uint16
	ours bool

	unread atomic.Int64 // bytes that were received
	reads  atomic.Int64 // calls of Read that took some

	mu sync.Mutex // guards all that follows

	// sending
	out         *sctp.Stream // nil: the remote has not heard of a stream of ours
	announced   bool         // the channel is open, as far as we are concerned
	unanswered  bool         // the remote has said nothing on it; guarded by conn.mu
	urgent      bool         // it has said that it wants no more; guarded by conn.mu
	sendState   sendState
	writeErr    error
	low         int // bytes sent while the window is low
	finTimer    *time.Timer
	finLate     bool   // FIN was not answered in time
	finBuffered uint64 // what was not acknowledged when the wait for it began
	writable    sync.Cond
	writeUntil  deadline

	// receiving
	admitted  bool // the remote has opened it, and we have not refused
	readState readState
	parser    parser
	buffer    []byte // from read on
	read      int
	readErr   error
	readable  sync.Cond
	readUntil deadline

	// the end of the channel
	over   bool        // nobody here uses it any more
	ending bool        // our half is being ended
	ended  bool        // the remote's half has ended, or the connection
	late   *time.Timer // ends our half, after a RESET
}

func newStream(c *conn, id uint16) *stream {
	s := &stream{conn: c, id: id}
	s.writable.L, s.readable.L = &s.mu, &s.mu
	return s
}

var _ host.MuxedStream = (*stream)(nil)

// Read reads data. See host.MuxedStream.
func (s *stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.readState == readReset || s.readState == readClosed:
			return 0, s.readErr
		case s.readUntil.passed():
			return 0, fmt.Errorf("webrtc: read: %w", os.ErrDeadlineExceeded)
		case s.read < len(s.buffer):
			n := copy(p, s.buffer[s.read:])
			if s.read += n; s.read == len(s.buffer) {
				s.read = 0
				if s.buffer = s.buffer[:0]; cap(s.buffer) > keepBuffer && (cap(s.buffer) > maxUnread/4 || s.readState != readOpen) {
					s.buffer = nil
				}
			}
			s.reads.Add(1)
			s.account(-n)
			return n, nil
		case s.readState == readEOF:
			return 0, io.EOF
		}
		if err := s.conn.closed(); err != nil && (s.ended || s.out == nil || !isRemote(err)) {
			return 0, err
		}
		s.readable.Wait()
	}
}

func isRemote(err error) bool {
	var e *CloseError
	return errors.As(err, &e) && e.Remote
}

// account counts bytes that were received and not read.
func (s *stream) account(n int) {
	if n == 0 {
		return
	}
	s.unread.Add(int64(n))
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unread += n; n < 0 {
		c.room.Broadcast()
	}
	c.settle()
}

// Write sends p. It waits while too much of the stream is to be sent.
func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	written := 0
	var piece [maxData + messageOverhead]byte
	for len(p) > 0 {
		n, err := s.waitToSend(min(len(p), maxData))
		if err != nil {
			return written, err
		}
		if err := s.send(appendData(piece[:0], p[:n]), sctp.PayloadTypeWebRTCBinary); err != nil {
			return written, err
		}
		written += n
		p = p[n:]
	}
	if written == 0 { // an empty write tells of the state, and nothing else
		return 0, s.cannotWrite()
	}
	return written, nil
}

// waitToSend waits until up to n bytes may be sent, and tells how many.
func (s *stream) waitToSend(n int) (int, error) {
	for {
		if err := s.cannotWrite(); err != nil {
			return 0, err
		}
		var again time.Duration
		if s.out == nil || s.out.BufferedAmount() < maxQueued {
			var may int
			if may, again = s.conn.allow(s, n); may > 0 {
				return may, nil
			}
		}
		var timer *time.Timer
		if again > 0 {
			timer = time.AfterFunc(again, s.wakeWriter)
		}
		s.writable.Wait()
		if timer != nil {
			timer.Stop()
		}
	}
}

func (s *stream) wakeWriter() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writable.Broadcast()
}

// allow tells how much of n bytes a stream may send, given what the remote has room
// for, and if none, when to ask again.
func (c *conn) allow(s *stream, n int) (may int, again time.Duration) {
	buffered := c.assoc.BufferedAmount()
	left, reserve := int(c.window.Load())-buffered-n, int(c.fullest)/4
	switch {
	case left >= reserve || s.id == handshakeID:
		s.low = 0
		return n, 0
	case left >= reserve/2 && s.low+n <= lowAllowance:
		s.low += n
		return n, 0
	case buffered > 0:
		return 0, probeMin
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if now.Sub(c.probeAt) > 2*probeMax { // the last time is long ago
		c.probing = 0
	}
	if now.Before(c.probeAt) {
		return 0, c.probeAt.Sub(now)
	}
	c.probing = min(max(2*c.probing, probeMin), probeMax)
	c.probeAt = now.Add(c.probing)
	if c.probing < probeMax/8 {
		return min(n, probeSize), 0
	}
	return min(n, probeLate), 0
}

func (s *stream) cannotWrite() error {
	switch {
	case s.writeErr != nil:
		return s.writeErr
	case s.conn.closed() != nil:
		return s.conn.closed()
	case s.sendState != sendOpen:
		return errWriteClosed
	case s.writeUntil.passed():
		return fmt.Errorf("webrtc: write: %w", os.ErrDeadlineExceeded)
	}
	return nil
}

var errWriteClosed = fmt.Errorf("webrtc: the stream was closed for writing: %w", net.ErrClosed)

// send sends a message, and opens the channel before if it is not open.
func (s *stream) send(p []byte, kind sctp.PayloadProtocolIdentifier) error {
	if s.ending {
		return nil
	}
	if s.out == nil {
		out, err := s.conn.assoc.OpenStream(s.id, sctp.PayloadTypeWebRTCBinary)
		if err != nil {
			return s.sendError(err)
		}
		s.out, s.announced = out, true
		s.watch()
		if _, err := out.WriteSCTP(append([]byte{channelOpen}, make([]byte, channelOpenLen-1)...), sctp.PayloadTypeWebRTCDCEP); err != nil {
			return s.sendError(err)
		}
		go s.receive()
	}
	if _, err := s.out.WriteSCTP(p, kind); err != nil {
		return s.sendError(err)
	}
	return nil
}

// watch lets Write go on when the remote has got something.
func (s *stream) watch() {
	s.out.SetBufferedAmountLowThreshold(maxQueued / 2)
	s.out.OnBufferedAmountLow(s.wakeWriter)
}

func (s *stream) sendError(err error) error {
	if closed := s.conn.closed(); closed != nil {
		return closed
	}
	return fmt.Errorf("webrtc: sending: %w: %w", err, net.ErrClosed)
}

func (s *stream) control(k control) {
	s.send(appendControl(make([]byte, 0, 16), k), sctp.PayloadTypeWebRTCBinary)
}

// received are buffers for messages of the usual size.
var received = sync.Pool{New: func() any { return new([maxMessage]byte) }}

// maxMessage is the longest message that libp2p peers send, in bytes.
const maxMessage = 16384

// receive takes what comes on the channel until the remote has ended it.
func (s *stream) receive() {
	var small [64]byte
	for {
		p := small[:]
		n, kind, err := s.out.ReadSCTP(p)
		var block *[maxMessage]byte
		if errors.Is(err, io.ErrShortBuffer) { // it stays
			if n <= maxMessage {
				block = received.Get().(*[maxMessage]byte)
				p = block[:]
			} else {
				p = make([]byte, n)
			}
			n, kind, err = s.out.ReadSCTP(p)
		}
		if err != nil {
			if err != io.EOF { // the association has ended: acceptStreams tells why
				<-s.conn.done
			}
			break
		}
		s.message(p[:n], kind)
		if block != nil {
			received.Put(block)
		}
		if s.unread.Load() > 0 {
			s.conn.wait(s)
		}
	}
	s.remoteEnded()
}

// wait returns when there is room for more that nobody reads. A stream that has none
// for long, so that the whole connection stands still, is reset.
func (c *conn) wait(s *stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var timer *time.Timer
	var since time.Time
	reads := int64(-1)
	for c.unread > maxUnread && s.unread.Load() > 0 && c.err == nil && !(s.urgent && c.unread <= maxUnread+receiveWindow) {
		if now, r := time.Now(), s.reads.Load(); r != reads || c.offered.Load() > receiveWindow/8 {
			reads, since = r, now
		} else if now.Sub(since) >= stallWait {
			c.mu.Unlock()
			s.Reset(host.CodeResourceLimit)
			c.mu.Lock()
			break
		}
		if timer == nil {
			timer = time.AfterFunc(stallWait/4, c.wakeWaiting)
			defer timer.Stop()
		} else {
			timer.Reset(stallWait / 4)
		}
		c.room.Wait()
	}
}

func (c *conn) wakeWaiting() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.room.Broadcast()
}

// message handles a message of SCTP.
func (s *stream) message(p []byte, kind sctp.PayloadProtocolIdentifier) {
	if kind == sctp.PayloadTypeWebRTCDCEP {
		switch {
		case len(p) > 0 && p[0] == channelAck:
			s.answered()
		case len(p) >= channelOpenLen && p[0] == channelOpen:
			s.opened()
		}
		return
	}
	if kind != sctp.PayloadTypeWebRTCBinary && kind != sctp.PayloadTypeWebRTCString {
		return
	}
	s.answered()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ours && !s.admitted && s.id != handshakeID {
		return
	}
	before := len(s.buffer) - s.read
	s.take(p)
	if after := len(s.buffer) - s.read; s.readState <= readEOF {
		if before == 0 && after > 0 {
			s.readable.Broadcast()
		}
		s.account(after - before)
	}
}

// opened is called when the remote opens the channel.
func (s *stream) opened() {
	s.mu.Lock()
	if s.ours || s.admitted || s.ending || s.id == handshakeID {
		s.mu.Unlock()
		return
	}
	s.admitted = true
	s.watch()
	s.send([]byte{channelAck}, sctp.PayloadTypeWebRTCDCEP)
	s.mu.Unlock()
	if !s.conn.incoming(s) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.admitted, s.ending, s.over = false, true, true // there is no other word for no
		s.out.Close()
	}
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
	s.buffer = append(s.buffer, data...)
}

// handle acts on a message that has come whole.
func (s *stream) handle(k control) {
	switch k.flag {
	case flagFIN:
		if s.readState == readOpen {
			s.readState = readEOF
			s.readable.Broadcast()
		}
		if !s.ended && s.out.BufferedAmount() < maxQueued+keepBuffer {
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

func (s *stream) stopSending(err error) {
	s.sendState, s.writeErr = sendReset, err
	s.writable.Broadcast()
}

// stopReading throws away what was received and is not read.
func (s *stream) stopReading(state readState, err error) {
	s.readState, s.readErr = state, err
	s.account(-int(s.unread.Load()))
	s.buffer, s.read = nil, 0
	s.readable.Broadcast()
}

// settle ends our half of the channel when both directions of the stream are over.
func (s *stream) settle() {
	if s.id == handshakeID || s.ending || s.conn.closed() != nil {
		return
	}
	// Without out the connection is closing, and took no FIN.
	if s.sendState == sendFinished && s.readState != readOpen && s.finTimer == nil && s.out != nil {
		s.finBuffered = s.out.BufferedAmount()
		s.finTimer = time.AfterFunc(finAckWait, s.waited)
	}
	sendOver := s.sendState >= sendAnswered || s.finLate
	if !sendOver || s.readState == readOpen {
		return
	}
	s.setOver()
	if s.finTimer != nil {
		s.finTimer.Stop()
	}
	s.ending = true
	if s.out == nil { // the remote has never heard of it
		s.answered()
		s.conn.forget(s, false)
		return
	}
	if s.sendState == sendReset && !s.ended {
		s.late = time.AfterFunc(resetRest, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.endLate()
		})
		return
	}
	s.out.Close()
	if s.ended {
		s.conn.forget(s, true)
	}
}

// endLate ends our half of the channel if it is still to be ended after a RESET.
func (s *stream) endLate() {
	if s.late != nil {
		s.late.Stop()
		s.late = nil
		s.out.Close()
	}
}

// waited is called when the remote has had time to answer FIN. One that still takes
// data gets more.
func (s *stream) waited() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sendState != sendFinished || s.ending || s.conn.closed() != nil {
		return
	}
	switch buffered := s.out.BufferedAmount(); {
	case buffered == 0:
		s.finLate = true
	case buffered < s.finBuffered:
		s.finBuffered = buffered
		s.finTimer.Reset(finAckWait)
		return
	default:
		s.stopSending(&StreamError{})
		s.control(control{flag: flagReset})
	}
	s.settle()
}

func (s *stream) setOver() {
	s.over = true
	s.readUntil.stop()
	s.writeUntil.stop()
}

// answered notes that the remote knows of the stream.
func (s *stream) answered() {
	c := s.conn
	if !s.ours {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.unanswered {
		s.unanswered = false
		c.unanswered--
		c.opened.Broadcast()
	}
}

// remoteEnded is called when the remote has ended its half of the channel, or the
// connection is closed.
func (s *stream) remoteEnded() {
	s.answered()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	c := s.conn
	if !s.ours && s.id != handshakeID {
		c.mu.Lock()
		c.theirs--
		c.mu.Unlock()
	}
	if s.id == handshakeID || c.closed() != nil {
		s.readable.Broadcast()
		return
	}
	if s.readState == readOpen {
		s.stopReading(readReset, &StreamError{Remote: true})
	}
	if s.sendState < sendAnswered {
		s.stopSending(&StreamError{Remote: true})
	}
	if s.ending {
		s.endLate()
		c.forget(s, true)
	} else {
		s.settle()
	}
}

// wake is called when the connection is closed.
func (s *stream) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readable.Broadcast()
	s.writable.Broadcast()
	s.readUntil.stop()
	s.writeUntil.stop()
	if s.finTimer != nil {
		s.finTimer.Stop()
	}
}

// open tells whether somebody here uses the stream.
func (s *stream) open() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.over && s.id != handshakeID
}

// Close ends both directions. What was written still arrives.
func (s *stream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn.closed() != nil {
		return nil
	}
	s.finishWriting()
	s.closeReading()
	s.setOver()
	s.settle()
	return nil
}

// CloseWrite lets the remote read io.EOF after what was written.
func (s *stream) CloseWrite() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.conn.closed(); err != nil {
		return err
	}
	s.finishWriting()
	s.settle()
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
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.conn.closed(); err != nil {
		return err
	}
	s.closeReading()
	s.settle()
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

// Reset ends both directions at once.
func (s *stream) Reset(code uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn.closed() != nil {
		return nil
	}
	s.reset(code)
	return nil
}

func (s *stream) reset(code uint32) {
	err := &StreamError{Code: code}
	sending := s.sendState < sendAnswered
	switch {
	case s.out == nil: // the remote has never heard of it
	case sending:
		s.control(control{flag: flagReset, code: code})
	case s.readState == readOpen:
		s.control(control{flag: flagStopSending, code: code})
	}
	if sending {
		s.stopSending(err)
	}
	if s.readState != readClosed && s.readState != readReset {
		s.stopReading(readReset, err)
	}
	s.setOver()
	s.settle()
}

// SetDeadline sets both deadlines.
func (s *stream) SetDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readUntil.set(t, &s.readable, s.over)
	s.writeUntil.set(t, &s.writable, s.over)
	return nil
}

// SetReadDeadline sets when Read ends.
func (s *stream) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readUntil.set(t, &s.readable, s.over)
	return nil
}

// SetWriteDeadline sets when Write ends.
func (s *stream) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writeUntil.set(t, &s.writable, s.over)
	return nil
}

// A deadline wakes those that wait when it passes.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (d *deadline) set(t time.Time, waiting *sync.Cond, over bool) {
	d.stop()
	d.at = t
	waiting.Broadcast()
	if wait := time.Until(t); !t.IsZero() && wait > 0 && !over {
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
func (h handshakeChannel) LocalAddr() net.Addr  { return h.conn.link.LocalAddr() }
func (h handshakeChannel) RemoteAddr() net.Addr { return h.conn.link.addr }
