package yamux

import (
	"encoding/binary"
	"fmt"
)

// The frame format: https://github.com/libp2p/specs/blob/master/yamux/README.md#framing
const (
	headerLen = 12

	typeData         = 0
	typeWindowUpdate = 1
	typePing         = 2
	typeGoAway       = 3

	flagSYN  = 1
	flagACK  = 2
	flagFIN  = 4
	flagRST  = 8
	allFlags = flagSYN | flagACK | flagFIN | flagRST

	// initialWindow is every stream's window in both directions until a window
	// update says otherwise.
	initialWindow = 256 << 10
)

// A header is a frame without its payload. The length is that of the payload
// only in data frames; elsewhere it is a credit, an opaque value or a code.
type header struct {
	version uint8
	typ     uint8
	flags   uint16
	id      uint32
	length  uint32
}

func parseHeader(b []byte) header {
	_ = b[headerLen-1]
	return header{
		version: b[0],
		typ:     b[1],
		flags:   binary.BigEndian.Uint16(b[2:]),
		id:      binary.BigEndian.Uint32(b[4:]),
		length:  binary.BigEndian.Uint32(b[8:]),
	}
}

func putHeader(b []byte, typ uint8, flags uint16, id, length uint32) {
	_ = b[headerLen-1]
	b[0], b[1] = 0, typ
	binary.BigEndian.PutUint16(b[2:], flags)
	binary.BigEndian.PutUint32(b[4:], id)
	binary.BigEndian.PutUint32(b[8:], length)
}

// check refuses what no peer may send in any state of a session.
func (h header) check() *SessionError {
	switch {
	case h.version != 0:
		return violation(fmt.Sprintf("frame of version %d, want 0", h.version))
	case h.typ > typeGoAway:
		return violation(fmt.Sprintf("frame of unknown type %d", h.typ))
	case h.flags&^allFlags != 0:
		return violation(fmt.Sprintf("frame with unknown flags %#04x", h.flags))
	case h.typ >= typePing && h.id != 0:
		return violation(fmt.Sprintf("ping or goaway on stream %d, want 0", h.id))
	case h.typ < typePing && h.id == 0:
		return violation("data or window update on stream 0")
	case h.typ == typePing && h.flags != flagSYN && h.flags != flagACK:
		return violation(fmt.Sprintf("ping with flags %#04x, want SYN or ACK", h.flags))
	case h.typ < typePing && h.flags&(flagSYN|flagACK) == flagSYN|flagACK:
		return violation(fmt.Sprintf("SYN and ACK in one frame on stream %d", h.id))
	}
	return nil
}
