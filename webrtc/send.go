package webrtc

import (
	"encoding/binary"
	"sync"
	"time"
)

// Sizes and times of SCTP.
const (
	// packetSize is how long our SCTP packets are at most, in bytes: with DTLS, UDP
	// and IPv6 less than 1280, which every path carries; and divisible by 4.
	packetSize = 1188

	// fragmentSize is how much of a message one packet holds, in bytes.
	fragmentSize = packetSize - sctpHeaderLen - dataHeaderLen

	// wholeMessage is the longest message that we make, in bytes: it fills its
	// packets to the end, so that all packets of a batch are equally long.
	wholeMessage = maxMessage / fragmentSize * fragmentSize

	// minFragment is the shortest start of a message worth a place at the end of a packet, in bytes.
	minFragment = 4

	initialWindow = 10 * packetSize // https://www.rfc-editor.org/rfc/rfc6928.html
	minWindow     = 4 * packetSize

	// maxWindow bounds what is under way, in bytes; maxFlight, in chunks.
	maxWindow = 4 << 20
	maxFlight = 8192

	// maxQueued is how much data of a stream waits to be sent, in bytes, before Write does.
	maxQueued = 128 << 10

	// maxControls is how many chunks that are no data wait to be sent. More are
	// lost, and their causes come again.
	maxControls = 32

	// minRTO is above the 200 ms for which remotes hold acknowledgements back.
	initialRTO = time.Second
	minRTO     = 400 * time.Millisecond
	maxRTO     = 10 * time.Second

	// reorderThreshold is after how many later packets one counts as lost.
	reorderThreshold = 3

	// resetBatch is how many channels one request ends.
	resetBatch = 128
)

// An outMessage is a message that waits, or whose pieces are under way.
type outMessage struct {
	buf    []byte
	sent   int // how much of buf was sent at least once
	ppid   uint32
	refs   int // pieces under way, and 1 while it is not sent whole
	pooled *[maxMessage]byte

	// follows is the length of this message, when that is a message of its own
	follows *outMessage
}

// begun tells whether the remote may have seen a part of m, so that it needs the rest.
func (m *outMessage) begun() bool { return m.sent > 0 || m.follows != nil && m.follows.sent > 0 }

var messagePool = sync.Pool{New: func() any { return new([maxMessage]byte) }}

func (m *outMessage) release() {
	if m.refs--; m.refs == 0 && m.pooled != nil {
		messagePool.Put(m.pooled)
		m.pooled, m.buf = nil, nil
	}
}

type flightState uint8

const (
	underWay flightState = iota
	lost
	acked
)

// An outChunk is a piece of a message that was sent.
type outChunk struct {
	stream *stream
	msg    *outMessage
	data   []byte
	sentAt time.Time
	order  uint64 // of its last packet among all
	ppid   uint32
	id     uint16
	ssn    uint16
	flags  byte
	state  flightState
	again  bool // sent more than once
}

// A sender is the half of a connection that sends. Guarded by conn.mu.
type sender struct {
	tag    uint32
	next   uint32     // the TSN of the next chunk
	flight []outChunk // those not acknowledged, by TSN, from head on
	head   int
	bytes  int // of data under way
	lost   int // how many chunks are to be sent again
	window int // of congestion
	slow   int // the window above which it grows slowly
	remote int // what the remote has room for, when nothing is under way
	order  uint64

	recovery   uint32 // until this TSN is acknowledged, the window does not shrink again
	recovering bool

	srtt, rttvar, rto time.Duration
	timeout           time.Time // when what is under way counts as lost

	controls [][]byte  // chunks that go out with the next packet
	active   []*stream // that have something to send
	giveUp   bool      // CloseWithCode waits no longer
	idle     sync.Cond // some stream has sent all

	resetNext    uint32    // the number of our next request
	resetIDs     []halfEnd // channels that wait for one
	resetNow     []halfEnd // those of the request that is under way
	resetChunk   []byte
	resetTimeout time.Time
	resetRTO     time.Duration
}

// A halfEnd is a channel whose half is to be ended. It may have a stream no more.
type halfEnd struct {
	id     uint16
	stream *stream
}

func (s *sender) init(tsn uint32) {
	s.next, s.resetNext = tsn, tsn
	s.window, s.slow = initialWindow, maxWindow
	s.rto = initialRTO
}

