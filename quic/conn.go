package quic

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	quicgo "github.com/quic-go/quic-go"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
)

// conn is an authenticated connection. It implements host.MuxedConn and host.Datagrams.
type conn struct {
	qc    *quicgo.Conn
	meter *Meter // counts the streams that are neither closed nor reset by us
}

func (c *conn) OpenStream(ctx context.Context) (host.MuxedStream, error) {
	qs, err := c.qc.OpenStream()
	if err != nil {
		// The remote allows no more for now, or the connection has ended.
		if qs, err = c.qc.OpenStreamSync(ctx); err != nil {
			return nil, fmt.Errorf("quic: opening a stream: %w", why(err))
		}
	}
	return c.stream(qs), nil
}

func (c *conn) Serve(accept func(host.MuxedStream)) error {
	for {
		qs, err := c.qc.AcceptStream(context.Background())
		if err != nil {
			c.meter.End()
			return why(err)
		}
		accept(c.stream(qs))
	}
}

func (c *conn) stream(qs *quicgo.Stream) *stream {
	c.meter.Opened()
	s := &stream{qs: qs, conn: c}
	s.reader.Begin(c.meter, qs)
	return s
}

func (c *conn) CloseWithCode(code uint32) error {
	closeConn(c.qc, code)
	return nil
}

func (c *conn) NumStreams() int {
	if c.qc.Context().Err() != nil {
		return 0
	}
	return c.meter.NumStreams()
}

func (c *conn) RTT() time.Duration { return c.qc.ConnectionStats().LatestRTT }

func (c *conn) SendDatagram(p []byte) error {
	err := c.qc.SendDatagram(p)
	var large *quicgo.DatagramTooLargeError
	if errors.As(err, &large) {
		return fmt.Errorf("quic: a datagram of %d bytes does not fit into a packet on this path: %d do", len(p), large.MaxDatagramPayloadSize)
	}
	return why(err)
}

func (c *conn) ReceiveDatagram(ctx context.Context) ([]byte, error) {
	p, err := c.qc.ReceiveDatagram(ctx)
	c.meter.Datagram(len(p))
	return p, why(err)
}

// A stream implements host.MuxedStream.
type stream struct {
	qs     *quicgo.Stream
	conn   *conn
	reader Reader

	over                    atomic.Bool // closed or reset by us
	closedRead, closedWrite atomic.Bool // by us, without a reset
}

func (s *stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil // quic-go would wait
	}
	n, err := s.reader.Read(p)
	switch {
	case err == nil:
	case s.closedRead.Load() && (err == io.EOF || isLocalCancel(err)): // the end can come from how the remote gave in
		err = errReadClosed
	case err != io.EOF:
		err = why(err)
	}
	return n, err
}

func (s *stream) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := s.qs.Write(p)
	if err != nil {
		if s.closedWrite.Load() && errors.Is(err, os.ErrDeadlineExceeded) {
			err = errWriteClosed
		} else {
			err = why(err)
		}
	}
	return n, err
}

func (s *stream) CloseRead() error {
	s.closedRead.Store(true)
	s.qs.CancelRead(quicgo.StreamErrorCode(host.CodeNone))
	s.reader.Leave()
	return nil
}

func (s *stream) CloseWrite() error {
	s.closedWrite.Store(true)
	s.qs.SetWriteDeadline(time.Unix(1, 0)) // ends a Write, which Close does not
	s.qs.Close()                           // after a reset there is nothing left to end
	return nil
}

func (s *stream) Close() error {
	s.leave()
	s.CloseWrite()
	return s.CloseRead()
}

func (s *stream) Reset(code uint32) error {
	s.leave()
	s.qs.CancelRead(quicgo.StreamErrorCode(code))
	s.reader.Leave()
	s.qs.CancelWrite(quicgo.StreamErrorCode(code))
	return nil
}

func (s *stream) leave() {
	if s.over.CompareAndSwap(false, true) {
		s.conn.meter.Left()
	}
}

func (s *stream) SetDeadline(t time.Time) error      { return s.qs.SetDeadline(t) }
func (s *stream) SetReadDeadline(t time.Time) error  { return s.qs.SetReadDeadline(t) }
func (s *stream) SetWriteDeadline(t time.Time) error { return s.qs.SetWriteDeadline(t) }

func fromNet(a net.Addr) multiaddr.Addr {
	ap := a.(*net.UDPAddr).AddrPort()
	return quicAddr(netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()))
}
