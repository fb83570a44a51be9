package host

import (
	"context"
	"time"

	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// A Transport carries connections over one family of addresses. It gives the
// host connections that are already authenticated and can carry many streams.
//
// Implemented by tcp, quic and the other packages named in kith.go; may be
// implemented outside this module, as examples/transport shows.
// All methods are called from several goroutines at once.
type Transport interface {
	// CanDial tells whether Dial understands addr, which has no /p2p part.
	CanDial(addr multiaddr.Addr) bool

	// CanListen tells whether Listen understands addr.
	CanListen(addr multiaddr.Addr) bool

	// Dial connects to addr and proves that p answers there. It returns when ctx
	// ends. progress is told of each stage reached and may be called from any goroutine.
	Dial(ctx context.Context, addr multiaddr.Addr, p peer.ID, progress func(Stage)) (TransportConn, error)

	// Listen opens addr and returns at once.
	Listen(addr multiaddr.Addr) (TransportListener, error)
}

// A TransportListener takes connections in on one address.
type TransportListener interface {
	// Accept waits for the next connection, which is not authenticated yet. An
	// error ends the listener.
	Accept() (Incoming, error)

	// Addr is the address that is listened on, with the real port; its IP can be
	// the unspecified one.
	Addr() multiaddr.Addr

	// Close ends Accept. Connections accepted before stay.
	Close() error
}

// Incoming is a connection that was accepted and has proved nothing yet. The
// host decides whether to spend anything on it.
type Incoming interface {
	RemoteAddr() multiaddr.Addr

	// Upgrade authenticates the connection and returns when ctx ends. On an error
	// the connection is closed.
	Upgrade(ctx context.Context, progress func(Stage)) (TransportConn, error)

	// Close ends the connection, and an Upgrade that is running. It does not block.
	Close() error
}

// Stage tells how far the set-up of a connection came.
type Stage uint8

// The stages in their order. A dial that fails reports the last one reached.
const (
	StageStart    Stage = iota // nothing yet
	StageOpened                // the transport's own connection stands
	StageSecuring              // both sides agreed on a secure channel
	StageSecured               // the remote has proved who it is
	StageMuxed                 // streams can be opened
)

func (s Stage) String() string {
	switch s {
	case StageStart:
		return "opening the connection"
	case StageOpened:
		return "agreeing on a secure channel"
	case StageSecuring:
		return "the security handshake"
	case StageSecured:
		return "agreeing on a muxer"
	}
	return "using the connection"
}

// TransportConn is what a transport hands to the host: an authenticated
// connection and what is known of it.
type TransportConn struct {
	Mux        MuxedConn
	LocalAddr  multiaddr.Addr
	RemoteAddr multiaddr.Addr
	RemoteKey  peer.PublicKey
	Security   ProtocolID // "" when the transport has its own
	Muxer      ProtocolID // "" when the transport has its own
	Limited    bool       // bounded in bytes or time, as through a relay
	Datagrams  Datagrams  // nil when the connection carries streams alone

	// What the connection takes while it is idle, and a stream that the remote has opened,
	// in bytes. 0: what they do over tcp with Noise.
	Cost, StreamCost int
	// Charge, when set, is called once, before any method of Mux but those that tell of
	// it, with the account from which all is to be taken that the connection holds for
	// its readers. It must not block, and not use the host.
	Charge func(*Account)
	// Shed, when set, gives back to the account at least n bytes, if it has so many, by
	// resetting streams with CodeResourceLimit: those first that hold the most. Nil: the
	// connection never holds much.
	Shed func(n int)
}

// Datagrams are messages that a connection carries beside its streams: each arrives
// whole or not at all, and in any order. Implemented by quic and webtransport.
type Datagrams interface {
	// SendDatagram sends p or fails at once; that it does not fail does not mean
	// that p arrives.
	SendDatagram(p []byte) error

	// ReceiveDatagram waits for the next one. Those that nobody waits for are
	// dropped when there are too many.
	ReceiveDatagram(ctx context.Context) ([]byte, error)
}

// MuxedConn carries streams. Implemented by yamux (through upgrade) and by
// transports that have streams of their own.
type MuxedConn interface {
	// OpenStream opens a stream without waiting for the remote, unless too many
	// of those opened before are still unanswered.
	OpenStream(ctx context.Context) (MuxedStream, error)

	// Serve reads the connection until it ends, which it reports. It calls accept
	// for each stream that the remote opens, for one at a time. accept blocks for up to a
	// second while the remote has opened too many that came to nothing; better not to read
	// on meanwhile.
	Serve(accept func(MuxedStream)) error

	// CloseWithCode ends the connection and all its streams and tells the remote
	// why. It returns within a second.
	CloseWithCode(code uint32) error

	// NumStreams tells how many streams are open.
	NumStreams() int

	// RTT is the last round-trip time measured, 0 when none was.
	RTT() time.Duration
}

// MuxedStream is one stream of a MuxedConn. Errors that carry the code of a reset
// have the methods ErrorCode() uint32 and IsRemote() bool.
type MuxedStream interface {
	Read(p []byte) (int, error)
	Write(p []byte) (int, error)
	Close() error      // ends both directions; what was written still arrives
	CloseRead() error  // what still comes is thrown away
	CloseWrite() error // the remote reads io.EOF after what was written
	Reset(code uint32) error
	SetDeadline(t time.Time) error
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
}
