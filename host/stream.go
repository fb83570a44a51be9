package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kith-p2p/kith/multistream"
	"github.com/kith-p2p/kith/peer"
)

// ProtocolID names a protocol, such as "/ipfs/ping/1.0.0".
type ProtocolID string

// Direction tells who opened a connection or a stream.
type Direction uint8

// The two directions.
const (
	DirInbound Direction = iota
	DirOutbound
)

func (d Direction) String() string {
	if d == DirOutbound {
		return "outbound"
	}
	return "inbound"
}

// answerDelay is how long our answer to a proposal waits for the handler's first
// data, to leave in one write with it.
const answerDelay = 20 * time.Millisecond

// pipelineMax is how much of a first write travels in one piece with the
// protocol's proposal; enough for a request, small enough to copy.
const pipelineMax = 4 << 10

const (
	// ourRoom is enough for our part of the negotiation with names as they are in
	// use, and for a small first write; more is allocated.
	ourRoom = 64
	// aheadMax is how much is read at once while a proposal is awaited: the proposal
	// and a small request.
	aheadMax = 192
)

// A Stream carries bytes in both directions, in order and without loss, to one
// handler of the remote. It implements net.Conn. One reader and one writer may
// use it at the same time.
//
// A stream opened by NewStream may send its protocol's proposal together with the
// first bytes written, to save a round trip. If the remote then refuses the
// protocol, Read returns a *ProtocolError.
type Stream struct {
	mux   MuxedStream
	conn  *Conn
	proto ProtocolID
	dir   Direction

	negotiating atomic.Pointer[negotiation] // nil when nothing is left to send or to read of it
	next        atomic.Pointer[Stream]      // in Conn.accepted, until it is served
}

// A negotiation is what a stream keeps until both sides know its protocol. It is
// apart from Stream because streams can be many and idle for long.
type negotiation struct {
	stream   *Stream
	left     atomic.Int32     // what is still to be done: our part, the remote's part
	expected bool             // it is counted in Host.expected
	ticket   *ticket[peer.ID] // nil until it was waited for a proposal

	wmu      sync.Mutex
	pending  []byte  // our part, to be sent before anything else
	late     waiting // for the handler to have something to send; guarded by answers.mu
	unwanted bool    // our answer could not be sent

	rmu        sync.Mutex
	awaiting   bool   // the remote's answer is still to be read
	answerErr  error  // what the answer was, if not yes
	heard      []byte // what came of the answer so far
	heardAgain int    // how much of that was read again after a deadline
	ahead      []byte // came behind the remote's proposal, not read by the handler

	ours   [ourRoom]byte  // room for pending and heard
	theirs [aheadMax]byte // room for ahead
}

// Protocol is the protocol spoken on the stream.
func (s *Stream) Protocol() ProtocolID { return s.proto }

// Conn is the connection that carries the stream.
func (s *Stream) Conn() *Conn { return s.conn }

// Direction tells who opened the stream.
func (s *Stream) Direction() Direction { return s.dir }

// Read reads what the remote wrote. It returns io.EOF after the remote's last
// byte, a *StreamError after a reset, and an error that wraps
// os.ErrDeadlineExceeded after the read deadline.
func (s *Stream) Read(p []byte) (int, error) {
	if g := s.negotiating.Load(); g != nil {
		if n := s.readAhead(g, p); n > 0 {
			return n, nil
		}
		if err := s.settle(g); err != nil {
			return 0, err
		}
	}
	n, err := s.mux.Read(p)
	if err != nil && err != io.EOF {
		err = fromMux(err)
	}
	return n, err
}

// readAhead reads what came together with the remote's proposal. Our answer is not
// sent for that: most handlers read a request and answer it, and so both travel in
// one write.
func (s *Stream) readAhead(g *negotiation, p []byte) int {
	g.rmu.Lock()
	defer g.rmu.Unlock()
	n := copy(p, g.ahead)
	if n > 0 && n == len(g.ahead) {
		s.did(g)
	}
	g.ahead = g.ahead[n:]
	return n
}

// dropAhead is for when nobody wants to read any more.
func (s *Stream) dropAhead() {
	g := s.negotiating.Load()
	if g == nil || s.dir == DirOutbound {
		return
	}
	g.rmu.Lock()
	defer g.rmu.Unlock()
	if len(g.ahead) > 0 {
		g.ahead = nil
		s.did(g)
	}
}

