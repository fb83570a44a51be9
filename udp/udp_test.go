package udp

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kith-p2p/kith/internal/testkit"
)

var loopback4, loopback6 = netip.MustParseAddrPort("127.0.0.1:0"), netip.MustParseAddrPort("[::1]:0")

// loopbacks are those that this machine has.
func loopbacks(t testing.TB) []netip.AddrPort {
	if testkit.HasIPv6(t) {
		return []netip.AddrPort{loopback4, loopback6}
	}
	return []netip.AddrPort{loopback4}
}

// quicByte and otherByte begin packets of the two kinds.
const quicByte, otherByte = 0x40, 20

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openQUIC(t testing.TB, s *Sockets, ap netip.AddrPort) *QUICConn {
	t.Helper()
	c, err := s.QUIC(ap)
	check(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func openOther(t testing.TB, s *Sockets, ap netip.AddrPort) net.PacketConn {
	t.Helper()
	c, err := s.Other(ap)
	check(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// sender is a socket that is not ours, connected to to.
func sender(t testing.TB, to net.Addr) net.Conn {
	t.Helper()
	c, err := net.Dial("udp", to.String())
	check(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func wantPacket(t testing.TB, c net.PacketConn, want []byte, from net.Addr) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 3000)
	n, addr, err := c.ReadFrom(buf)
	check(t, err)
	if !bytes.Equal(buf[:n], want) {
		t.Fatalf("read %x, want %x", buf[:n], want)
	}
	if from != nil && addr.String() != from.String() {
		t.Errorf("from %v, want %v", addr, from)
	}
}

func TestBothSides(t *testing.T) {
	for _, ap := range loopbacks(t) {
		var s Sockets
		quic := openQUIC(t, &s, ap)
		other := openOther(t, &s, quic.LocalAddrPort())
		if other.LocalAddr().String() != quic.LocalAddr().String() {
			t.Errorf("sides at %v and %v", other.LocalAddr(), quic.LocalAddr())
		}
		c := sender(t, quic.LocalAddr())
		for i := range byte(255) { // every first byte goes to its side
			c.Write([]byte{i, 1})
			side := net.PacketConn(quic)
			if i < firstQUIC {
				// The QUIC side reads for both.
				c.Write([]byte{quicByte})
				wantPacket(t, quic, []byte{quicByte}, nil)
				side = other
			}
			wantPacket(t, side, []byte{i, 1}, c.LocalAddr())
		}
		for _, side := range []net.PacketConn{quic, other} {
			_, err := side.WriteTo([]byte("answer"), c.LocalAddr())
			check(t, err)
			buf := make([]byte, 10)
			if n, err := c.Read(buf); string(buf[:n]) != "answer" {
				t.Errorf("%q, %v", buf[:n], err)
			}
		}
	}
}

// What is not QUIC is read with a QUIC side and without one, in any order of coming and going.
func TestSidesComeAndGo(t *testing.T) {
	var s Sockets
	other := openOther(t, &s, loopback4)
	ap := other.LocalAddr().(*net.UDPAddr).AddrPort()
	c := sender(t, other.LocalAddr())
	for range 20 {
		c.Write([]byte{otherByte, 1})
		wantPacket(t, other, []byte{otherByte, 1}, nil)
		quic := openQUIC(t, &s, ap)
		c.Write([]byte{otherByte, 2})
		c.Write([]byte{quicByte, 2})
		wantPacket(t, quic, []byte{quicByte, 2}, nil)
		wantPacket(t, other, []byte{otherByte, 2}, nil)
		check(t, quic.Close())
		check(t, quic.Close())
	}
	quic := openQUIC(t, &s, ap)
	check(t, other.Close())
	check(t, other.Close())
	c.Write([]byte{otherByte}) // nobody's
	c.Write([]byte{quicByte})
	wantPacket(t, quic, []byte{quicByte}, nil)
	check(t, quic.Close())
	if err := quic.SetReadDeadline(time.Time{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("deadline of a closed side: %v", err)
	}
	// The port is free now.
	again, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(ap))
	check(t, err)
	again.Close()
	if len(s.open) != 0 {
		t.Errorf("%d sockets are left", len(s.open))
	}
}

func TestTaken(t *testing.T) {
	var s, strange Sockets
	quic := openQUIC(t, &s, loopback4)
	ap := quic.LocalAddrPort()
	if _, err := s.QUIC(ap); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("a second QUIC side: %v", err)
	}
	openOther(t, &s, ap)
	if _, err := s.Other(ap); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("a second other side: %v", err)
	}
	if _, err := strange.QUIC(ap); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), fmt.Sprintf("port %d is taken", ap.Port())) {
		t.Errorf("a port that is taken: %v", err)
	}
	if _, err := strange.QUIC(netip.AddrPort{}); err == nil {
		t.Error("no address was opened")
	}
}

