package webrtc

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// Chunks and parameters of SCTP.
// https://www.rfc-editor.org/rfc/rfc9260.html#section-3 and https://www.rfc-editor.org/rfc/rfc6525.html
const (
	chunkData             = 0
	chunkInit             = 1
	chunkInitAck          = 2
	chunkSack             = 3
	chunkHeartbeat        = 4
	chunkHeartbeatAck     = 5
	chunkAbort            = 6
	chunkShutdown         = 7
	chunkShutdownAck      = 8
	chunkCookieEcho       = 10
	chunkCookieAck        = 11
	chunkShutdownComplete = 14
	chunkReconfig         = 130

	paramHeartbeat     = 1
	paramCookie        = 7
	paramResetOutgoing = 13
	paramResetIncoming = 14
	paramResetTSN      = 15
	paramResetResponse = 16
	paramAddOutgoing   = 17
	paramAddIncoming   = 18
	paramExtensions    = 0x8008

	causeUserAbort = 12

	resetNothing    = 0
	resetPerformed  = 1
	resetDenied     = 2
	resetBadNumber  = 5
	resetInProgress = 6

	sctpHeaderLen = 12
	chunkLen      = 4
	dataHeaderLen = 16
	sctpPort      = 5000 // on both sides: https://www.rfc-editor.org/rfc/rfc8841.html#section-5
)

// Kinds of data, and the messages that open a data channel.
// https://www.rfc-editor.org/rfc/rfc8831.html#section-8 and https://www.rfc-editor.org/rfc/rfc8832.html#section-5
const (
	ppidControl = 50
	ppidString  = 51
	ppidBinary  = 53

	channelOpen    = 3
	channelAck     = 2
	channelOpenLen = 12
)

// maxCookie is the longest cookie of a remote that we send back, in bytes. Those
// of usrsctp, the longest in use, have less than 500.
const maxCookie = 1024

var errSCTP = errors.New("webrtc: malformed SCTP")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendSCTPHeader appends the common header; finishSCTP puts the checksum in.
func appendSCTPHeader(b []byte, tag uint32) []byte {
	b = binary.BigEndian.AppendUint16(b, sctpPort)
	b = binary.BigEndian.AppendUint16(b, sctpPort)
	b = binary.BigEndian.AppendUint32(b, tag)
	return append(b, 0, 0, 0, 0)
}

func finishSCTP(p []byte) {
	binary.LittleEndian.PutUint32(p[8:], crc32.Checksum(p, castagnoli))
}

// appendChunk appends a chunk with its padding.
func appendChunk(b []byte, kind, flags byte, value []byte) []byte {
	b = append(b, kind, flags)
	b = binary.BigEndian.AppendUint16(b, uint16(chunkLen+len(value)))
	b = append(b, value...)
	return append(b, "\x00\x00\x00"[:-len(value)&3]...)
}

func appendParam(b []byte, kind uint16, value []byte) []byte {
	b = append(b, "\x00\x00\x00"[:-len(b)&3]...) // that of the parameter before
	b = binary.BigEndian.AppendUint16(b, kind)
	b = binary.BigEndian.AppendUint16(b, uint16(chunkLen+len(value)))
	return append(b, value...)
}

// nextChunk splits the first chunk off p.
func nextChunk(p []byte) (kind, flags byte, value, rest []byte, err error) {
	if len(p) < chunkLen {
		return 0, 0, nil, nil, errSCTP
	}
	n := int(binary.BigEndian.Uint16(p[2:]))
	if n < chunkLen || n > len(p) {
		return 0, 0, nil, nil, errSCTP
	}
	return p[0], p[1], p[chunkLen:n], p[min(len(p), (n+3)&^3):], nil
}

// nextParam splits the first parameter off p.
func nextParam(p []byte) (kind uint16, value, rest []byte, err error) {
	if len(p) < chunkLen {
		return 0, nil, nil, errSCTP
	}
	n := int(binary.BigEndian.Uint16(p[2:]))
	if n < chunkLen || n > len(p) {
		return 0, nil, nil, errSCTP
	}
	return binary.BigEndian.Uint16(p), p[chunkLen:n], p[min(len(p), (n+3)&^3):], nil
}

// An initChunk is what INIT and INIT ACK say.
type initChunk struct {
	tag    uint32
	window uint32
	tsn    uint32
	ids    uint16 // how many streams both directions have, that is, channels
	cookie []byte
}

func (c initChunk) append(b []byte, kind byte) []byte {
	v := make([]byte, 0, 64)
	v = binary.BigEndian.AppendUint32(v, c.tag)
	v = binary.BigEndian.AppendUint32(v, c.window)
	v = append(v, 0xff, 0xff, 0xff, 0xff) // 65535 streams each way
	v = binary.BigEndian.AppendUint32(v, c.tsn)
	v = appendParam(v, paramExtensions, []byte{chunkReconfig})
	if c.cookie != nil {
		v = appendParam(v, paramCookie, c.cookie)
	}
	return appendChunk(b, kind, 0, v)
}

func parseInit(v []byte) (c initChunk, err error) {
	if len(v) < 16 {
		return c, errSCTP
	}
	c.tag = binary.BigEndian.Uint32(v)
	c.window = binary.BigEndian.Uint32(v[4:])
	c.ids = min(binary.BigEndian.Uint16(v[8:]), binary.BigEndian.Uint16(v[10:]))
	c.tsn = binary.BigEndian.Uint32(v[12:])
	if c.tag == 0 || c.ids == 0 {
		return c, errSCTP
	}
	for v = v[16:]; len(v) > 0; {
		kind, value, rest, err := nextParam(v)
		if err != nil {
			return c, err
		}
		if kind == paramCookie {
			if len(value) > maxCookie {
				return c, errSCTP
			}
			c.cookie = value
		}
		v = rest
	}
	return c, nil
}

// before tells whether a comes before b; numbers go round.
// https://www.rfc-editor.org/rfc/rfc9260.html#section-1.6
func before(a, b uint32) bool { return int32(a-b) < 0 }

// isChannelOpen tells whether p, of kind ppidControl, opens a reliable and ordered channel.
func isChannelOpen(p []byte) bool {
	return len(p) >= channelOpenLen && p[0] == channelOpen
}

// appendChannelOpen appends the message that opens a channel with no label.
func appendChannelOpen(b []byte) []byte {
	return append(b, channelOpen, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
}
