package wire

import (
	"errors"
	"io"
	"math/bits"
)

// MaxVarintLen is the longest unsigned varint that multiformats allows, in bytes.
const MaxVarintLen = 9

var (
	// ErrVarintTooLong tells of a varint of more than nine bytes.
	ErrVarintTooLong = errors.New("wire: varint is longer than 9 bytes")
	// ErrVarintNotMinimal tells of a varint that has a shorter form.
	ErrVarintNotMinimal = errors.New("wire: varint is not in its shortest form")
)

// AppendUvarint appends v in its shortest form. v must be below 1<<63.
func AppendUvarint(b []byte, v uint64) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

// UvarintLen returns how many bytes AppendUvarint adds for v.
func UvarintLen(v uint64) int {
	if v == 0 {
		return 1
	}
	return (bits.Len64(v) + 6) / 7
}

// Uvarint decodes a varint at the start of b and returns it with its length.
// The error is io.ErrUnexpectedEOF when b ends inside it.
func Uvarint(b []byte) (v uint64, n int, err error) {
	for i, c := range b {
		if i == MaxVarintLen {
			return 0, 0, ErrVarintTooLong
		}
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			if c == 0 && i > 0 {
				return 0, 0, ErrVarintNotMinimal
			}
			return v, i + 1, nil
		}
	}
	if len(b) >= MaxVarintLen {
		return 0, 0, ErrVarintTooLong
	}
	return 0, 0, io.ErrUnexpectedEOF
}

// ReadUvarint reads one varint from r, byte by byte, and nothing beyond it.
// The error is io.EOF only when r ends before the first byte.
func ReadUvarint(r io.Reader) (uint64, error) {
	var buf [MaxVarintLen]byte
	for i := range buf {
		if _, err := io.ReadFull(r, buf[i:i+1]); err != nil {
			if i > 0 && err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
		if buf[i] < 0x80 {
			v, _, err := Uvarint(buf[:i+1])
			return v, err
		}
	}
	return 0, ErrVarintTooLong
}
