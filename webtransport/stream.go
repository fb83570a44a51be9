package webtransport

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	quicgo "github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/quicvarint"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/quic"
)

// maxTogether is how many bytes of the first Write leave together with the
// stream's prefix, in bytes: what fits into a packet with it.
const maxTogether = 1024

// A stream is a QUIC stream that begins with a prefix, which says to what it
// belongs. Who opened it sends the prefix with the first data, and the other
// reads it when the first data is wanted: nobody has to wait for it before.
type stream struct {
	session *session
	str     *quicgo.Stream
	reader  quic.Reader

	headSent   atomic.Bool
	headRead   atomic.Bool
	readClosed atomic.Bool                 // by this side, without a code
	writeEnded atomic.Bool                 // by this side, without a code
	over       atomic.Uint32               // directions that have ended: readOver, writeOver
	reset      atomic.Pointer[StreamError] // by the remote, as Read has seen

	writeMu sync.Mutex // guards head
	head    []byte     // what is left to send of the prefix

	readMu  sync.Mutex // guards the following
	prefix  [16]byte   // what was received: two numbers of at most 8 bytes
	arrived int
}

const readOver, writeOver = 1, 2

var past = time.Unix(1, 0)

var _ host.MuxedStream = (*stream)(nil)

// A StreamError tells that a stream was reset.
type StreamError struct {
	Code   uint32 // 0 when none came
	Remote bool   // the remote reset it
}

func (e *StreamError) Error() string {
	if e.Remote {
		return fmt.Sprintf("webtransport: stream reset by the remote (code %#x)", e.Code)
	}
	return fmt.Sprintf("webtransport: stream reset by this side (code %#x)", e.Code)
}

// ErrorCode returns Code.
func (e *StreamError) ErrorCode() uint32 { return e.Code }

// IsRemote returns Remote.
func (e *StreamError) IsRemote() bool { return e.Remote }

var (
	errReadClosed  = fmt.Errorf("webtransport: the stream is closed for reading: %w", net.ErrClosed)
	errWriteClosed = fmt.Errorf("webtransport: the stream is closed for writing: %w", net.ErrClosed)
)

func (st *stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if st.readClosed.Load() {
		return 0, errReadClosed
	}
	if !st.headRead.Load() {
		if err := st.readPrefix(); err != nil {
			return 0, st.readError(err)
		}
	}
	n, err := st.reader.Read(p)
	if err != nil {
		err = st.readError(err)
	}
	return n, err
}

// readPrefix reads to which session a stream of the remote belongs. It goes on
// where a deadline has ended it.
func (st *stream) readPrefix() error {
	st.readMu.Lock()
	defer st.readMu.Unlock()
	for !st.headRead.Load() {
		want := prefixLen(st.prefix[:st.arrived])
		n, err := st.reader.Read(st.prefix[st.arrived:want])
		st.arrived += n
		if prefixLen(st.prefix[:st.arrived]) > st.arrived {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			if err != nil {
				return err
			}
			continue
		}
		kind, k, _ := quicvarint.Parse(st.prefix[:st.arrived])
		id, _, _ := quicvarint.Parse(st.prefix[k:st.arrived])
		if kind != bidiStream || id != st.session.id {
			code := quicgo.StreamErrorCode(http3.ErrCodeRequestRejected)
			st.str.CancelRead(code)
			st.reader.Leave()
			st.str.CancelWrite(code)
			return fmt.Errorf("webtransport: a stream of kind %#x for session %d, where there is only session %d", kind, id, st.session.id)
		}
		st.headRead.Store(true)
	}
	return nil
}

// prefixLen tells how long a prefix that begins with b is, or at least is.
func prefixLen(b []byte) int {
	n := 0
	for range 2 {
		if len(b) <= n {
			return n + 1
		}
		n += 1 << (b[n] >> 6)
	}
	return n
}

func (st *stream) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	// The two directions are reset one after the other: libp2p knows only both.
	if reset := st.reset.Load(); reset != nil {
		return 0, st.writeError(reset)
	}
	before := 0
	if !st.headSent.Load() {
		n, err := st.writePrefix(p)
		if err != nil {
			return n, st.writeError(err)
		}
		if n == len(p) {
			return n, nil
		}
		before = n
	}
	n, err := st.str.Write(p[before:])
	if err != nil {
		err = st.writeError(err)
	}
	return before + n, err
}

