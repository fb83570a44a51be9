package webrtc

import (
	"bytes"
	"encoding/binary"
	"slices"
	"time"
)

const (
	// maxUnread is how much data of all streams waits to be read, in bytes. It is
	// nine messages of the longest kind, and what go-libp2p gives.
	maxUnread = 9 * maxIncoming

	// maxUnreadKith is the same for a remote that keeps to a window for each
	// stream, of which some may stand still, and maxOffer how much of it one
	// acknowledgement offers.
	maxUnreadKith = 16 << 20
	maxOffer      = 4 << 20

	// maxGaps is how many holes what was received may have: an acknowledgement
	// has room for these.
	maxGaps = 200

	// chunkOverhead is what a chunk that waits for those before it costs besides
	// its data, in bytes, so that many small ones do not pass for few.
	chunkOverhead = 64

	// ackEvery is after how many packets an acknowledgement is sent, and ackDelay
	// after which time.
	ackEvery = 4
	ackDelay = 20 * time.Millisecond
)

// A receiver is the half of a connection that receives. Guarded by conn.mu.
type receiver struct {
	cum     uint32 // all up to this TSN has come
	ready   bool   // cum is known
	later   map[uint32]laterChunk
	gaps    []tsnRange // what of later has come, in order
	held    int        // bytes of later
	unread  int        // bytes in streams
	offered int        // what the last acknowledgement gave

	ackDue      bool
	unacked     int
	ackDeadline time.Time

	resetNext   uint32 // the number of the remote's next request
	resetResult uint32 // what became of the last one
	cookie      []byte
}

// A laterChunk waits for those before it.
type laterChunk struct {
	id    uint16
	flags byte
	ppid  uint32
	data  []byte
}

type tsnRange struct{ from, to uint32 }

func (r *receiver) init() { r.later = make(map[uint32]laterChunk) }

func (r *receiver) drop() { r.later, r.gaps, r.held = nil, nil, 0 }

// room is how much more is taken.
func (r *receiver) room(kith bool) int {
	if kith {
		return max(0, min(maxOffer, maxUnreadKith-r.unread-r.held))
	}
	return max(0, maxUnread-r.unread-r.held)
}

// appendSack appends what was received.
func (r *receiver) appendSack(b []byte, c *conn) []byte {
	r.ackDue, r.unacked, r.ackDeadline = false, 0, time.Time{}
	r.offered = r.room(c.kith)
	n := min(len(r.gaps), maxGaps)
	b = append(b, chunkSack, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(chunkLen+12+4*n))
	b = binary.BigEndian.AppendUint32(b, r.cum)
	b = binary.BigEndian.AppendUint32(b, uint32(r.offered))
	b = binary.BigEndian.AppendUint16(b, uint16(n))
	b = append(b, 0, 0)
	for _, g := range r.gaps[:n] {
		b = binary.BigEndian.AppendUint16(b, uint16(g.from-r.cum))
		b = binary.BigEndian.AppendUint16(b, uint16(g.to-r.cum))
	}
	return b
}

// handleSCTP handles one packet.
func (c *conn) handleSCTP(p []byte) {
	if len(p) < sctpHeaderLen {
		return
	}
	tag := binary.BigEndian.Uint32(p[4:])
	counted := false
	for p = p[sctpHeaderLen:]; len(p) > 0 && c.state != stateClosed; {
		kind, flags, v, rest, err := nextChunk(p)
		if err != nil {
			return
		}
		p = rest
		// The tag tells a connection from an earlier one; DTLS has done so already.
		if tag != c.local.tag && kind != chunkInit && kind != chunkAbort {
			return
		}
		switch kind {
		case chunkData:
			if c.state == stateEchoed {
				c.open() // its answer to the cookie was lost
			}
			if c.state == stateOpen && len(v) >= dataHeaderLen-chunkLen {
				if !counted {
					counted = true
					c.receive.unacked++
				}
				c.handleData(flags, v)
			}
		case chunkSack:
			if c.state == stateOpen {
				c.handleSack(v)
			}
		case chunkInit:
			c.handleInit(v)
		case chunkInitAck:
			c.handleInitAck(v)
		case chunkCookieEcho:
			if c.receive.cookie != nil && bytes.Equal(v, c.receive.cookie) {
				c.open()
				c.send.control(appendChunk(nil, chunkCookieAck, 0, nil))
			}
		case chunkCookieAck:
			if c.state == stateEchoed {
				c.open()
			}
		case chunkHeartbeat:
			if len(v) <= packetSize-sctpHeaderLen-chunkLen {
				c.send.control(appendChunk(nil, chunkHeartbeatAck, 0, v))
			}
		case chunkAbort:
			c.shut(&CloseError{Code: abortCode(v), Remote: true})
		case chunkShutdown, chunkShutdownAck:
			answer := byte(chunkShutdownAck)
			if kind == chunkShutdownAck {
				answer = chunkShutdownComplete
			}
			c.sendNow(c.send.tag, appendChunk(nil, answer, 0, nil))
			c.shut(&CloseError{Remote: true})
		case chunkShutdownComplete:
			c.shut(&CloseError{Remote: true})
		case chunkReconfig:
			if c.state == stateOpen {
				c.handleReconfig(v)
			}
		default:
			// https://www.rfc-editor.org/rfc/rfc9260.html#section-3.2
			if kind&0x80 == 0 {
				return
			}
		}
	}
	r := &c.receive
	switch {
	case r.unacked >= ackEvery || r.unacked > 0 && len(r.gaps) > 0:
		r.ackDue = true
	case r.unacked > 0 && r.ackDeadline.IsZero():
		r.ackDeadline = time.Now().Add(ackDelay)
	}
}

