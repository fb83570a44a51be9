package udp

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/ipv4"
)

const (
	// handedQueue is how many packets that came in on another socket wait to be read.
	// At 100 MB/s it fills in 7 ms; later ones are lost, as on any full link.
	handedQueue = 512

	// handedOOB is the room for what the kernel tells about such a packet, in bytes, and
	// handedSize for the packet itself: longer ones than quic-go takes.
	handedOOB  = 128
	handedSize = otherSize - handedOOB
)

// A handed is a packet that came in on another socket.
type handed struct {
	buf   *[otherSize]byte // the packet, and from handedSize on what is told about it
	n, nn uint16
	from  *net.UDPAddr
}

// An inbox is where other sockets put packets that are for this one's connections.
type inbox struct {
	waiting atomic.Int32 // packets in the ring

	// guarded by mu
	mu       sync.Mutex
	ring     []handed // nil until it is needed
	head     int
	deadline time.Time // of reads, as quic-go wants it
	waking   bool      // the socket has a deadline that has passed, which ends the read that waits
	shut     bool      // nobody reads any more

	turn int // batches of handed packets since the last of our own; the reader's
}

// Forward has packets with a short header that arrive here and are for another socket
// handed to that: home tells whose a packet is. If it is not ours, and to is nil, it is
// dropped. home must be quick and not block; Forward must be called before the first read.
func (c *QUICConn) Forward(home func(packet []byte) (to *QUICConn, ours bool)) { c.home = home }

// forward tells whether the packet was not for this side.
func (c *QUICConn) forward(p []byte, from *net.UDPAddr, about []byte) bool {
	if c.home == nil || p[0]&longHeader != 0 {
		return false
	}
	to, ours := c.home(p)
	if ours {
		return false
	}
	if to != nil {
		to.hand(p, from, about)
	}
	return true
}

// hand queues a packet for c's reader and wakes that, or drops the packet.
func (c *QUICConn) hand(p []byte, from *net.UDPAddr, about []byte) {
	if len(p) > handedSize || len(about) > handedOOB {
		return
	}
	in := &c.inbox
	in.mu.Lock()
	defer in.mu.Unlock()
	n := int(in.waiting.Load())
	if in.shut || n == handedQueue {
		return
	}
	if in.ring == nil {
		in.ring = make([]handed, handedQueue)
	}
	buf := buffers.Get().(*[otherSize]byte)
	in.ring[(in.head+n)%handedQueue] = handed{buf, uint16(copy(buf[:handedSize], p)), uint16(copy(buf[handedSize:], about)), from}
	in.waiting.Store(int32(n + 1))
	if !in.waking {
		in.waking = true
		c.UDPConn.SetReadDeadline(time.Unix(1, 0))
	}
}

// collect gives packets that others have put here.
func (c *QUICConn) collect(ms []ipv4.Message) (int, error) {
	in := &c.inbox
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.deadline.IsZero() && !time.Now().Before(in.deadline) {
		return 0, os.ErrDeadlineExceeded // which the socket may never say, if more and more comes
	}
	waiting := int(in.waiting.Load())
	n := min(len(ms), waiting)
	for i := range n {
		h := &in.ring[in.head]
		m := &ms[i]
		m.N = copy(m.Buffers[0], h.buf[:h.n])
		m.NN = copy(m.OOB, h.buf[handedSize:][:h.nn])
		m.Addr, m.Flags = h.from, 0
		buffers.Put(h.buf)
		*h = handed{}
		in.head = (in.head + 1) % handedQueue
	}
	in.waiting.Store(int32(waiting - n))
	return n, nil
}

// woken tells whether a read ended because there is something in the inbox, or may have.
func (c *QUICConn) woken(err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	c.inbox.mu.Lock()
	defer c.inbox.mu.Unlock()
	return c.inbox.waking && c.rearm() == nil
}

// rearm gives the socket the deadline that quic-go wants. inbox.mu is held.
func (c *QUICConn) rearm() error {
	c.inbox.waking = false
	if c.inbox.shut {
		return net.ErrClosed
	}
	return c.UDPConn.SetReadDeadline(c.inbox.deadline)
}

// close ends the handing over.
func (in *inbox) close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.shut = true
	in.waiting.Store(0)
	for _, h := range in.ring {
		if h.buf != nil {
			buffers.Put(h.buf)
		}
	}
	in.ring = nil
}

// ReadBatch reads packets, at least one, and waits for the first. Those that arrive
// here and those that others hand over take turns.
func (c *QUICConn) ReadBatch(ms []ipv4.Message, _ int) (int, error) {
	for {
		wait := true
		if c.inbox.waiting.Load() > 0 {
			if c.inbox.turn++; c.inbox.turn <= handedTurns {
				return c.collect(ms)
			}
			c.inbox.turn, wait = 0, false
		}
		n, err := c.readBatch(ms, wait)
		if n > 0 || err != nil && !c.woken(err) {
			return n, err
		}
	}
}

// ReadMsgUDP reads one packet.
func (c *QUICConn) ReadMsgUDP(b, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error) {
	m := &c.single[0]
	m.Buffers, m.OOB = append(m.Buffers[:0], b), oob
	if _, err := c.ReadBatch(c.single[:], 0); err != nil {
		return 0, 0, 0, nil, err
	}
	return m.N, m.NN, 0, m.Addr.(*net.UDPAddr), nil
}

// ReadFrom reads one packet.
func (c *QUICConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, _, _, addr, err := c.ReadMsgUDP(b, nil)
	if err != nil {
		return 0, nil, err
	}
	return n, addr, nil
}
