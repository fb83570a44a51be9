//go:build !unix || solaris || aix

package tcp

import "syscall"

const canReusePort = false

// reusePort does nothing: this system does not let sockets share a port.
func reusePort(_, _ string, _ syscall.RawConn) error { return nil }