// did notes that a part of the negotiation is done.
func (s *Stream) did(g *negotiation) {
	if g.left.Add(-1) == 0 {
		s.negotiating.Store(nil)
	}
}

// settle ends the negotiation: it sends our part if that was not sent yet and
// reads the remote's.
func (s *Stream) settle(g *negotiation) error {
	// Who does not want our answer may still have sent something.
	if err := s.flush(g); err != nil && s.dir == DirOutbound {
		return s.refusal(err)
	}
	g.rmu.Lock()
	defer g.rmu.Unlock()
	if g.awaiting {
		err := multistream.ReadAnswer((*answering)(g), string(s.proto))
		if err != nil && (errors.Is(err, net.ErrClosed) || isTimeout(err)) {
			g.heardAgain = 0
			return fromMux(err)
		}
		g.awaiting, g.heard = false, nil
		if err == nil {
			s.did(g)
		} else {
			g.answerErr = s.conn.negotiationError(err, s.proto)
			s.mux.Reset(CodeNegotiationFailed)
		}
	}
	return g.answerErr
}

// answering reads the remote's answer. What came before a deadline passed is read
// once more by the next who asks. rmu is held.
type answering negotiation

func (a *answering) Read(p []byte) (int, error) {
	if a.heardAgain < len(a.heard) {
		n := copy(p, a.heard[a.heardAgain:])
		a.heardAgain += n
		return n, nil
	}
	n, err := a.stream.mux.Read(p)
	a.heard = append(a.heard, p[:n]...)
	a.heardAgain += n
	return n, err
}

// proposals reads what the remote proposes, and what has come behind it with the
// same read. Nobody else has the negotiation yet.
type proposals negotiation

func (r *proposals) Read(p []byte) (int, error) {
	if len(r.ahead) == 0 {
		mux := r.stream.mux
		n, err := mux.Read(r.theirs[:])
		if n == 0 && err != nil && r.ticket == nil && isTimeout(err) {
			if err := r.wait(); err != nil {
				return 0, err
			}
			n, err = mux.Read(r.theirs[:])
		}
		if n == 0 {
			return 0, err
		}
		r.ahead = r.theirs[:n]
	}
	n := copy(p, r.ahead)
	r.ahead = r.ahead[n:]
	return n, nil
}

func (r *proposals) Write(p []byte) (int, error) { return r.stream.mux.Write(p) }

// expect begins to wait for a proposal. When as many streams wait as one peer may open, or
// as may be without a protocol, a place among the latter is taken at once: the runtime keeps
// half a KiB, and as much again until the next collection, of each goroutine that there was
// at one time.
func (r *proposals) expect() error {
	h := r.stream.conn.host
	if h.expected.Add(1) <= int64(min(h.limits.InboundStreamsPerPeer, h.limits.UnnegotiatedStreams)) {
		r.expected = true
		return nil
	}
	h.expected.Add(-1)
	return r.wait()
}

// wait takes a place among the streams without a protocol. See proposalDelay.
func (r *proposals) wait() error {
	r.leave()
	h, p, mux := r.stream.conn.host, r.stream.conn.remote, r.stream.mux
	r.ticket = h.unnegotiated.enter(p, p, func() { mux.Reset(CodeResourceLimit) })
	if r.ticket == nil {
		limit := h.limits.UnnegotiatedStreamsPerPeer
		return &LimitError{Scope: "UnnegotiatedStreamsPerPeer", Limit: limit, Used: limit}
	}
	mux.SetReadDeadline(time.Now().Add(negotiationTimeout - proposalDelay))
	return nil
}

// leave undoes expect and wait.
func (r *proposals) leave() {
	if r.expected {
		r.expected = false
		r.stream.conn.host.expected.Add(-1)
	}
	if r.ticket != nil {
		r.ticket.leave()
		r.ticket = nil
	}
}

// flush sends our part of the negotiation, if it was not sent yet.
func (s *Stream) flush(g *negotiation) error {
	g.wmu.Lock()
	defer g.wmu.Unlock()
	_, err := s.writeFirst(g, nil)
	return err
}

