package rpc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/wire"
	"github.com/kith-p2p/kith/peer"
)

// readAhead is how much is read from a stream at once: lengths and kinds come byte by byte.
const readAhead = 512

var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, readAhead) }}

// A ClientStream is a call in which many messages can go either way. One goroutine may
// send while another receives.
type ClientStream[Req, Resp any] struct {
	method Method[Req, Resp]
	ctx    context.Context // of Open: as with http.Request, it is the whole call's
	stream *host.Stream
	idle   time.Duration
	stop   func() bool // of the reset when ctx ends
	r      *bufio.Reader
	err    error // of Recv, for good
	memory memory

	mu    sync.Mutex // for sending
	first []byte     // is sent before anything else
	ended bool       // no more requests
	close sync.Once
}

// Open begins a call of many messages; it connects to p if there is no connection. ctx
// is for all of it: when it ends, so does the call. The caller must Close the stream,
// or receive until an error.
func (m Method[Req, Resp]) Open(ctx context.Context, h *host.Host, p peer.ID) (*ClientStream[Req, Resp], error) {
	stream, err := h.NewStream(ctx, p, m.Protocol)
	if err != nil {
		return nil, fmt.Errorf("rpc: %s of %s: %w", m.Protocol, p, err)
	}
	s := &ClientStream[Req, Resp]{method: m, ctx: ctx, stream: stream, idle: orDefault(m.Idle, DefaultIdle), memory: memory{stream: stream}}
	var timeout time.Duration
	if deadline, ok := ctx.Deadline(); ok {
		timeout = max(time.Until(deadline), time.Millisecond)
	}
	s.first = appendCall(nil, timeout)
	s.stop = context.AfterFunc(ctx, func() { stream.Reset(host.CodeNone) })
	return s, nil
}

// Send sends one request. It waits when the server is slow to read.
func (s *ClientStream[Req, Resp]) Send(req Req) error { return s.send(req, false) }

func (s *ClientStream[Req, Resp]) send(req Req, last bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return fmt.Errorf("rpc: %s: Send after CloseSend", s.method.Protocol)
	}
	value, err := encode(s.method.Codec, req, limit(s.method.MaxRequest))
	if err != nil {
		return fmt.Errorf("rpc: %s: the request: %w", s.method.Protocol, err)
	}
	buf := make([]byte, 0, len(s.first)+len(value)+16)
	buf = appendMessage(append(buf, s.first...), value)
	if last {
		buf = appendEnd(buf)
	}
	s.first, s.ended = nil, last
	return s.write(buf)
}

// CloseSend tells the server that no more requests come. Responses still do.
func (s *ClientStream[Req, Resp]) CloseSend() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil
	}
	buf := appendEnd(s.first)
	s.first, s.ended = nil, true
	return s.write(buf)
}

// write is called with s.mu held.
func (s *ClientStream[Req, Resp]) write(buf []byte) error {
	if s.idle > 0 {
		s.stream.SetWriteDeadline(time.Now().Add(s.idle))
	}
	_, err := s.stream.Write(buf)
	return s.wrap(err)
}

// Recv waits for the next response. It returns io.EOF after the last, and an *Error
// when the server ended with one. After an error it returns the same one again.
func (s *ClientStream[Req, Resp]) Recv() (resp Resp, err error) {
	if s.err != nil {
		return resp, s.err
	}
	resp, err = s.recv()
	s.memory.releaseAll() // from here on it is the program's
	if err == nil {
		return resp, nil
	}
	s.err = s.wrap(err)
	if _, result := err.(*Error); result || err == io.EOF {
		s.end(s.stream.Close)
	} else if errors.As(err, new(*host.LimitError)) {
		s.end(func() error { return s.stream.Reset(host.CodeResourceLimit) })
	} else {
		s.Close()
	}
	if s.r != nil {
		s.r.Reset(nil)
		readers.Put(s.r)
		s.r = nil
	}
	return resp, s.err
}

func (s *ClientStream[Req, Resp]) recv() (resp Resp, err error) {
	s.mu.Lock()
	first := s.first
	s.first = nil
	if first != nil {
		// A server may have something to say before it is asked.
		err = s.write(first)
	}
	s.mu.Unlock()
	if err != nil {
		return resp, err
	}
	if s.r == nil {
		s.r = readers.Get().(*bufio.Reader)
		s.r.Reset(s.stream)
	}
	if s.idle > 0 {
		s.stream.SetReadDeadline(time.Now().Add(s.idle))
	}
	kind, body, err := readFrame(&s.memory, s.r, limit(s.method.MaxResponse))
	if err != nil {
		var large *wire.SizeError
		if errors.As(err, &large) {
			err = fmt.Errorf("%w: raise Method.MaxResponse, or ask for less", err)
		} else if err == io.EOF {
			err = io.ErrUnexpectedEOF // without a result
		}
		return resp, err
	}
	switch kind {
	case kindMessage:
		if resp, err = decode[Resp](s.method.Codec.orJSON(), body); err != nil {
			err = fmt.Errorf("the response: %w", err)
		}
		return resp, err
	case kindResult:
		e, err := parseResult(body)
		if err == nil && e != nil {
			err = e
		} else if err == nil {
			err = io.EOF
		}
		return resp, err
	}
	return resp, errKind(kind)
}

// Close ends the call. If it still runs, the server's context ends, too.
func (s *ClientStream[Req, Resp]) Close() error {
	s.end(func() error { return s.stream.Reset(host.CodeNone) })
	return nil
}

func (s *ClientStream[Req, Resp]) end(how func() error) {
	s.close.Do(func() {
		s.stop()
		how()
	})
}

// wrap says of a failure whose call it was, and of the call's end why.
func (s *ClientStream[Req, Resp]) wrap(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	p := s.stream.Conn().RemotePeer()
	if s.ctx.Err() != nil {
		return fmt.Errorf("rpc: %s of %s: %w", s.method.Protocol, p, context.Cause(s.ctx))
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("rpc: %s of %s: nothing moved for %v (Method.Idle): %w", s.method.Protocol, p, s.idle, err)
	}
	if reset := outOfMemory(err); reset != nil {
		err = noMemory(reset)
	}
	return fmt.Errorf("rpc: %s of %s: %w", s.method.Protocol, p, err)
}

// encode makes bytes of a value.
func encode(c Codec, v any, most int) ([]byte, error) {
	value, err := c.orJSON().Marshal(v)
	if err != nil {
		return nil, err
	}
	if len(value) > most {
		return nil, Errorf(ResourceExhausted, "%d bytes are over the method's limit of %d", len(value), most)
	}
	return value, nil
}
