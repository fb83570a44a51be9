package rpc

import (
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/kith-p2p/kith/internal/wire"
)

// Both sides send frames: the length of what follows as a varint, one byte for the
// kind, a body. See docs/rpc.md.
const (
	kindCall    = 1 // from the caller, first: a protobuf message, see appendCall
	kindMessage = 2 // a value as the codec encodes it
	kindEnd     = 3 // from the caller: no more messages; no body
	kindResult  = 4 // from the server, last: a protobuf message, see appendResult
)

const (
	// maxHead bounds the frames call and result, whose only long part is what a program
	// gives as an error's text and details.
	maxHead = 64 << 10
	// maxText and maxDetails bound the parts of an Error that are sent; more is cut, or refused.
	maxText    = 4 << 10
	maxDetails = 32 << 10
)

// maxTimeout is the longest time that can be sent, so that no sum of it overflows.
const maxTimeout = 365 * 24 * time.Hour

// appendCall appends the caller's first frame. timeout 0 means that there is none.
func appendCall(b []byte, timeout time.Duration) []byte {
	body := []byte{kindCall}
	if timeout > 0 {
		// Rounded up: 0 would mean that there is no bound.
		ms := (min(timeout, maxTimeout) + time.Millisecond - 1) / time.Millisecond
		body = wire.AppendVarintField(body, 1, uint64(ms))
	}
	return wire.AppendFrame(b, body)
}

func parseCall(body []byte) (timeout time.Duration, err error) {
	err = wire.Fields(body, func(f wire.Field) error {
		if f.Num != 1 {
			return nil
		}
		if err := f.Want(wire.TypeVarint); err != nil {
			return err
		}
		timeout = time.Duration(min(f.Uint, uint64(maxTimeout/time.Millisecond))) * time.Millisecond
		return nil
	})
	return timeout, err
}

// appendMessage appends a frame with a value.
func appendMessage(b, value []byte) []byte {
	b = wire.AppendUvarint(b, uint64(1+len(value)))
	b = append(b, kindMessage)
	return append(b, value...)
}

// appendEnd appends the frame that ends the caller's messages.
func appendEnd(b []byte) []byte { return wire.AppendFrame(b, []byte{kindEnd}) }

// appendResult appends the server's last frame; nil is success.
func appendResult(b []byte, e *Error) []byte {
	body := []byte{kindResult}
	if e != nil {
		body = wire.AppendVarintField(body, 1, uint64(e.Code))
		if e.Text != "" {
			body = wire.AppendStringField(body, 2, cut(e.Text, maxText))
		}
		if len(e.Details) > 0 {
			body = wire.AppendBytesField(body, 3, e.Details[:min(len(e.Details), maxDetails)])
		}
	}
	return wire.AppendFrame(b, body)
}

func parseResult(body []byte) (*Error, error) {
	var e Error
	err := wire.Fields(body, func(f wire.Field) error {
		want := wire.TypeBytes
		if f.Num == 1 {
			want = wire.TypeVarint
		}
		if f.Num > 3 {
			return nil
		}
		if err := f.Want(want); err != nil {
			return err
		}
		switch f.Num {
		case 1:
			e.Code = Code(min(f.Uint, math.MaxUint32))
		case 2:
			e.Text = cut(string(f.Bytes), maxText)
		case 3:
			e.Details = f.Bytes[:min(len(f.Bytes), maxDetails)]
		}
		return nil
	})
	if err != nil || e.Code == OK {
		return nil, err
	}
	return &e, nil
}

var errEmptyFrame = errors.New("rpc: a frame without a kind")

// readFrame reads one frame into memory that is taken from m, if there is one: one byte
// more than the body has. Values may have maxValue bytes, heads maxHead; which
// it is shows only after the length, so the larger of the two bounds what is read.
func readFrame(m wire.Memory, r io.Reader, maxValue int) (kind byte, body []byte, err error) {
	frame, err := wire.ReadFrameInto(m, r, 1+max(maxValue, maxHead))
	if err != nil {
		var large *wire.SizeError
		if errors.As(err, &large) {
			err = &wire.SizeError{Size: large.Size - 1, Max: maxValue}
		}
		return 0, nil, err
	}
	if len(frame) == 0 {
		return 0, nil, errEmptyFrame
	}
	kind, body = frame[0], frame[1:]
	limit := maxHead
	if kind == kindMessage {
		limit = maxValue
	}
	if len(body) > limit {
		return 0, nil, &wire.SizeError{Size: uint64(len(body)), Max: limit}
	}
	return kind, body, nil
}

// errKind tells of a frame where it may not be.
func errKind(kind byte) error { return fmt.Errorf("rpc: a frame of kind %d where it may not be", kind) }

func cut(s string, n int) string { return s[:min(len(s), n)] }
