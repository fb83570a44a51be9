package multistream

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// ProtocolID is the header that both sides send first.
// https://github.com/libp2p/specs/blob/master/connections/README.md#multistream-select
const ProtocolID = "/multistream/1.0.0"

const (
	// MaxTokenLen is the longest message accepted, in bytes, with its newline
	// and without its length prefix. The deployed implementations agree on it.
	MaxTokenLen = 1024

	// MaxNameLen is the longest protocol name that is proposed, in bytes: some
	// peers count newline and length prefix in their limit of 1024.
	MaxNameLen = 1022

	// maxRounds bounds the proposals of one negotiation. A host proposes a
	// handful of versions of one protocol; nobody has 64.
	maxRounds = 64

	// maxBytes bounds what one side sends in one negotiation, in bytes: the
	// header, one name of the longest kind, and many of the usual ones.
	maxBytes = 4 << 10
)

const (
	headerFrame = "\x13" + ProtocolID + "\n"
	naFrame     = "\x03na\n"
)

// Select proposes protos, in order, until the peer accepts one, and returns it.
// The first proposal leaves together with the header, in one Write.
//
// The error is a *NotSupportedError when the peer accepted none, a
// *ProtocolError when it broke the protocol, and otherwise wraps what rw
// returned.
func Select(rw io.ReadWriter, protos ...string) (string, error) {
	if err := checkProposals(protos); err != nil {
		return "", err
	}
	x := begin()
	defer x.end()
	out := append(x.buf[:0], headerFrame...)
	for i, proto := range protos {
		if _, err := rw.Write(appendFrame(out, proto)); err != nil {
			return "", fmt.Errorf("multistream: proposing %q: %w", proto, err)
		}
		out = x.buf[:0]
		switch ok, err := x.answer(rw, proto, i == 0); {
		case err != nil:
			return "", err
		case ok:
			return proto, nil
		case x.pending() > 0:
			return "", protocolError("more data after \"na\"", x.buf[x.r:x.w])
		}
	}
	return "", &NotSupportedError{Protos: slices.Clone(protos)}
}

// Respond answers proposals until one is supported, and returns it. It is
// Accept for a caller who has nothing to send together with the answer.
func Respond(rw io.ReadWriter, supports func(proto []byte) (string, bool)) (string, error) {
	proto, answered, err := Accept(rw, supports)
	if err == nil && !answered {
		x := begin()
		rw.Write(AppendAccept(x.buf[:0], proto)) // errors do not matter: see Accept
		x.end()
	}
	return proto, err
}

// Accept reads proposals until one is supported, and returns it. When answered
// is false the caller still has to send AppendAccept(nil, proto): before, or in
// one Write with, its own first data, and in any case before it waits for the
// peer's.
//
// supports is asked for every proposal that could be a protocol's name. It
// returns the same name as a string of its own, so that looking it up costs no
// allocation, and whether it is supported; it must not keep the bytes.
//
// A peer may send its proposal and data and close its reading side before the
// answer comes: errors of writing the answer are ignored, here and in Respond.
// If they were the connection's end, the next Read will tell.
//
// The error wraps io.EOF when the peer sent nothing at all. It is a
// *NotSupportedError when the peer went away, or sent what is no proposal (most
// often the data of the protocol it had hoped for), after all its proposals
// were refused, and a *ProtocolError when it broke the protocol. Otherwise it
// wraps what rw returned.
func Accept(rw io.ReadWriter, supports func(proto []byte) (string, bool)) (proto string, answered bool, err error) {
	x := begin()
	defer x.end()
	token, err := x.token(rw, len(headerFrame)+minFrame)
	if err != nil {
		return "", false, err
	}
	if string(token) != ProtocolID {
		return "", false, protocolError("header expected", token)
	}
	// Nothing of the proposal came along: the peer may wait for our header.
	greeted := x.pending() == 0
	if greeted {
		rw.Write(append(x.buf[:0], headerFrame...)) // errors do not matter: see above
	}
	var refused []string
	for range maxRounds {
		token, err := x.token(rw, minFrame)
		if err != nil {
			if len(refused) > 0 && refusalEnds(err) {
				err = &NotSupportedError{Protos: refused}
			}
			return "", false, err
		}
		if isName(token) {
			if proto, ok := supports(token); ok {
				if proto != string(token) {
					return "", false, fmt.Errorf("multistream: supports(%q) returned the name %q, which is another", token, proto)
				}
				if greeted {
					rw.Write(appendFrame(x.buf[:0], proto)) // errors do not matter: see above
				}
				return proto, greeted, nil
			}
		}
		refused = append(refused, string(token))
		out := x.buf[:0]
		if !greeted {
			out = append(out, headerFrame...)
			greeted = true
		}
		if _, err := rw.Write(append(out, naFrame...)); err != nil {
			return "", false, &NotSupportedError{Protos: refused}
		}
	}
	return "", false, protocolError(fmt.Sprintf("more than %d proposals", maxRounds), nil)
}

// AppendProposal appends the header and the proposal of proto, to be sent
// together with the first data. ReadAnswer reads the answer.
func AppendProposal(b []byte, proto string) []byte {
	return appendFrame(append(b, headerFrame...), proto)
}

// ReadAnswer reads the header and the answer to the one proposal of
// AppendProposal. The error is a *NotSupportedError when the peer refused it:
// what was sent along with the proposal is then lost, and the connection of no
// more use. A peer may have taken it for proposals and refused them, too.
func ReadAnswer(r io.Reader, proto string) error {
	x := begin()
	defer x.end()
	ok, err := x.answer(r, proto, true)
	if err == nil && !ok {
		err = &NotSupportedError{Protos: []string{proto}}
	}
	return err
}

// AppendAccept appends the responder's header and its echo of proto, to be sent
// together with its first data. See Accept.
func AppendAccept(b []byte, proto string) []byte {
	return appendFrame(append(b, headerFrame...), proto)
}

// Check tells why proto cannot be the name of a protocol, if so: a name begins
// with "/", has no newline and is neither too long nor the header itself.
func Check(proto string) error {
	switch {
	case len(proto) > MaxNameLen:
		return fmt.Errorf("multistream: protocol name of %d bytes: use at most %d", len(proto), MaxNameLen)
	case !strings.HasPrefix(proto, "/"):
		return fmt.Errorf("multistream: protocol name %q: begin it with a slash", proto)
	case strings.Contains(proto, "\n"):
		return fmt.Errorf("multistream: protocol name %q: remove the newline", proto)
	case proto == ProtocolID:
		return fmt.Errorf("multistream: protocol name %q is the header of multistream itself: use another", proto)
	}
	return nil
}

// checkProposals refuses what the peer would refuse, before anything is sent.
func checkProposals(protos []string) error {
	if len(protos) == 0 {
		return fmt.Errorf("multistream: no protocol to propose: name at least one")
	}
	if len(protos) > maxRounds {
		return fmt.Errorf("multistream: %d protocols to propose: name at most %d", len(protos), maxRounds)
	}
	size := len(headerFrame)
	for _, proto := range protos {
		if err := Check(proto); err != nil {
			return err
		}
		size += frameLen(proto)
	}
	if size > maxBytes {
		return fmt.Errorf("multistream: proposing %d protocols takes %d bytes: propose fewer, at most %d bytes", len(protos), size, maxBytes)
	}
	return nil
}