func (s *sender) drop() {
	for i := s.head; i < len(s.flight); i++ {
		if k := &s.flight[i]; k.state != acked {
			k.msg.release()
		}
	}
	s.flight, s.head, s.controls, s.active, s.resetIDs, s.resetNow = nil, 0, nil, nil, nil, nil
	s.idle.Broadcast()
}

func (s *sender) first() uint32 { return s.next - uint32(len(s.flight)-s.head) }

// control queues a chunk that is no data.
func (s *sender) control(chunk []byte) {
	if len(s.controls) < maxControls {
		s.controls = append(s.controls, chunk)
	}
}

// mayStart tells whether new data can be sent. With nothing under way there is
// always one packet: it asks a remote without room whether it has some by now.
func (s *sender) mayStart() bool {
	if len(s.active) == 0 || len(s.flight)-s.head >= maxFlight {
		return false
	}
	return s.bytes == 0 && s.lost == 0 || s.bytes < s.window && s.bytes < s.remote
}

func (s *sender) mayRepeat() bool { return s.lost > 0 && (s.bytes == 0 || s.bytes < s.window) }

var batchPool = sync.Pool{New: func() any { return new([maxBatch]byte) }}

// flush sends all that may be sent.
func (c *conn) flush(now time.Time) {
	s, r := &c.send, &c.receive
	if c.state != stateOpen {
		return
	}
	c.requestResets(now)
	if !r.ackDue && len(s.controls) == 0 && !s.mayRepeat() && !s.mayStart() {
		return
	}
	buffer := batchPool.Get().(*[maxBatch]byte)
	defer batchPool.Put(buffer)
	out := buffer[:0]
	size, count := 0, 0 // of the packets in out
	for {
		at := len(out)
		b := c.layer.start(out)
		base := len(b)
		b = appendSCTPHeader(b, s.tag)
		if r.ackDue || r.unacked > 0 && (s.mayRepeat() || s.mayStart()) {
			b = r.appendSack(b, c)
		}
		for len(s.controls) > 0 && len(b)-base+len(s.controls[0]) <= packetSize {
			b = append(b, s.controls[0]...)
			s.controls = s.controls[1:]
		}
		b = c.appendChunks(b, base, now)
		if len(b)-base == sctpHeaderLen {
			break
		}
		s.order++
		finishSCTP(b[base:])
		b = c.layer.finish(b, at, recordApplication)
		n := len(b) - at
		if count > 0 && n > size {
			c.socket.send(out, size, c.addr)
			copy(buffer[:], b[at:])
			b, count = buffer[:n], 0
		}
		if count == 0 {
			size = n
		}
		out = b
		count++
		if n < size || count == maxSegments || len(out)+packetSize+recordOverhead > maxBatch {
			c.socket.send(out, size, c.addr)
			out, count = buffer[:0], 0
		}
	}
	if count > 0 {
		c.socket.send(out, size, c.addr)
	}
	if s.timeout.IsZero() && s.head < len(s.flight) {
		s.timeout = now.Add(s.rto)
	}
}

// appendChunks fills a packet with what has to be sent again, and then with new data.
func (c *conn) appendChunks(b []byte, base int, now time.Time) []byte {
	s := &c.send
	for i := s.head; i < len(s.flight) && s.mayRepeat(); i++ {
		k := &s.flight[i]
		if k.state != lost {
			continue
		}
		if len(b)-base+dataHeaderLen+len(k.data) > packetSize {
			return b
		}
		k.state, k.again, k.sentAt, k.order = underWay, true, now, s.order
		s.lost--
		s.bytes += len(k.data)
		b = appendDataChunk(b, k, s.first()+uint32(i-s.head))
	}
	for s.mayStart() {
		room := packetSize - (len(b) - base) - dataHeaderLen
		st := s.active[0]
		m := st.queue[0]
		n := len(m.buf) - m.sent
		if room < min(n, minFragment) {
			return b
		}
		n = min(n, room)
		k := outChunk{stream: st, msg: m, data: m.buf[m.sent : m.sent+n], sentAt: now, order: s.order, ppid: m.ppid, id: st.id, ssn: st.ssn}
		if m.sent == 0 {
			k.flags |= 2
		}
		m.sent += n
		m.refs++
		st.queued -= n
		st.inFlight++
		if m.sent == len(m.buf) {
			k.flags |= 1
			m.release()
			st.ssn++
			st.queue[0] = nil
			st.queue = st.queue[1:]
			s.active = s.active[1:]
			if len(st.queue) > 0 {
				s.active = append(s.active, st) // the others come first
			} else {
				st.queue, st.active = nil, false
			}
		}
		if len(s.flight) == cap(s.flight) && s.head > len(s.flight)/2 {
			n := copy(s.flight, s.flight[s.head:])
			clear(s.flight[n:])
			s.flight, s.head = s.flight[:n], 0
		}
		s.flight = append(s.flight, k)
		b = appendDataChunk(b, &k, s.next)
		s.next++
		s.bytes += n
		if st.queued <= maxQueued/2 {
			st.writable.Broadcast()
		}
	}
	return b
}

