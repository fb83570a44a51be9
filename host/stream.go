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

	settled atomic.Bool // nothing is left to send or to read of the negotiation

	wmu     sync.Mutex
	pending []byte      // our part of the negotiation, to be sent before anything else
	late    *time.Timer // sends our answer if the handler has nothing to send

	rmu        sync.Mutex
	awaiting   bool   // the remote's answer is still to be read
	answerErr  error  // what the answer was, if not yes
	heard      []byte // what came of the answer so far
	heardAgain int    // how much of that was read again after a deadline
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
	if !s.settled.Load() {
		if err := s.settle(); err != nil {
			return 0, err
		}
	}
	n, err := s.mux.Read(p)
	if err != nil && err != io.EOF {
		err = fromMux(err)
	}
	return n, err
}

// settle ends the negotiation: it sends our part if that was not sent yet and
// reads the remote's.
func (s *Stream) settle() error {
	if err := s.flush(); err != nil {
		return err
	}
	s.rmu.Lock()
	defer s.rmu.Unlock()
	if s.awaiting {
		err := multistream.ReadAnswer((*answering)(s), string(s.proto))
		if errors.Is(err, net.ErrClosed) || isTimeout(err) {
			s.heardAgain = 0
			return fromMux(err)
		}
		s.awaiting, s.heard = false, nil
		if err != nil {
			s.answerErr = s.conn.negotiationError(err, s.proto)
			s.mux.Reset(CodeNegotiationFailed)
		}
	}
	if s.answerErr != nil {
		return s.answerErr
	}
	s.settled.Store(true)
	return nil
}

// answering reads the remote's answer. What came before a deadline passed is read
// once more by the next who asks. rmu is held.
type answering Stream

func (a *answering) Read(p []byte) (int, error) {
	if a.heardAgain < len(a.heard) {
		n := copy(p, a.heard[a.heardAgain:])
		a.heardAgain += n
		return n, nil
	}
	n, err := a.mux.Read(p)
	a.heard = append(a.heard, p[:n]...)
	a.heardAgain += n
	return n, err
}

// flush sends our part of the negotiation, if it was not sent yet.
func (s *Stream) flush() error {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	_, err := s.writeFirst(nil)
	return err
}

// writeFirst sends our part of the negotiation and, in the same write, the
// beginning of p. It tells how much of p was written. s.wmu is held.
func (s *Stream) writeFirst(p []byte) (int, error) {
	if s.pending == nil {
		return 0, nil
	}
	buf := append(s.pending, p[:min(len(p), pipelineMax)]...)
	head := len(s.pending)
	s.pending, s.heard = nil, s.pending[:0] // the answer is as long
	if s.dir == DirInbound {
		s.late.Stop()
		s.settled.Store(true) // an answer is not answered
	}
	n, err := s.mux.Write(buf)
	return max(n-head, 0), fromMux(err)
}

// Write sends p. It returns when the bytes are on their way, which waits for the
// remote to read if it is slow; then a *StreamError tells of a reset, and an error
// that wraps os.ErrDeadlineExceeded that the write deadline has passed.
func (s *Stream) Write(p []byte) (int, error) {
	if s.settled.Load() {
		n, err := s.mux.Write(p)
		return n, fromMux(err)
	}
	// The lock is only for our part of the negotiation: a write can wait for the
	// remote to read, which can wait for us to.
	s.wmu.Lock()
	n, err := s.writeFirst(p)
	s.wmu.Unlock()
	if err != nil || n == len(p) {
		return n, err
	}
	m, err := s.mux.Write(p[n:])
	return n + m, fromMux(err)
}

// Close ends both directions: the remote reads io.EOF after what was written, and
// what it still sends is thrown away. To tell the remote that something went
// wrong, use Reset.
func (s *Stream) Close() error {
	err := s.flush()
	if err != nil || s.settled.Load() || s.dir == DirInbound {
		return errors.Join(err, fromMux(s.mux.Close()))
	}
	// See CloseWrite; here nobody waits for it.
	if !s.conn.host.spawn(func(context.Context) { s.finish(s.mux.Close) }) {
		return fromMux(s.mux.Close())
	}
	return nil
}

// CloseWrite ends our direction: the remote reads io.EOF after what was written.
// If the remote has not yet agreed to the protocol, CloseWrite waits for that, at
// most ten seconds: js-libp2p fails when the end of a stream comes together with
// the proposal.
func (s *Stream) CloseWrite() error {
	if err := s.flush(); err != nil {
		return err
	}
	if s.settled.Load() || s.dir == DirInbound {
		return fromMux(s.mux.CloseWrite())
	}
	return s.finish(s.mux.CloseWrite)
}

// finish closes with end once the remote has agreed to the protocol.
func (s *Stream) finish(end func() error) error {
	timeout := time.AfterFunc(negotiationTimeout, func() { s.mux.Reset(CodeNegotiationFailed) })
	err := s.settle()
	timeout.Stop()
	return errors.Join(err, fromMux(end()))
}

// CloseRead throws away what the remote still sends.
func (s *Stream) CloseRead() error { return fromMux(s.mux.CloseRead()) }

// Reset ends the stream at once. The remote's reads and writes fail with a
// *StreamError that has the code, where its muxer carries codes.
func (s *Stream) Reset(code uint32) error { return fromMux(s.mux.Reset(code)) }

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
		s.pending = multistream.AppendProposal(make([]byte, 0, 64), string(proto))
		s.awaiting = true
	} else if err := s.negotiate(ctx, protos); err != nil {
		mux.Reset(CodeNegotiationFailed)
		return nil, err
	}
	c.host.hub.emit(StreamOpened{Conn: c, Protocol: s.proto, Dir: DirOutbound})
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
	s.settled.Store(true)
	return nil
}

// negotiationError words why no protocol was agreed on.
func (c *Conn) negotiationError(err error, protos ...ProtocolID) error {
	var refused *multistream.NotSupportedError
	if errors.As(err, &refused) {
		return &ProtocolError{Peer: c.remote, Protocols: protos, Err: err}
	}
	return fmt.Errorf("host: agreeing on a protocol with %s: %w", c.remote, fromMux(err))
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}
