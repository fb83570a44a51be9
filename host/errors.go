package host

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/kith-p2p/kith/peer"
)

var (
	// ErrClosed is returned by everything that is used after the host was closed.
	ErrClosed = fmt.Errorf("host: closed: %w", net.ErrClosed)
	// ErrNoAddrs tells that no address of a peer is known.
	ErrNoAddrs = errors.New("host: no address of the peer is known: give one to Connect, or let a discovery find the peer")
	// ErrDialSelf tells that a host was asked to connect to itself.
	ErrDialSelf = errors.New("host: a host cannot connect to itself")
	// ErrNoDatagrams tells that a connection carries streams alone.
	ErrNoDatagrams = errors.New("host: the connection carries no datagrams: those of quic and webtransport do, if the remote allows it")
	// ErrNoTransport tells that no transport of the host understands an address.
	ErrNoTransport = errors.New("host: no transport of this host understands the address")
)

// Codes with which streams are reset.
// https://github.com/libp2p/specs/blob/master/error-codes/README.md
const (
	CodeNone              uint32 = 0
	CodeNegotiationFailed uint32 = 0x1001
	CodeResourceLimit     uint32 = 0x1002
	CodeRateLimited       uint32 = 0x1003
	CodeProtocolViolation uint32 = 0x1004
	CodeSupplanted        uint32 = 0x1005
	CodeGarbageCollected  uint32 = 0x1006
	CodeShutdown          uint32 = 0x1007
	CodeGated             uint32 = 0x1008
)

// Codes with which connections are closed; they count from another start than
// those of streams.
const (
	ConnCodeNone              uint32 = 0
	ConnCodeNegotiationFailed uint32 = 0x1000
	ConnCodeResourceLimit     uint32 = 0x1001
	ConnCodeRateLimited       uint32 = 0x1002
	ConnCodeProtocolViolation uint32 = 0x1003
	ConnCodeSupplanted        uint32 = 0x1004
	ConnCodeGarbageCollected  uint32 = 0x1005
	ConnCodeShutdown          uint32 = 0x1006
	ConnCodeGated             uint32 = 0x1007
)

// codeText gives the name of a stream's code.
func codeText(code uint32) string {
	switch code {
	case CodeNone:
		return "no reason given"
	case CodeNegotiationFailed:
		return "protocol negotiation failed"
	case CodeResourceLimit:
		return "resource limit exceeded"
	case CodeRateLimited:
		return "rate limited"
	case CodeProtocolViolation:
		return "protocol violation"
	case CodeSupplanted:
		return "supplanted by another"
	case CodeGarbageCollected:
		return "garbage collected"
	case CodeShutdown:
		return "shutting down"
	case CodeGated:
		return "gated"
	}
	return fmt.Sprintf("code %#x", code)
}

// connCodeText gives the name of a connection's code; "" of one that says nothing.
func connCodeText(code uint32) string {
	switch code {
	case ConnCodeNegotiationFailed:
		return "protocol negotiation failed"
	case ConnCodeResourceLimit:
		return "resource limit exceeded"
	case ConnCodeRateLimited:
		return "rate limited"
	case ConnCodeProtocolViolation:
		return "protocol violation"
	case ConnCodeSupplanted:
		return "supplanted by another"
	case ConnCodeGarbageCollected:
		return "it made way for others"
	case ConnCodeShutdown:
		return "shutting down"
	case ConnCodeGated:
		return "gated: who is on this connection is not let in"
	}
	return ""
}

// A ConnError tells that a connection was closed with one of the codes above, and by
// whom. It wraps what the muxer says, and with it net.ErrClosed, but in a dial, when there
// was no connection yet.
type ConnError struct {
	Code   uint32
	Remote bool // the remote closed it, not we
	Err    error
}

func (e *ConnError) Error() string {
	if connCodeText(e.Code) == "" && e.Err != nil {
		return e.Err.Error()
	}
	if e.Remote {
		return "host: the remote closed the connection: " + connCodeText(e.Code)
	}
	return "host: connection closed: " + connCodeText(e.Code)
}

func (e *ConnError) Unwrap() error { return e.Err }

// A StreamError tells that a stream was reset, by whom and with which code. A
// handler that returns one resets its stream with the error's code.
type StreamError struct {
	Code   uint32
	Remote bool // the remote reset it, not we
}

func (e *StreamError) Error() string {
	if e.Remote {
		return "host: the remote reset the stream: " + codeText(e.Code)
	}
	return "host: stream reset: " + codeText(e.Code)
}

// A ProtocolError tells that the remote speaks none of the protocols asked for.
type ProtocolError struct {
	Peer      peer.ID
	Protocols []ProtocolID
	Err       error
}

func (e *ProtocolError) Error() string {
	names := make([]string, len(e.Protocols))
	for i, p := range e.Protocols {
		names[i] = string(p)
	}
	return fmt.Sprintf("host: peer %s does not speak %s", e.Peer, strings.Join(names, " or "))
}

func (e *ProtocolError) Unwrap() error { return e.Err }

// A LimitError tells that a limit of this host was reached, and which.
type LimitError struct {
	Scope string // the field of Limits, or what is derived from it
	Limit int    // in bytes where Scope ends in Memory, else a number
	Used  int    // the same
}

func (e *LimitError) Error() string {
	unit := ""
	if strings.HasSuffix(e.Scope, "Memory") {
		unit = " bytes"
	}
	return fmt.Sprintf("host: limit %s reached: %d of %d%s used; %s", e.Scope, e.Used, e.Limit, unit, e.Remedy())
}

// Remedy tells what to do when the limit is too low.
func (e *LimitError) Remedy() string {
	switch e.Scope {
	case "PeerStreamMemory":
		return "one peer gets at most half of Limits.StreamMemory: read its streams faster, or raise Limits.Memory"
	case "GroupStreamMemory":
		return "one address group gets at most three quarters of Limits.StreamMemory: read its streams faster, or raise Limits.Memory"
	case "HighWater":
		return "the least useful connections end down to Limits.LowWater: raise Limits.Conns, or Protect peers and Value them"
	case "StreamMemory", "ConnMemory", "BookMemory":
		return "it follows from Limits.Memory: raise that (kith node --memory), or Limits." + e.Scope
	case "Conns":
		return "raise Limits.Conns (kith node --conns), or Limits.Memory (--memory) from which it follows"
	}
	return "raise Limits." + e.Scope + " to allow more"
}

// fromMux turns an error of a muxer into one of this package.
func fromMux(err error) error {
	if err == nil {
		return nil
	}
	var coded interface { // declared here, because it escapes: success allocates nothing
		error
		ErrorCode() uint32
		IsRemote() bool
	}
	if !errors.As(err, &coded) {
		return err
	}
	if errors.Is(err, net.ErrClosed) {
		if connCodeText(coded.ErrorCode()) == "" {
			return err
		}
		return &ConnError{Code: coded.ErrorCode(), Remote: coded.IsRemote(), Err: err}
	}
	return &StreamError{Code: coded.ErrorCode(), Remote: coded.IsRemote()}
}
