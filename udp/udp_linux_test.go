package udp

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// segmentSize makes the kernel take a message apart into packets.
func segmentSize(n int) []byte {
	b := make([]byte, unix.CmsgSpace(2))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(b[unix.CmsgLen(0):], uint16(n))
	return b
}

// Packets that the kernel takes apart on one side and puts together on the other
// come out as they went in.
func TestBatches(t *testing.T) {
	for _, ap := range loopbacks(t) {
		var s Sockets
		from, to := openQUIC(t, &s, ap), openQUIC(t, &s, ap)
		for _, size := range []int{1, 100, 1200, 1452} {
			const packets = 13
			b := bytes.Repeat([]byte{quicByte}, packets*size-size/2) // the last is shorter
			for i := range b[:len(b)-1] {
				if i%size != 0 {
					b[i] = byte(i / size)
				}
			}
			_, _, err := from.WriteMsgUDP(b, segmentSize(size), net.UDPAddrFromAddrPort(to.LocalAddrPort()))
			check(t, err)
			to.SetReadDeadline(time.Now().Add(10 * time.Second))
			for len(b) > 0 {
				ms := make([]ipv4.Message, 8)
				for i := range ms {
					ms[i].Buffers = [][]byte{make([]byte, 1452)}
					ms[i].OOB = make([]byte, 128)
				}
				n, err := to.ReadBatch(ms, 0)
				check(t, err)
				for _, m := range ms[:n] {
					want := b[:min(size, len(b))]
					b = b[len(want):]
					if !bytes.Equal(m.Buffers[0][:m.N], want) {
						t.Fatalf("segments of %d bytes: %d bytes with %d to come", size, m.N, len(b))
					}
					if m.Addr.String() != from.LocalAddr().String() {
						t.Errorf("from %v, want %v", m.Addr, from.LocalAddr())
					}
				}
			}
		}
	}
}

// BenchmarkReadBatch receives packets of 1,452 bytes that were sent ten at a time,
// as quic-go does; one operation is ten packets.
func BenchmarkReadBatch(b *testing.B) {
	const size, packets = 1452, 10
	read := func(b *testing.B, conn interface {
		ReadBatch([]ipv4.Message, int) (int, error)
	}, to net.Addr) {
		c := sender(b, to).(*net.UDPConn)
		msg, oob := make([]byte, size*packets), segmentSize(size)
		for i := range packets {
			msg[i*size] = quicByte
		}
		ms := make([]ipv4.Message, 8)
		for i := range ms {
			ms[i].Buffers, ms[i].OOB = [][]byte{make([]byte, size)}, make([]byte, 128)
		}
		b.ReportAllocs()
		b.SetBytes(size * packets)
		for b.Loop() {
			if _, _, err := c.WriteMsgUDP(msg, oob, nil); err != nil {
				b.Fatal(err)
			}
			for got := 0; got < packets; {
				n, err := conn.ReadBatch(ms, 0)
				if err != nil {
					b.Fatal(err)
				}
				got += n
			}
		}
	}
	b.Run("kith", func(b *testing.B) {
		conn := openQUIC(b, new(Sockets), loopback4)
		read(b, conn, conn.LocalAddr())
	})
	b.Run("x-net", func(b *testing.B) {
		conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(loopback4))
		check(b, err)
		defer conn.Close()
		read(b, ipv4.NewPacketConn(conn), conn.LocalAddr())
	})
}
