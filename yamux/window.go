package yamux

import (
	"fmt"
	"math"
	"time"
)

const (
	// maxCredit is the most that a credit may add up to: what its 32 bits hold.
	maxCredit = math.MaxUint32

	// A window grows when half of it is used within so many round trips: then it
	// is less than eight times what is under way, so it, or a slow reader, may
	// be what limits the sender.
	growthRTTs = 4
)

// handleData takes the header of a data frame; the payload follows.
func (st *Stream) handleData(h header) *SessionError {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.gone { // closed since it was looked up
		st.session.handleStray(h)
		return nil
	}
	in := &st.session.in
	switch {
	case h.length > 0 && st.eof:
		return violation(fmt.Sprintf("data after FIN on stream %d", h.id))
	case h.length > st.recvCredit:
		return violation(fmt.Sprintf("%d bytes on stream %d, whose window has %d left", h.length, h.id, st.recvCredit))
	}
	st.recvCredit -= h.length
	st.arriving = h.length
	in.to, in.fin = st, h.flags&flagFIN != 0
	if h.length > 0 {
		st.handleFlags(h.flags &^ flagFIN) // the end comes after the payload
		return nil
	}
	if st.handleFlags(h.flags) {
		return nil
	}
	return st.session.countEmpty()
}

// handleWindowUpdate takes credit.
func (st *Stream) handleWindowUpdate(h header) *SessionError {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.gone {
		st.session.handleStray(h)
		return nil
	}
	if h.length > maxCredit-st.sendCredit {
		return violation(fmt.Sprintf("credit of %d bytes on stream %d, over 2^32-1 in all", h.length, h.id))
	}
	if h.length > 0 {
		st.sendCredit += h.length
		st.canWrite.wake()
	}
	if !st.handleFlags(h.flags) && h.length == 0 {
		return st.session.countEmpty()
	}
	return nil
}

// handleFlags takes SYN, ACK and FIN, and returns whether one of them meant
// something. st.mu is held.
func (st *Stream) handleFlags(flags uint16) (news bool) {
	news = flags&flagSYN != 0
	if flags&flagACK != 0 && st.unacked {
		st.unacked = false
		st.session.mu.Lock()
		st.session.releaseOpen()
		st.session.mu.Unlock()
		news = true
	}
	if flags&flagFIN != 0 && !st.eof {
		st.handleFIN()
		news = true
	}
	return news
}

// returnCredit grants the peer what was read of its window, once that is half
// of it, and perhaps more. It returns whether the caller got the writing role.
// st.mu is held.
func (st *Stream) returnCredit() (role bool) {
	if st.eof || st.gone || st.readErr != nil && st.readErr != errReadClosed {
		return false
	}
	free := st.window - st.recvCredit - st.arriving - uint32(st.received.size)
	if free < st.window/2 {
		return false
	}
	s := st.session
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return false
	}
	if st.readErr == nil {
		free = s.resize(st, free, now)
	}
	st.updated = now
	if free == 0 { // the window has shrunk by all of it
		return false
	}
	st.recvCredit += free
	s.prompt(typeWindowUpdate, s.stamp(st), st.id, free)
	s.measureRTT(now)
	return s.takeRole()
}

// resize changes the window of a stream whose peer is about to get free bytes of
// credit, and returns how many it gets with that. Both locks are held.
func (s *Session) resize(st *Stream, free uint32, now time.Duration) uint32 {
	grow := s.growth(st, now)
	if s.reserve.memory == nil {
		s.grown += grow
		st.window += uint32(grow)
		return free + uint32(grow)
	}
	grown := int(st.window) - initialWindow
	if grow == 0 && grown == 0 {
		return free
	}
	size := st.received.size
	before := st.beyond(size)
	if grow = s.reserve.memory.Grow(grow); grow < 0 {
		grow = -min(-grow, grown, int(free))
		st.window -= uint32(-grow)
		s.shrink(-grow)
		free -= uint32(-grow)
		if !s.reserve.add(st.beyond(size) - before) {
			s.reserve.owed.Add(int64(st.beyond(size) - before)) // they are there already
		}
		return free
	}
	s.grown += grow
	st.window += uint32(grow)
	s.reserve.sub(before - st.beyond(size))
	return free + uint32(grow)
}

// shrink notes that windows have become smaller by n bytes. s.mu is held.
func (s *Session) shrink(n int) {
	s.grown -= n
	if s.reserve.memory != nil && n > 0 {
		s.reserve.memory.Shrink(n)
	}
}

// growth tells by how much the window should grow: it doubles for a stream
// that uses it up in little more than a round trip, as far as the session's own
// limits allow. Both locks are held.
func (s *Session) growth(st *Stream, now time.Duration) int {
	if st.updated == 0 || s.ping.rtt == 0 || now-st.updated >= growthRTTs*s.ping.rtt {
		return 0
	}
	grow := min(int(st.window), s.cfg.MaxWindow-int(st.window))
	if s.cfg.Budget > 0 {
		grow = min(grow, s.cfg.Budget-s.grown)
	}
	return max(grow, 0)
}
