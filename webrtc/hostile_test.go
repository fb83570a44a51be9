package webrtc

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// nowhere is a socket whose packets are lost.
type nowhere struct{ net.PacketConn }

func (nowhere) WriteTo(p []byte, _ net.Addr) (int, error) { return len(p), nil }
func (nowhere) LocalAddr() net.Addr                       { return &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// openConn is a listener's connection after the handshakes of DTLS and SCTP. What
// it sends is lost.
func openConn(t testing.TB) *conn {
	c := newConn(newSocket(nowhere{}, false), netip.MustParseAddrPort("127.0.0.1:2"), false, defaultTimeout)
	c.detach, c.stun = func() {}, func([]byte) {}
	c.layer = &recordLayer{seal: aead(make([]byte, 16)), open: aead(make([]byte, 16))}
	c.timer = time.AfterFunc(time.Hour, c.tick)
	c.setRemote(initChunk{tag: 1, tsn: 1, window: 1 << 20, ids: 65535})
	c.state = stateOpen
	t.Cleanup(func() { c.CloseWithCode(0) })
	return c
}

// give handles one SCTP packet with these chunks as packets of the remote are.
func (c *conn) give(chunks []byte) {
	c.mu.Lock()
	c.handleSCTP(append(appendSCTPHeader(nil, c.local.tag), chunks...))
	c.finish()
	accept, streams := c.takeAccepting()
	c.mu.Unlock()
	for _, s := range streams {
		accept(s)
	}
}

// data is a DATA chunk with a whole message.
func data(tsn uint32, id uint16, ppid uint32, p []byte) []byte {
	return appendDataChunk(nil, &outChunk{data: p, id: id, ppid: ppid, flags: 3}, tsn)
}

func FuzzSCTP(f *testing.F) {
	open := data(1, 2, ppidControl, appendChannelOpen(nil))
	f.Add(open)
	f.Add(append(open, data(2, 2, ppidBinary, appendData(nil, []byte("hello")))...))
	f.Add(append(open, data(4, 2, ppidBinary, appendControl(nil, control{flag: flagFIN}))...))
	f.Add(append(open, data(2, 2, ppidBinary, appendControl(nil, control{flag: flagReset, code: 3}))...))
	f.Add(appendChunk(nil, chunkSack, 0, []byte{0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 3}))
	f.Add(appendChunk(nil, chunkReconfig, 0, appendParam(nil, paramResetOutgoing, []byte{0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2})))
	f.Add(initChunk{tag: 1, tsn: 1, window: 1 << 16, ids: 9, cookie: []byte("x")}.append(nil, chunkInit))
	f.Add(appendChunk(nil, chunkHeartbeat, 0, appendParam(nil, paramHeartbeat, []byte("hello"))))
	f.Add(appendChunk(nil, chunkAbort, 0, appendParam(nil, causeUserAbort, []byte{0, 0, 16, 1})))
	f.Fuzz(func(t *testing.T, p []byte) {
		c := openConn(t)
		if s, err := c.OpenStream(t.Context()); err != nil {
			t.Fatal(err)
		} else if _, err := s.Write([]byte("something to acknowledge")); err != nil {
			t.Fatal(err)
		}
		c.give(p)
		c.give(p)
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.receive.held > maxUnreadKith || c.receive.unread > maxUnreadKith || len(c.streams) > 2*maxStreams+1 || len(c.waiting) > maxEarly {
			t.Errorf("held %d, unread %d, %d streams, %d waiting", c.receive.held, c.receive.unread, len(c.streams), len(c.waiting))
		}
		if c.send.bytes < 0 || c.send.lost < 0 || c.receive.held < 0 || c.receive.unread < 0 {
			t.Errorf("sender %d bytes, %d lost; receiver held %d, unread %d", c.send.bytes, c.send.lost, c.receive.held, c.receive.unread)
		}
	})
}

// A remote sends all but the chunk whose turn it is, and more than it may.
func TestGapFlood(t *testing.T) {
	c := openConn(t)
	payload := make([]byte, 1000)
	for tsn := uint32(2); tsn < 20000; tsn++ {
		c.give(data(tsn, 2, ppidBinary, payload))
	}
	for tsn := uint32(20002); tsn < 65000; tsn += 2 {
		c.give(data(tsn, 2, ppidBinary, payload[:1]))
	}
	c.mu.Lock()
	if c.receive.held > maxUnread || len(c.receive.gaps) > maxGaps {
		t.Errorf("%d bytes and %d gaps are held", c.receive.held, len(c.receive.gaps))
	}
	c.mu.Unlock()
	c.give(data(1, 2, ppidControl, appendChannelOpen(nil))) // it is taken even so
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.receive.cum < 2 {
		t.Error("with all room taken, the chunk whose turn it is was not taken")
	}
}

// Channels that are opened and reset at once leave nothing.
func TestResetStorm(t *testing.T) {
	c := openConn(t)
	accepted := make(chan host.MuxedStream, 1)
	served := make(chan error)
	go func() { served <- c.Serve(func(s host.MuxedStream) { accepted <- s }) }()
	tsn, number := uint32(1), uint32(1)
	for range 2000 {
		for _, p := range [][]byte{
			data(tsn, 2, ppidControl, appendChannelOpen(nil)),
			data(tsn+1, 2, ppidBinary, appendControl(nil, control{flag: flagReset, code: 5})),
		} {
			c.give(p)
			tsn++
		}
		s := <-accepted
		if _, err := s.Read(make([]byte, 1)); err == nil || err.(*StreamError).Code != 5 {
			t.Fatalf("reading: %v", err)
		}
		// All is acknowledged, the remote ends its half, and answers that ours has ended.
		c.mu.Lock()
		ack := binary.BigEndian.AppendUint32(nil, c.send.next-1)
		c.mu.Unlock()
		c.give(appendChunk(nil, chunkSack, 0, append(ack, 0, 1, 0, 0, 0, 0, 0, 0)))
		end := binary.BigEndian.AppendUint32(nil, number)
		end = append(end, 0, 0, 0, 0)
		end = binary.BigEndian.AppendUint32(end, tsn-1)
		c.give(appendChunk(nil, chunkReconfig, 0, appendParam(nil, paramResetOutgoing, append(end, 0, 2))))
		number++
		c.mu.Lock()
		answer := binary.BigEndian.AppendUint32(nil, c.send.resetNext-1)
		c.mu.Unlock()
		c.give(appendChunk(nil, chunkReconfig, 0, appendParam(nil, paramResetResponse, append(answer, 0, 0, 0, resetPerformed))))
	}
	c.mu.Lock()
	if len(c.streams) != 1 || len(c.send.resetIDs) != 0 || len(c.send.flight)-c.send.head != 0 {
		t.Errorf("%d streams, %d requests and %d chunks are left", len(c.streams), len(c.send.resetIDs), len(c.send.flight)-c.send.head)
	}
	c.mu.Unlock()
	c.CloseWithCode(7)
	if err := <-served; err.(*CloseError).Code != 7 {
		t.Errorf("Serve: %v", err)
	}
}

// A remote opens more channels than it may.
func TestTooManyChannels(t *testing.T) {
	c := openConn(t)
	tsn := uint32(1)
	for id := uint16(2); id < 1000; id += 2 {
		c.give(data(tsn, id, ppidControl, appendChannelOpen(nil)))
		tsn++
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.waiting) != maxEarly || len(c.streams) != maxEarly+1 {
		t.Errorf("%d streams wait, %d are there, before anyone takes them", len(c.waiting), len(c.streams))
	}
}

var loopback = netip.MustParseAddrPort("127.0.0.1:0")

func newListener(t *testing.T) (*Transport, *listener) {
	key, err := peer.GenerateKey(peer.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	transport, err := New(Config{Key: key})
	if err != nil {
		t.Fatal(err)
	}
	l, err := transport.Listen(multiaddr.MustParse("/ip4/127.0.0.1/udp/0/webrtc-direct"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return transport, l.(*listener)
}

// Checks, and what only looks like DTLS, leave nothing, whatever their number.
func TestListenerRemembersNoStrangers(t *testing.T) {
	_, l := newListener(t)
	before := runtime.NumGoroutine()
	conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(l.local))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	garbage := append([]byte{recordHandshake, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 2}, make([]byte, 100)...)
	answer := make([]byte, 2000)
	for i := range 500 {
		conn.Write(garbage)
		conn.Write(garbage[:i%len(garbage)])
		conn.Write(newCheck(1 + i%2).request())
		conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if n, err := conn.Read(answer); err != nil {
			t.Fatal(err)
		} else if m, err := parseSTUN(answer[:n]); err != nil || m.kind != stunBindingSuccess {
			t.Fatalf("%+v, %v", m, err)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.conns) != 0 || l.shaking != 0 || len(l.waiting) != 0 || runtime.NumGoroutine() > before {
		t.Errorf("%d connections, %d shaking, %d waiting, %d goroutines (%d before)", len(l.conns), l.shaking, len(l.waiting), runtime.NumGoroutine(), before)
	}
}

// First messages of handshakes from one address after the other take no more than their places.
func TestHelloFlood(t *testing.T) {
	_, l := newListener(t)
	hello := append([]byte{recordHandshake, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 100, 1}, make([]byte, 100)...)
	for i := range 1000 {
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 4001)
		l.stranger(hello, from)
		l.stranger(hello, netip.AddrPortFrom(netip.MustParseAddr("10.9.9.9"), uint16(i+1)))
	}
	l.mu.Lock()
	n, shaking := len(l.conns), l.shaking
	l.mu.Unlock()
	if n > backlog || shaking != n {
		t.Errorf("%d connections, of which %d have a place: there are %d", n, shaking, backlog)
	}
	for range n {
		i, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		i.Close()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.conns) != 0 || l.shaking != 0 || len(l.shakingIP) != 0 {
		t.Errorf("after all were closed: %d connections, %d shaking from %d addresses", len(l.conns), l.shaking, len(l.shakingIP))
	}
}

// A listener whose certificate is not the one of the address is not spoken to.
func TestWrongCertificate(t *testing.T) {
	transport, l := newListener(t)
	go func() {
		for {
			i, err := l.Accept()
			if err != nil {
				return
			}
			if _, err := i.Upgrade(t.Context(), func(host.Stage) {}); err == nil {
				t.Error("the upgrade succeeded")
			}
		}
	}()
	other, err := certHashComponent(certHash([]byte("another")))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err = transport.Dial(ctx, address(l.local).Encapsulate(other), peer.ID{}, func(host.Stage) {})
	if err == nil || !strings.Contains(err.Error(), "another hash") {
		t.Errorf("dialing: %v", err)
	}
	if transport.CanDial(address(l.local)) {
		t.Error("an address without a hash can be dialed")
	}
}

// A remote that takes nothing, answers no FIN and no request does not keep CloseWithCode.
func TestCloseWithoutAnswers(t *testing.T) {
	c := openConn(t)
	for range 10 {
		s, err := c.OpenStream(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s.SetDeadline(time.Now().Add(time.Second))
		s.Write(make([]byte, 64<<10))
		s.Close()
	}
	start := time.Now()
	c.CloseWithCode(0)
	if d := time.Since(start); d > time.Second {
		t.Errorf("it took %v", d)
	}
}
