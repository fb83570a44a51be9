package p2ptls

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

const (
	// recordHeader is the length of a record's header, whose last two bytes are
	// the length of what follows. https://datatracker.ietf.org/doc/html/rfc8446#section-5.1
	recordHeader = 5
	// maxPlaintext is how much a record carries at most.
	maxPlaintext = 16 << 10
	// fullRecord is a record of maxPlaintext on the wire: header, plaintext,
	// content type and the tag, which is as long in all suites of TLS 1.3.
	fullRecord = recordHeader + maxPlaintext + 1 + 16

	// largeBuffer holds eight full records, so that a muxer's frame of 64 KiB
	// with its header is one write(2), and a reader that has fallen behind
	// catches up in one read(2).
	largeBuffer = 8 * fullRecord
	// smallBuffer is what an idle connection keeps to wait with: a message that
	// is no bulk transfer mostly fits, and so is one read(2).
	smallBuffer = 2 << 10

	// maxHandshake is how many bytes a peer may send before the handshake is
	// over, where crypto/tls alone would parse 256 KiB of certificates. Two
	// hellos with post-quantum key shares, a certificate of maxCertificate and an
	// RSA signature are below 10 KiB.
	maxHandshake = 16 << 10

	// closeTimeout is how long Close tries to send close_notify to a peer that
	// does not read: half of the second in which a host has to be closed.
	closeTimeout = 500 * time.Millisecond
)

// errDrained tells crypto/tls that no record is there yet. It is a temporary
// error, which leaves the state of a tls.Conn as it is, like the deadline of a read.
var errDrained error = drainedError{}

type drainedError struct{}

func (drainedError) Error() string   { return "p2ptls: no record has arrived" }
func (drainedError) Timeout() bool   { return true }
func (drainedError) Temporary() bool { return true }

var errHandshakeSize = errors.New("peer sent more than 16 KiB and the handshake is not over")

// A largeBuf is in use only while a transfer goes on.
type largeBuf [largeBuffer]byte

var largeBufs = sync.Pool{New: func() any { return new(largeBuf) }}

// A socket is the connection as crypto/tls sees it. It takes large pieces from
// the network and hands them over record by record: so crypto/tls never holds a
// part of a second record, and its own buffer grows no larger than one. It also
// sends the records of one Conn.Write together.
//
// In the handshake, Read waits. Later it returns errDrained instead, and Conn
// waits in fill, when it holds no other buffer.
type socket struct {
	conn net.Conn

	// owned by the reader: the handshake, then whoever holds Conn.readMu
	waits  bool      // Read waits: the handshake is not over
	budget int       // bytes that the peer may still send before it is
	buf    []byte    // arrived and not handed over; a part of small or of large
	record int       // bytes of the current record that were not handed over
	large  *largeBuf // nil between records
	small  [smallBuffer]byte

	// guarded by writeMu
	writeMu  sync.Mutex
	writeErr error     // the first; what follows it would not be understood
	out      *largeBuf // records put together; nil: they are sent one by one
	outLen   int

	closeErr error // of conn; written by Close

	// guarded by closeMu
	closeMu sync.Mutex
	closing bool // Conn.Close has set the last deadline of writes
}

func newSocket(conn net.Conn) *socket {
	return &socket{conn: conn, waits: true, budget: maxHandshake}
}

// Read hands over bytes of one record.
func (s *socket) Read(p []byte) (int, error) {
	for s.drained() {
		if !s.waits {
			return 0, errDrained
		}
		if err := s.fill(); err != nil {
			return 0, err
		}
	}
	if s.record == 0 {
		s.record = recordHeader + int(binary.BigEndian.Uint16(s.buf[3:]))
	}
	n := copy(p, s.buf[:min(s.record, len(s.buf))])
	s.buf = s.buf[n:]
	s.record -= n
	if s.waits {
		if s.budget -= n; s.budget < 0 {
			return 0, errHandshakeSize
		}
	}
	return n, nil
}

// drained reports whether Read needs a fill first. Less than a header does not
// tell where the record ends, and is kept back.
func (s *socket) drained() bool {
	return len(s.buf) == 0 || s.record == 0 && len(s.buf) < recordHeader
}

// fill waits until something arrives. The socket must be drained.
//
// In the middle of a record the rest is on its way, and with it what follows: so
// a large buffer is worth while. Between records the wait may be long. (A peer
// that stalls inside a record keeps us holding one, which is less than the window
// of one yamux stream. It has to be past the handshake.)
func (s *socket) fill() error {
	dst := s.small[:]
	if !s.waits && (s.record > 0 || len(s.buf) > 0) {
		if s.large == nil {
			s.large = largeBufs.Get().(*largeBuf)
		}
		dst = s.large[:]
	} else if s.large != nil {
		largeBufs.Put(s.large)
		s.large = nil
	}
	left := copy(dst, s.buf) // less than a header
	s.buf = dst[:left]       // or it keeps a large buffer that was given back
	n, err := 0, error(nil)
	for n == 0 && err == nil {
		n, err = s.conn.Read(dst[left:])
	}
	s.buf = dst[:left+n]
	if n > 0 {
		return nil // an error that lasts comes again
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF // nobody vouches for an end without close_notify
	}
	return err
}

// Write sends one record, or puts it behind those that wait for uncork.
func (s *socket) Write(p []byte) (int, error) {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	if s.out == nil {
		if s.writeErr == nil {
			_, s.writeErr = s.conn.Write(p)
		}
		return len(p), s.writeErr
	}
	for rest := p; len(rest) > 0; {
		if s.outLen == len(s.out) {
			s.flush()
		}
		n := copy(s.out[s.outLen:], rest)
		s.outLen += n
		rest = rest[n:]
	}
	return len(p), s.writeErr
}

// cork keeps records back until uncork.
func (s *socket) cork() {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	s.out = largeBufs.Get().(*largeBuf)
}

// uncork sends what was kept back.
func (s *socket) uncork() error {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	s.flush()
	largeBufs.Put(s.out)
	s.out = nil
	return s.writeErr
}

// flush is called with writeMu held.
func (s *socket) flush() {
	if s.writeErr == nil && s.outLen > 0 {
		_, s.writeErr = s.conn.Write(s.out[:s.outLen])
	}
	s.outLen = 0
}

// finish lets writes go on no longer than closeTimeout, whatever deadline is set
// from now on. It reports whether this is the first call.
func (s *socket) finish() bool {
	s.closeMu.Lock()
	defer s.closeMu.Unlock()
	if s.closing {
		return false
	}
	s.closing = true
	s.conn.SetWriteDeadline(time.Now().Add(closeTimeout))
	return true
}

func (s *socket) SetWriteDeadline(t time.Time) error {
	s.closeMu.Lock()
	defer s.closeMu.Unlock()
	if s.closing {
		return nil
	}
	return s.conn.SetWriteDeadline(t)
}

func (s *socket) SetDeadline(t time.Time) error {
	if err := s.conn.SetReadDeadline(t); err != nil {
		return err
	}
	return s.SetWriteDeadline(t)
}

func (s *socket) Close() error {
	s.closeErr = s.conn.Close()
	return s.closeErr
}

func (s *socket) SetReadDeadline(t time.Time) error { return s.conn.SetReadDeadline(t) }
func (s *socket) LocalAddr() net.Addr               { return s.conn.LocalAddr() }
func (s *socket) RemoteAddr() net.Addr              { return s.conn.RemoteAddr() }
