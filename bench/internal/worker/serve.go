package worker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// The protocols. The first is libp2p's own: https://github.com/libp2p/specs/blob/master/perf/perf.md
const (
	perfProtocol  = "/perf/1.0.0"
	echoProtocol  = "/kith-bench/echo/1"  // a byte comes back; ends when the client does
	sinkProtocol  = "/kith-bench/sink/1"  // reads to the end, then tells how much
	stallProtocol = "/kith-bench/stall/1" // reads nothing
)

// chunk is how much is read or written at once where nothing else is said, in bytes.
const chunk = 64 << 10

// zeros is what is sent. Nobody writes to it.
var zeros [chunk]byte

// handleAll makes node serve all that loads ask for.
func handleAll(node Node) {
	node.Handle(perfProtocol, servePerf)
	node.Handle(echoProtocol, serveEcho)
	node.Handle(sinkProtocol, serveSink)
	node.Handle(stallProtocol, func(Stream) error { select {} })
}

func servePerf(s Stream) error {
	var header [8]byte
	if _, err := io.ReadFull(s, header[:]); err != nil {
		return err
	}
	if _, err := discard(s); err != nil {
		return err
	}
	return send(s, binary.BigEndian.Uint64(header[:]), chunk)
}

// discard reads s to its end.
func discard(s Stream) (n uint64, err error) {
	buf := make([]byte, chunk)
	for {
		m, err := s.Read(buf)
		n += uint64(m)
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// send writes n zeros in pieces of size.
func send(s Stream, n uint64, size int) error {
	for n > 0 {
		part := zeros[:min(n, uint64(size))]
		if _, err := s.Write(part); err != nil {
			return err
		}
		n -= uint64(len(part))
	}
	return nil
}

// bytePool keeps our own buffers of one byte out of the allocations of a stream.
var bytePool = sync.Pool{New: func() any { return new([1]byte) }}

func serveEcho(s Stream) error {
	b := bytePool.Get().(*[1]byte)
	defer bytePool.Put(b)
	if _, err := io.ReadFull(s, b[:]); err != nil {
		return err
	}
	if _, err := s.Write(b[:]); err != nil {
		return err
	}
	return expectEOF(s, b)
}

func expectEOF(s Stream, b *[1]byte) error {
	switch n, err := s.Read(b[:]); {
	case n > 0:
		return errors.New("more than one byte came")
	case err != io.EOF:
		return fmt.Errorf("waiting for the end of a stream: %w", err)
	}
	return nil
}

func serveSink(s Stream) error {
	n, err := discard(s)
	if err != nil {
		return err
	}
	_, err = s.Write(binary.BigEndian.AppendUint64(nil, n))
	return err
}

// ask opens a stream, sends one byte and gets it back.
func ask(ctx context.Context, c Conn, b *[1]byte) (Stream, error) {
	s, err := c.Open(ctx, echoProtocol)
	if err != nil {
		return nil, err
	}
	if _, err := s.Write(b[:]); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(s, b[:]); err != nil {
		return nil, err
	}
	return s, nil
}

// echo is a whole operation on a stream: opened, a byte there and back, both ends closed.
func echo(ctx context.Context, c Conn, b *[1]byte) error {
	s, err := c.Open(ctx, echoProtocol)
	if err != nil {
		return err
	}
	if _, err := s.Write(b[:]); err != nil {
		return err
	}
	if err := s.CloseWrite(); err != nil {
		return err
	}
	if _, err := io.ReadFull(s, b[:]); err != nil {
		return err
	}
	if err := expectEOF(s, b); err != nil {
		return err
	}
	return s.Close()
}
