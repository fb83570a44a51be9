package identify

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/wire"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

const (
	// maxMessageLen is the longest message that is read or sent, in bytes, and
	// maxMessages how many of them make up what a peer says of itself: as much as
	// go-libp2p and js-libp2p read.
	maxMessageLen = 8 << 10
	maxMessages   = 10

	// maxAddrs is how many listen addresses of a message are looked at, and
	// maxAddrsLen how many bytes of them are kept: as much as a signed record can have.
	maxAddrs    = 128
	maxAddrsLen = 8 << 10
	// minAddrLen is the length of the shortest address that leads somewhere, such as /unix/a.
	minAddrLen = 4

	// maxProtocols is how many protocols of a peer are kept, as in go-libp2p, and
	// maxProtocolsLen how many bytes their names may have: twice a message.
	maxProtocols    = 1024
	maxProtocolsLen = 16 << 10

	// A protocol that has a longer name than maxProtocolLen bytes could not be
	// negotiated; one that has a shorter name than minProtocolLen would cost more to
	// keep than it costs to send. A peer can speak such protocols all the same: what
	// it does not seem to speak is asked for, not taken for granted.
	minProtocolLen = 3
	maxProtocolLen = 1022

	// maxVersionLen is how many bytes of an agent or protocol version are kept.
	// Those in use have about 50.
	maxVersionLen = 256
)

// The fields of a message. Field 8 is not in the specification; go-libp2p,
// rust-libp2p and js-libp2p all send it.
// https://github.com/libp2p/specs/blob/master/identify/README.md#the-identify-message
const (
	fieldPublicKey       = 1
	fieldListenAddr      = 2
	fieldProtocol        = 3
	fieldObservedAddr    = 4
	fieldProtocolVersion = 5
	fieldAgentVersion    = 6
	fieldSignedRecord    = 8
)

// A message is what a peer says of itself, decoded and not yet believed. What is
// empty was not said, or cannot be used.
type message struct {
	publicKey       []byte // a part of what was decoded
	signedRecord    []byte // a part of what was decoded
	listenAddrs     []multiaddr.Addr
	protocols       []host.ProtocolID // sorted, each once
	observedAddr    multiaddr.Addr
	protocolVersion string
	agentVersion    string
}

// readMessages reads everything that a peer says of itself: messages until the
// end of the stream. Protobuf messages are merged by putting them one after
// another, so that is what it returns.
func readMessages(r io.Reader) ([]byte, error) {
	var all []byte
	for n := 0; ; n++ {
		msg, err := wire.ReadFrame(r, maxMessageLen)
		switch {
		case err == io.EOF && n > 0:
			return all, nil
		case err == io.EOF:
			return nil, fmt.Errorf("identify: the stream ended before a message: %w", io.ErrUnexpectedEOF)
		case err != nil:
			return nil, fmt.Errorf("identify: reading message %d: %w", n+1, err)
		case n == maxMessages:
			return nil, fmt.Errorf("identify: more than %d messages", maxMessages)
		}
		if all == nil {
			all = msg
		} else {
			all = append(all, msg...)
		}
	}
}

// decode decodes what readMessages has read. Addresses and protocols that cannot
// be used are left out, and what is beyond the limits is too: a peer that says too
// much, or things of a later version, is still understood.
//
// What it returns takes no more than four times the room of what it was given,
// and shares nothing with it but publicKey and signedRecord.
func decode(data []byte) (message, error) {
	var m message
	var observed, protocolVersion, agentVersion []byte
	var addrs, protocols, text int // what there is to keep
	err := wire.Fields(data, func(f wire.Field) error {
		if f.Num > fieldSignedRecord || f.Num == 7 {
			return nil
		}
		if err := f.Want(wire.TypeBytes); err != nil {
			return err
		}
		// Of what can be there only once the last one counts, as everywhere in protobuf.
		switch f.Num {
		case fieldPublicKey:
			m.publicKey = f.Bytes
		case fieldListenAddr:
			if len(f.Bytes) >= minAddrLen && addrs < maxAddrs {
				addrs++
			}
		case fieldProtocol:
			if usable(f.Bytes) && protocols < maxProtocols && text+len(f.Bytes) <= maxProtocolsLen {
				protocols++
				text += len(f.Bytes)
			}
		case fieldObservedAddr:
			observed = f.Bytes
		case fieldProtocolVersion:
			protocolVersion = f.Bytes
		case fieldAgentVersion:
			agentVersion = f.Bytes
		case fieldSignedRecord:
			m.signedRecord = f.Bytes
		}
		return nil
	})
	if err != nil {
		return message{}, fmt.Errorf("identify: %w", err)
	}
	if a, err := multiaddr.FromBytes(observed); err == nil {
		m.observedAddr, _ = peer.SplitAddr(a) // js-libp2p says also who we are
	}
	m.protocolVersion = printable(protocolVersion)
	m.agentVersion = printable(agentVersion)
	m.collect(data, addrs, protocols, text)
	return m, nil
}

