//go:build !linux

package udp

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/net/ipv4"
)

// A reader takes packets from a socket, one at a time. One goroutine uses it at a time.
type reader struct {
	conn  *net.UDPConn
	other atomic.Pointer[otherConn] // gets what is not QUIC; nil: nobody does
}

func newReader(conn *net.UDPConn) (*reader, error) { return &reader{conn: conn}, nil }

func (r *reader) close() {}

// quic waits for the next packet that is QUIC.
func (r *reader) quic(b, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error) {
	for {
		n, oobn, flags, addr, err = r.conn.ReadMsgUDP(b, oob)
		if err != nil || n > 0 && b[0] >= firstQUIC {
			return n, oobn, flags, addr, err
		}
		if other := r.other.Load(); other != nil && n > 0 {
			other.deliver(b[:n], addr)
		}
	}
}

// pump hands out what is not QUIC until the socket ends, and drops the rest.
func (r *reader) pump() {
	b := make([]byte, otherSize)
	for {
		if _, _, _, _, err := r.quic(b, nil); err != nil {
			return
		}
	}
}

const (
	// handedTurns is how many packets that others handed over are read until there is a
	// look at the socket, for glance: there is no read that does not wait at all.
	handedTurns = 64
	glance      = time.Millisecond
)

// readBatch reads a packet that has arrived here.
func (c *QUICConn) readBatch(ms []ipv4.Message, wait bool) (int, error) {
	if !wait {
		c.UDPConn.SetReadDeadline(time.Now().Add(glance))
	}
	n, oobn, flags, addr, err := c.socket.reader.quic(ms[0].Buffers[0], ms[0].OOB)
	if !wait {
		c.inbox.mu.Lock()
		failed := c.rearm()
		c.inbox.mu.Unlock()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, failed
		}
	}
	if err != nil || c.forward(ms[0].Buffers[0][:n], addr, ms[0].OOB[:oobn]) {
		return 0, err
	}
	ms[0].N, ms[0].NN, ms[0].Flags, ms[0].Addr = n, oobn, flags, addr
	return 1, nil
}