// writeFirst sends our part of the negotiation and, in the same write, the
// beginning of p. It tells how much of p was written. g.wmu is held.
func (s *Stream) writeFirst(g *negotiation, p []byte) (int, error) {
	if g.pending == nil {
		return 0, nil
	}
	buf := append(g.pending, p[:min(len(p), pipelineMax)]...)
	head := len(g.pending)
	g.pending, g.heard = nil, g.pending[:0] // the answer is as long
	if s.dir == DirInbound {
		s.conn.host.answers.remove(g)
	}
	n, err := s.mux.Write(buf)
	if s.dir == DirInbound {
		// An answer is not answered. Not earlier: who finds the negotiation done writes
		// without the lock, and must not come before the answer.
		if g.unwanted = err != nil; !g.unwanted {
			s.did(g)
		}
	}
	return max(n-head, 0), fromMux(err)
}

// unanswered tells whether the remote has heard nothing of us on the stream.
func (s *Stream) unanswered() bool {
	g := s.negotiating.Load()
	if g == nil || !g.wmu.TryLock() { // who holds it sends
		return false
	}
	defer g.wmu.Unlock()
	return g.pending != nil || g.unwanted
}

// Write sends p. It returns when the bytes are on their way, which waits for the
// remote to read if it is slow; then a *StreamError tells of a reset, and an error
// that wraps os.ErrDeadlineExceeded that the write deadline has passed.
func (s *Stream) Write(p []byte) (int, error) {
	g := s.negotiating.Load()
	if g == nil {
		n, err := s.mux.Write(p)
		return n, fromMux(err)
	}
	// The lock is only for our part of the negotiation: a write can wait for the
	// remote to read, which can wait for us to.
	g.wmu.Lock()
	n, err := s.writeFirst(g, p)
	g.wmu.Unlock()
	if err == nil && n < len(p) {
		var m int
		m, err = s.mux.Write(p[n:])
		n += m
	}
	return n, s.refusal(fromMux(err))
}

// Close ends both directions: the remote reads io.EOF after what was written, and
// what it still sends is thrown away. To tell the remote that something went
// wrong, use Reset.
func (s *Stream) Close() error {
	s.dropAhead()
	g := s.negotiating.Load()
	if g == nil {
		return fromMux(s.mux.Close())
	}
	err := s.flush(g)
	if err != nil || s.dir == DirInbound || s.conn.endsEarly.Load() {
		return errors.Join(err, fromMux(s.mux.Close()))
	}
	// See CloseWrite; here nobody waits for it.
	if !s.conn.host.spawn(func(context.Context) { s.finish(g, s.mux.Close) }) {
		return fromMux(s.mux.Close())
	}
	return nil
}

// CloseWrite ends our direction: the remote reads io.EOF after what was written.
// If the remote has not yet agreed to the protocol, and has not said by identify
// that it is of an implementation that can do without, CloseWrite waits for that, at
// most ten seconds: js-libp2p fails when the end of a stream comes together with
// the proposal.
func (s *Stream) CloseWrite() error {
	g := s.negotiating.Load()
	if g == nil {
		return fromMux(s.mux.CloseWrite())
	}
	if err := s.flush(g); err != nil {
		return s.refusal(err)
	}
	if s.dir == DirInbound || s.conn.endsEarly.Load() {
		return fromMux(s.mux.CloseWrite())
	}
	return s.finish(g, s.mux.CloseWrite)
}

// finish closes with end once the remote has agreed to the protocol.
func (s *Stream) finish(g *negotiation, end func() error) error {
	timeout := time.AfterFunc(negotiationTimeout, func() { s.mux.Reset(CodeNegotiationFailed) })
	err := s.settle(g)
	timeout.Stop()
	return errors.Join(err, fromMux(end()))
}

// CloseRead throws away what the remote still sends.
func (s *Stream) CloseRead() error {
	s.dropAhead()
	return fromMux(s.mux.CloseRead())
}

// Reset ends the stream at once. The remote's reads and writes fail with a
// *StreamError that has the code, where its muxer carries codes.
func (s *Stream) Reset(code uint32) error {
	s.dropAhead()
	return fromMux(s.mux.Reset(code))
}

// SetDeadline bounds reads and writes; the zero time means never.
func (s *Stream) SetDeadline(t time.Time) error { return s.mux.SetDeadline(t) }

// SetReadDeadline bounds reads; the zero time means never.
func (s *Stream) SetReadDeadline(t time.Time) error { return s.mux.SetReadDeadline(t) }

