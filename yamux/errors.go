package yamux

import (
	"fmt"
	"net"
	"os"
)

// Codes of GOAWAY frames that the specification names; libp2p defines more
// from 0x1000 on.
// https://github.com/libp2p/specs/blob/master/yamux/README.md#session-termination
const (
	CodeNormal        = 0
	CodeProtocolError = 1
	CodeInternalError = 2
)

// codeResourceLimit resets a stream that a limit forbids. The specifications at
// hand do not list stream codes; this is the number that go-libp2p uses.
const codeResourceLimit = 0x1002

// A StreamError tells that a stream was reset.
type StreamError struct {
	Code   uint32 // as sent in the RST frame; 0 when it carried none
	Remote bool   // the peer reset it
}

func (e *StreamError) Error() string {
	if e.Remote {
		return fmt.Sprintf("yamux: stream reset by the peer (code %#x)", e.Code)
	}
	return fmt.Sprintf("yamux: stream reset by this side (code %#x)", e.Code)
}

// ErrorCode returns Code.
func (e *StreamError) ErrorCode() uint32 { return e.Code }

// IsRemote returns Remote.
func (e *StreamError) IsRemote() bool { return e.Remote }

// A SessionError tells why a session ended. It wraps net.ErrClosed.
type SessionError struct {
	Code   uint32 // of the GOAWAY frame sent or received; 0 when there was none
	Remote bool   // the peer ended it
	Reason string
}

func (e *SessionError) Error() string {
	by := "by this side"
	if e.Remote {
		by = "by the peer"
	}
	return fmt.Sprintf("yamux: session ended %s (code %#x): %s", by, e.Code, e.Reason)
}

// Unwrap returns net.ErrClosed.
func (e *SessionError) Unwrap() error { return net.ErrClosed }

// ErrorCode returns Code.
func (e *SessionError) ErrorCode() uint32 { return e.Code }

// IsRemote returns Remote.
func (e *SessionError) IsRemote() bool { return e.Remote }

// violation is what ends a session whose peer breaks the protocol.
func violation(reason string) *SessionError {
	return &SessionError{Code: CodeProtocolError, Reason: "protocol violation by the peer: " + reason}
}

var (
	errReadClosed  = fmt.Errorf("yamux: read: stream is closed for reading: %w", net.ErrClosed)
	errWriteClosed = fmt.Errorf("yamux: write: stream is closed for writing: %w", net.ErrClosed)
	errNoIDs       = fmt.Errorf("yamux: open: every stream id of the session was used; dial the peer again")

	errReadTimeout  = &timeoutError{"yamux: read: deadline exceeded"}
	errWriteTimeout = &timeoutError{"yamux: write: deadline exceeded"}
)

// A timeoutError is a net.Error that wraps os.ErrDeadlineExceeded.
type timeoutError struct{ text string }

func (e *timeoutError) Error() string   { return e.text }
func (e *timeoutError) Unwrap() error   { return os.ErrDeadlineExceeded }
func (e *timeoutError) Timeout() bool   { return true }
func (e *timeoutError) Temporary() bool { return true }
