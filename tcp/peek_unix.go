//go:build unix && !solaris && !aix

package tcp

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
)

// peek looks at what conn has received, which can be nothing yet.
func peek(conn *net.TCPConn) (kind Kind, sure bool, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, false, err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { kind, sure, failed = peekSocket(fd) })
	return kind, sure, errors.Join(err, failed)
}

// peekWait looks until it is clear what conn is, or the deadline for reading has
// passed: then it is Multistream.
func peekWait(conn *net.TCPConn) (looked net.Conn, kind Kind, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, 0, err
	}
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		var sure bool
		kind, sure, failed = peekSocket(fd)
		return sure || failed != nil
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return conn, Multistream, nil
	}
	return conn, kind, errors.Join(err, failed)
}

func peekSocket(fd uintptr) (Kind, bool, error) {
	var b [sniffLen]byte
	for {
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			return Multistream, false, nil
		case err != nil:
			return 0, false, os.NewSyscallError("recvfrom", err)
		case n == 0:
			return 0, false, io.EOF
		}
		kind, sure := classify(b[:n])
		return kind, sure, nil
	}
}
