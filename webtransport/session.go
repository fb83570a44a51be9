package webtransport

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	quicgo "github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/quicvarint"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/quic"
)

// What goes over the wire for WebTransport.
// https://datatracker.ietf.org/doc/draft-ietf-webtrans-http3/
const (
	alpn = "h3"

	// bidiStream begins each stream of a session, before the session's number.
	bidiStream = 0x41

	// closeSession is the capsule that ends a session: a code of 4 bytes and a text.
	closeSession = 0x2843
	maxCloseText = 1024

	// Codes with which streams are reset go from firstCode to lastCode, where
	// one of 31 is left out.
	firstCode = 0x52e4a40fa8db
	lastCode  = 0x52e5ac983162

	// sessionGone resets the streams of a session that has ended.
	sessionGone = 0x170d7b68

	// Settings by which the two sides say that they speak WebTransport: drafts 2
	// to 6, and 15; and how many sessions a connection can have, draft 14.
	settingDraft2      = 0x2b603742
	settingEnabled     = 0x2c7cf000
	settingMaxSessions = 0x14e9cd29
)

// farewell is how long the end of a session waits for the remote to take note
// of the code, before the connection goes: two distant round trips.
const farewell = 250 * time.Millisecond

// A connectStream is the stream of the request that began a session. Its end is
// the session's end.
type connectStream interface {
	io.ReadCloser
	TryWriteAll([]byte) error
	SendDatagram([]byte) error
	ReceiveDatagram(context.Context) ([]byte, error)
}

// A session is a WebTransport session, the only one of its QUIC connection.
type session struct {
	// fixed
	conn    *quicgo.Conn
	meter   *quic.Meter // counts streams
	connect connectStream
	id      uint64        // that of the request's stream
	prefix  []byte        // of every stream
	done    chan struct{} // closed when the request's stream has ended

	// guarded by mu
	mu    sync.Mutex
	cause error // why the session ended; nil: it has not
}

// newSession makes a session. Its method read must run after that.
func newSession(conn *quicgo.Conn, meter *quic.Meter, connect connectStream, id quicgo.StreamID) *session {
	return &session{
		conn:    conn,
		meter:   meter,
		connect: connect,
		id:      uint64(id),
		prefix:  quicvarint.Append(quicvarint.Append(nil, bidiStream), uint64(id)),
		done:    make(chan struct{}),
	}
}

var _ host.MuxedConn = (*session)(nil)
var _ host.Datagrams = (*session)(nil)

// A SessionError tells why a connection ended. It wraps net.ErrClosed.
type SessionError struct {
	Code   uint32 // 0 when none was given
	Remote bool   // the remote ended it
	Reason string
}

func (e *SessionError) Error() string {
	by := "by this side"
	if e.Remote {
		by = "by the remote"
	}
	return fmt.Sprintf("webtransport: connection ended %s (code %#x): %s", by, e.Code, e.Reason)
}

// Unwrap returns net.ErrClosed.
func (e *SessionError) Unwrap() error { return net.ErrClosed }

// ErrorCode returns Code.
func (e *SessionError) ErrorCode() uint32 { return e.Code }

// IsRemote returns Remote.
func (e *SessionError) IsRemote() bool { return e.Remote }

// OpenStream opens a stream. It waits only when the remote allows no more.
func (s *session) OpenStream(ctx context.Context) (host.MuxedStream, error) {
	return s.openStream(ctx)
}

func (s *session) openStream(ctx context.Context) (*stream, error) {
	str, err := s.conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, s.convert(err)
	}
	s.meter.Opened()
	st := &stream{session: s, str: str, head: s.prefix}
	st.headRead.Store(true)
	st.reader.Begin(s.meter, str)
	return st, nil
}

// Serve hands over the streams that the remote opens until the session ends.
func (s *session) Serve(accept func(host.MuxedStream)) error {
	for {
		st, err := s.acceptStream(context.Background())
		if err != nil {
			s.meter.End()
			return err
		}
		accept(st)
	}
}

func (s *session) acceptStream(ctx context.Context) (*stream, error) {
	str, err := s.conn.AcceptStream(ctx)
	if err != nil {
		return nil, s.convert(err)
	}
	s.meter.Opened()
	st := &stream{session: s, str: str}
	st.headSent.Store(true)
	st.reader.Begin(s.meter, str)
	return st, nil
}

// CloseWithCode ends the session, and gives the remote a moment to learn why.
func (s *session) CloseWithCode(code uint32) error {
	if s.end(&SessionError{Code: code, Reason: "closed"}) {
		// A remote that has withheld credit is told nothing.
		capsule := quicvarint.Append(quicvarint.Append(nil, closeSession), 4)
		if s.connect.TryWriteAll(binary.BigEndian.AppendUint32(capsule, code)) == nil {
			s.connect.Close()
			timer := time.NewTimer(farewell)
			defer timer.Stop()
			select {
			case <-s.done:
			case <-s.conn.Context().Done():
			case <-timer.C:
			}
		}
	}
	return s.hangUp()
}

