package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// Why an address was not tried. A DialAttempt's Err wraps one of these, ErrForbidden,
// a *GateError or ErrNoTransport then.
var (
	// ErrBackoff tells that an address, or others at its IP, failed lately. It holds
	// for ConnectBackground alone.
	ErrBackoff = errors.New("host: it failed lately")
	// ErrBlackHole tells that nothing of an address's kind gets through in this
	// network: UDP, or IPv6.
	ErrBlackHole = errors.New("host: in this network nothing of its kind gets through")
	// ErrPaced tells that others than the peer and the user have named an IP so often
	// that no more dials go there for a while: somebody may be using us against it.
	ErrPaced = errors.New("host: dialed too often on the word of others")
	// ErrInFlight tells that another dial on the word of others is under way to the
	// same IP and port.
	ErrInFlight = errors.New("host: another dial to the same port is under way")
	// ErrTooManyAddrs tells that a peer has more addresses than one dial tries.
	ErrTooManyAddrs = errors.New("host: the peer has more addresses than are tried")
	// ErrNotNeeded tells that another address was faster. An attempt that had begun
	// was given up.
	ErrNotNeeded = errors.New("host: another address was faster")
)

// A SkipError tells why an address was not tried, and until when.
type SkipError struct {
	Reason error     // ErrBackoff, ErrBlackHole or another of those above
	Until  time.Time // when it would be tried; zero: this is no matter of time
	Detail string    // what led to it and what to do, as a sentence without its end
}

func (e *SkipError) Error() string {
	if e.Detail == "" {
		return e.Reason.Error()
	}
	return e.Reason.Error() + ": " + e.Detail
}

func (e *SkipError) Unwrap() error { return e.Reason }

// A DialAttempt is what became of one address in a dial.
type DialAttempt struct {
	Addr    multiaddr.Addr
	Start   time.Time                     // zero: it was not tried, and Err tells why
	Delay   time.Duration                 // from the start of the dial to Start: those before it had their chance
	Stage   Stage                         // the last stage reached
	Stages  [StageMuxed + 1]time.Duration // from Start until each stage was reached; 0: it was not, or at once
	Elapsed time.Duration                 // from Start to the end of the attempt
	Err     error                         // nil: it gave the connection
}

// A DialStep is an address that a dial is going to try.
type DialStep struct {
	Addr   multiaddr.Addr
	Source Source        // who told of it
	Delay  time.Duration // from the start of the dial until its turn comes, unless others fail before
	Why    string        // what put it into its place
}

// Skipped tells that the address was not tried.
func (a DialAttempt) Skipped() bool { return a.Start.IsZero() }

// A DialError tells for every address of a peer what was tried, how long it
// took and why it failed.
type DialError struct {
	Peer     peer.ID
	Attempts []DialAttempt
	Cause    error // why the dial ended before every address was tried; nil when all failed
}

func (e *DialError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "host: could not connect to %s", e.Peer)
	if e.Cause != nil {
		fmt.Fprintf(&b, ": %v", e.Cause)
	}
	for _, a := range e.Attempts {
		if a.Err == nil { // it connected, and Cause tells why that was not kept
			continue
		}
		if a.Skipped() {
			fmt.Fprintf(&b, "\n  %s: not tried: %s", a.Addr, reason(a.Err))
			continue
		}
		fmt.Fprintf(&b, "\n  %s: %s failed after %v: %s", a.Addr, a.Stage, a.Elapsed.Round(100*time.Microsecond), reason(a.Err))
	}
	return b.String()
}

func (e *DialError) Unwrap() []error {
	var errs []error
	if e.Cause != nil {
		errs = append(errs, e.Cause)
	}
	for _, a := range e.Attempts {
		if a.Err != nil {
			errs = append(errs, a.Err)
		}
	}
	return errs
}

// reason words the errors that people meet most often so that they name the remedy.
func reason(err error) string {
	var mismatch *peer.MismatchError
	var refused *ConnError
	switch {
	case err == nil:
		return "no reason given"
	case errors.As(err, &mismatch):
		return fmt.Sprintf("another peer has answered, %s: the address is not, or no longer, that of the peer", mismatch.Got)
	case errors.As(err, &refused) && refused.Remote && connCodeText(refused.Code) != "":
		return fmt.Sprintf("the peer turned us away: %s (code %#x)", connCodeText(refused.Code), refused.Code)
	case errors.Is(err, context.Canceled):
		return "given up: another address was faster, or the caller stopped waiting"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return "no answer in time: is the peer running, and is its port reachable from here?"
	case strings.Contains(err.Error(), "connection refused"):
		return "connection refused: nothing listens there"
	}
	return err.Error()
}
