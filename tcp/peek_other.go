//go:build !unix || solaris || aix

package tcp

import (
	"errors"
	"net"
	"os"
)

// peek would have to wait: there is no way to look at bytes without taking them.
func peek(*net.TCPConn) (kind Kind, sure bool, err error) { return Multistream, false, nil }

// peekWait reads until it is clear what conn is, or the deadline for reading has
// passed: then it is Multistream. The connection returned begins with what was read.
func peekWait(conn *net.TCPConn) (looked net.Conn, kind Kind, err error) {
	c := &peeked{TCPConn: conn}
	for {
		n, err := conn.Read(c.buf[c.have:])
		c.have += n
		kind, sure := classify(c.buf[:c.have])
		if sure {
			return c, kind, nil
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return c, Multistream, nil
		}
		if err != nil {
			return nil, 0, err
		}
	}
}

// peeked is a connection whose first bytes were read.
type peeked struct {
	*net.TCPConn
	buf         [sniffLen]byte
	taken, have int // of buf
}

func (c *peeked) Read(p []byte) (int, error) {
	if c.taken < c.have {
		n := copy(p, c.buf[c.taken:c.have])
		c.taken += n
		return n, nil
	}
	return c.TCPConn.Read(p)
}