// writePrefix sends what is left of the prefix and the first bytes of p, and
// tells how many of p these were.
func (st *stream) writePrefix(p []byte) (int, error) {
	st.writeMu.Lock()
	defer st.writeMu.Unlock()
	if st.headSent.Load() {
		return 0, nil
	}
	p = p[:min(len(p), maxTogether)]
	b := make([]byte, 0, len(st.head)+len(p))
	b = append(append(b, st.head...), p...)
	n, err := st.str.Write(b)
	// Without its prefix the remote could not tell what a stream that is reset was.
	st.str.SetReliableBoundary()
	n -= len(st.head)
	if n < 0 {
		st.head = st.head[len(st.head)+n:]
		return 0, err
	}
	st.head = nil
	st.headSent.Store(true)
	return n, err
}

// introduce sends the prefix alone if that is still to be done, and does not wait.
// It is false if the prefix has not been sent.
func (st *stream) introduce() bool {
	if st.headSent.Load() {
		return true
	}
	if !st.writeMu.TryLock() {
		return false // a Write waits to send it
	}
	defer st.writeMu.Unlock()
	if st.headSent.Load() {
		return true
	}
	if st.str.TryWriteAll(st.head) != nil {
		return false
	}
	st.str.SetReliableBoundary()
	st.head = nil
	st.headSent.Store(true)
	return true
}

// Close ends both directions; what was written still arrives.
func (st *stream) Close() error {
	st.CloseRead()
	return st.CloseWrite()
}

// CloseRead throws away what still comes; the remote is told not to send it.
func (st *stream) CloseRead() error {
	st.readClosed.Store(true)
	st.str.CancelRead(toWire(0))
	st.reader.Leave()
	st.end(readOver)
	return nil
}

// CloseWrite lets the remote read io.EOF after what was written. A Write that
// waits ends.
func (st *stream) CloseWrite() error {
	st.writeEnded.Store(true)
	st.str.SetWriteDeadline(past)
	if !st.introduce() {
		st.str.CancelWrite(toWire(0)) // nothing was written that could arrive
	}
	st.str.Close()
	st.end(writeOver)
	return nil
}

// Reset ends both directions at once.
func (st *stream) Reset(code uint32) error {
	st.introduce()
	st.str.CancelRead(toWire(code))
	st.reader.Leave()
	st.str.CancelWrite(toWire(code))
	st.end(readOver | writeOver)
	return nil
}

// SetDeadline sets both deadlines.
func (st *stream) SetDeadline(t time.Time) error {
	st.SetReadDeadline(t)
	return st.SetWriteDeadline(t)
}

func (st *stream) SetReadDeadline(t time.Time) error { return st.str.SetReadDeadline(t) }

func (st *stream) SetWriteDeadline(t time.Time) error {
	st.str.SetWriteDeadline(t)
	if st.writeEnded.Load() {
		st.str.SetWriteDeadline(past) // as CloseWrite wants it
	}
	return nil
}

func (st *stream) readError(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	st.end(readOver)
	if st.readClosed.Load() { // quic-go may then report an end that was never sent
		if reset, ok := errors.AsType[*quicgo.StreamError](err); err == io.EOF || ok && !reset.Remote {
			return errReadClosed
		}
	}
	err = st.session.convert(err)
	if reset, ok := err.(*StreamError); ok && reset.Remote {
		st.reset.Store(reset)
	}
	return err
}

func (st *stream) writeError(err error) error {
	timeout := errors.Is(err, os.ErrDeadlineExceeded)
	if st.writeEnded.Load() && (timeout || errors.Is(err, quicgo.ErrStreamClosed)) {
		return errWriteClosed
	}
	if timeout {
		return err
	}
	st.end(writeOver)
	return st.session.convert(err)
}

// end counts the stream out when both directions have ended.
func (st *stream) end(directions uint32) {
	const both = readOver | writeOver
	if was := st.over.Or(directions); was != both && was|directions == both {
		st.session.meter.Left()
	}
}

// leave ends the listener's half of the stream of the handshake. The client ends its own, and a browser takes its session
// for broken if it is told that nobody reads there.
func (st *stream) leave() {
	st.CloseWrite()
	st.reader.Leave()
	st.end(readOver)
}

// A noiseConn is the stream on which the handshake runs.
type noiseConn struct{ *stream }

func (c noiseConn) LocalAddr() net.Addr  { return c.session.conn.LocalAddr() }
func (c noiseConn) RemoteAddr() net.Addr { return c.session.conn.RemoteAddr() }

var _ net.Conn = noiseConn{}
