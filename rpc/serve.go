package rpc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/wire"
	"github.com/kith-p2p/kith/peer"
)

const (
	// headTimeout is how long a caller may take until it says what it wants; the first
	// frame comes with what opens the stream.
	headTimeout = 10 * time.Second
	// resultTimeout is how long the last write may take.
	resultTimeout = 10 * time.Second
)

// A ServerStream is a call as its handler sees it. One goroutine may send while
// another receives, as long as the handler has not returned.
type ServerStream[Req, Resp any] struct {
	method Method[Req, Resp]
	stream *host.Stream
	log    *slog.Logger
	idle   time.Duration
	ctx    context.Context // the handler's: as with http.Request, it is the whole call's
	in     chan incoming   // closed when no more requests come
	err    error           // of Recv, for good
	got    int             // bytes of the request that Recv gave last
	memory memory
	lost   atomic.Pointer[host.StreamError] // the host took the stream's memory; set before ctx ends

	mu   sync.Mutex // for sending
	hold bool       // keep what is sent until the result
	held []byte
}

// incoming is a request, or why there is none.
type incoming struct {
	body []byte
	err  error
}

// Peer is who calls; it has proved that it holds the key.
func (s *ServerStream[Req, Resp]) Peer() peer.ID { return s.stream.Conn().RemotePeer() }

// Recv waits for the next request. It returns io.EOF after the last. An error that is
// not io.EOF is for the handler to return.
func (s *ServerStream[Req, Resp]) Recv() (req Req, err error) {
	if s.err != nil {
		return req, s.err
	}
	req, s.err = s.recv()
	return req, s.err
}

func (s *ServerStream[Req, Resp]) recv() (req Req, err error) {
	var silence <-chan time.Time
	if s.idle > 0 {
		timer := time.NewTimer(s.idle)
		defer timer.Stop()
		silence = timer.C
	}
	select {
	case m, ok := <-s.in:
		switch {
		case !ok:
			return req, io.EOF
		case m.err != nil:
			return req, m.err
		}
		s.memory.release(s.got)
		s.got = frameLen(m.body)
		if req, err = decode[Req](s.method.Codec.orJSON(), m.body); err != nil {
			return req, Errorf(InvalidArgument, "the request: %v", err)
		}
		return req, nil
	case <-s.ctx.Done():
		if lost := s.lost.Load(); lost != nil {
			return req, noMemory(lost)
		}
		return req, context.Cause(s.ctx)
	case <-silence:
		return req, Errorf(DeadlineExceeded, "no request came for %v", s.idle)
	}
}

