package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/multistream"
	"github.com/kith-p2p/kith/peer"
)

// negotiationTimeout bounds how long a stream may take to agree on a protocol.
const negotiationTimeout = 10 * time.Second

// proposalDelay is how long a stream of the remote may wait for a proposal before
// it counts as one that has none: the proposal of an honest one is on its way, and
// many can come at once.
const proposalDelay = 100 * time.Millisecond

// A Handler serves one stream that a remote opened. When it returns nil the
// stream is closed, when it returns an error the stream is reset: with the code of
// a *StreamError, with 0 otherwise. ctx ends with the connection and the host.
type Handler func(ctx context.Context, s *Stream) error

// A Conn is a connection with one peer, authenticated and able to carry many
// streams. All methods may be called from several goroutines.
type Conn struct {
	host     *Host
	mux      MuxedConn
	id       uint64
	remote   peer.ID
	key      peer.PublicKey
	local    multiaddr.Addr
	addr     multiaddr.Addr
	security ProtocolID
	muxer    ProtocolID
	opened   time.Time

	datagrams Datagrams // nil: none

	cost, streamCost int // what it and one of its streams take, in bytes
	account          Account

	protocols atomic.Pointer[[]ProtocolID] // what the remote speaks, sorted; nil until identified
	vain      vain
	accepted  atomic.Pointer[Stream] // those that wait for their goroutine to begin
	done      chan struct{}
	flow      atomic.Int64                   // streams that there were, and that are being opened
	observed  atomic.Pointer[multiaddr.Addr] // where the remote sees us, if that is public

	// What is small stands together, which makes a connection 64 bytes smaller.
	dir     Direction
	limited bool

	// guarded by Host.mu; see pairs.go
	leaving  bool          // it was given up for lack of room
	replaced bool          // another has taken its place, though it would not by the rule
	judged   bool          // it is being found out whether it can take another's place
	asking   bool          // the remote is being asked whether it may end
	yielded  time.Duration // from opened until we agreed that it may; 0: we have not

	closing   sync.Once
	ended     atomic.Bool // no use to open streams
	retired   atomic.Bool // we open no streams
	stale     atomic.Bool // it has not answered since a change of network; see roam.go
	checked   atomic.Bool // it is being asked whether it goes on
	unproven  atomic.Bool // the remote has opened no stream on it yet, and has another
	endsEarly atomic.Bool // the remote takes the end of a stream that comes with the proposal
}

// ID is a number that no other connection of this host has had.
func (c *Conn) ID() uint64 { return c.id }

// RemotePeer is the peer at the other end; it has proved that it holds its key.
func (c *Conn) RemotePeer() peer.ID { return c.remote }

// RemoteKey is the key of the peer at the other end.
func (c *Conn) RemoteKey() peer.PublicKey { return c.key }

// LocalAddr is our end of the connection.
func (c *Conn) LocalAddr() multiaddr.Addr { return c.local }

// RemoteAddr is the other end of the connection, without /p2p.
func (c *Conn) RemoteAddr() multiaddr.Addr { return c.addr }

// Direction tells who dialed.
func (c *Conn) Direction() Direction { return c.dir }

// Security is the secure channel agreed on, such as "/noise"; "" where the
// transport has its own.
func (c *Conn) Security() ProtocolID { return c.security }

// Muxer is the muxer agreed on, such as "/yamux/1.0.0"; "" where the transport has its own.
func (c *Conn) Muxer() ProtocolID { return c.muxer }

// Limited tells of a connection that is bounded in bytes or time, as through a relay.
func (c *Conn) Limited() bool { return c.limited }

// Opened is when the connection became ready.
func (c *Conn) Opened() time.Time { return c.opened }

// NumStreams tells how many streams are open, in both directions.
func (c *Conn) NumStreams() int { return c.mux.NumStreams() }

// RTT is the round-trip time that the muxer measured last, 0 when it did not yet.
func (c *Conn) RTT() time.Duration { return c.mux.RTT() }

// Done is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} { return c.done }

// NewStream opens a stream on this connection. See Host.NewStream.
func (c *Conn) NewStream(ctx context.Context, protos ...ProtocolID) (*Stream, error) {
	return c.newStream(ctx, protos)
}

