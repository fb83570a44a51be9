package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"github.com/kith-p2p/kith/peer"
)

// Two peers can have more than one connection: both dialed at the same time, or one
// made a better one. New streams go over the best (see better), and the others are
// spare: they end when nobody uses them. No stream may be lost thereby, and one
// that the remote has just opened is not seen yet. So it is agreed on: who wants
// to end a connection opens a stream on it and asks, and the remote that says yes
// has no stream there and opens none. See docs/supplant.md.

// supplantProtocol is how the end of a spare connection is agreed on. It is not
// announced: who does not speak it says so.
const supplantProtocol ProtocolID = "/kith/supplant/1"

// The answers.
const (
	supplantNo  = 0 // not now
	supplantYes = 1
)

// errSupplanted is why a connection opens no streams.
var errSupplanted = fmt.Errorf("host: the connection makes way for another with the same peer: use Host.NewStream: %w", net.ErrClosed)

// What Conn.flow counts: streams that are being opened, and all that there were.
const (
	flowOpening = 1
	flowStream  = 1 << 32
)

// begin is called before a stream is opened on c, and tells whether one may be;
// then begun is called after.
func (c *Conn) begin() bool {
	c.flow.Add(flowOpening)
	if c.retired.Load() {
		c.flow.Add(-flowOpening)
		return false
	}
	return true
}

func (c *Conn) begun() { c.flow.Add(flowStream - flowOpening) }

// inUse tells whether there are more streams than so many, or there will be.
func (c *Conn) inUse(streams int) bool {
	return int32(c.flow.Load()) > 0 || c.mux.NumStreams() > streams
}

// retire keeps streams from being opened on c by us. It fails when c is in use by
// more than so many, which are those of who retires it.
func (c *Conn) retire(streams int) bool {
	c.retired.Store(true)
	if c.inUse(streams) {
		c.retired.Store(false)
		return false
	}
	return true
}

// usable tells whether new streams can go over c. h.mu is held.
func (c *Conn) usable() bool { return !c.leaving && !c.retired.Load() && !c.ended.Load() }

// best is the connection to use for p; nil: none.
func (h *Host) best(p peer.ID) *Conn {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.bestOf(p, nil)
}

// bestOf is best without c. h.mu is held.
func (h *Host) bestOf(p peer.ID, without *Conn) (best *Conn) {
	for _, c := range h.conns[p] {
		if c != without && c.usable() && (best == nil || better(h.rankOf(c), h.rankOf(best))) {
			best = c
		}
	}
	return best
}

// rankOf is of a connection what better needs.
func (h *Host) rankOf(c *Conn) link {
	return link{id: c.id, dir: c.dir, limited: c.limited, stale: c.stale.Load(), replaced: c.replaced, first: c.remote.Compare(h.id) < 0, opened: c.opened}
}

// notePair looks which of the connections with p are spare. h.mu is held.
func (h *Host) notePair(p peer.ID) {
	with := h.conns[p]
	if len(with) < 2 {
		return
	}
	best := h.bestOf(p, nil)
	for _, c := range with {
		if c == best || !c.usable() {
			continue
		}
		h.noteSpare(c)
	}
}

// noteSpare has c looked after as a spare connection. h.mu is held.
func (h *Host) noteSpare(c *Conn) {
	if h.spares[c] != nil {
		return
	}
	if h.spares == nil {
		h.spares = make(map[*Conn]*spare)
	}
	h.spares[c] = &spare{dialed: c.dir == DirOutbound}
}

// tendSpares does what is to be done with spare connections. h.mu is held.
func (h *Host) tendSpares(now time.Time) {
	for c, s := range h.spares {
		if c.asking || c.judged {
			continue
		}
		if c.yielded != 0 {
			if now.Sub(c.opened)-c.yielded < yieldFor {
				continue
			}
			c.yielded, c.replaced = 0, false // the remote has changed its mind
			c.retired.Store(false)
		}
		other := h.bestOf(c.remote, c)
		if other == nil || better(h.rankOf(c), h.rankOf(other)) || !c.usable() {
			delete(h.spares, c)
			continue
		}
		switch s.step(now, c.inUse(0), uint32(c.flow.Load()>>32), h.migrate.Linger) {
		case spareAsk:
			c.asking = h.spawn(func(ctx context.Context) { h.ask(ctx, c) })
		case spareEnd:
			if c.retire(0) {
				h.start(func(context.Context) { c.CloseWithCode(ConnCodeSupplanted) })
			}
		}
	}
}

