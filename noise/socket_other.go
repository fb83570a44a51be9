//go:build !unix

package noise

import "net"

// attach does nothing: only Unix systems say that a socket is readable.
func (in *inbox) attach(net.Conn, *net.TCPConn) {}
