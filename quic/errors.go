package quic

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"

	quicgo "github.com/quic-go/quic-go"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/peer"
)

// A StreamError tells that a stream was reset.
type StreamError struct {
	Code   uint32 // 0 when the remote's does not fit
	Remote bool   // the remote reset it
}

func (e *StreamError) Error() string {
	if e.Remote {
		return fmt.Sprintf("quic: stream reset by the remote (code %#x)", e.Code)
	}
	return fmt.Sprintf("quic: stream reset by this side (code %#x)", e.Code)
}

// ErrorCode returns Code.
func (e *StreamError) ErrorCode() uint32 { return e.Code }

// IsRemote returns Remote.
func (e *StreamError) IsRemote() bool { return e.Remote }

// A ConnError tells why a connection ended. It wraps net.ErrClosed.
type ConnError struct {
	Code   uint32 // with which it was closed; 0 when it ended otherwise
	Remote bool   // the remote closed it
	Err    error  // what quic-go says
}

func (e *ConnError) Error() string {
	var app *quicgo.ApplicationError
	if !errors.As(e.Err, &app) {
		var early *quicgo.TransportError
		if errors.As(e.Err, &early) && early.Remote && early.ErrorCode == quicgo.ApplicationErrorErrorCode {
			return "quic: the remote closed the connection during the handshake, when QUIC does not say why: it does not let us in, or has no room"
		}
		return fmt.Sprintf("quic: connection ended: %v", e.Err)
	}
	by := "this side"
	if e.Remote {
		by = "the remote"
	}
	return fmt.Sprintf("quic: connection closed by %s (code %#x)", by, e.Code)
}

// Unwrap returns net.ErrClosed and Err.
func (e *ConnError) Unwrap() []error { return []error{net.ErrClosed, e.Err} }

// ErrorCode returns Code.
func (e *ConnError) ErrorCode() uint32 { return e.Code }

// IsRemote returns Remote.
func (e *ConnError) IsRemote() bool { return e.Remote }

var (
	errReadClosed  = fmt.Errorf("quic: read: stream is closed for reading: %w", net.ErrClosed)
	errWriteClosed = fmt.Errorf("quic: write: stream is closed for writing: %w", net.ErrClosed)
)

// why turns an error of quic-go into one of this package.
func why(err error) error {
	if err == nil {
		return nil
	}
	var (
		reset     *quicgo.StreamError
		app       *quicgo.ApplicationError
		transport *quicgo.TransportError
	)
	switch {
	case errors.As(err, &reset):
		return &StreamError{Code: code32(uint64(reset.ErrorCode)), Remote: reset.Remote}
	case errors.Is(err, quicgo.ErrStreamClosed):
		return errWriteClosed
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err // the caller's
	case errors.As(err, &app):
		return &ConnError{Code: code32(uint64(app.ErrorCode)), Remote: app.Remote, Err: err}
	}
	return &ConnError{Remote: errors.As(err, &transport) && transport.Remote, Err: err}
}

// handshakeError words why a connection did not come about. What quic-go reports
// wraps net.ErrClosed, as if we had closed something.
func handshakeError(err error) error {
	var (
		mismatch  *peer.MismatchError
		idle      *quicgo.IdleTimeoutError
		slow      *quicgo.HandshakeTimeoutError
		transport *quicgo.TransportError
		app       *quicgo.ApplicationError
	)
	switch {
	case errors.As(err, &mismatch):
		return mismatch
	case errors.As(err, &idle), errors.As(err, &slow):
		return fmt.Errorf("quic: handshake: no answer: %w", os.ErrDeadlineExceeded)
	case errors.As(err, &transport):
		if transport.Remote && transport.ErrorCode == quicgo.ConnectionRefused {
			return errors.New("quic: handshake: the remote takes no connections now: it is closing, or too many connect to it")
		}
		return fmt.Errorf("quic: handshake: %v", err)
	case errors.As(err, &app):
		ended := &ConnError{Code: code32(uint64(app.ErrorCode)), Remote: app.Remote, Err: err}
		return fmt.Errorf("quic: handshake: %w", &host.ConnError{Code: ended.Code, Remote: ended.Remote, Err: errors.New(ended.Error())})
	}
	return fmt.Errorf("quic: handshake: %w", err)
}

func isLocalCancel(err error) bool {
	var reset *quicgo.StreamError
	return errors.As(err, &reset) && !reset.Remote
}

// code32 reads a code that QUIC gives 62 bits. libp2p uses 32.
// https://github.com/libp2p/specs/blob/master/error-codes/README.md
func code32(code uint64) uint32 {
	if code > math.MaxUint32 {
		return 0
	}
	return uint32(code)
}