func appendDataChunk(b []byte, k *outChunk, tsn uint32) []byte {
	b = append(b, chunkData, k.flags)
	b = binary.BigEndian.AppendUint16(b, uint16(dataHeaderLen+len(k.data)))
	b = binary.BigEndian.AppendUint32(b, tsn)
	b = binary.BigEndian.AppendUint16(b, k.id)
	b = binary.BigEndian.AppendUint16(b, k.ssn)
	b = binary.BigEndian.AppendUint32(b, k.ppid)
	b = append(b, k.data...)
	return append(b, "\x00\x00\x00"[:-len(k.data)&3]...)
}

// sendNow sends one chunk by itself.
func (c *conn) sendNow(tag uint32, chunk []byte) {
	b := c.layer.start(make([]byte, 0, recordOverhead+sctpHeaderLen+len(chunk)))
	base := len(b)
	b = append(appendSCTPHeader(b, tag), chunk...)
	finishSCTP(b[base:])
	b = c.layer.finish(b, 0, recordApplication)
	c.socket.send(b, len(b), c.addr)
}

// sendCheck sends the dialer's connectivity check.
func (c *conn) sendCheck() {
	p := c.check.request()
	c.socket.send(p, len(p), c.addr)
}

// handleSack takes what the remote has received.
func (c *conn) handleSack(v []byte) {
	s := &c.send
	if len(v) < 12 {
		return
	}
	cum, room := binary.BigEndian.Uint32(v), int(binary.BigEndian.Uint32(v[4:]))
	gaps := int(binary.BigEndian.Uint16(v[8:]))
	if len(v) < 12+4*gaps || !before(cum, s.next) || before(cum+1, s.first()) {
		return // it says what cannot be, or is older than another
	}
	now := time.Now()
	full := s.bytes+packetSize >= s.window
	done := 0
	var newest *outChunk
	ack := func(k *outChunk) {
		if k.state == acked {
			return
		}
		if k.state == lost {
			s.lost--
		} else {
			s.bytes -= len(k.data)
		}
		k.state = acked
		done += len(k.data)
		if newest == nil || k.order > newest.order {
			newest = k
		}
		k.msg.release()
		k.msg, k.data = nil, nil
		k.stream.inFlight--
		if k.stream.inFlight == 0 {
			k.stream.sentAll()
		}
	}
	first := s.first()
	advanced := cum+1 != first
	head := s.head + int(cum+1-first)
	for i := s.head; i < head; i++ {
		ack(&s.flight[i])
	}
	last := 0
	for i := range gaps {
		from, to := int(binary.BigEndian.Uint16(v[12+4*i:])), int(binary.BigEndian.Uint16(v[14+4*i:]))
		if from <= last || to < from || head+to-1 >= len(s.flight) {
			break
		}
		last = to
		for j := from; j <= to; j++ {
			ack(&s.flight[head+j-1])
		}
	}
	if newest != nil {
		if !newest.again {
			s.measure(now.Sub(newest.sentAt))
		}
		if gaps > 0 {
			order := newest.order
			for i := head; i < head+last; i++ {
				if k := &s.flight[i]; k.state == underWay && k.order+reorderThreshold <= order {
					k.state = lost
					s.lost++
					s.bytes -= len(k.data)
				}
			}
		}
	}
	for i := s.head; i < head; i++ {
		s.flight[i].stream = nil
	}
	s.head = head
	if s.head == len(s.flight) {
		s.flight, s.head = s.flight[:0], 0
	}
	starved := done == 0 && s.remote < packetSize && room >= packetSize && head < len(s.flight)
	if starved {
		// The remote had no room for what is under way, and has some now.
		s.loseAll()
		s.rto = max(minRTO, s.srtt+4*s.rttvar)
	}
	s.remote = max(0, room)
	if s.recovering && !before(cum, s.recovery) {
		s.recovering = false
	}
	switch {
	case starved:
	case s.lost > 0 && !s.recovering:
		s.recovering, s.recovery = true, s.next-1
		s.slow = max(minWindow, s.window*7/10) // as CUBIC does
		s.window = s.slow
	case s.recovering || !full:
	case s.window < s.slow:
		s.window = min(maxWindow, s.window+done)
	default:
		s.window = min(maxWindow, s.window+max(1, packetSize*done/s.window))
	}
	switch {
	case s.head == len(s.flight):
		s.timeout = time.Time{}
	case advanced || done > 0 || starved:
		s.timeout = now.Add(s.rto)
	}
}

