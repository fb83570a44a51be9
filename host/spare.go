//kith:pure

package host

import "time"

const (
	// A spare connection has to be idle for so long before its end is agreed on. What
	// was sent on streams that are closed arrives meanwhile, also when packets are lost.
	spareIdle = 2 * time.Second
	// The peer that has accepted it waits longer: one asks, and that is the dialer.
	spareIdleAccepted = 10 * time.Second
	// spareIdleForeign is for a remote that cannot agree, see Migrate.Linger. It may use
	// any connection for its next stream at any time, so that after a minute of silence
	// nothing is likely to be lost, but not impossible.
	spareIdleForeign = time.Minute
	// Asking again waits for a while that doubles from the first to the second.
	askAgainMin, askAgainMax = time.Second, time.Minute
	// yieldFor is how long who has agreed opens no stream; the other side ends the
	// connection within askTimeout and lull, or not at all.
	yieldFor   = 10 * time.Second
	askTimeout = 5 * time.Second
	// lull is how long who has the other's word still waits: streams that the other
	// has closed may be under way.
	lull = time.Second
)

// A spare is what is kept of a connection that another with the same peer has
// replaced: it ends when nobody uses it any more.
//
//	in use ──idle──▶ ask ──"yes"──▶ lull ──▶ closed
//	   ▲              │
//	   └────"no"──────┘ again after a while
type spare struct {
	dialed  bool // by us
	tell    bool // the remote does not know by itself which connection to use
	foreign bool // the remote does not speak the protocol

	idleSince time.Time // zero: it was in use
	streams   uint32    // so many there were
	wait      time.Duration
	askAt     time.Time
}

// A spareStep is what is to be done with a spare connection now.
type spareStep uint8

const (
	spareWait spareStep = iota
	spareAsk            // for the remote's word
	spareEnd            // at once
)

// step decides what to do. inUse tells whether there are streams, streams how
// many there have ever been, linger how long a foreign one is left alone.
func (s *spare) step(now time.Time, inUse bool, streams uint32, linger time.Duration) spareStep {
	if inUse || streams != s.streams || s.idleSince.IsZero() {
		s.idleSince, s.streams = now, streams
		if inUse {
			s.idleSince = time.Time{}
		}
	}
	if s.tell {
		s.tell = false
		return spareAsk
	}
	if s.idleSince.IsZero() {
		return spareWait
	}
	idle := now.Sub(s.idleSince)
	need := spareIdleAccepted
	if s.dialed {
		need = spareIdle
	}
	switch {
	case s.foreign && idle >= linger:
		return spareEnd
	case s.foreign || idle < need || now.Before(s.askAt):
		return spareWait
	}
	s.wait = min(max(2*s.wait, askAgainMin), askAgainMax)
	s.askAt = now.Add(s.wait)
	return spareAsk
}
