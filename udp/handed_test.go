package udp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/kith-p2p/kith/internal/testkit"
)

// theirs marks packets that are for the other socket, nobodys those that are for none.
const theirs, nobodys = 1, 2

// siblings are two sockets of which the first hands over what is marked for the second.
func siblings(t testing.TB) (first, second *QUICConn) {
	t.Helper()
	s := new(Sockets)
	first, second = openQUIC(t, s, loopback4), openQUIC(t, s, loopback4)
	if testkit.HasIPv6(t) {
		second = openQUIC(t, s, loopback6)
	}
	first.Forward(func(p []byte) (*QUICConn, bool) {
		switch {
		case len(p) > 1 && p[1] == theirs:
			return second, false
		case len(p) > 1 && p[1] == nobodys:
			return nil, false
		}
		return nil, true
	})
	return first, second
}

// messages makes room for n packets.
func messages(n int) []ipv4.Message {
	ms := make([]ipv4.Message, n)
	for i := range ms {
		ms[i].Buffers = [][]byte{make([]byte, 1500)}
		ms[i].OOB = make([]byte, 128)
	}
	return ms
}

// Packets are read where they belong, with who sent them, whoever waits.
func TestForward(t *testing.T) {
	first, second := siblings(t)
	c := sender(t, first.LocalAddr())
	read := make(chan []byte)
	go func() { // it waits in the kernel
		defer close(read)
		buf := make([]byte, 100)
		for {
			n, from, err := second.ReadFrom(buf)
			if err != nil {
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error(err)
				}
				return
			}
			if from.String() != c.LocalAddr().String() {
				t.Errorf("from %v, want %v", from, c.LocalAddr())
			}
			read <- bytes.Clone(buf[:n])
		}
	}()
	for i := range byte(100) {
		own := []byte{quicByte, 0, i}
		c.Write([]byte{quicByte, theirs, i})
		c.Write([]byte{quicByte, nobodys, i})
		c.Write([]byte{longHeader | quicByte, theirs, i}) // of a handshake, which begins here
		c.Write(own)
		wantPacket(t, first, []byte{longHeader | quicByte, theirs, i}, c.LocalAddr())
		wantPacket(t, first, own, c.LocalAddr())
		if p := <-read; !bytes.Equal(p, []byte{quicByte, theirs, i}) {
			t.Fatalf("read %x", p)
		}
	}
	second.SetReadDeadline(time.Unix(1, 0))
	for range read {
	}
}

// Who is handed packets all the time still reads its own, and sees its deadline; what it has
// no room for is dropped.
func TestForwardFlood(t *testing.T) {
	first, second := siblings(t)
	p, from := []byte{quicByte, theirs, 0, 0, 0, 0}, first.LocalAddr().(*net.UDPAddr)
	for i := range uint32(3 * handedQueue) {
		binary.BigEndian.PutUint32(p[2:], i)
		if first.forward(p, from, []byte("about")); second.inbox.waiting.Load() > handedQueue {
			t.Fatal("more waits than there is room for")
		}
	}
	c := sender(t, second.LocalAddr())
	own := 0
	ms := messages(8)
	for next := uint32(0); next < handedQueue; {
		c.Write([]byte{quicByte})
		n, err := second.ReadBatch(ms, 0)
		check(t, err)
		for _, m := range ms[:n] {
			b := m.Buffers[0][:m.N]
			if len(b) == 1 {
				own++
				continue
			}
			if got := binary.BigEndian.Uint32(b[2:]); got != next || string(m.OOB[:m.NN]) != "about" {
				t.Fatalf("packet %d came as %d, with %q", next, got, m.OOB[:m.NN])
			}
			next++
		}
	}
	if own < handedQueue/8/(handedTurns+1)/2 {
		t.Errorf("%d packets of its own were read meanwhile", own)
	}

	first.forward(p, from, nil)
	second.SetReadDeadline(time.Unix(1, 0))
	ended := 0
	for range 2 * (handedTurns + 1) { // some of its own may be left
		first.forward(p, from, nil)
		if _, err := second.ReadBatch(ms, 0); errors.Is(err, os.ErrDeadlineExceeded) {
			ended++
		}
	}
	if ended < 2 {
		t.Errorf("after the deadline %d reads ended with it", ended)
	}
	second.SetReadDeadline(time.Time{})
	if n, err := second.ReadBatch(ms, 0); n == 0 || err != nil {
		t.Errorf("with a new deadline: %d, %v", n, err)
	}

	// What is too long for QUIC, or comes after the end, is dropped.
	first.forward(append(p, make([]byte, handedSize)...), from, nil)
	first.forward(p, from, make([]byte, handedOOB+1))
	second.Close()
	first.forward(p, from, nil)
	if n := second.inbox.waiting.Load(); n != 0 {
		t.Errorf("%d packets wait", n)
	}
}

func BenchmarkForward(b *testing.B) {
	first, second := siblings(b)
	p, from := make([]byte, 1452), first.LocalAddr().(*net.UDPAddr)
	p[0], p[1] = quicByte, theirs
	ms := messages(8)
	b.ReportAllocs()
	b.SetBytes(8 * int64(len(p)))
	for b.Loop() {
		for range ms {
			first.forward(p, from, nil)
		}
		for n := 0; n < len(ms); {
			k, err := second.ReadBatch(ms, 0)
			check(b, err)
			n += k
		}
	}
}
