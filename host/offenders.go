package host

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

// An address from which peers come, break a rule until their connection is ended,
// and come again, waits: a connection costs its dialer less than it costs us.
const (
	// maxOffences is how many connections from one IPv4 address or IPv6 /56 may end
	// so in offenceSpan before no more are let in for the rest of it. Whoever is not
	// hostile but only wrong gets several attempts.
	maxOffences = 8
	offenceSpan = 10 * time.Second
	// maxOffenders is how many addresses are remembered, at about 100 bytes each;
	// forgetting one costs its offences.
	maxOffenders = 1024
)

// muxProtocolError is the code with which muxers end a session whose remote broke
// their rules. https://github.com/libp2p/specs/blob/master/yamux/README.md#session-termination
const muxProtocolError = 1

// offenders remembers where offences came from. The zero value is empty and ready.
type offenders struct {
	mu sync.Mutex
	by map[netip.Prefix]offences
}

type offences struct {
	since time.Time
	n     int
}

func (o offences) over(now time.Time) bool { return now.Sub(o.since) >= offenceSpan }

// note counts a connection with an address that ended with err, if that was an offence.
func (o *offenders) note(owner netip.Prefix, err error, now time.Time) {
	if !owner.IsValid() || owner.Addr().IsLoopback() || !isOffence(err) {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.by == nil {
		o.by = make(map[netip.Prefix]offences)
	}
	so, known := o.by[owner]
	if !known && len(o.by) >= maxOffenders {
		o.trim(now)
	}
	if so.over(now) {
		so = offences{since: now}
	}
	so.n++
	o.by[owner] = so
}

// trim makes room for one more. o.mu is held.
func (o *offenders) trim(now time.Time) {
	for owner, so := range o.by {
		if so.over(now) {
			delete(o.by, owner)
		}
	}
	for owner := range o.by {
		if len(o.by) < maxOffenders {
			break
		}
		delete(o.by, owner)
	}
}

// wait tells for how long an address is not let in.
func (o *offenders) wait(owner netip.Prefix, now time.Time) time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	so := o.by[owner]
	if so.n < maxOffences || so.over(now) {
		return 0
	}
	return offenceSpan - now.Sub(so.since)
}

// isOffence tells whether a connection ended with err because of what its remote did.
func isOffence(err error) bool {
	var coded interface {
		error
		ErrorCode() uint32
		IsRemote() bool
	}
	if !errors.Is(err, net.ErrClosed) || !errors.As(err, &coded) || coded.IsRemote() {
		return false
	}
	switch coded.ErrorCode() {
	case muxProtocolError, ConnCodeRateLimited, ConnCodeProtocolViolation:
		return true
	}
	return false
}
