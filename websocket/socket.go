//go:build !js

package websocket

import (
	"net"
	"sync"
	"syscall"
)

const (
	// blockLen is how much one system call reads at most into memory of ours, in
	// bytes: a frame of most senders with its header. The memory is shared, and held
	// only while there is something in it.
	blockLen = 64<<10 + 64

	// directLen is from where a read is worth a system call of its own, and a write
	// is not copied behind another, in bytes.
	directLen = 32 << 10
)

var blocks = sync.Pool{New: func() any { return new([blockLen]byte) }}

// corks holds the memory of writes. Twice blockLen is eight records of TLS.
var corks = sync.Pool{New: func() any { b := make([]byte, 0, 2*blockLen); return &b }}

// A socket is a TCP connection as WebSocket and TLS should see it: they read a
// frame or a record in many small pieces, and write it in several.
type socket struct {
	net.Conn

	// owned by the reader
	raw   syscall.RawConn // nil: block is not in use
	block *[blockLen]byte // nil: empty
	r, w  int             // block[r:w] was received and not yet returned
	try   func(fd uintptr) bool
	err   error // of try

	// guarded by mu
	mu   sync.Mutex
	held *[]byte // nil: not corked
}

func newSocket(c net.Conn) *socket {
	s := &socket{Conn: c}
	s.attach()
	return s
}

func (s *socket) Read(p []byte) (int, error) {
	if s.r == s.w {
		if s.raw == nil || len(p) >= directLen || len(p) == 0 {
			return s.Conn.Read(p)
		}
		s.err = nil
		if err := s.raw.Read(s.try); err != nil {
			return 0, err
		}
		if s.err != nil {
			return 0, s.err
		}
	}
	n := copy(p, s.block[s.r:s.w])
	if s.r += n; s.r == s.w {
		s.release()
	}
	return n, nil
}

func (s *socket) release() {
	if s.block != nil {
		blocks.Put(s.block)
		s.block, s.r, s.w = nil, 0, 0
	}
}

// cork holds back what is written until uncork, unless there is much of it.
func (s *socket) cork() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = corks.Get().(*[]byte)
}

func (s *socket) uncork() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.flush(nil)
	corks.Put(s.held)
	s.held = nil
	return err
}

func (s *socket) Write(p []byte) (int, error) {
	s.mu.Lock()
	held := s.held
	if held == nil {
		s.mu.Unlock()
		return s.Conn.Write(p)
	}
	defer s.mu.Unlock()
	if len(p) < directLen && len(*held)+len(p) <= cap(*held) {
		*held = append(*held, p...)
		return len(p), nil
	}
	if err := s.flush(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// flush writes what is held, and p, with one system call. mu is held.
func (s *socket) flush(p []byte) (err error) {
	held := *s.held
	*s.held = held[:0]
	switch {
	case len(held) == 0 && len(p) == 0:
	case len(p) == 0:
		_, err = s.Conn.Write(held)
	case len(held) == 0:
		_, err = s.Conn.Write(p)
	default:
		parts := net.Buffers{held, p}
		_, err = parts.WriteTo(s.Conn)
	}
	return err
}