// Send sends one response. It waits when the caller is slow to read.
func (s *ServerStream[Req, Resp]) Send(resp Resp) error {
	value, err := encode(s.method.Codec, resp, limit(s.method.MaxResponse))
	if err != nil {
		return fmt.Errorf("rpc: %s: the response: %w", s.method.Protocol, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	size := len(value) + 16
	if err := s.memory.Take(size); err != nil {
		return fmt.Errorf("rpc: %s: the response: %w", s.method.Protocol, err)
	}
	frame := appendMessage(make([]byte, 0, size), value)
	if s.hold {
		s.held = frame
		return nil
	}
	defer s.memory.release(size)
	if s.idle > 0 {
		s.stream.SetWriteDeadline(time.Now().Add(s.idle))
	}
	_, err = s.stream.Write(frame)
	return err
}

// serve has f answer calls, each within at most timeout; 0: as long as the caller gives it.
func (m Method[Req, Resp]) serve(h *host.Host, timeout time.Duration, f func(context.Context, *ServerStream[Req, Resp]) error) {
	calls := &room{max: orDefault(m.Calls, DefaultCalls), maxPerPeer: orDefault(m.CallsPerPeer, DefaultCallsPerPeer), held: make(map[peer.ID]int)}
	h.Handle(m.Protocol, func(ctx context.Context, stream *host.Stream) error {
		s := &ServerStream[Req, Resp]{method: m, stream: stream, log: h.Logger(), idle: orDefault(m.Idle, DefaultIdle), in: make(chan incoming, 1), memory: memory{stream: stream}}
		if err := calls.enter(s.Peer()); err != nil {
			return s.finish(err)
		}
		defer calls.leave(s.Peer())
		if err := s.memory.Take(callCost); err != nil {
			return s.finish(err)
		}
		defer s.memory.releaseAll()
		stream.SetReadDeadline(time.Now().Add(headTimeout))
		kind, body, err := readFrame(&s.memory, stream, maxHead)
		if err == nil && kind != kindCall {
			err = errKind(kind)
		}
		var given time.Duration
		if err == nil {
			given, err = parseCall(body)
		}
		if err != nil {
			return fmt.Errorf("rpc: how a call of %s begins: %w", m.Protocol, err)
		}
		s.memory.release(frameLen(body))
		stream.SetReadDeadline(time.Time{})

		if given == 0 || timeout > 0 && timeout < given {
			given = timeout
		}
		var cancel context.CancelFunc
		if given > 0 {
			s.ctx, cancel = context.WithTimeout(ctx, given)
		} else {
			s.ctx, cancel = context.WithCancel(ctx)
		}
		if timeout > 0 {
			s.idle = 0 // the timeout ends it
		}
		reading := make(chan struct{})
		go func() {
			defer close(reading)
			s.read(cancel)
		}()
		defer func() {
			cancel()
			<-reading // it ends because the stream has
		}()
		answered := false
		defer func() {
			if !answered { // f panicked, or the caller is gone
				stream.Reset(host.CodeNone)
			}
		}()
		err = s.finish(f(s.ctx, s))
		answered = err == nil
		return err
	})
}

// read takes in requests until the stream ends; then, when that was not by the caller's
// last word, the handler's context ends.
func (s *ServerStream[Req, Resp]) read(cancel context.CancelFunc) {
	r := readers.Get().(*bufio.Reader)
	r.Reset(s.stream)
	defer func() {
		r.Reset(nil)
		readers.Put(r)
	}()
	for ended := false; ; {
		kind, body, err := readFrame(&s.memory, r, limit(s.method.MaxRequest))
		switch {
		case err == io.EOF: // as good as an end
			if !ended {
				close(s.in)
			}
			return
		case err == nil && kind == kindEnd && !ended:
			ended = true
			close(s.in)
			continue
		case err == nil && kind == kindMessage && !ended:
			if s.put(incoming{body: body}) {
				continue
			}
			return
		case err != nil && !ended:
			var large *wire.SizeError
			if errors.As(err, &large) {
				s.put(incoming{err: Errorf(ResourceExhausted, "a request of %d bytes is over the limit of %d", large.Size, large.Max)})
				return
			}
			if errors.As(err, new(*host.LimitError)) {
				s.put(incoming{err: fmt.Errorf("rpc: %s: the request: %w", s.method.Protocol, err)})
				return
			}
			if reset := outOfMemory(err); reset != nil {
				s.lost.Store(reset)
			}
		case err == nil:
			// Against the rules, so nothing that the caller says counts.
			s.stream.Reset(host.CodeProtocolViolation)
		}
		cancel()
		return
	}
}

// put hands a request to Recv, and tells whether it was taken.
func (s *ServerStream[Req, Resp]) put(m incoming) bool {
	select {
	case s.in <- m:
		return true
	case <-s.ctx.Done():
		return false
	}
}

// finish sends the result. The caller then has all that it needs: the stream is closed.
func (s *ServerStream[Req, Resp]) finish(err error) error {
	result := toSend(err)
	if result != nil && result.Code == Internal && !errors.As(err, new(*Error)) {
		s.log.Warn("rpc handler failed", "proto", string(s.method.Protocol), "peer", s.Peer().String(), "err", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if result != nil {
		s.held = nil
	}
	s.stream.SetWriteDeadline(time.Now().Add(resultTimeout))
	if _, err := s.stream.Write(appendResult(s.held, result)); err != nil {
		return err
	}
	return s.stream.Close()
}

// A room counts the calls of a method that are in work.
type room struct {
	max        int // 0: no bound
	maxPerPeer int

	mu    sync.Mutex
	total int
	held  map[peer.ID]int
}

func (r *room) enter(p peer.ID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.maxPerPeer > 0 && r.held[p] >= r.maxPerPeer {
		return Errorf(ResourceExhausted, "you have %d calls of this method in work, and no peer may have more (Method.CallsPerPeer): wait for one to end", r.held[p])
	}
	if r.max > 0 && r.total >= r.max {
		return Errorf(ResourceExhausted, "%d calls of this method are in work, and there may be no more (Method.Calls): try again later", r.total)
	}
	r.total++
	r.held[p]++
	return nil
}

func (r *room) leave(p peer.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.total--
	if r.held[p]--; r.held[p] == 0 {
		delete(r.held, p)
	}
}
