package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/peer"
)

// What a Method does not say.
const (
	// DefaultMaxMessage is how many bytes a message may have.
	DefaultMaxMessage = 1 << 20
	// DefaultTimeout is how long a call may take.
	DefaultTimeout = 30 * time.Second
	// DefaultIdle is how long a stream of messages may be silent: long enough for people,
	// short enough that a peer that hangs is noticed.
	DefaultIdle = 10 * time.Minute
	// DefaultCalls and DefaultCallsPerPeer are how many calls of a method are in work at
	// once. With the largest requests that is 256 MiB, of which one peer gets an eighth.
	DefaultCalls        = 256
	DefaultCallsPerPeer = 32
)

// A Method is a procedure that peers offer each other: requests of type Req are
// answered with responses of type Resp. Both sides describe it alike, usually in a
// package variable.
type Method[Req, Resp any] struct {
	// Protocol is the name under which streams are opened, such as "/calc/add/1".
	// Give what is not compatible another one.
	Protocol host.ProtocolID

	// Codec makes bytes of values. Zero: JSON.
	Codec Codec

	// MaxRequest and MaxResponse are how many bytes one message may have; larger ones
	// are neither sent nor read. 0: DefaultMaxMessage; negative: 2 GiB, which is for
	// peers that are trusted.
	MaxRequest  int
	MaxResponse int

	// Timeout is how long a Call takes whose context has no deadline, and the most that
	// the server spends on one. 0: DefaultTimeout; negative: no bound.
	Timeout time.Duration

	// Idle bounds each wait for the other side on a stream of messages, unless the
	// context ends earlier. 0: DefaultIdle; negative: no bound.
	Idle time.Duration

	// Calls and CallsPerPeer are how many calls the server works on at once. 0: DefaultCalls
	// and DefaultCallsPerPeer; negative: no bound.
	Calls        int
	CallsPerPeer int
}

// Call sends req to p and waits for the answer; it connects if there is no
// connection. The error is an *Error when p answered with one, wraps
// context.DeadlineExceeded or context.Canceled when ctx or the method's timeout
// ended the call, and is a *host.DialError or *host.ProtocolError when p cannot be
// reached or does not offer the method. See CodeOf.
func (m Method[Req, Resp]) Call(ctx context.Context, h *host.Host, p peer.ID, req Req) (resp Resp, err error) {
	if _, ok := ctx.Deadline(); !ok {
		if timeout := orDefault(m.Timeout, DefaultTimeout); timeout > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, timeout)
			defer cancel()
		}
	}
	var none Resp
	s, err := m.Open(ctx, h, p)
	if err != nil {
		return none, err
	}
	defer s.Close()
	// The request and its end leave together with what opens the stream.
	if err := s.send(req, true); err != nil {
		var ended *host.StreamError
		var refused *Error
		if errors.As(err, &ended) {
			// A server that refuses does not read on; what it said may be there.
			if _, told := s.Recv(); errors.As(told, &refused) {
				err = told
			}
		}
		return none, err
	}
	if resp, err = s.Recv(); err != nil {
		if err == io.EOF {
			err = fmt.Errorf("rpc: %s of %s: %w", m.Protocol, p, errNoResponse)
		}
		return none, err
	}
	switch _, err := s.Recv(); err {
	case io.EOF:
		return resp, nil
	case nil:
		return none, fmt.Errorf("rpc: %s of %s: %w", m.Protocol, p, errManyResponses)
	default:
		return none, err
	}
}

// Serve answers calls with f. ctx ends when the caller's time has passed, when it has
// given up or is gone, and with the host. A method that is served already is replaced.
func (m Method[Req, Resp]) Serve(h *host.Host, f func(ctx context.Context, from peer.ID, req Req) (Resp, error)) {
	m.serve(h, orDefault(m.Timeout, DefaultTimeout), func(ctx context.Context, s *ServerStream[Req, Resp]) error {
		req, err := s.Recv()
		if err == io.EOF {
			return Errorf(InvalidArgument, "the call has no request")
		} else if err != nil {
			return err
		}
		if _, err := s.Recv(); err == nil {
			return Errorf(InvalidArgument, "the call has more than one request")
		} else if err != io.EOF {
			return err
		}
		resp, err := f(ctx, s.Peer(), req)
		if err != nil {
			return err
		}
		s.hold = true // it leaves together with the result
		return s.Send(resp)
	})
}

// ServeStream answers with f, which receives and sends as many messages as it likes.
// When it returns, the caller gets its error or, after nil, io.EOF.
func (m Method[Req, Resp]) ServeStream(h *host.Host, f func(ctx context.Context, s *ServerStream[Req, Resp]) error) {
	m.serve(h, 0, f)
}

// A Codec makes bytes of values and values of bytes. Most packages for an encoding
// have two functions that fit: Codec{cbor.Marshal, cbor.Unmarshal}. Unmarshal gets a
// pointer to a new value: the Req or Resp itself where that is a pointer type, as with
// protobuf, and else a pointer to it.
type Codec struct {
	Marshal   func(v any) ([]byte, error)
	Unmarshal func(data []byte, v any) error
}

// JSON is encoding/json.
var JSON = Codec{json.Marshal, json.Unmarshal}

// Raw is for methods whose Req and Resp are []byte: the bytes are sent as they are.
var Raw = Codec{
	Marshal: func(v any) ([]byte, error) {
		if b, ok := v.([]byte); ok {
			return b, nil
		}
		return nil, fmt.Errorf("rpc: Raw sends []byte, not %T: choose another Codec", v)
	},
	Unmarshal: func(data []byte, v any) error {
		if b, ok := v.(*[]byte); ok {
			*b = data
			return nil
		}
		return fmt.Errorf("rpc: Raw reads into []byte, not %T: choose another Codec", v)
	},
}

func (c Codec) orJSON() Codec {
	if c.Marshal == nil && c.Unmarshal == nil {
		return JSON
	}
	return c
}

func decode[T any](c Codec, data []byte) (v T, err error) {
	if t := reflect.TypeFor[T](); t.Kind() == reflect.Pointer {
		v = reflect.New(t.Elem()).Interface().(T)
		return v, c.Unmarshal(data, v)
	}
	return v, c.Unmarshal(data, &v)
}

// orDefault gives def for 0 and 0, which is no bound, for what is negative.
func orDefault[T int | time.Duration](v, def T) T {
	switch {
	case v == 0:
		return def
	case v < 0:
		return 0
	}
	return v
}

// limit is how many bytes a message may have.
func limit(v int) int {
	if v < 0 {
		return math.MaxInt32 - 1
	}
	return orDefault(v, DefaultMaxMessage)
}