// collect keeps the addresses and protocols that decode has counted; the names
// of the protocols have text bytes together.
func (m *message) collect(data []byte, addrs, protocols, text int) {
	if addrs > 0 {
		m.listenAddrs = make([]multiaddr.Addr, 0, addrs)
	}
	if protocols > 0 {
		m.protocols = make([]host.ProtocolID, 0, protocols)
	}
	// One string holds all names: they live and die together.
	var names strings.Builder
	names.Grow(text)
	room := maxAddrsLen
	wire.Fields(data, func(f wire.Field) error {
		switch {
		case f.Num == fieldListenAddr && len(f.Bytes) >= minAddrLen && addrs > 0:
			addrs--
			if a, err := multiaddr.FromBytes(f.Bytes); err == nil && a.Len() <= room {
				m.listenAddrs = append(m.listenAddrs, a)
				room -= a.Len()
			}
		case f.Num == fieldProtocol && usable(f.Bytes) && len(m.protocols) < protocols && names.Len()+len(f.Bytes) <= text:
			start := names.Len()
			names.Write(f.Bytes)
			m.protocols = append(m.protocols, host.ProtocolID(names.String()[start:]))
		}
		return nil
	})
	slices.Sort(m.protocols)
	m.protocols = slices.Compact(m.protocols)
}

// usable tells whether name can be that of a protocol.
func usable(name []byte) bool {
	return len(name) >= minProtocolLen && len(name) <= maxProtocolLen && isPrintable(name)
}

func isPrintable(b []byte) bool {
	for len(b) > 0 {
		if b[0] < utf8.RuneSelf {
			if b[0] < ' ' || b[0] == 0x7f {
				return false
			}
			b = b[1:]
			continue
		}
		r, n := utf8.DecodeRune(b)
		if (r == utf8.RuneError && n == 1) || !unicode.IsPrint(r) {
			return false
		}
		b = b[n:]
	}
	return true
}

// printable makes text that a stranger sent fit to be logged and shown: what
// could steer a terminal or hide other text becomes U+FFFD, and it has at most
// maxVersionLen bytes.
func printable(b []byte) string {
	b = b[:min(len(b), maxVersionLen)]
	if !isPrintable(b) {
		b = []byte(strings.Map(func(r rune) rune {
			if !unicode.IsPrint(r) {
				return utf8.RuneError
			}
			return r
		}, string(b)))
	}
	if len(b) > maxVersionLen {
		b = b[:maxVersionLen]
		for !utf8.Valid(b) {
			b = b[:len(b)-1]
		}
	}
	return string(b)
}

// An encoding is what we say of ourselves but for the observed address, which
// is another one on every connection.
type encoding struct {
	first  []byte // message 1, without the observed address; all there is, if it fits
	rest   []byte // the messages after it, each with its length before it
	record []byte // the field with the signed record; nil: none
}

