package multistream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/kith-p2p/kith/internal/wire"
)

// A NotSupportedError tells that none of the proposed protocols was accepted.
type NotSupportedError struct {
	Protos []string // what was proposed, in order
}

func (e *NotSupportedError) Error() string {
	var b strings.Builder
	b.WriteString("multistream: not supported:")
	for _, p := range e.Protos {
		fmt.Fprintf(&b, " %q", p)
	}
	return b.String()
}

// A ProtocolError tells of a peer that does not keep to multistream-select.
type ProtocolError struct {
	Reason string
	Token  string // what the peer sent, shortened; empty where that does not matter
}

func (e *ProtocolError) Error() string {
	if e.Token == "" {
		return "multistream: " + e.Reason
	}
	return fmt.Sprintf("multistream: %s, got %q", e.Reason, e.Token)
}

func protocolError(reason string, token []byte) error {
	const shown = 64 // bytes: enough to recognise HTTP or TLS, too few to fill a log
	return &ProtocolError{Reason: reason, Token: string(token[:min(len(token), shown)])}
}

var errTooMuch error = &ProtocolError{Reason: fmt.Sprintf("more than %d bytes in one negotiation", maxBytes)}

// refusalEnds reports whether err is how a peer ends a negotiation after its
// proposals were refused, as opposed to a fault of the connection or to abuse.
func refusalEnds(err error) bool {
	var broken *ProtocolError
	return err != errTooMuch && errors.As(err, &broken) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// minFrame is the size of the smallest message: its length and a newline.
const minFrame = 2

// An exchange is the state of one negotiation. Between two messages buf is
// free, and used to write from.
type exchange struct {
	buf   [len(headerFrame) + 2 + MaxTokenLen]byte
	r, w  int // buf[r:w] was read and not yet handed out
	total int // bytes in the messages read
}

var exchanges = sync.Pool{New: func() any { return new(exchange) }}

func begin() *exchange { return exchanges.Get().(*exchange) }

func (x *exchange) end() {
	x.r, x.w, x.total = 0, 0, 0
	exchanges.Put(x)
}

func (x *exchange) pending() int { return x.w - x.r }

// token reads one message and returns its text, valid until buf is used again.
// It asks for up to ahead bytes at once: as many as are sure to belong to the
// negotiation. After the header that is the smallest message; where one answer
// is awaited it is all that the peer may send.
func (x *exchange) token(r io.Reader, ahead int) ([]byte, error) {
	x.w = copy(x.buf[:], x.buf[x.r:x.w])
	x.r = 0
	if err := x.fill(r, minFrame, ahead); err != nil {
		return nil, err
	}
	size, n, err := wire.Uvarint(x.buf[:minFrame])
	switch {
	case err == io.ErrUnexpectedEOF || err == nil && size > MaxTokenLen:
		return nil, protocolError(fmt.Sprintf("message is longer than %d bytes", MaxTokenLen), nil)
	case err != nil:
		return nil, protocolError("length of a message is not in its shortest form", nil)
	case size == 0:
		return nil, protocolError("message is empty", nil)
	case x.total == 0 && n+int(size) != len(headerFrame):
		// At once: a remote that speaks something else may never send as much.
		return nil, protocolError("header expected", x.buf[:minFrame])
	}
	end := n + int(size)
	if x.total += end; x.total > maxBytes {
		return nil, errTooMuch
	}
	if err := x.fill(r, end, ahead); err != nil {
		return nil, err
	}
	x.r = end
	text, ok := bytes.CutSuffix(x.buf[n:end], []byte("\n"))
	if !ok {
		return nil, protocolError("message does not end with a newline", text)
	}
	return text, nil
}

// fill reads until need bytes are in buf, asking for up to ahead.
func (x *exchange) fill(r io.Reader, need, ahead int) error {
	if x.w >= need {
		return nil
	}
	n, err := io.ReadAtLeast(r, x.buf[x.w:max(need, ahead)], need-x.w)
	x.w += n
	if err == nil {
		return nil
	}
	if err == io.EOF && x.w+x.total > 0 {
		err = io.ErrUnexpectedEOF // io.EOF is for a peer that sent nothing
	}
	return &readError{err}
}

// A readError is put into words only when somebody asks: whoever resets streams has many
// made that nobody looks at.
type readError struct{ err error }

func (e *readError) Error() string { return "multistream: reading: " + e.err.Error() }
func (e *readError) Unwrap() error { return e.err }

// answer reads what the peer says to the proposal of proto: true for its echo.
// The first answer comes after the header. A peer says nothing more before it
// sees another proposal, so reading may run ahead to the length of the echo.
func (x *exchange) answer(r io.Reader, proto string, first bool) (bool, error) {
	ahead := min(frameLen(proto), 2+MaxTokenLen)
	if first {
		token, err := x.token(r, len(headerFrame)+ahead)
		if err != nil {
			return false, err
		}
		if string(token) != ProtocolID {
			return false, protocolError("header expected", token)
		}
	}
	token, err := x.token(r, ahead)
	switch {
	case err != nil:
		return false, err
	case string(token) == proto:
		return true, nil
	case string(token) != "na":
		return false, protocolError(fmt.Sprintf("%q or \"na\" expected", proto), token)
	}
	return false, nil
}

// isName reports whether a proposal may be a protocol's name. See Check.
func isName(token []byte) bool {
	return len(token) > 0 && token[0] == '/' && !bytes.Contains(token, []byte("\n")) && string(token) != ProtocolID
}

func appendFrame(b []byte, text string) []byte {
	b = wire.AppendUvarint(b, uint64(len(text)+1))
	b = append(b, text...)
	return append(b, '\n')
}

// frameLen is the size of text as a message, in bytes.
func frameLen(text string) int {
	return wire.UvarintLen(uint64(len(text)+1)) + len(text) + 1
}
