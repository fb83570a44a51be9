package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Protobuf wire types (the two group types are refused).
const (
	TypeVarint  = 0
	TypeFixed64 = 1
	TypeBytes   = 2
	TypeFixed32 = 5
)

// ErrProto tells of bytes that are not protobuf.
var ErrProto = errors.New("wire: malformed protobuf")

// AppendVarintField appends field number num with an unsigned integer value.
func AppendVarintField(b []byte, num int, v uint64) []byte {
	b = AppendUvarint(b, uint64(num)<<3|TypeVarint)
	return binary.AppendUvarint(b, v)
}

// AppendBytesField appends field number num with a value of bytes.
func AppendBytesField(b []byte, num int, v []byte) []byte {
	b = AppendUvarint(b, uint64(num)<<3|TypeBytes)
	return AppendFrame(b, v)
}

// AppendStringField appends field number num with a text value.
func AppendStringField(b []byte, num int, v string) []byte {
	b = AppendUvarint(b, uint64(num)<<3|TypeBytes)
	b = AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}

// A Field is one field of a protobuf message. For TypeBytes the value is Bytes,
// a part of the message decoded; otherwise it is Uint.
type Field struct {
	Num   int
	Type  int
	Uint  uint64
	Bytes []byte
}

// NextField decodes the field at the start of msg and returns what follows it.
// Unknown fields are the caller's to ignore. Protobuf allows varints that are
// not minimal and up to ten bytes long, so those are accepted here.
func NextField(msg []byte) (f Field, rest []byte, err error) {
	key, n := binary.Uvarint(msg)
	if n <= 0 || key>>3 == 0 || key>>3 > 1<<29-1 {
		return f, nil, ErrProto
	}
	msg = msg[n:]
	f.Num, f.Type = int(key>>3), int(key&7)
	switch f.Type {
	case TypeVarint:
		f.Uint, n = binary.Uvarint(msg)
		if n <= 0 {
			return f, nil, ErrProto
		}
		return f, msg[n:], nil
	case TypeFixed64:
		if len(msg) < 8 {
			return f, nil, ErrProto
		}
		f.Uint = binary.LittleEndian.Uint64(msg)
		return f, msg[8:], nil
	case TypeFixed32:
		if len(msg) < 4 {
			return f, nil, ErrProto
		}
		f.Uint = uint64(binary.LittleEndian.Uint32(msg))
		return f, msg[4:], nil
	case TypeBytes:
		size, n := binary.Uvarint(msg)
		if n <= 0 || size > uint64(len(msg)-n) {
			return f, nil, ErrProto
		}
		f.Bytes = msg[n : n+int(size) : n+int(size)]
		return f, msg[n+int(size):], nil
	}
	return f, nil, fmt.Errorf("%w: wire type %d", ErrProto, f.Type)
}

// Fields calls each for every field of msg, in order, and stops at the first error.
func Fields(msg []byte, each func(Field) error) error {
	for len(msg) > 0 {
		f, rest, err := NextField(msg)
		if err != nil {
			return err
		}
		if err := each(f); err != nil {
			return err
		}
		msg = rest
	}
	return nil
}

// Want reports an error unless the field has the wire type typ.
func (f Field) Want(typ int) error {
	if f.Type != typ {
		return fmt.Errorf("%w: field %d has wire type %d, not %d", ErrProto, f.Num, f.Type, typ)
	}
	return nil
}