const (
	// maxFirstLen is the most that message 1 may have: rust-libp2p reads no longer
	// one, and nothing after it.
	maxFirstLen = 4 << 10
	// maxSingleLen is the most that one message with everything in it may have;
	// beyond that the signed record gets its own, as in go-libp2p.
	maxSingleLen = 2 << 10
	// maxObservedLen is the room left in message 1 for the observed address. The
	// longest is about 200 bytes: WebTransport through a relay.
	maxObservedLen = 256
	// maxFurther is how many messages may stand between the first and the record:
	// go-libp2p counts the end of the stream as one of the ten.
	maxFurther = maxMessages - 3
)

// encode encodes what we say of ourselves. Message 1 holds the addresses, the
// first ones if they are too many, and as many protocols as fit; the others follow
// in messages of their own. It returns the addresses that are in it.
func encode(publicKey []byte, protocolVersion, agentVersion string, addrs []multiaddr.Addr, protocols []host.ProtocolID) (encoding, []multiaddr.Addr) {
	first := make([]byte, 0, 512)
	first = wire.AppendBytesField(first, fieldPublicKey, publicKey)
	if protocolVersion != "" {
		first = wire.AppendStringField(first, fieldProtocolVersion, protocolVersion)
	}
	first = wire.AppendStringField(first, fieldAgentVersion, agentVersion)

	limit := maxFirstLen - fieldLen(maxObservedLen)
	wanted := 0
	for _, p := range protocols {
		wanted += fieldLen(len(p))
	}
	// At least half of the room is for addresses, all that protocols do not need is.
	room := limit - len(first)
	room = max(room-wanted, room/2)
	for i, a := range addrs {
		if room -= fieldLen(a.Len()); room < 0 {
			addrs = addrs[:i]
			break
		}
		first = wire.AppendUvarint(first, fieldListenAddr<<3|wire.TypeBytes)
		first = wire.AppendUvarint(first, uint64(a.Len()))
		first = a.AppendTo(first)
	}
	for len(protocols) > 0 && len(first)+fieldLen(len(protocols[0])) <= limit {
		first = wire.AppendStringField(first, fieldProtocol, string(protocols[0]))
		protocols = protocols[1:]
	}

	var rest, msg []byte
	for range maxFurther {
		for len(protocols) > 0 && len(msg)+fieldLen(len(protocols[0])) <= maxMessageLen {
			msg = wire.AppendStringField(msg, fieldProtocol, string(protocols[0]))
			protocols = protocols[1:]
		}
		if len(msg) > 0 {
			rest = wire.AppendFrame(rest, msg)
			msg = msg[:0]
		}
	}
	return encoding{first: first, rest: rest}, addrs
}

// announced drops the protocols that others could not negotiate or would not read.
func announced(protocols []host.ProtocolID) []host.ProtocolID {
	return slices.DeleteFunc(protocols, func(p host.ProtocolID) bool { return p == "" || len(p) > maxProtocolLen })
}

// setRecord adds the signed record.
func (e *encoding) setRecord(envelope []byte) {
	if envelope != nil {
		e.record = wire.AppendBytesField(nil, fieldSignedRecord, envelope)
	}
}

// messages gives the bytes to send on a connection whose remote we see at observed.
func (e encoding) messages(observed multiaddr.Addr) []byte {
	var field []byte
	if n := observed.Len(); n > 0 && n <= maxObservedLen {
		field = wire.AppendBytesField(make([]byte, 0, fieldLen(n)), fieldObservedAddr, observed.Bytes())
	}
	single := len(e.first) + len(field) + len(e.record)
	out := make([]byte, 0, 2*wire.UvarintLen(maxMessageLen)+single+len(e.rest))
	if len(e.rest) == 0 && single <= maxSingleLen {
		out = wire.AppendUvarint(out, uint64(single))
		out = append(out, e.first...)
		out = append(out, field...)
		return append(out, e.record...)
	}
	out = wire.AppendUvarint(out, uint64(len(e.first)+len(field)))
	out = append(out, e.first...)
	out = append(out, field...)
	out = append(out, e.rest...)
	if len(e.record) > 0 {
		out = wire.AppendFrame(out, e.record)
	}
	return out
}

// fieldLen is how long the field of a value of n bytes is; every field's number
// takes one byte.
func fieldLen(n int) int { return 1 + wire.UvarintLen(uint64(n)) + n }
