//go:build unix

package noise

import (
	"io"
	"net"
	"os"
	"syscall"
)

// attach lets the inbox read from the TCP socket itself, if there is one.
func (in *inbox) attach(conn net.Conn, tcp *net.TCPConn) {
	if tcp == nil {
		tcp, _ = conn.(*net.TCPConn)
	}
	if tcp == nil {
		return
	}
	if socket, err := tcp.SyscallConn(); err == nil {
		in.socket, in.try = socket, in.tryRead
	}
}

// tryRead reads what the socket has. It returns false, and is called again when
// the socket has become readable, if that is nothing: for the time between,
// only as much memory is kept as is in use.
func (in *inbox) tryRead(fd uintptr) bool {
	if in.r == in.w || in.w == len(in.buf) {
		in.move(recordsPerBlock * fullRecord)
	}
	for {
		n, err := syscall.Read(int(fd), in.buf[in.w:])
		switch {
		case n > 0:
			in.w += n
			return true
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			in.move(min(2*(in.w-in.r), fullRecord))
			return false
		case err != nil:
			in.err = os.NewSyscallError("read", err)
			in.move(in.w - in.r) // nothing more comes: the block is for others
			return true
		default:
			in.err = io.EOF
			in.move(in.w - in.r)
			return true
		}
	}
}
