package webrtc

import (
	"encoding/binary"
	"errors"
)

// Messages of a stream: a length, and a protobuf message.
// https://github.com/libp2p/specs/blob/master/webrtc/README.md#multiplexing
const (
	// maxIncoming is the longest message that is taken, in bytes: that of go-libp2p,
	// which takes more than the specification says.
	maxIncoming = 257 << 10

	// messageOverhead is what a message with data adds to it, in bytes: a length, a tag and a length.
	messageOverhead = 2 + 1 + 2

	// maxData is how much data one of our messages has. It fills three packets: with
	// more a message takes longer to put together again, and go-libp2p fails if a
	// message of more than 4096 bytes does not have its length in a message of its own.
	maxData = 3*fragmentSize - messageOverhead
)

// The fields of a message.
const (
	fieldFlag      = 1
	fieldData      = 2
	fieldErrorCode = 3
)

type flag int8

const (
	flagNone        flag = -1
	flagFIN         flag = 0
	flagStopSending flag = 1
	flagReset       flag = 2
	flagFINACK      flag = 3
)

// control is a message without its data.
type control struct {
	flag flag
	code uint32
}

// appendControl appends a message without data.
func appendControl(b []byte, c control) []byte {
	b = append(b, 0)
	start := len(b)
	if c.flag != flagNone {
		b = append(b, fieldFlag<<3, byte(c.flag))
	}
	if c.code != 0 {
		b = append(b, fieldErrorCode<<3)
		b = binary.AppendUvarint(b, uint64(c.code))
	}
	b[start-1] = byte(len(b) - start)
	return b
}

// appendData appends a message with data.
func appendData(b, data []byte) []byte {
	n := 1 + uvarintLen(len(data)) + len(data)
	b = binary.AppendUvarint(b, uint64(n))
	b = append(b, fieldData<<3|2)
	b = binary.AppendUvarint(b, uint64(len(data)))
	return append(b, data...)
}

func uvarintLen(n int) int {
	switch {
	case n < 1<<7:
		return 1
	case n < 1<<14:
		return 2
	}
	return 3
}

var errMessage = errors.New("webrtc: a message of a stream is malformed or too long")

// A parser takes the messages of a stream apart as they come in, in pieces of any
// size. It holds no more than its own fields.
type parser struct {
	state    parserState
	seenData bool
	shift    uint8  // of the number that is being read
	field    uint32 // its last tag
	number   uint64
	left     int // of the message, in bytes
	value    int // of the field's value, in bytes
	control  control
}

type parserState uint8

const (
	readLength parserState = iota
	readTag
	readNumber    // the value of a varint field
	readValueSize // the length of a field's value
	readData
	skipValue
)

// next consumes the start of b. It returns a run of data, or a message that is
// complete, or neither when b is used up; rest is what to call it with again.
func (p *parser) next(b []byte) (data, rest []byte, done bool, err error) {
	for {
		if p.state != readLength && p.left == 0 {
			if p.state != readTag || p.shift != 0 {
				return nil, nil, false, errMessage
			}
			p.state = readLength
			return nil, b, true, nil
		}
		if len(b) == 0 {
			return nil, nil, false, nil
		}
		if p.state == readData || p.state == skipValue {
			n := min(p.value, len(b))
			run := b[:n]
			b, p.value, p.left = b[n:], p.value-n, p.left-n
			isData := p.state == readData
			if p.value == 0 {
				p.state = readTag
			}
			if isData {
				return run, b, false, nil
			}
			continue
		}
		c := b[0]
		b = b[1:]
		if p.state != readLength {
			p.left--
		}
		if p.shift >= 63 && c > 1 {
			return nil, nil, false, errMessage
		}
		p.number |= uint64(c&0x7f) << p.shift
		if c&0x80 != 0 {
			if p.shift += 7; p.shift > 63 || p.state == readLength && p.shift > 14 {
				return nil, nil, false, errMessage
			}
			continue
		}
		n := p.number
		p.number, p.shift = 0, 0
		if err := p.take(n); err != nil {
			return nil, nil, false, err
		}
	}
}

// take acts on a number that is complete.
func (p *parser) take(n uint64) error {
	switch p.state {
	case readLength:
		if n > maxIncoming {
			return errMessage
		}
		p.left, p.state, p.seenData, p.control = int(n), readTag, false, control{flag: flagNone}
	case readTag:
		if n>>3 == 0 || n > 1<<32 {
			return errMessage
		}
		p.field = uint32(n >> 3)
		switch n & 7 {
		case 0:
			p.state = readNumber
		case 2:
			p.state = readValueSize
		case 1, 5:
			p.value, p.state = 8, skipValue
			if n&7 == 5 {
				p.value = 4
			}
			if p.value > p.left {
				return errMessage
			}
		default:
			return errMessage
		}
	case readNumber:
		p.state = readTag
		switch p.field {
		case fieldFlag:
			if n <= uint64(flagFINACK) {
				p.control.flag = flag(n)
			}
		case fieldErrorCode:
			p.control.code = uint32(n)
		}
	case readValueSize:
		if n > uint64(p.left) {
			return errMessage
		}
		p.value, p.state = int(n), skipValue
		if p.field == fieldData {
			if p.seenData {
				return errMessage // the last would count, and the first is gone already
			}
			p.seenData, p.state = true, readData
		}
		if n == 0 {
			p.state = readTag
		}
	}
	return nil
}