// NumStreams tells how many streams are open.
func (s *session) NumStreams() int {
	if s.conn.Context().Err() != nil {
		return 0
	}
	return s.meter.NumStreams()
}

// RTT is the smoothed round-trip time.
func (s *session) RTT() time.Duration { return s.conn.ConnectionStats().SmoothedRTT }

// SendDatagram sends p beside the streams.
func (s *session) SendDatagram(p []byte) error {
	err := s.connect.SendDatagram(p)
	if err != nil {
		err = s.prefer(s.convert(err))
	}
	return err
}

// ReceiveDatagram waits for a datagram.
func (s *session) ReceiveDatagram(ctx context.Context) ([]byte, error) {
	p, err := s.connect.ReceiveDatagram(ctx)
	s.meter.Datagram(len(p))
	if err != nil && ctx.Err() == nil {
		<-s.done // it fails when the request's stream ends; now the cause is known
		return nil, s.reason()
	}
	return p, err
}

// read reads what the remote says of the session, until it ends.
func (s *session) read() {
	err := s.readCapsules()
	s.end(err)
	close(s.done)
	s.hangUp()
}

// readCapsules returns the reason that the remote gives for the end.
func (s *session) readCapsules() error {
	capsules := http3.NewCapsuleParser(s.connect)
	for {
		kind, r, err := capsules.Next()
		if err == nil && kind == closeSession {
			var b [4 + maxCloseText]byte
			n, err := io.ReadFull(io.LimitReader(r, int64(len(b))), b[:])
			if n < 4 {
				return &SessionError{Remote: true, Reason: fmt.Sprintf("in the middle of the closing message: %v", err)}
			}
			reason := "closed"
			if n > 4 {
				reason = fmt.Sprintf("%.64q", b[4:n]) // a stranger's words
			}
			return &SessionError{Code: binary.BigEndian.Uint32(b[:]), Remote: true, Reason: reason}
		}
		if err == nil {
			err = r.Discard() // those of later drafts, and those for several sessions
		}
		if err == io.EOF {
			return &SessionError{Remote: true, Reason: "the request ended"}
		}
		if err != nil {
			return ended(err)
		}
	}
}

// end records why the session ended, and tells whether this was not known yet.
func (s *session) end(cause error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cause != nil {
		return false
	}
	s.cause = cause
	return true
}

func (s *session) reason() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cause
}

// hangUp ends the QUIC connection.
func (s *session) hangUp() error {
	return s.conn.CloseWithError(quicgo.ApplicationErrorCode(http3.ErrCodeNoError), "")
}

// convert words an error of QUIC as one of a session or a stream.
func (s *session) convert(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	if reset, ok := errors.AsType[*quicgo.StreamError](err); ok {
		if reset.ErrorCode != sessionGone {
			code, _ := fromWire(reset.ErrorCode)
			return &StreamError{Code: code, Remote: reset.Remote}
		}
		if cause := s.reason(); cause != nil {
			return cause
		}
		return &SessionError{Remote: reset.Remote, Reason: "it resets its streams"}
	}
	if !errors.Is(err, net.ErrClosed) {
		return err
	}
	if cause := s.reason(); cause != nil {
		return cause
	}
	return ended(err)
}

// ended words the end of a QUIC connection.
func ended(err error) error {
	if _, ok := errors.AsType[*SessionError](err); ok {
		return err
	}
	if closed, ok := errors.AsType[*quicgo.ApplicationError](err); ok {
		return &SessionError{Remote: closed.Remote, Reason: err.Error()} // its code is one of HTTP/3
	}
	if reset, ok := errors.AsType[*quicgo.StreamError](err); ok {
		return &SessionError{Remote: reset.Remote, Reason: "the request was reset"}
	}
	return &SessionError{Reason: err.Error()}
}

// toWire turns a code into one of HTTP/3: a range in which the codes that
// HTTP/3 reserves are left out.
func toWire(code uint32) quicgo.StreamErrorCode {
	return firstCode + quicgo.StreamErrorCode(code) + quicgo.StreamErrorCode(code/0x1e)
}

// fromWire is the reverse; it is false for codes that are none of WebTransport.
func fromWire(code quicgo.StreamErrorCode) (uint32, bool) {
	if code < firstCode || code > lastCode || (code-0x21)%0x1f == 0 {
		return 0, false
	}
	n := code - firstCode
	return uint32(n - n/0x1f), true
}