// SendDatagram sends p as one message that arrives whole or not at all, on
// connections of quic and webtransport; on others it returns ErrNoDatagrams. It
// fails when p is larger than a packet on the way to the remote: 1,200 bytes
// always fit.
func (c *Conn) SendDatagram(p []byte) error {
	if c.datagrams == nil {
		return ErrNoDatagrams
	}
	c.flow.Add(flowStream)
	return c.datagrams.SendDatagram(p)
}

// ReceiveDatagram waits for the next message that the remote sent with
// SendDatagram. One that comes while nobody waits may be dropped.
func (c *Conn) ReceiveDatagram(ctx context.Context) ([]byte, error) {
	if c.datagrams == nil {
		return nil, ErrNoDatagrams
	}
	if !c.begin() {
		return nil, errSupplanted
	}
	defer c.begun()
	return c.datagrams.ReceiveDatagram(ctx)
}

// Close ends the connection and all its streams.
func (c *Conn) Close() error { return c.CloseWithCode(ConnCodeNone) }

// CloseWithCode ends the connection and tells the remote why, where the muxer
// can. It returns within a second.
func (c *Conn) CloseWithCode(code uint32) error {
	c.ended.Store(true)
	c.vain.hurry()
	var err error
	c.closing.Do(func() { err = fromMux(c.mux.CloseWithCode(code)) })
	return err
}

func (c *Conn) String() string {
	return fmt.Sprintf("%s %s/p2p/%s", c.dir, c.addr, c.remote)
}

// serve runs the connection until it ends.
func (c *Conn) serve(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	serveNext := func() { c.serveStream(ctx, c.takeAccepted()) }
	err := c.mux.Serve(func(s MuxedStream) { c.accept(s, serveNext) })
	c.Close()
	cancel()
	if err == nil {
		err = io.EOF
	}
	close(c.done)
	if c.dir == DirInbound {
		c.host.offenders.note(addrOwner(c.addr), err, time.Now())
	}
	c.host.removeConn(c, fromMux(err))
}

// accept takes in a stream that the remote opened, which serveNext will take from
// c.accepted. It blocks only while the remote has to wait; see vain.go.
func (c *Conn) accept(mux MuxedStream, serveNext func()) {
	h := c.host
	c.flow.Add(flowStream)
	if c.unproven.Load() {
		h.prove(c)
	}
	if c.vain.settled.Load() > 0 {
		c.keepPace()
	}
	if used := int(c.account.peer.streams.Add(1)); used > h.limits.InboundStreamsPerPeer {
		c.account.peer.streams.Add(-1)
		c.refuse(mux, CodeResourceLimit, 1, h.refuse("InboundStreamsPerPeer", used-1, h.limits.InboundStreamsPerPeer))
		return
	}
	if err := c.account.Take(c.streamCost); err != nil {
		c.account.peer.streams.Add(-1)
		c.refuse(mux, CodeResourceLimit, 1, err)
		return
	}
	if !h.hold() {
		c.account.peer.streams.Add(-1)
		c.account.Release(c.streamCost)
		mux.Reset(CodeShutdown)
		return
	}
	// A goroutine with arguments, as through spawn, would allocate for them.
	s := &Stream{mux: mux, conn: c, dir: DirInbound}
	for {
		last := c.accepted.Load()
		s.next.Store(last)
		if c.accepted.CompareAndSwap(last, s) {
			break
		}
	}
	go serveNext()
	// This is the goroutine that takes in all streams of this connection. All others that
	// can run do so before it takes in the next, so that when the processor is what everybody
	// waits for, each connection gets its turn, however many streams a remote opens. Who had
	// to wait has a few taken in at once: the answers leave in one write.
	if c.vain.turn > 0 {
		c.vain.turn--
	} else {
		runtime.Gosched()
	}
}

// takeAccepted takes the stream for which this goroutine was started, or one that
// was accepted at the same time.
func (c *Conn) takeAccepted() *Stream {
	for {
		s := c.accepted.Load()
		if c.accepted.CompareAndSwap(s, s.next.Load()) { // a stream is there once, so s is still the last
			s.next.Store(nil)
			return s
		}
	}
}

// refuse resets a stream that came to nothing, as n proposals did.
func (c *Conn) refuse(mux MuxedStream, code uint32, n int, err error) {
	mux.Reset(code)
	if hub := &c.host.hub; hub.traced() {
		hub.emit(StreamRefused{Conn: c, Err: err})
	}
	c.countVain(n)
}

