package perf

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/peer"
)

const (
	// maxStreams is how many streams are served at a time; each takes a buffer of
	// 64 KiB, so all take 4 MiB.
	maxStreams = 64
	// maxStreamsPerPeer leaves room for others.
	maxStreamsPerPeer = 16
)

// A Server serves measurements.
type Server struct {
	mu      sync.Mutex
	streams map[peer.ID]int
	active  int

	served, refused, received, sent atomic.Uint64
}

// Counts is what a Server has done since its start.
type Counts struct {
	Active   int    // streams that are served now
	Served   uint64 // streams that were served to the end, or not
	Refused  uint64 // streams that were too many
	Received uint64 // bytes, without the headers
	Sent     uint64 // bytes
}

// Serve lets every peer of h measure, until h is closed.
func Serve(h *host.Host) *Server {
	srv := &Server{streams: make(map[peer.ID]int)}
	h.Handle(ProtocolID, srv.handle)
	return srv
}

// Counts tells what the server has done.
func (srv *Server) Counts() Counts {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	return Counts{
		Active: srv.active, Served: srv.served.Load(), Refused: srv.refused.Load(),
		Received: srv.received.Load(), Sent: srv.sent.Load(),
	}
}

func (srv *Server) handle(_ context.Context, s *host.Stream) error {
	p := s.Conn().RemotePeer()
	if !srv.enter(p) {
		srv.refused.Add(1)
		return fmt.Errorf("perf: more than %d streams, or %d of one peer: %w", maxStreams, maxStreamsPerPeer, &host.StreamError{Code: host.CodeResourceLimit})
	}
	defer srv.leave(p)
	if err := srv.serve(s); err != nil {
		return fmt.Errorf("perf: %w", err)
	}
	return nil
}

func (srv *Server) enter(p peer.ID) bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.active >= maxStreams || srv.streams[p] >= maxStreamsPerPeer {
		return false
	}
	srv.active++
	srv.streams[p]++
	return true
}

func (srv *Server) leave(p peer.ID) {
	srv.served.Add(1)
	srv.mu.Lock()
	defer srv.mu.Unlock()
	srv.active--
	if srv.streams[p]--; srv.streams[p] == 0 {
		delete(srv.streams, p)
	}
}

// serve reads everything before it sends, as the specification demands.
func (srv *Server) serve(s *host.Stream) error {
	t := transfer{stream: s}
	t.extend()
	var header [8]byte
	if _, err := io.ReadFull(s, header[:]); err != nil {
		return fmt.Errorf("reading how much is asked for: %w", noEOF(err))
	}
	buf := make([]byte, chunk)
	for {
		n, err := t.read(buf)
		srv.received.Add(uint64(n))
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	return t.send(binary.BigEndian.Uint64(header[:]), &srv.sent)
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
