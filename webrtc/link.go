package webrtc

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of a link.
const (
	// maxArrived is how much waits to be decrypted, in bytes; more is lost, and sent
	// again. It is more than the window that remotes get.
	maxArrived = 2 << 20

	// maxArrivedEarly is the same during the handshake. The longest flight, with a
	// certificate chain, has 16 KiB.
	maxArrivedEarly = 64 << 10

	// maxLeaving is how much waits for the socket, in bytes, before who sends does: a
	// block has room for one packet more.
	maxLeaving = maxDatagram - 16<<10

	// smallRun is up to how many bytes that arrive together are copied, so that
	// they do not hold the whole buffer that they came in.
	smallRun = 4 << 10
)

// A block is what a socket is read into, and what packets that leave gather in.
type block [maxDatagram]byte

var blocks = sync.Pool{New: func() any { return new(block) }}

// A run is packets of the same size, the last of which may be shorter.
type run struct {
	b     []byte
	size  int
	block *block // that b is in, if it goes back to the pool
}

// A batch is how many bytes of packets, each of size bytes but perhaps the last,
// are sent at once.
type batch struct{ n, size int }

// takes tells whether a packet of n bytes fits behind the others.
func (b batch) takes(n int) bool {
	return n <= b.size && b.n%b.size == 0 && b.n+n <= maxBatch && b.n/b.size < maxSegments
}

// A link is one remote address on a socket, as DTLS sees it: a net.PacketConn.
// Packets that leave wait for a goroutine that sends what has gathered at once.
type link struct {
	socket *socket
	remote netip.AddrPort
	addr   *net.UDPAddr // the same

	secured atomic.Bool // the DTLS handshake is over
	proved  atomic.Bool // a ClientHello had a cookie
	noSRTP  atomic.Bool // a ServerHello does not speak of SRTP

	mu       sync.Mutex
	closed   bool
	expired  bool // the read deadline has passed
	arrived  []run
	bytes    int // of arrived
	readable sync.Cond
	block    *block // that leaving is in; nil: there is nothing
	leaving  []byte
	batches  []batch // what leaving consists of
	sending  bool
	writable sync.Cond
}

func newLink(s *socket, remote netip.AddrPort) *link {
	k := &link{socket: s, remote: remote, addr: net.UDPAddrFromAddrPort(remote)}
	k.readable.L, k.writable.L = &k.mu, &k.mu
	return k
}

// deliver takes what the socket has read into b: n bytes, in packets of a size. It
// tells whether it has kept b. STUN is not for it.
func (k *link) deliver(b *block, n, size int) (kept bool) {
	whole := true
	for p := b[:n]; len(p) > 0; p = p[min(size, len(p)):] {
		whole = whole && k.wants(p[:min(size, len(p))])
	}
	if whole {
		return k.keep(b, b[:n], size)
	}
	for p := b[:n]; len(p) > 0; p = p[min(size, len(p)):] {
		if q := p[:min(size, len(p))]; k.wants(q) {
			k.keep(nil, q, len(q))
		}
	}
	return false
}

// wants tells whether p is DTLS. Who is not on the path can send records that are
// not encrypted: once there are keys, one must not end the connection.
func (k *link) wants(p []byte) bool {
	if !isDTLS(p) {
		return false
	}
	if epoch := binary.BigEndian.Uint16(p[3:]); epoch != 0 {
		return true
	}
	switch p[0] {
	case recordHandshake:
		if !k.secured.Load() {
			k.look(p)
		}
		return true
	case recordChangeCipherSpec:
		return len(p) > recordHeaderLen && p[recordHeaderLen] == 1
	case recordAlert:
		return !k.secured.Load()
	}
	return false
}

// look notes what a message of the handshake says that pion does not tell.
func (k *link) look(p []byte) {
	if hasCookie(p) {
		k.proved.Store(true)
	}
	if lacksSRTP(p) {
		k.noSRTP.Store(true)
	}
}

func (k *link) keep(b *block, p []byte, size int) bool {
	r := run{p, size, b}
	if b == nil || len(p) <= smallRun {
		r = run{append([]byte(nil), p...), size, nil}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	most := maxArrived
	if !k.secured.Load() {
		most = maxArrivedEarly
	}
	if k.closed || k.bytes+len(p) > most {
		return false
	}
	k.arrived = append(k.arrived, r)
	k.bytes += len(p)
	k.readable.Signal()
	return r.block != nil
}

// ReadFrom waits for the next packet.
func (k *link) ReadFrom(p []byte) (int, net.Addr, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for len(k.arrived) == 0 || k.closed || k.expired {
		switch {
		case k.closed:
			return 0, nil, net.ErrClosed
		case k.expired:
			return 0, nil, os.ErrDeadlineExceeded
		}
		k.readable.Wait()
	}
	r := &k.arrived[0]
	n := min(r.size, len(r.b))
	copied := copy(p, r.b[:n])
	k.bytes -= n
	if r.b = r.b[n:]; len(r.b) == 0 {
		if r.block != nil {
			blocks.Put(r.block)
		}
		k.arrived[0] = run{}
		if k.arrived = k.arrived[1:]; len(k.arrived) == 0 {
			k.arrived = nil
		}
	}
	return copied, k.addr, nil
}

// WriteTo sends a packet, soon.
func (k *link) WriteTo(p []byte, _ net.Addr) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for len(k.leaving)+len(p) > maxLeaving && len(k.leaving) > 0 && !k.closed {
		k.writable.Wait()
	}
	if k.closed {
		return 0, net.ErrClosed
	}
	if k.block == nil {
		k.block = blocks.Get().(*block)
		k.leaving = k.block[:0]
	}
	k.leaving = append(k.leaving, p...)
	if last := len(k.batches) - 1; last >= 0 && k.batches[last].takes(len(p)) {
		k.batches[last].n += len(p)
	} else {
		k.batches = append(k.batches, batch{len(p), len(p)})
	}
	if !k.sending {
		k.sending = true
		go k.send()
	}
	return len(p), nil
}

// send sends what waits.
func (k *link) send() {
	k.mu.Lock()
	defer k.mu.Unlock()
	var spare []batch
	for len(k.leaving) > 0 {
		k.mu.Unlock()
		runtime.Gosched() // who writes may have more
		k.mu.Lock()
		block, rest, batches := k.block, k.leaving, k.batches
		k.block, k.leaving, k.batches = nil, nil, spare[:0]
		k.writable.Broadcast()
		k.mu.Unlock()
		for _, out := range batches {
			k.socket.send(rest[:out.n], out.size, k.addr)
			rest = rest[out.n:]
		}
		blocks.Put(block)
		k.mu.Lock()
		spare = batches
	}
	k.sending = false
	k.writable.Broadcast()
}

// Close ends reading and writing. What was written before goes out first.
func (k *link) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	k.arrived, k.bytes = nil, 0
	k.readable.Broadcast()
	k.writable.Broadcast()
	for k.sending {
		k.writable.Wait()
	}
	return nil
}

func (k *link) isClosed() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.closed
}

// SetReadDeadline ends reading, or lets it go on. pion gives no time that is yet to come.
func (k *link) SetReadDeadline(t time.Time) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.expired = !t.IsZero() && !t.After(time.Now())
	k.readable.Broadcast()
	return nil
}

func (k *link) SetWriteDeadline(time.Time) error { return nil }
func (k *link) SetDeadline(t time.Time) error    { return k.SetReadDeadline(t) }
func (k *link) LocalAddr() net.Addr              { return k.socket.conn.LocalAddr() }