// SetWriteDeadline bounds writes; the zero time means never.
func (s *Stream) SetWriteDeadline(t time.Time) error { return s.mux.SetWriteDeadline(t) }

// LocalAddr is this host's end, as net.Conn wants it.
func (s *Stream) LocalAddr() net.Addr { return StreamAddr{s.conn.host.ID(), s.conn.LocalAddr()} }

// RemoteAddr is the remote's end, as net.Conn wants it.
func (s *Stream) RemoteAddr() net.Addr { return StreamAddr{s.conn.RemotePeer(), s.conn.RemoteAddr()} }

var _ net.Conn = (*Stream)(nil)

// newStream opens a stream on c and agrees on one of protos.
func (c *Conn) newStream(ctx context.Context, protos []ProtocolID) (*Stream, error) {
	if !c.begin() {
		return nil, errSupplanted
	}
	defer c.begun()
	return c.openStream(ctx, protos)
}

func (c *Conn) openStream(ctx context.Context, protos []ProtocolID) (*Stream, error) {
	if len(protos) == 0 {
		return nil, errors.New("host: NewStream needs at least one protocol")
	}
	for _, p := range protos {
		if err := multistream.Check(string(p)); err != nil {
			return nil, fmt.Errorf("host: %w", err)
		}
	}
	mux, err := c.mux.OpenStream(ctx)
	if err != nil {
		return nil, fmt.Errorf("host: opening a stream to %s: %w", c.remote, fromMux(err))
	}
	s := &Stream{mux: mux, conn: c, dir: DirOutbound}
	if proto, ok := c.expect(protos); ok {
		s.proto = proto
		g := &negotiation{stream: s, awaiting: true}
		g.pending = multistream.AppendProposal(g.ours[:0], string(proto))
		g.left.Store(1)
		s.negotiating.Store(g)
	} else if err := s.negotiate(ctx, protos); err != nil {
		mux.Reset(CodeNegotiationFailed)
		return nil, err
	}
	if hub := &c.host.hub; hub.traced() {
		hub.emit(StreamOpened{Conn: c, Protocol: s.proto, Dir: DirOutbound})
	}
	return s, nil
}

// expect chooses the protocol that the remote will accept, if that can be known
// without asking: what it said in identify, or all that there is to propose.
func (c *Conn) expect(protos []ProtocolID) (ProtocolID, bool) {
	known := c.protocols.Load()
	if known == nil {
		return protos[0], len(protos) == 1
	}
	for _, p := range protos {
		if _, ok := slices.BinarySearch(*known, p); ok {
			return p, true
		}
	}
	return "", false
}

// negotiate asks for one protocol after the other and waits for each answer.
func (s *Stream) negotiate(ctx context.Context, protos []ProtocolID) error {
	names := make([]string, len(protos))
	for i, p := range protos {
		names[i] = string(p)
	}
	deadline, ok := ctx.Deadline()
	if own := time.Now().Add(negotiationTimeout); !ok || own.Before(deadline) {
		deadline = own
	}
	s.mux.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { s.mux.Reset(CodeNone) })
	proto, err := multistream.Select(s.mux, names...)
	if !stop() && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return s.conn.negotiationError(err, protos...)
	}
	s.mux.SetDeadline(time.Time{})
	s.proto = ProtocolID(proto)
	return nil
}

// negotiationError words why no protocol was agreed on.
func (c *Conn) negotiationError(err error, protos ...ProtocolID) error {
	// A remote that refused, and then cannot understand what came with the proposal,
	// resets the stream; that can overtake its refusal.
	var refused *multistream.NotSupportedError
	err = fromMux(err)
	if errors.As(err, &refused) || isRefusal(err) {
		return &ProtocolError{Peer: c.remote, Protocols: protos, Err: err}
	}
	return fmt.Errorf("host: agreeing on a protocol with %s: %w", c.remote, err)
}

// refusal words the error of a write that travelled with the proposal or behind it.
func (s *Stream) refusal(err error) error {
	if s.dir == DirOutbound && isRefusal(err) {
		return &ProtocolError{Peer: s.conn.remote, Protocols: []ProtocolID{s.proto}, Err: err}
	}
	return err
}

func isRefusal(err error) bool {
	var reset *StreamError
	return errors.As(err, &reset) && reset.Remote && reset.Code == CodeNegotiationFailed
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}
