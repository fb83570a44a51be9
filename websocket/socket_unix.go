//go:build unix

package websocket

import (
	"io"
	"net"
	"os"
	"syscall"
)

// attach lets Read use the socket itself, which can be asked whether there is
// something before there is memory for it.
func (s *socket) attach() {
	if c, ok := s.Conn.(*net.TCPConn); ok {
		if raw, err := c.SyscallConn(); err == nil {
			s.raw, s.try = raw, s.tryRead
		}
	}
}

// tryRead reads what there is. It returns false, and is called again when the
// socket has become readable, if that is nothing; no memory is held meanwhile.
func (s *socket) tryRead(fd uintptr) bool {
	s.block = blocks.Get().(*[blockLen]byte)
	for {
		n, err := syscall.Read(int(fd), s.block[:])
		switch {
		case n > 0:
			s.r, s.w = 0, n
			return true
		case err == syscall.EINTR:
			continue
		case err == nil:
			s.err = io.EOF
		case err != syscall.EAGAIN:
			s.err = os.NewSyscallError("read", err)
		}
		s.release()
		return s.err != nil
	}
}