// abortCode is the code with which a Kith node has closed the connection, 0 if it is none.
func abortCode(v []byte) uint32 {
	kind, value, _, err := nextParam(v)
	if err != nil || kind != causeUserAbort || len(value) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(value)
}

// handleInit answers an INIT, also when we have sent one ourselves.
func (c *conn) handleInit(v []byte) {
	init, err := parseInit(v)
	if err != nil || c.state == stateOpen && init.tag != c.send.tag {
		return
	}
	if c.state != stateOpen {
		c.setRemote(init)
	}
	if c.receive.cookie == nil {
		c.receive.cookie = []byte(randomICE(32))
	}
	answer := c.local
	answer.cookie = c.receive.cookie
	c.sendNow(init.tag, answer.append(nil, chunkInitAck))
}

func (c *conn) handleInitAck(v []byte) {
	if c.state != stateWaiting || !c.dialer {
		return
	}
	init, err := parseInit(v)
	if err != nil || init.cookie == nil {
		return
	}
	c.setRemote(init)
	c.cookie = bytes.Clone(init.cookie)
	c.state = stateEchoed
	c.sendCookie(time.Now())
}

func (c *conn) setRemote(init initChunk) {
	c.send.tag, c.send.remote, c.ids = init.tag, int(init.window), init.ids
	c.receive.cum, c.receive.resetNext, c.receive.ready = init.tsn-1, init.tsn, true
}

// handleData takes a DATA chunk.
func (c *conn) handleData(flags byte, v []byte) {
	r := &c.receive
	tsn := binary.BigEndian.Uint32(v)
	k := laterChunk{id: binary.BigEndian.Uint16(v[4:]), flags: flags, ppid: binary.BigEndian.Uint32(v[8:]), data: v[12:]}
	if flags&8 != 0 {
		r.ackDue = true
	}
	if !before(r.cum, tsn) {
		r.ackDue = true // it has come before
		return
	}
	limit := maxUnread
	if c.kith {
		limit = maxUnreadKith
	}
	// The one whose turn it is may go beyond the limit by what waits for it.
	if next := tsn == r.cum+1; next && r.unread+len(k.data) > limit || !next && r.unread+r.held+len(k.data)+chunkOverhead > limit {
		r.ackDue = true // the remote knows that there is no room, and asks
		return
	} else if !next {
		r.keep(tsn, k)
		return
	}
	r.cum++
	c.deliver(k)
	for len(r.gaps) > 0 && r.gaps[0].from == r.cum+1 && c.state != stateClosed {
		to := r.gaps[0].to
		r.gaps = r.gaps[1:]
		for r.cum != to && c.state != stateClosed {
			r.cum++
			k := r.later[r.cum]
			delete(r.later, r.cum)
			r.held -= len(k.data) + chunkOverhead
			c.deliver(k)
		}
	}
}

// keep stores a chunk that came before its turn.
func (r *receiver) keep(tsn uint32, k laterChunk) {
	if _, ok := r.later[tsn]; ok || tsn-r.cum > 0xffff {
		r.ackDue = true
		return
	}
	i, _ := slices.BinarySearchFunc(r.gaps, tsn, func(g tsnRange, tsn uint32) int { return int(int32(g.from - tsn)) })
	left := i > 0 && r.gaps[i-1].to+1 == tsn
	right := i < len(r.gaps) && r.gaps[i].from == tsn+1
	switch {
	case left && right:
		r.gaps[i-1].to = r.gaps[i].to
		r.gaps = slices.Delete(r.gaps, i, i+1)
	case left:
		r.gaps[i-1].to = tsn
	case right:
		r.gaps[i].from = tsn
	case len(r.gaps) >= maxGaps:
		return
	default:
		r.gaps = slices.Insert(r.gaps, i, tsnRange{tsn, tsn})
	}
	k.data = bytes.Clone(k.data)
	r.later[tsn] = k
	r.held += len(k.data) + chunkOverhead
}

