package yamux

import (
	"context"
	"time"
)

const (
	// pongTimeout is what the peer has to answer the keepalive.
	pongTimeout = 10 * time.Second

	// pingGap is the least time between two pings of ours, well within what
	// peers of this package answer (see maxPings).
	pingGap = 20 * time.Millisecond

	// rttFresh is how long a round trip time is good enough for bulk transfers.
	rttFresh = 10 * time.Second
)

// A pinger asks the peer for signs of life. Session.mu guards it.
type pinger struct {
	id     uint32
	sent   time.Duration // when the last ping was queued
	answer chan struct{} // closed by the pong; nil when no ping is under way
	rtt    time.Duration // smoothed; 0 when not known
	last   time.Duration // the newest measurement

	keepAlive *time.Timer
	asked     bool // the keepalive timer waits for an answer
}

// RTT returns the smoothed round trip time of the connection, or 0 while it
// is not known: it is measured when much data comes in, and by Ping.
func (s *Session) RTT() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ping.rtt
}

// Ping measures the round trip time. Calls at the same time share one ping, and
// a measurement of the last 20 ms is returned as it is.
func (s *Session) Ping(ctx context.Context) (time.Duration, error) {
	s.mu.Lock()
	now := s.now()
	if s.err == nil && s.ping.answer == nil && s.ping.last > 0 && now-s.ping.sent < pingGap {
		defer s.mu.Unlock()
		return s.ping.last, nil
	}
	if s.err == nil && s.sendPing(now) {
		go s.flushAll()
	}
	answer := s.ping.answer
	s.mu.Unlock()

	select {
	case <-answer: // nil, so for ever, if the session has ended
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.ping.last, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-s.done:
		return 0, s.Err()
	}
}

// measureRTT pings if what is known is old. Who calls it sees to it that the
// ping is written. s.mu is held.
func (s *Session) measureRTT(now time.Duration) {
	if s.ping.rtt == 0 || now-s.ping.sent > rttFresh {
		s.queuePing(now)
	}
}

// queuePing queues a ping unless one is under way. s.mu is held.
func (s *Session) queuePing(now time.Duration) {
	if s.ping.answer != nil {
		return
	}
	s.ping.id++
	s.ping.sent = now
	s.ping.answer = make(chan struct{})
	s.prompt(typePing, flagSYN, 0, s.ping.id)
}

// sendPing is queuePing; it returns whether the caller got the writing role.
func (s *Session) sendPing(now time.Duration) (role bool) {
	s.queuePing(now)
	return s.takeRole()
}

// handlePing answers a ping, or takes the answer to ours. Other answers are
// ignored.
func (s *Session) handlePing(h header) *SessionError {
	if h.flags == flagSYN {
		if s.pings.exceeds(maxPings, pingSpan, s.now()) {
			return violation("it pings too often")
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.err == nil {
			s.reply(typePing, flagACK, 0, h.length)
		}
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &s.ping
	if p.answer == nil || h.length != p.id {
		return nil
	}
	p.last = max(s.now()-p.sent, 1)
	if p.rtt == 0 || p.last < p.rtt {
		p.rtt = p.last
	}
	p.rtt += (p.last - p.rtt) / 8 // what makes it longer is mostly other data
	close(p.answer)
	p.answer = nil
	return nil
}

// startKeepAlive sets the only timer of a session. s.mu is held.
func (s *Session) startKeepAlive() {
	if s.cfg.KeepAlive > 0 {
		s.ping.keepAlive = time.AfterFunc(s.patience(), s.checkAlive)
	}
}

// patience is how long the peer may be silent. The client has more of it: between
// two of us only the server asks, which halves what idle connections cost.
func (s *Session) patience() time.Duration {
	if s.client {
		return s.cfg.KeepAlive * 3 / 2
	}
	return s.cfg.KeepAlive
}

// stopPings ends the keepalive with the session. s.mu is held.
func (s *Session) stopPings() {
	if s.ping.keepAlive != nil {
		s.ping.keepAlive.Stop()
	}
}

// checkAlive is called by the keepalive timer. Anything that the peer has sent
// since the last time counts as a sign of life, and costs the read loop no
// look at the clock.
func (s *Session) checkAlive() {
	heard := s.heard.Swap(false)
	s.mu.Lock()
	switch {
	case s.err != nil:
		s.mu.Unlock()
	case heard:
		s.ping.asked = false
		s.ping.keepAlive.Reset(s.patience())
		s.mu.Unlock()
	case s.ping.asked:
		s.mu.Unlock()
		s.end(&SessionError{Reason: "the peer has not answered a keepalive for " + pongTimeout.String()}, false)
	default:
		s.ping.asked = true
		s.ping.keepAlive.Reset(pongTimeout)
		role := s.sendPing(s.now())
		s.mu.Unlock()
		if role {
			s.flush(allRounds)
		}
	}
}
