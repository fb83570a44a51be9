package hostile

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
)

// https://github.com/libp2p/specs/blob/master/yamux/README.md#framing
const (
	typeData   = 0
	typeWindow = 1
	typePing   = 2
	typeGoAway = 3

	syn = 1
	ack = 2
	fin = 4
	rst = 8

	initialWindow = 256 << 10
)

// A frame is one of yamux, right or wrong.
type frame struct {
	version, typ uint8
	flags        uint16
	id, length   uint32
	payload      []byte // sent as it is; the length can be another
}

func (f frame) appendTo(b []byte) []byte {
	b = append(b, f.version, f.typ)
	b = binary.BigEndian.AppendUint16(b, f.flags)
	b = binary.BigEndian.AppendUint32(b, f.id)
	b = binary.BigEndian.AppendUint32(b, f.length)
	return append(b, f.payload...)
}

// dataFrame carries payload on a stream.
func dataFrame(flags uint16, id uint32, payload []byte) frame {
	return frame{typ: typeData, flags: flags, id: id, length: uint32(len(payload)), payload: payload}
}

// A session is an attacker's end of a connection on which yamux frames are
// written by hand.
type session struct {
	conn net.Conn // secured
	next uint32   // the id of the next stream
}

// send writes frames in one piece.
func (s *session) send(frames ...frame) error {
	var b []byte
	for _, f := range frames {
		b = f.appendTo(b)
	}
	_, err := s.conn.Write(b)
	return err
}

// id takes a number for a new stream.
func (s *session) id() uint32 {
	s.next += 2
	return s.next - 2
}

// open opens a stream, proposes proto and sends what follows, in one frame.
func (s *session) open(proto string, after ...byte) (uint32, error) {
	id := s.id()
	return id, s.send(dataFrame(syn, id, append(propose(proto), after...)))
}

// receive reads the next frame.
func (s *session) receive() (frame, error) {
	var b [12]byte
	if _, err := io.ReadFull(s.conn, b[:]); err != nil {
		return frame{}, err
	}
	f := frame{
		version: b[0], typ: b[1], flags: binary.BigEndian.Uint16(b[2:]),
		id: binary.BigEndian.Uint32(b[4:]), length: binary.BigEndian.Uint32(b[8:]),
	}
	if f.typ != typeData {
		return f, nil
	}
	f.payload = make([]byte, f.length)
	_, err := io.ReadFull(s.conn, f.payload)
	return f, err
}

// noGoAway is the code of a session that ended without one.
const noGoAway = -1

// end reads until the host ends the session and returns the code of its GOAWAY.
// Data frames are answered with nothing.
func (s *session) end() (code int, err error) {
	code = noGoAway
	for {
		f, err := s.receive()
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return code, nil
		case err != nil:
			return code, err
		case f.typ == typeGoAway:
			code = int(f.length)
		}
	}
}

// resets reads until n streams were reset by the host and returns their codes.
func (s *session) resets(n int) (codes map[uint32]uint32, err error) {
	codes = make(map[uint32]uint32)
	for len(codes) < n {
		f, err := s.receive()
		if err != nil {
			return codes, err
		}
		if f.flags&rst != 0 {
			codes[f.id] = f.length
		}
	}
	return codes, nil
}
