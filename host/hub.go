package host

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/kith-p2p/kith/internal/feed"
)

// A Subscription receives the state events of a host.
type Subscription struct {
	feed *feed.Feed[Event]
	hub  *hub
}

// Events gives the events in the order in which they happened. Of those that tell a
// whole state (AddrsChanged, ProtocolsChanged, NetworkChanged, PeerIdentified of one
// connection) a reader that lags may get the newest alone, in the place of the
// first. The channel is closed by Close and when the host closes.
func (s *Subscription) Events() <-chan Event { return s.feed.Values() }

// Close ends the subscription.
func (s *Subscription) Close() {
	s.feed.Close()
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	if _, ok := s.hub.subs[s]; ok {
		delete(s.hub.subs, s)
		s.hub.lost += s.feed.Lost()
	}
}

// Subscribe gives the state events from now on, about buffer of them waiting. The
// host never waits for who reads them: what there is no room for is dropped, and an
// EventsLost tells of it.
func (h *Host) Subscribe(buffer int) *Subscription { return h.hub.subscribe(buffer) }

// Trace calls f for every event from now on, until stop is called; a call may be under
// way then. What f may do says Config.Trace: next to nothing. Package trace has a queue
// for who wants more.
func (h *Host) Trace(f func(Event)) (stop func()) { return h.hub.trace(f) }

// EventsLost tells how many events all subscriptions together had no room for.
func (h *Host) EventsLost() uint64 {
	h.hub.mu.Lock()
	defer h.hub.mu.Unlock()
	lost := h.hub.lost
	for s := range h.hub.subs {
		lost += s.feed.Lost()
	}
	return lost
}

// hub spreads events. It never waits for a reader.
type hub struct {
	// tracers are called for every event. Without any an event costs one load, if who
	// emits it asks traced first.
	tracers atomic.Pointer[[]*tracer]

	mu     sync.Mutex // also keeps the order the same for all subscriptions
	subs   map[*Subscription]struct{}
	lost   uint64 // events for which subscriptions that are closed had no room
	closed bool
}

type tracer struct{ call func(Event) }

func (b *hub) trace(f func(Event)) (stop func()) {
	t := &tracer{f}
	b.mu.Lock()
	defer b.mu.Unlock()
	var now []*tracer
	if old := b.tracers.Load(); old != nil {
		now = slices.Clone(*old)
	}
	now = append(now, t)
	b.tracers.Store(&now)
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		now := b.tracers.Load()
		if now == nil {
			return
		}
		if left := slices.DeleteFunc(slices.Clone(*now), func(o *tracer) bool { return o == t }); len(left) > 0 {
			b.tracers.Store(&left)
		} else {
			b.tracers.Store(nil)
		}
	}
}

// traced tells whether anybody wants events that are not of state. To ask before
// making one saves its allocation.
func (b *hub) traced() bool { return b.tracers.Load() != nil }

func (b *hub) subscribe(buffer int) *Subscription {
	s := &Subscription{hub: b, feed: feed.New(feed.Config[Event]{
		Buffer: buffer,
		Lost:   func(n int) Event { return EventsLost{N: n} },
		Key:    subjectOf,
	})}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		s.feed.Close()
		return s
	}
	if b.subs == nil {
		b.subs = make(map[*Subscription]struct{})
	}
	b.subs[s] = struct{}{}
	return s
}

// A subject is that of which an event tells the whole state.
type subject struct {
	kind uint8
	conn *Conn
}

// subjectOf gives the subject of an event that makes earlier ones worthless.
func subjectOf(e Event) any {
	switch e := e.(type) {
	case AddrsChanged:
		return subject{kind: 1}
	case ProtocolsChanged:
		return subject{kind: 2}
	case NetworkChanged:
		return subject{kind: 3}
	case PeerIdentified:
		return subject{kind: 4, conn: e.Conn}
	}
	return nil
}

func (b *hub) emit(e Event) {
	if tracers := b.tracers.Load(); tracers != nil {
		for _, t := range *tracers {
			t.call(e)
		}
	}
	if !e.isState() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.subs {
		s.feed.Tell(e)
	}
}

func (b *hub) close() {
	b.mu.Lock()
	b.closed = true
	subs := b.subs
	b.subs = nil
	b.mu.Unlock()
	for s := range subs {
		s.feed.Close()
	}
}
