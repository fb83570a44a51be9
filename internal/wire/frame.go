package wire

import (
	"fmt"
	"io"
)

// readStep bounds how much is allocated ahead of the bytes that arrive, so that
// a length prefix alone costs a remote's victim nothing.
const readStep = 4 << 10

// A SizeError tells of a message that is larger than its reader allows.
type SizeError struct {
	Size uint64 // what the length prefix claims, in bytes
	Max  int    // what the reader allows, in bytes
}

func (e *SizeError) Error() string {
	return fmt.Sprintf("wire: message of %d bytes is over the limit of %d", e.Size, e.Max)
}

// AppendFrame appends msg with its length before it.
func AppendFrame(b, msg []byte) []byte {
	b = AppendUvarint(b, uint64(len(msg)))
	return append(b, msg...)
}

// WriteFrame writes msg with its length before it, in one Write.
func WriteFrame(w io.Writer, msg []byte) error {
	buf := make([]byte, 0, UvarintLen(uint64(len(msg)))+len(msg))
	_, err := w.Write(AppendFrame(buf, msg))
	return err
}

// A Memory is where room for messages is taken before they are read. Whoever reads
// gives it back when the message is no longer held, or was not read to its end.
type Memory interface {
	Take(n int) error
}

// ReadFrame reads one length-prefixed message of at most max bytes, and nothing
// beyond it. Memory grows with the bytes received, not with the length claimed.
// The error is io.EOF only when r ends before the first byte.
func ReadFrame(r io.Reader, max int) ([]byte, error) { return ReadFrameInto(nil, r, max) }

// ReadFrameInto is ReadFrame with room that is taken from m: as much in all as the
// message has, and before that no more than will be filled. Errors of m end it.
func ReadFrameInto(m Memory, r io.Reader, max int) ([]byte, error) {
	size, err := ReadUvarint(r)
	if err != nil {
		return nil, err
	}
	if size > uint64(max) {
		return nil, &SizeError{Size: size, Max: max}
	}
	var buf []byte
	for n := int(size); ; {
		got := len(buf)
		room := min(n, 2*got+readStep)
		if m != nil {
			if err := m.Take(room - got); err != nil {
				return nil, err
			}
		}
		grown := make([]byte, room)
		copy(grown, buf)
		buf = grown
		if _, err := io.ReadFull(r, buf[got:]); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		if room == n {
			return buf, nil
		}
	}
}