// countVain counts what came to nothing, and ends the connection of a remote that goes
// on without end.
func (c *Conn) countVain(n int) {
	c.host.garbage.stir()
	if c.vain.add(n, time.Since(c.opened)) {
		c.host.spawn(func(context.Context) { c.CloseWithCode(ConnCodeRateLimited) })
	}
}

// keepPace waits for as long as the remote has to.
func (c *Conn) keepPace() {
	owes := c.vain.owes(time.Since(c.opened))
	if owes < vainTurn*vainInterval {
		return
	}
	waiting := time.Duration(c.host.pacing.Add(1))
	defer c.host.pacing.Add(-1)
	left := min(owes*max(1, waiting/vainTogether), vainPause)
	c.vain.wait(left, left-owes, &c.ended)
}

// serveStream agrees on a protocol and runs its handler.
func (c *Conn) serveStream(ctx context.Context, s *Stream) {
	h, mux := c.host, s.mux
	defer h.release()
	defer c.account.peer.streams.Add(-1)
	defer c.account.Release(c.streamCost)
	now := time.Now()
	mux.SetReadDeadline(now.Add(proposalDelay))
	mux.SetWriteDeadline(now.Add(negotiationTimeout))
	handle, refused, err := h.respond(s)
	if err != nil {
		code := CodeNegotiationFailed
		var full *LimitError
		if errors.As(err, &full) {
			code = CodeResourceLimit
		}
		c.refuse(mux, code, max(refused, 1), err)
		return
	}
	if refused > 0 {
		c.countVain(refused)
	}
	mux.SetDeadline(time.Time{})
	if h.hub.traced() {
		h.hub.emit(StreamOpened{Conn: c, Protocol: s.proto, Dir: DirInbound})
	}
	start := time.Now()
	err = s.run(ctx, handle)
	switch {
	case err == errHandedOver:
		return
	case err == nil:
		err = s.Close()
	default:
		var coded *StreamError
		code := CodeNone
		if errors.As(err, &coded) && !coded.Remote {
			code = coded.Code
		}
		if code == CodeRateLimited || coded != nil && coded.Remote && s.unanswered() {
			c.countVain(1)
		}
		s.Reset(code)
	}
	if h.hub.traced() {
		h.hub.emit(StreamEnded{Conn: c, Protocol: s.proto, Elapsed: time.Since(start), Err: err})
	}
}

// respond lets the remote propose protocols until one has a handler. Our answer
// travels with the handler's first data. It also tells how many were refused.
func (h *Host) respond(s *Stream) (handle Handler, refused int, err error) {
	g := &negotiation{stream: s}
	r := (*proposals)(g)
	defer r.leave()
	if err := r.expect(); err != nil {
		return nil, 0, err
	}
	var found service
	proto, answered, err := multistream.Accept(r, func(proto []byte) (string, bool) {
		if found = h.service(proto); found.handle == nil {
			refused++
		}
		return string(found.proto), found.handle != nil
	})
	if err != nil {
		return nil, refused, fromMux(err)
	}
	s.proto = found.proto
	var left int32
	if len(g.ahead) > 0 {
		left++
	}
	if !answered {
		left++
	}
	if left == 0 {
		return found.handle, refused, nil
	}
	g.left.Store(left)
	s.negotiating.Store(g)
	if !answered {
		g.pending = multistream.AppendAccept(g.ours[:0], proto)
		h.answers.add(g, time.Now())
	}
	return found.handle, refused, nil
}

// run calls the handler. A panic in it ends the stream, not the node: handlers see
// bytes from strangers.
func (s *Stream) run(ctx context.Context, handle Handler) (err error) {
	defer func() {
		if v := recover(); v != nil {
			stack := debug.Stack()
			s.conn.host.log.Error("handler panicked", "proto", string(s.proto), "peer", s.conn.remote.String(), "err", v, "stack", string(stack))
			s.conn.host.hub.emit(HandlerPanicked{Conn: s.conn, Protocol: s.proto, Value: v, Stack: stack})
			err = fmt.Errorf("host: handler of %s panicked: %v", s.proto, v)
		}
	}()
	return handle(ctx, s)
}

// earlyEnders are implementations, by what they call themselves, that are known to
// take the end of a stream together with the proposal of its protocol. js-libp2p
// resets such streams, and programs choose their own names: so who is not known waits.
var earlyEnders = []string{"kith", "go-libp2p", "kubo", "rust-libp2p"}

func endsEarly(agent string) bool {
	return slices.ContainsFunc(earlyEnders, func(name string) bool { return strings.Contains(agent, name) })
}
