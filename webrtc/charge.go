package webrtc

import (
	"cmp"
	"slices"

	"github.com/kith-p2p/kith/host"
)

const (
	// connCost and streamCost are what a connection takes while it is idle, and a stream
	// that is served, in bytes: pion has several goroutines for each connection.
	connCost   = 84 << 10
	streamCost = 14 << 10

	// chargeStep is in which steps is charged what nobody has read, in bytes.
	chargeStep = 64 << 10

	// keptShare is which share of what nobody has read is held besides: the buffer has
	// grown ahead of it, and pion keeps packets of messages that were taken from it
	// until more come. It was 14 to 45 %.
	keptShare = 4
)

// charge has the connection take from a what its streams have received and nobody
// has read.
func (c *conn) charge(a *host.Account) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.account = a
	c.settle()
}

// settle charges what is unread now. SCTP has taken it in by then, within its window.
// c.mu is held.
func (c *conn) settle() {
	if c.account == nil {
		return
	}
	unread := c.unread
	if c.err != nil {
		unread = 0 // it belongs to who reads it
	}
	unread += unread / keptShare
	if unread <= c.charged && (c.charged-unread < 2*chargeStep && unread > 0 || unread == c.charged) {
		return
	}
	if want := (unread + chargeStep - 1) / chargeStep * chargeStep; want > c.charged {
		c.account.Owe(want - c.charged)
		c.charged = want
	} else if want < c.charged {
		c.account.Release(c.charged - want)
		c.charged = want
	}
}

// shed resets streams, those first that hold the most, until n bytes are free.
func (c *conn) shed(n int) {
	c.mu.Lock()
	streams := make([]*stream, 0, len(c.streams))
	for _, s := range c.streams {
		if s.id != handshakeID {
			streams = append(streams, s)
		}
	}
	c.mu.Unlock()
	slices.SortFunc(streams, func(a, b *stream) int { return cmp.Compare(b.unread.Load(), a.unread.Load()) })
	for _, s := range streams {
		if n <= 0 {
			return
		}
		n -= int(s.unread.Load()) + streamCost
		s.Reset(host.CodeResourceLimit)
	}
}
