package udp

import (
	"encoding/binary"
	"net"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

const (
	// batch is how many messages one system call reads at most. quic-go asks for as
	// many packets at a time.
	batch = 8

	// messageSize is the room for one message, in bytes. The kernel puts together no
	// more than the largest UDP packet.
	messageSize = 64 << 10

	// oobSize is the room for what the kernel tells about a message, in bytes. It
	// tells at most the segment size (24), the traffic class (24) and the local
	// address (40).
	oobSize = 128

	// When the others have had the processor for so long, everybody's packets have waited
	// meanwhile, and so many batches are read before they have their next turn. Else whoever
	// keeps one of them busy gets as much of the processor as all whose packets wait here.
	longTurn      = time.Millisecond
	behindBatches = 32

	// readTries is how often a read may fail before the socket is given up.
	readTries = 100

	// maxNames bounds the addresses that are kept ready, because making one from what
	// the kernel gives takes two allocations: 64 KiB. When there are more, all are
	// forgotten.
	maxNames = 512
)

// message is struct mmsghdr of recvmmsg(2).
type message struct {
	hdr unix.Msghdr
	len uint32
}

// A reader takes packets from a socket. One goroutine uses it at a time.
type reader struct {
	conn  *net.UDPConn
	raw   syscall.RawConn
	other atomic.Pointer[otherConn] // gets what is not QUIC; nil: nobody does

	// what recvmmsg fills; the pointers between them never change
	messages [batch]message
	vectors  [batch]unix.Iovec
	names    [batch]unix.RawSockaddrInet6
	oob      [batch][oobSize]byte
	room     *room
	receive  func(fd uintptr) bool // a field, so that no call allocates it
	look     func(fd uintptr)      // the same, for one that does not wait
	received int
	behind   int // batches to read before the others have their turn
	failed   error

	// what was read and is not yet handed out
	next  int    // the message after the current one
	rest  []byte // of the current message
	size  int    // of its segments; the last may be shorter
	from  *net.UDPAddr
	about []byte // its control messages, but for the segment size

	addrs map[unix.RawSockaddrInet6]*net.UDPAddr
}

// A room is where packets are read to. A host that only dials opens and closes
// sockets all the time.
type room [batch][messageSize]byte

var rooms = sync.Pool{New: func() any { return new(room) }}

// close gives the room back. Nobody reads any more.
func (r *reader) close() {
	rooms.Put(r.room)
	r.room, r.rest, r.next, r.received = nil, nil, 0, 0
}

func newReader(conn *net.UDPConn) (*reader, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	// A kernel before 5.0 does not know this, and gives every packet by itself.
	raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, 1) })
	r := &reader{
		conn:  conn,
		raw:   raw,
		room:  rooms.Get().(*room),
		addrs: make(map[unix.RawSockaddrInet6]*net.UDPAddr),
	}
	for i := range r.messages {
		r.vectors[i].Base = &r.room[i][0]
		r.vectors[i].SetLen(messageSize)
		h := &r.messages[i].hdr
		h.Name = (*byte)(unsafe.Pointer(&r.names[i]))
		h.Iov = &r.vectors[i]
		h.SetIovlen(1)
		h.Control = &r.oob[i][0]
	}
	r.receive = r.recvmmsg
	r.look = func(fd uintptr) { r.recvmmsg(fd) }
	return r, nil
}

// recvmmsg reads what is there and tells whether that was anything.
func (r *reader) recvmmsg(fd uintptr) bool {
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.messages[0])), batch, 0, 0, 0)
		switch errno {
		case 0:
			r.received, r.failed = int(n), nil
			return true
		case unix.EINTR:
		case unix.EAGAIN:
			return false
		default:
			r.received, r.failed = 0, os.NewSyscallError("recvmmsg", errno)
			return true
		}
	}
}

// packet returns the next packet. It waits for one if wait is set, and otherwise
// returns nil when none is left of those read. What it returns is valid until the next call.
func (r *reader) packet(wait bool) ([]byte, error) {
	for len(r.rest) == 0 {
		if r.next == r.received {
			if !wait {
				return nil, nil
			}
			if err := r.read(); err != nil {
				return nil, err
			}
		}
		r.open(r.next)
		r.next++
	}
	size := min(r.size, len(r.rest))
	p := r.rest[:size]
	r.rest = r.rest[size:]
	return p, nil
}