// ask asks the remote to agree to the end of c, and ends it if that is safe.
func (h *Host) ask(ctx context.Context, c *Conn) {
	idle := c.retire(0)
	agreed, err := c.askForEnd(ctx)
	if agreed && idle {
		streams := c.flow.Load() >> 32
		timer := time.NewTimer(lull)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-c.done:
		case <-ctx.Done():
		}
		if c.flow.Load()>>32 != streams {
			agreed = false
		}
	}
	var refused *ProtocolError
	h.mu.Lock()
	c.asking = false
	if s := h.spares[c]; s != nil && errors.As(err, &refused) {
		s.foreign = true
	}
	ends := agreed && idle && !c.inUse(0) && h.bestOf(c.remote, c) != nil
	if idle && !ends {
		c.retired.Store(false)
	}
	h.mu.Unlock()
	if ends {
		c.CloseWithCode(ConnCodeSupplanted)
	}
}

// askForEnd asks the remote whether c may end.
func (c *Conn) askForEnd(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	s, err := c.openStream(ctx, []ProtocolID{supplantProtocol})
	if err != nil {
		return false, err
	}
	defer context.AfterFunc(ctx, func() { s.Reset(CodeNone) })()
	var answer [1]byte
	_, err = io.ReadFull(s, answer[:])
	if err != nil {
		s.Reset(CodeNone)
		return false, err
	}
	return answer[0] == supplantYes, s.Close()
}

// answerSupplant is the handler of supplantProtocol.
func answerSupplant(_ context.Context, s *Stream) error {
	answer := []byte{supplantNo}
	if s.conn.host.yield(s.conn) {
		answer[0] = supplantYes
	}
	_, err := s.Write(answer)
	return err
}

// yield agrees to the end of c, if there is another connection with the peer and no
// stream on c but the one on which the remote asks.
func (h *Host) yield(c *Conn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	other := h.bestOf(c.remote, c)
	if other == nil || other.replaced {
		other = h.takeBack(c)
	}
	if other == nil || other.limited && !c.limited || c.leaving || c.ended.Load() {
		return false
	}
	c.replaced = true
	h.notePair(c.remote)
	defer h.tend()
	if c.asking || c.judged || !c.retire(1) {
		c.yielded = 0
		return false
	}
	c.yielded = max(time.Since(c.opened), 1)
	h.noteSpare(c) // also when it is the best we have: the remote may change its mind
	return true
}

// takeBack lets another connection than c be used again of which the remote has asked
// before: that was on trial, and now takes the place of c. h.mu is held.
func (h *Host) takeBack(c *Conn) *Conn {
	for _, k := range slices.Backward(h.conns[c.remote]) {
		if k == c || !k.replaced || k.judged || k.asking || k.leaving || k.ended.Load() {
			continue
		}
		k.replaced = false
		if k.yielded != 0 {
			k.yielded = 0
			k.retired.Store(false)
		}
		break
	}
	return h.bestOf(c.remote, c)
}

// prove notes that a stream has come on c. Until then the remote, who has dialed it
// beside another, may not have got through to us and not know that it is there.
func (h *Host) prove(c *Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c.unproven.CompareAndSwap(true, false) {
		c.replaced = false
		h.notePair(c.remote)
		h.tend()
	}
}

// forgetPair is called when c has ended. h.mu is held.
func (h *Host) forgetPair(c *Conn) {
	delete(h.spares, c)
	with := h.conns[c.remote]
	if len(with) == 1 {
		with[0].replaced, with[0].judged = false, false
	}
}