// loseAll lets all that is under way be sent again.
func (s *sender) loseAll() {
	for i := s.head; i < len(s.flight); i++ {
		if k := &s.flight[i]; k.state == underWay {
			k.state = lost
			s.lost++
		}
	}
	s.bytes = 0
}

// measure takes a round-trip time in. https://www.rfc-editor.org/rfc/rfc6298.html
func (s *sender) measure(rtt time.Duration) {
	if s.srtt == 0 {
		s.srtt, s.rttvar = max(1, rtt), rtt/2
	} else {
		s.rttvar += ((s.srtt - rtt).Abs() - s.rttvar) / 4
		s.srtt = max(1, s.srtt+(rtt-s.srtt)/8)
	}
	s.rto = min(maxRTO, max(minRTO, s.srtt+4*s.rttvar))
}

// sendTimeouts does what is due because no answer came.
func (c *conn) sendTimeouts(now time.Time) {
	s := &c.send
	if !s.timeout.IsZero() && !now.Before(s.timeout) {
		s.loseAll()
		s.slow = max(minWindow, s.window/2)
		s.window = packetSize
		s.recovering, s.recovery = true, s.next-1
		s.rto = min(maxRTO, 2*s.rto)
		s.timeout = time.Time{}
	}
	if !s.resetTimeout.IsZero() && !now.Before(s.resetTimeout) {
		s.resetRTO = min(maxRTO, 2*s.resetRTO)
		s.resetTimeout = now.Add(s.resetRTO)
		s.control(s.resetChunk)
	}
	if r := &c.receive; !r.ackDeadline.IsZero() && !now.Before(r.ackDeadline) {
		r.ackDue = true
	}
}

// requestResets asks the remote to end the next channels, when the last request is answered.
// https://www.rfc-editor.org/rfc/rfc6525.html#section-4.1
func (c *conn) requestResets(now time.Time) {
	s := &c.send
	if len(s.resetNow) > 0 || len(s.resetIDs) == 0 {
		return
	}
	n := min(len(s.resetIDs), resetBatch)
	s.resetNow = append(s.resetNow, s.resetIDs[:n]...)
	s.resetIDs = s.resetIDs[n:]
	if len(s.resetIDs) == 0 {
		s.resetIDs = nil
	}
	v := binary.BigEndian.AppendUint32(nil, s.resetNext)
	v = binary.BigEndian.AppendUint32(v, c.receive.resetNext-1)
	v = binary.BigEndian.AppendUint32(v, s.next-1)
	for _, e := range s.resetNow {
		v = binary.BigEndian.AppendUint16(v, e.id)
	}
	s.resetNext++
	s.resetChunk = appendChunk(nil, chunkReconfig, 0, appendParam(nil, paramResetOutgoing, v))
	s.resetRTO = s.rto
	s.resetTimeout = now.Add(s.resetRTO)
	s.controls = append(s.controls, s.resetChunk)
}

// handleResetResponse takes the answer to our request.
func (c *conn) handleResetResponse(v []byte) {
	s := &c.send
	if len(v) < 8 || len(s.resetNow) == 0 || binary.BigEndian.Uint32(v) != s.resetNext-1 {
		return
	}
	if binary.BigEndian.Uint32(v[4:]) == resetInProgress {
		return // the timer asks again
	}
	for _, e := range s.resetNow {
		if e.stream != nil {
			e.stream.outEnded = true
			e.stream.forget()
		}
	}
	clear(s.resetNow)
	s.resetNow, s.resetChunk, s.resetTimeout = s.resetNow[:0], nil, time.Time{}
}

// busy tells whether data of a stream that was closed for writing is still on its way.
func (c *conn) busy() bool {
	for _, s := range c.streams {
		if s.sendState >= sendFinished && s.sendState != sendReset && (s.queued > 0 || s.inFlight > 0) {
			return true
		}
	}
	return false
}