// deliver gives a chunk, whose turn it is, to its stream.
func (c *conn) deliver(k laterChunk) {
	s := c.streams[k.id]
	if k.ppid == ppidControl {
		switch {
		case k.flags&3 != 3 || len(k.data) == 0: // these messages are short
		case k.data[0] == channelAck && s != nil:
			s.answered()
		case isChannelOpen(k.data) && (s == nil || s.ending || s.inEnded):
			c.incoming(k.id, c.supplant(s))
		}
		return
	}
	if s != nil && (k.ppid == ppidBinary || k.ppid == ppidString) {
		s.answered()
		s.take(k.data)
	}
}

// An heir is what a channel has from an earlier one with the same ID.
type heir struct {
	ssn   uint16 // with which our messages go on
	ended bool   // the remote has ended its half of the earlier one
}

// supplant makes room for a new channel with the ID of s. libdatachannel opens one
// as soon as the messages of s are done with, and ends its half of s later.
func (c *conn) supplant(s *stream) heir {
	if s == nil {
		return heir{ended: true}
	}
	h := heir{ended: s.inEnded}
	waiting := &c.send.resetIDs
	if i := slices.IndexFunc(*waiting, func(e halfEnd) bool { return e.stream == s }); i >= 0 {
		*waiting = slices.Delete(*waiting, i, i+1)
		h.ssn = s.ssn
	} else if !s.ending {
		h.ssn = s.ssn
		s.ending = true
		s.drop()
	}
	s.inEnded, s.outEnded = true, true
	s.forget()
	return h
}

// incoming opens a stream for a channel that the remote has opened.
func (c *conn) incoming(id uint16, from heir) {
	ours := id%2 == 1
	if c.dialer {
		ours = !ours
	}
	early := c.accept == nil
	if ours || id == 65535 || len(c.streams) >= 2*maxStreams || early && len(c.waiting) >= maxEarly {
		// There is no other word for no.
		if len(c.send.resetIDs) < maxStreams {
			c.send.resetIDs = append(c.send.resetIDs, halfEnd{id: id})
		}
		return
	}
	s := newStream(c, id)
	s.ssn, s.endsEarlier = from.ssn, !from.ended
	c.streams[id] = s
	s.enqueue(&outMessage{buf: []byte{channelAck}, ppid: ppidControl, refs: 1})
	s.introduce()
	if early {
		c.waiting = append(c.waiting, s)
	} else {
		c.accepting = append(c.accepting, s)
	}
}

// handleReconfig handles requests to end channels, and answers to ours.
func (c *conn) handleReconfig(v []byte) {
	for range 2 { // there are no more in one chunk
		kind, p, rest, err := nextParam(v)
		if err != nil {
			return
		}
		switch kind {
		case paramResetOutgoing:
			c.handleResetRequest(p)
		case paramResetResponse:
			c.handleResetResponse(p)
		case paramResetIncoming, paramResetTSN, paramAddOutgoing, paramAddIncoming:
			if len(p) >= 4 {
				if n := binary.BigEndian.Uint32(p); n == c.receive.resetNext {
					c.receive.resetNext++
					c.receive.resetResult = resetDenied
				}
				c.answerReset(binary.BigEndian.Uint32(p), resetDenied)
			}
		}
		v = rest
	}
}

func (c *conn) handleResetRequest(p []byte) {
	r := &c.receive
	if len(p) < 12 || len(p)%2 != 0 {
		return
	}
	number, last := binary.BigEndian.Uint32(p), binary.BigEndian.Uint32(p[8:])
	switch {
	case number == r.resetNext-1:
		c.answerReset(number, r.resetResult)
		return
	case number != r.resetNext:
		c.answerReset(number, resetBadNumber)
		return
	case before(r.cum, last):
		c.answerReset(number, resetInProgress)
		return
	}
	r.resetNext++
	r.resetResult = resetPerformed
	if len(p) == 12 {
		r.resetResult = resetNothing // all channels at once: no libp2p does this
	}
	for p = p[12:]; len(p) > 0; p = p[2:] {
		if s := c.streams[binary.BigEndian.Uint16(p)]; s != nil {
			s.remoteEnded()
		}
	}
	c.answerReset(number, r.resetResult)
}

func (c *conn) answerReset(number, result uint32) {
	v := binary.BigEndian.AppendUint32(nil, number)
	v = binary.BigEndian.AppendUint32(v, result)
	c.send.control(appendChunk(nil, chunkReconfig, 0, appendParam(nil, paramResetResponse, v)))
}
