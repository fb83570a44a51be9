package host

import (
	"sync"
	"time"

	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// An Event is something that happened in the host. Those marked "state" go to
// subscriptions and to the trace, the others to the trace alone.
type Event interface {
	isState() bool
}

// State events.
type (
	// ConnOpened tells that a connection is ready for streams.
	ConnOpened struct{ Conn *Conn }

	// ConnClosed tells that a connection has ended. Err is never nil; it wraps
	// net.ErrClosed when we closed it.
	ConnClosed struct {
		Conn *Conn
		Err  error
	}

	// PeerConnected tells that the first connection to a peer was opened.
	PeerConnected struct{ Peer peer.ID }

	// PeerDisconnected tells that the last connection to a peer has ended.
	PeerDisconnected struct{ Peer peer.ID }

	// PeerIdentified tells that the peer said who it is and what it speaks, for
	// the first time or anew.
	PeerIdentified struct {
		Conn *Conn
		Info PeerInfo
		Push bool // the peer sent it of itself
	}

	// PeerDiscovered tells that a discovery found a peer.
	PeerDiscovered struct {
		Info   peer.AddrInfo
		Source string // "mdns"
	}

	// AddrsChanged tells that the host's own addresses are other ones now.
	AddrsChanged struct{ Addrs []multiaddr.Addr }

	// NetworkChanged tells that this machine is in another network now; 0: in none.
	NetworkChanged struct{ Network NetworkID }

	// ProtocolsChanged tells that a handler was added or removed.
	ProtocolsChanged struct{ Protocols []ProtocolID }

	// EventsLost stands where N events were dropped, because their reader was
	// too slow. Read the state anew.
	EventsLost struct{ N int }
)

// Trace events.
type (
	// DialStarted tells that the host begins to connect to a peer. The events of one
	// dial have the same ID, which no other dial of this host has; DialEnded is the last.
	DialStarted struct {
		ID         uint64
		Peer       peer.ID
		Addrs      []multiaddr.Addr // what is known of the peer, names not resolved yet
		Background bool             // see ConnectBackground
	}

	// DialResolved tells what the names among a peer's addresses stand for. It does
	// not come when there are none, and the dial does not wait for it.
	DialResolved struct {
		ID      uint64
		Peer    peer.ID
		Addrs   []multiaddr.Addr // that the names gave
		Failed  []DialAttempt    // names that gave none
		Elapsed time.Duration
	}

	// DialRanked tells in which order addresses are to be tried, and which are not. It
	// comes once for what was known and once for what was resolved, and again when a
	// dial in the background becomes one that a user waits for.
	DialRanked struct {
		ID      uint64
		Peer    peer.ID
		Steps   []DialStep
		Skipped []DialAttempt
	}

	// DialAttempted tells what became of one address of a dial that was tried.
	// Attempt.Err is nil for success.
	DialAttempted struct {
		ID      uint64
		Peer    peer.ID
		Attempt DialAttempt
	}

	// DialEnded tells that a dial gave a connection, or why it did not: Err is a
	// *DialError then and Conn nil.
	DialEnded struct {
		ID      uint64
		Peer    peer.ID
		Conn    *Conn
		Err     error
		Elapsed time.Duration
	}

	// UpgradeFailed tells that an inbound connection did not become one.
	UpgradeFailed struct {
		Addr    multiaddr.Addr
		Stage   Stage
		Elapsed time.Duration
		Err     error
	}

	// StreamOpened tells that both sides agreed on a stream's protocol, or, for
	// an outbound stream that sends its proposal with the first data, that we chose it.
	StreamOpened struct {
		Conn     *Conn
		Protocol ProtocolID
		Dir      Direction
	}

	// StreamEnded tells that a handler has returned.
	StreamEnded struct {
		Conn     *Conn
		Protocol ProtocolID
		Elapsed  time.Duration
		Err      error
	}

	// StreamRefused tells that a stream of a remote was not served.
	StreamRefused struct {
		Conn *Conn
		Err  error
	}

	// HandlerPanicked tells that a handler panicked; its stream was reset. Each one is a bug.
	HandlerPanicked struct {
		Conn     *Conn
		Protocol ProtocolID
		Value    any
		Stack    []byte
	}
)

func (ConnOpened) isState() bool       { return true }
func (ConnClosed) isState() bool       { return true }
func (PeerConnected) isState() bool    { return true }
func (PeerDisconnected) isState() bool { return true }
func (PeerIdentified) isState() bool   { return true }
func (PeerDiscovered) isState() bool   { return true }
func (AddrsChanged) isState() bool     { return true }
func (NetworkChanged) isState() bool   { return true }
func (ProtocolsChanged) isState() bool { return true }
func (EventsLost) isState() bool       { return true }
func (DialStarted) isState() bool      { return false }
func (DialResolved) isState() bool     { return false }
func (DialRanked) isState() bool       { return false }
func (DialAttempted) isState() bool    { return false }
func (DialEnded) isState() bool        { return false }
func (UpgradeFailed) isState() bool    { return false }
func (StreamOpened) isState() bool     { return false }
func (StreamEnded) isState() bool      { return false }
func (StreamRefused) isState() bool    { return false }
func (HandlerPanicked) isState() bool  { return false }

// A Subscription receives the state events of a host.
type Subscription struct {
	events chan Event
	cancel func()

	// guarded by hub.mu
	lost int
}

// Events gives the events in the order in which they happened. The channel is
// closed by Close and when the host closes.
func (s *Subscription) Events() <-chan Event { return s.events }

// Close ends the subscription.
func (s *Subscription) Close() { s.cancel() }

// hub spreads events. It never waits for a reader.
type hub struct {
	trace func(Event)

	mu     sync.Mutex
	subs   map[*Subscription]struct{}
	closed bool
}

func (b *hub) subscribe(buffer int) *Subscription {
	// One place is kept for EventsLost.
	s := &Subscription{events: make(chan Event, max(buffer, 1)+1)}
	s.cancel = func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if _, ok := b.subs[s]; ok {
			delete(b.subs, s)
			close(s.events)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		close(s.events)
		return s
	}
	if b.subs == nil {
		b.subs = make(map[*Subscription]struct{})
	}
	b.subs[s] = struct{}{}
	return s
}

func (b *hub) emit(e Event) {
	if b.trace != nil {
		b.trace(e)
	}
	if !e.isState() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.subs {
		s.deliver(e)
	}
}

// deliver keeps the last place of the channel for EventsLost, so that a reader
// learns of a gap even if nothing happens after it. hub.mu is held.
func (s *Subscription) deliver(e Event) {
	free := cap(s.events) - len(s.events)
	if free >= 2 && s.lost > 0 {
		s.events <- EventsLost{N: s.lost}
		s.lost = 0
		free--
	}
	if free >= 2 {
		s.events <- e
		return
	}
	s.lost++
	if free == 1 {
		s.events <- EventsLost{N: s.lost}
		s.lost = 0
	}
}

func (b *hub) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for s := range b.subs {
		delete(b.subs, s)
		close(s.events)
	}
}
