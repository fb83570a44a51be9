// Package worker is the process at one end of a measurement: what it can be told
// to do, how it measures itself, and the loads that it runs. It knows no
// implementation of libp2p; the programs below peers give it one each, so that
// each is measured by the same code and alone in its process.
//
// The bench program starts a worker with pipes for standard input and output, sends it
// Commands and gets one Reply for each, as JSON. The worker ends with its input.
//
// Read in this order: api.go (what is said), worker.go (the loop), usage.go (how a
// process measures itself), serve.go (the handlers), then one file for each load:
// bulk.go, streams.go, parallel.go, dial.go, dead.go, first.go, crowd.go, hold.go.
package worker

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"
)

// A Node is a host of one implementation.
type Node interface {
	// Addr is where the node can be dialed, with its ID; "" when it does not listen.
	Addr() string
	// Handle serves streams of a protocol. When serve returns nil the stream is
	// closed, otherwise reset.
	Handle(proto string, serve func(Stream) error)
	// Connect connects to a peer as a user of the implementation does, who knows one
	// or more of its addresses.
	Connect(ctx context.Context, addrs ...string) (Conn, error)
}

// A Conn is a connection with one peer.
type Conn interface {
	Open(ctx context.Context, proto string) (Stream, error)
	// Identified waits until the remote has told who it is, if that did not happen in Connect.
	Identified(ctx context.Context) error
	Close() error
}

// A Stream is what implementations give their users, without anything around it.
type Stream interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// NodeConfig describes a node.
type NodeConfig struct {
	Transport string // one of those below
	Security  string // "noise" or "tls"; for the machine's limits also "tcp"; "" where the transport has its own
	Listen    bool   // on a free port of loopback, or of IP
	IP        string // of IPv4; "": loopback
	Wide      bool   // with limits far beyond the default ones, as the measurements of scale need
}

// The transports.
const (
	TCP          = ""
	QUIC         = "quic"
	WebSocket    = "ws"
	WebTransport = "webtransport"
	WebRTC       = "webrtc"
)

// listenAddrs are free ports of loopback.
var listenAddrs = map[string]string{
	TCP:          "/ip4/127.0.0.1/tcp/0",
	QUIC:         "/ip4/127.0.0.1/udp/0/quic-v1",
	WebSocket:    "/ip4/127.0.0.1/tcp/0/ws",
	WebTransport: "/ip4/127.0.0.1/udp/0/quic-v1/webtransport",
	WebRTC:       "/ip4/127.0.0.1/udp/0/webrtc-direct",
}

// ListenAddr is where a node with the transport is to listen.
func (c NodeConfig) ListenAddr() (string, error) {
	addr, ok := listenAddrs[c.Transport]
	if !ok {
		return "", fmt.Errorf("no transport %q", c.Transport)
	}
	if c.IP != "" {
		addr = strings.Replace(addr, "127.0.0.1", c.IP, 1)
	}
	return addr, nil
}

// A Command is what a worker is told to do.
type Command struct {
	Do string

	Node *NodeConfig // for "start"
	Load *Load       // for "prepare"

	// Count is how many more connections or streams "run" makes, for the loads
	// that keep them.
	Count int

	// CPUProfile and MemProfile are files for profiles of the window, if not "".
	CPUProfile, MemProfile string
}

// The commands.
const (
	Start   = "start"   // make a node that serves all handlers
	Prepare = "prepare" // get a load ready and warm it up
	Run     = "run"     // run it, and measure this process while it runs
	Begin   = "begin"   // begin to measure this process
	End     = "end"     // end that
	Memory  = "memory"  // collect garbage and tell what is held
)

// A Reply is the answer to a Command.
type Reply struct {
	Error  string  `json:",omitempty"`
	Addr   string  `json:",omitempty"` // of the node
	Usage  *Usage  `json:",omitempty"` // after "end" and "run"
	Result *Result `json:",omitempty"` // after "run"
	Held   *Held   `json:",omitempty"` // after "memory"
}

// A Load is what a client does to a server.
type Load struct {
	Kind       string
	To         string        // the server's address
	Live, Dead []string      // for dead: addresses of the server, and others that it is said to have
	Node       NodeConfig    // of the client
	Window     time.Duration // how long it runs, about
	Parallel   int           // streams or dialers at once
	Download   bool          // bulk: from the server to the client
	Chunk      int           // bulk: bytes a write
	Nodes      int           // dial: that dial in turn
	Identified bool          // dial: wait until the server has told who it is
	Stalled    int           // parallel: streams that the server does not read
	Patience   time.Duration // hold: for how long a stream may fail to open before the server is said to allow no more; 0: for ever
}

// The kinds of load.
const (
	Bulk     = "bulk"     // one stream at full speed
	Streams  = "streams"  // a stream, a byte there and back, both ends closed
	Parallel = "parallel" // many streams of one connection at full speed
	Dial     = "dial"     // a connection, a byte there and back, closed
	Dead     = "dead"     // dials of a peer most of whose addresses are dead
	First    = "first"    // the first answer over a new connection
	Crowd    = "crowd"    // many nodes that connect, and stay
	Hold     = "hold"     // many streams that stay open
)

// A Result is what a load did.
type Result struct {
	Work    float64 // bytes, or operations
	Elapsed time.Duration

	P50, P99 time.Duration   `json:",omitzero"`  // of an operation
	Moments  []time.Duration `json:",omitempty"` // first: connected, first answer, answer on the next stream, each since the one before
	Shares   []float64       `json:",omitempty"` // parallel: bytes of each stream
}