func TestOtherDeadlines(t *testing.T) {
	var s Sockets
	other := openOther(t, &s, loopback4)
	read := func() error {
		_, _, err := other.ReadFrom(make([]byte, 10))
		return err
	}
	other.SetReadDeadline(time.Unix(1, 0))
	for range 2 {
		if err := read(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a deadline that has passed: %v", err)
		}
	}
	other.SetReadDeadline(time.Now().Add(time.Millisecond))
	if err := read(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a deadline: %v", err)
	}
	other.SetDeadline(time.Time{})
	failed := make(chan error)
	go func() { failed <- read() }()
	other.Close()
	if err := <-failed; !errors.Is(err, net.ErrClosed) {
		t.Errorf("reading what is closed: %v", err)
	}
	if _, err := other.WriteTo([]byte{1}, other.LocalAddr()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("writing to what is closed: %v", err)
	}
}

// A reader of what is not QUIC that does not read loses packets and holds nothing up.
func TestOtherFull(t *testing.T) {
	var s Sockets
	quic := openQUIC(t, &s, loopback4)
	other := openOther(t, &s, quic.LocalAddrPort())
	c := sender(t, quic.LocalAddr())
	for range 4 {
		for range otherQueue / 2 {
			c.Write([]byte{otherByte})
		}
		c.Write([]byte{quicByte})
		wantPacket(t, quic, []byte{quicByte}, nil)
	}
	if n := len(other.(*otherConn).queue); n != otherQueue {
		t.Errorf("%d packets wait, want %d", n, otherQueue)
	}
	c.Write(append([]byte{otherByte}, make([]byte, otherSize)...)) // too long for the queue
	c.Write([]byte{quicByte})
	wantPacket(t, quic, []byte{quicByte}, nil)
}

// A packet of a connection that finds no way is lost; one of a handshake fails.
func TestNoWay(t *testing.T) {
	var s Sockets
	c := openQUIC(t, &s, loopback4)
	// From loopback, no address elsewhere can be reached.
	to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.1:1"))
	if _, _, err := c.WriteMsgUDP([]byte{longHeader | quicByte}, nil, to); err == nil {
		t.Error("a packet of a handshake was sent")
	}
	if n, _, err := c.WriteMsgUDP([]byte{quicByte}, nil, to); (n != 1 || err != nil) && noWay(err) {
		t.Errorf("a packet of a connection: %d, %v", n, err)
	}
}

// FuzzPackets feeds the demultiplexer any packet, with and without a reader of what is not QUIC.
func FuzzPackets(f *testing.F) {
	for _, seed := range [][]byte{{0}, {quicByte}, {}, {otherByte, 1, 2}, bytes.Repeat([]byte{0xff}, 1500)} {
		f.Add(seed, true)
		f.Add(seed, false)
	}
	f.Fuzz(func(t *testing.T, p []byte, both bool) {
		if len(p) > 2000 {
			return
		}
		var s Sockets
		quic, err := s.QUIC(loopback4)
		check(t, err)
		defer quic.Close()
		if both {
			other, err := s.Other(quic.LocalAddrPort())
			check(t, err)
			defer other.Close()
		}
		c := sender(t, quic.LocalAddr())
		c.Write(p)
		last := []byte{0xff, 0xff, 0xff}
		c.Write(last)
		quic.SetReadDeadline(time.Now().Add(10 * time.Second))
		if len(p) > 0 && p[0] >= firstQUIC {
			wantPacket(t, quic, p, c.LocalAddr())
		}
		wantPacket(t, quic, last, c.LocalAddr())
	})
}
