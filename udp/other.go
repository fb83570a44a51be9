package udp

import (
	"net"
	"os"
	"sync"
	"time"
)

const (
	// otherQueue is how many packets that are not QUIC wait to be read. A browser
	// that sends 1.2 KiB packets at 100 MB/s fills it in 12 ms; later ones are lost, as
	// on any full link.
	otherQueue = 1024

	// otherSize is the longest such packet, in bytes: a frame of Ethernet fits, and
	// nobody sends longer ones. At most 2 MiB wait in one socket.
	otherSize = 2048
)

// A packet is one that waits in a queue.
type packet struct {
	buf  *[otherSize]byte
	n    int
	addr *net.UDPAddr
}

var buffers = sync.Pool{New: func() any { return new([otherSize]byte) }}

// An otherConn is the side of a socket that is not QUIC.
type otherConn struct {
	socket *socket
	queue  chan packet
	done   chan struct{}
	once   sync.Once

	mu       sync.Mutex
	deadline *time.Timer
	expired  chan struct{} // closed when the deadline has passed
}

func newOther(k *socket) *otherConn {
	return &otherConn{socket: k, queue: make(chan packet, otherQueue), done: make(chan struct{}), expired: make(chan struct{})}
}

// deliver queues a packet for ReadFrom, or drops it.
func (c *otherConn) deliver(p []byte, addr *net.UDPAddr) {
	if len(p) > otherSize || len(c.queue) == cap(c.queue) {
		return
	}
	buf := buffers.Get().(*[otherSize]byte)
	select {
	case c.queue <- packet{buf, copy(buf[:], p), addr}:
	default:
		buffers.Put(buf)
	}
}

func (c *otherConn) ReadFrom(p []byte) (int, net.Addr, error) {
	c.mu.Lock()
	expired := c.expired
	c.mu.Unlock()
	select {
	case <-c.done:
		return 0, nil, c.fail("read", net.ErrClosed)
	case <-expired:
		return 0, nil, c.fail("read", os.ErrDeadlineExceeded)
	default:
	}
	select {
	case k := <-c.queue:
		n := copy(p, k.buf[:k.n])
		buffers.Put(k.buf)
		return n, k.addr, nil
	case <-c.done:
		return 0, nil, c.fail("read", net.ErrClosed)
	case <-expired:
		return 0, nil, c.fail("read", os.ErrDeadlineExceeded)
	}
}

func (c *otherConn) WriteTo(p []byte, addr net.Addr) (int, error) {
	select {
	case <-c.done:
		return 0, c.fail("write", net.ErrClosed)
	default:
		return c.socket.conn.WriteTo(p, addr)
	}
}

func (c *otherConn) fail(op string, err error) error {
	return &net.OpError{Op: op, Net: "udp", Source: c.LocalAddr(), Err: err}
}

func (c *otherConn) LocalAddr() net.Addr { return c.socket.conn.LocalAddr() }

func (c *otherConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

func (c *otherConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.deadline != nil && !c.deadline.Stop() {
		<-c.expired // the timer is about to close it
	}
	c.deadline = nil
	select {
	case <-c.expired:
		c.expired = make(chan struct{})
	default:
	}
	if t.IsZero() {
		return nil
	}
	expired := c.expired
	if wait := time.Until(t); wait > 0 {
		c.deadline = time.AfterFunc(wait, func() { close(expired) })
	} else {
		close(expired)
	}
	return nil
}

func (c *otherConn) SetWriteDeadline(time.Time) error { return nil }

func (c *otherConn) Close() error {
	var err error
	c.once.Do(func() {
		close(c.done)
		c.SetReadDeadline(time.Time{})
		k := c.socket
		k.owner.mu.Lock()
		defer k.owner.mu.Unlock()
		k.other = nil
		k.reader.other.Store(nil)
		err = k.left()
	})
	return err
}
