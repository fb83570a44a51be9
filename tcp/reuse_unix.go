//go:build unix && !solaris && !aix

package tcp

import (
	"syscall"

	"golang.org/x/sys/unix"
)

const canReusePort = true

// reusePort lets a socket share its port with others of this process.
func reusePort(_, _ string, raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		if failed == nil {
			failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		}
	})
	if err != nil {
		return err
	}
	return failed
}
