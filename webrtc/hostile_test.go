package webrtc

import (
	"context"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/sctp"
	"github.com/pion/stun/v4"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/testkit"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

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
		} else if m, err := parseSTUN(answer[:n]); err != nil || m.Type != stun.BindingSuccess {
			t.Fatalf("%+v, %v", m, err)
		}
	}
	for range 10_000 { // one that ends takes a moment
		if runtime.NumGoroutine() <= before {
			break
		}
		<-time.After(time.Millisecond)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.conns) != 0 || l.shaking != 0 || len(l.waiting) != 0 || runtime.NumGoroutine() > before {
		t.Errorf("%d connections, %d shaking, %d waiting, %d goroutines (%d before)", len(l.conns), l.shaking, len(l.waiting), runtime.NumGoroutine(), before)
	}
}

func (l *listener) hello(p []byte, from netip.AddrPort) {
	if c := l.strangers(p, len(p), from); c != nil {
		var b block
		c.packets(&b, copy(b[:], p), len(p))
	}
}

// First messages of handshakes from one address after the other take no more than their places.
func TestHelloFlood(t *testing.T) {
	_, l := newListener(t)
	hello := append([]byte{recordHandshake, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 100, 1}, make([]byte, 100)...)
	for i := range 1000 {
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 4001)
		l.hello(hello, from)
		l.hello(hello, netip.AddrPortFrom(netip.MustParseAddr("10.9.9.9"), uint16(i+1)))
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

// pair gives both ends of a connection, which hand the streams of the remote to served.
func pair(t *testing.T) (near, far *conn, served chan host.MuxedStream) {
	near, far = unserved(t)
	served = make(chan host.MuxedStream, 100)
	for _, c := range []*conn{near, far} {
		go c.Serve(func(s host.MuxedStream) { served <- s })
	}
	return near, far, served
}

// unserved connects two of which neither takes streams yet.
func unserved(t *testing.T) (near, far *conn) {
	_, l := newListener(t)
	accepted := make(chan *conn, 1)
	go func() {
		i, err := l.Accept()
		if err != nil {
			return
		}
		tc, err := i.Upgrade(t.Context(), func(host.Stage) {})
		if err != nil {
			t.Error(err)
			close(accepted)
			return
		}
		accepted <- tc.Mux.(*conn)
	}()
	key, err := peer.GenerateKey(peer.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	dialer, err := New(Config{Key: key})
	if err != nil {
		t.Fatal(err)
	}
	tc, err := dialer.Dial(t.Context(), l.Addr(), peer.ID{}, func(host.Stage) {})
	if err != nil {
		t.Fatal(err)
	}
	near, far = tc.Mux.(*conn), <-accepted
	if far == nil {
		t.FailNow()
	}
	for _, c := range []*conn{near, far} {
		t.Cleanup(func() { c.CloseWithCode(0) })
	}
	return near, far
}

// accept may wait, and counts on it that nobody else does: those that come meanwhile
// have their turn after it.
func TestOneAcceptAtATime(t *testing.T) {
	const streams = 20
	near, far := unserved(t)
	var inside atomic.Bool
	accepted := make(chan host.MuxedStream, streams)
	go near.Serve(func(host.MuxedStream) {})
	go far.Serve(func(s host.MuxedStream) {
		if inside.Swap(true) {
			t.Error("two at a time")
		}
		look := time.NewTicker(time.Millisecond)
		defer look.Stop()
		for came := 0; came < streams && !t.Failed(); {
			<-look.C
			far.mu.Lock()
			came = far.theirs
			far.mu.Unlock()
		}
		inside.Store(false)
		accepted <- s
	})
	for range streams {
		s, err := near.OpenStream(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	for range streams {
		<-accepted
	}
}

// A message that is too long, or no message, ends its stream and no other.
func TestOversizedMessage(t *testing.T) {
	near, _, served := pair(t)
	for _, bad := range [][]byte{{0x81, 0x90, 0x10}, {0x80, 0x80, 0x80, 0}, {3, 0x12, 2, 'x'}} {
		s, err := near.OpenStream(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ours := s.(*stream)
		ours.mu.Lock()
		ours.send(bad, sctp.PayloadTypeWebRTCBinary)
		ours.mu.Unlock()
		theirs := <-served
		_, err = theirs.Read(make([]byte, 1))
		if e, ok := err.(*StreamError); !ok || e.Code != host.CodeProtocolViolation || e.Remote {
			t.Errorf("%x: %v", bad, err)
		}
		if _, err := s.Read(make([]byte, 1)); err == nil || err.(*StreamError).Code != host.CodeProtocolViolation {
			t.Errorf("%x: who has sent it reads %v", bad, err)
		}
	}
	if near.closed() != nil {
		t.Error(near.closed())
	}
}

// Channels that are opened and reset at once leave nothing.
func TestResetStorm(t *testing.T) {
	near, far, served := pair(t)
	for range 2000 {
		s, err := near.OpenStream(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		s.Reset(5)
		theirs := <-served
		for {
			if _, err := theirs.Read(make([]byte, 1)); err != nil {
				if e, ok := err.(*StreamError); !ok || e.Code != 5 {
					t.Fatalf("reading: %v", err)
				}
				break
			}
		}
	}
	for _, c := range []*conn{near, far} {
		for deadline := time.Now().Add(10 * time.Second); ; <-time.After(time.Millisecond) {
			c.mu.Lock()
			streams, theirs, ours := len(c.streams), c.theirs, c.numOurs
			c.mu.Unlock()
			if streams == 1 && theirs == 0 && ours == 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d streams, %d channels of the remote's and %d of ours are left", streams, theirs, ours)
			}
		}
	}
}

// Who is not on the path cannot end a connection with records that are not encrypted.
func TestForgedRecords(t *testing.T) {
	near, far, served := pair(t)
	for _, forged := range [][]byte{
		refusal,
		{recordAlert, 0xfe, 0xfd, 0, 0, 0, 0, 0, 2, 0, 0, 0, 2, 1, 0},
		{23, 0xfe, 0xfd, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1, 0},
		{recordChangeCipherSpec, 0xfe, 0xfd, 0, 0, 0, 0, 0, 4, 0, 0, 0, 1, 9},
		{recordHandshake, 0xfe, 0xfd, 0, 0, 0, 0, 0, 5, 0, 0, 0, 1, 9},
		{23, 0xfe, 0xfd, 0, 1, 0, 0, 0, 6, 0, 0, 0, 1, 9},
		{99, 0xfe, 0xfd, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1, 9},
	} {
		for _, c := range []*conn{near, far} {
			var b block
			c.packets(&b, copy(b[:], forged), len(forged))
		}
		s, err := near.OpenStream(t.Context())
		if err != nil {
			t.Fatalf("after %x: %v", forged, err)
		}
		s.Write([]byte("x"))
		theirs := <-served
		theirs.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := theirs.Read(make([]byte, 1)); err != nil {
			t.Fatalf("after %x: %v", forged, err)
		}
		s.Close()
		theirs.Close()
	}
}

// A remote that takes nothing and answers no FIN does not keep CloseWithCode.
func TestCloseWithoutAnswers(t *testing.T) {
	near, far, _ := pair(t)
	far.link.Close()
	for range 10 {
		s, err := near.OpenStream(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s.SetDeadline(time.Now().Add(time.Second))
		s.Write(make([]byte, 64<<10))
		s.Close()
	}
	if took := testkit.Took(func() { near.CloseWithCode(0) }); took > time.Second {
		t.Errorf("it took %v", took)
	}
}