func (r *reader) read() error {
	switch {
	case r.received <= 1:
	case r.behind > 0:
		r.behind--
	default:
		// Those for whom the last batch was run first, while it is near. With two processes
		// on two cores, a bulk transfer is a fifth faster for it and takes a fifth less CPU time.
		start := time.Now()
		runtime.Gosched()
		if time.Since(start) > longTurn {
			r.behind = behindBatches
		}
	}
	r.received = 0
	for tries := 0; r.received == 0; tries++ {
		r.prepare()
		if err := r.raw.Read(r.receive); err != nil {
			return &net.OpError{Op: "read", Net: "udp", Source: r.conn.LocalAddr(), Err: err}
		}
		// An error can be about an earlier packet of ours and say nothing of the next
		// read. quic-go would take what it has read last for packets.
		if r.failed != nil && tries == readTries {
			return &net.OpError{Op: "read", Net: "udp", Source: r.conn.LocalAddr(), Err: r.failed}
		}
	}
	return nil
}

// prepare makes room for what the kernel tells. Nothing is left of what was read.
func (r *reader) prepare() {
	r.next, r.received = 0, 0
	for i := range r.messages {
		h := &r.messages[i].hdr
		r.names[i] = unix.RawSockaddrInet6{} // an IPv4 address is shorter, and they are compared
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(oobSize)
	}
}

// open makes message i the current one.
func (r *reader) open(i int) {
	m := &r.messages[i]
	r.rest = r.room[i][:m.len]
	r.size = len(r.rest)
	r.about = r.oob[i][:m.hdr.Controllen]
	r.from = r.addr(&r.names[i])
	// The segment size comes first, if the message has segments at all.
	if len(r.about) < unix.SizeofCmsghdr {
		return
	}
	h, data, behind, err := unix.ParseOneSocketControlMessage(r.about)
	if err != nil || h.Level != unix.IPPROTO_UDP || h.Type != unix.UDP_GRO {
		return
	}
	if size := cmsgInt(data); size > 0 {
		r.size = size
	}
	r.about = behind
}

// cmsgInt reads a C int; the kernel has given 16 bits in some versions.
func cmsgInt(b []byte) int {
	switch {
	case len(b) >= 4:
		return int(int32(binary.NativeEndian.Uint32(b)))
	case len(b) >= 2:
		return int(binary.NativeEndian.Uint16(b))
	}
	return 0
}

// addr gives the address that name stands for. Packets of one sender share it;
// nobody changes it.
func (r *reader) addr(name *unix.RawSockaddrInet6) *net.UDPAddr {
	if addr := r.addrs[*name]; addr != nil {
		return addr
	}
	addr := new(net.UDPAddr)
	switch name.Family {
	case unix.AF_INET:
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		addr.IP = append(addr.IP, sa.Addr[:]...)
		addr.Port = port(sa.Port)
	case unix.AF_INET6:
		addr.IP = append(addr.IP, name.Addr[:]...)
		addr.Port = port(name.Port)
		if name.Scope_id != 0 {
			addr.Zone = zone(int(name.Scope_id))
		}
	}
	if len(r.addrs) >= maxNames {
		clear(r.addrs)
	}
	r.addrs[*name] = addr
	return addr
}

// port reads one in network byte order.
func port(p uint16) int {
	return int(binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&p))[:]))
}

func zone(index int) string {
	if ifi, err := net.InterfaceByIndex(index); err == nil {
		return ifi.Name
	}
	return strconv.Itoa(index)
}

// quic returns the next packet that is QUIC. See packet.
func (r *reader) quic(wait bool) ([]byte, error) {
	for {
		p, err := r.packet(wait)
		if err != nil || p == nil || p[0] >= firstQUIC {
			return p, err
		}
		if other := r.other.Load(); other != nil {
			other.deliver(p, r.from)
		}
	}
}

// pump hands out what is not QUIC until the socket ends, and drops the rest.
func (r *reader) pump() {
	for {
		if _, err := r.quic(true); err != nil {
			return
		}
	}
}

// glance reads what has arrived, if nothing is left of what was read, and does not wait.
func (r *reader) glance() {
	if len(r.rest) > 0 || r.next < r.received {
		return
	}
	r.prepare()
	r.raw.Control(r.look)
}

// handedTurns is how many batches of packets that others handed over are read until
// there is a look at the socket.
const handedTurns = 1

// readBatch reads packets that have arrived here: at least one if wait is set.
func (c *QUICConn) readBatch(ms []ipv4.Message, wait bool) (int, error) {
	r := c.socket.reader
	if !wait {
		r.glance()
	}
	for i := 0; i < len(ms); {
		p, err := r.quic(wait && i == 0)
		if p == nil || err != nil {
			return i, err
		}
		if c.forward(p, r.from, r.about) {
			continue
		}
		m := &ms[i]
		m.N = copy(m.Buffers[0], p) // a longer one is longer than quic-go allows its peers
		m.NN = copy(m.OOB, r.about)
		m.Addr = r.from
		m.Flags = 0
		i++
	}
	return len(ms), nil
}
