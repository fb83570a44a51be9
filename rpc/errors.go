package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/kith-p2p/kith/host"
)

// Code tells what kind of failure an Error is. The numbers up to 99 are those of
// gRPC; programs may use those from 100 on as they like.
// https://grpc.io/docs/guides/status-codes/
type Code uint32

// The codes that have a meaning.
const (
	OK                 Code = 0
	Canceled           Code = 1  // the caller gave up
	Unknown            Code = 2  // a failure that is none of the others
	InvalidArgument    Code = 3  // the request is wrong, whatever the state of the server
	DeadlineExceeded   Code = 4  // the time had passed
	NotFound           Code = 5  // what was asked for is not there
	AlreadyExists      Code = 6  // what was to be made is there
	PermissionDenied   Code = 7  // this caller may not do that
	ResourceExhausted  Code = 8  // a limit was reached; later it may work
	FailedPrecondition Code = 9  // not in this state of the server
	Aborted            Code = 10 // another call came between; try again
	OutOfRange         Code = 11 // beyond the end of what there is
	Unimplemented      Code = 12 // the peer does not offer the method
	Internal           Code = 13 // the server's own failure, of which callers learn nothing
	Unavailable        Code = 14 // the peer cannot be reached now; later it may work
	DataLoss           Code = 15 // what was kept is damaged
	Unauthenticated    Code = 16 // the caller has not proved what is needed
)

var codeNames = [...]string{
	"ok", "canceled", "unknown", "invalid argument", "deadline exceeded", "not found", "already exists", "permission denied", "resource exhausted",
	"failed precondition", "aborted", "out of range", "unimplemented", "internal error", "unavailable", "data loss", "unauthenticated",
}

func (c Code) String() string {
	if int64(c) < int64(len(codeNames)) {
		return codeNames[c]
	}
	return fmt.Sprintf("code %d", uint32(c))
}

// An Error is how a handler says what went wrong, and what the caller then gets.
type Error struct {
	Code    Code
	Text    string // for people; at most 4 KiB are sent
	Details []byte // for programs, in an encoding of their own; at most 32 KiB are sent
}

// Errorf makes an Error for a handler to return.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Text: fmt.Sprintf(format, args...)}
}

func (e *Error) Error() string {
	if e.Text == "" {
		return "rpc: " + e.Code.String()
	}
	return "rpc: " + e.Code.String() + ": " + e.Text
}

// Is makes errors.Is tell of a remote's deadline and end as of our own.
func (e *Error) Is(target error) bool {
	return e.Code == DeadlineExceeded && target == context.DeadlineExceeded || e.Code == Canceled && target == context.Canceled
}

var (
	errNoResponse    = errors.New("the server ended the call without a response")
	errManyResponses = errors.New("the server sent more than one response: use Open for a method that does")
)

// CodeOf gives the code that says best what err is: that of an *Error in it, and for
// failures of the caller's side the one that a server would have used.
func CodeOf(err error) Code {
	var (
		remote *Error
		proto  *host.ProtocolError
		dial   *host.DialError
		stream *host.StreamError
		limit  *host.LimitError
	)
	switch {
	case err == nil:
		return OK
	case errors.As(err, &remote):
		return remote.Code
	case errors.Is(err, context.DeadlineExceeded):
		return DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return Canceled
	case errors.As(err, &proto):
		return Unimplemented
	case errors.As(err, &limit), errors.As(err, &stream) && (stream.Code == host.CodeResourceLimit || stream.Code == host.CodeRateLimited):
		return ResourceExhausted
	case errors.As(err, &dial), errors.As(err, &stream), errors.Is(err, net.ErrClosed), errors.Is(err, io.ErrUnexpectedEOF):
		return Unavailable
	}
	return Unknown
}

// toSend makes of a handler's error what its caller may learn.
func toSend(err error) *Error {
	var e *Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e):
		return e
	case errors.As(err, new(*host.LimitError)):
		return &Error{Code: ResourceExhausted, Text: "the server has no memory left for this call: have fewer and smaller ones at once, or try again later"}
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{Code: DeadlineExceeded, Text: "the handler's time has passed"}
	case errors.Is(err, context.Canceled):
		return &Error{Code: Canceled}
	}
	return &Error{Code: Internal}
}
