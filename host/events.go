package host

import (
	"time"

	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// An Event is something that happened in the host. Those marked "state" go to
// subscriptions and to the trace, the others to the trace alone. Every type has a
// line in package trace: its tests tell where.
type Event interface {
	isState() bool
}

// State events.
type (
	// ConnOpened tells that a connection is ready for streams.
	ConnOpened struct{ Conn *Conn }

	// ConnClosed tells that a connection has ended. Err says why and is never nil: a
	// *ConnError with the code and with which side gave it, where the muxer carries codes
	// and this one has a meaning; else the muxer's own words, mostly with
	// net.ErrClosed in them, whoever closed; io.EOF when it has none; ErrClosed when the
	// host was closed before the connection was used.
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

	// LimitReached tells that a limit kept something out or made something end, how often
	// since the last time, and of what is to be done if that is not wanted. It comes at most
	// once a second for each scope. The scope is a field of Limits; with HighWater it is the
	// connection manager that ends connections, which is its work.
	LimitReached struct {
		Err     *LimitError // with what was used the last time; see Remedy
		Refused uint64      // connections or streams, or memory for them
		Ended   uint64      // connections, half-open ones, streams; for memory how often some was given back
	}

	// EventsLost stands where N events were dropped, because their reader was
	// too slow. Read the state anew. It is of one subscription, so no trace has it.
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

	// DialAttempted tells what became of one address of a dial when its turn had come.
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
func (LimitReached) isState() bool     { return true }
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
