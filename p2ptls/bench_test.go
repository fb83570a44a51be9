package p2ptls

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kith-p2p/kith/peer"
)

// A countingConn counts the reads and writes that reach the network.
type countingConn struct {
	net.Conn
	reads, writes atomic.Int64
}

func (c *countingConn) Read(p []byte) (int, error)  { c.reads.Add(1); return c.Conn.Read(p) }
func (c *countingConn) Write(p []byte) (int, error) { c.writes.Add(1); return c.Conn.Write(p) }

// tcpPair returns both ends of a TCP connection.
func tcpPair(tb testing.TB) (client, server *countingConn) {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	dialed, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { dialed.Close(); accepted.Close() })
	return &countingConn{Conn: dialed}, &countingConn{Conn: accepted}
}

// BenchmarkHandshake is both sides of a handshake over a memory pipe, with a new
// Conn each; the allocations are of both sides.
func BenchmarkHandshake(b *testing.B) {
	client, server := newTransport(b, peer.Ed25519), newTransport(b, peer.Ed25519)
	b.ReportAllocs()
	for b.Loop() {
		cc, sc := net.Pipe()
		handshakes(b, client, server, cc, sc, Config{Muxers: []string{"/yamux/1.0.0"}})
		cc.Close()
		sc.Close()
	}
}

// BenchmarkBulk moves 64 KiB by one Write and as many ReadRecord as it takes, over
// TCP. reads and writes are the system calls for them; crypto-tls is the same
// without this package's socket.
func BenchmarkBulk(b *testing.B) {
	const size = 64 << 10
	report := func(b *testing.B, cc, sc *countingConn) {
		b.ReportMetric(float64(cc.writes.Load())/float64(b.N), "writes/op")
		b.ReportMetric(float64(sc.reads.Load())/float64(b.N), "reads/op")
	}
	client, server := newTransport(b, peer.Ed25519), newTransport(b, peer.Ed25519)
	b.Run("p2ptls", func(b *testing.B) {
		cc, sc := tcpPair(b)
		c, s := handshakes(b, client, server, cc, sc, Config{})
		move(b, size, c, func() ([]byte, error) { return s.ReadRecord(nil) })
		report(b, cc, sc)
	})
	b.Run("crypto-tls", func(b *testing.B) {
		cc, sc := tcpPair(b)
		verify := func(tls.ConnectionState) error { return nil }
		c, s := tls.Client(cc, client.config(verify, nil)), tls.Server(sc, server.config(verify, nil))
		done := make(chan error, 1)
		go func() { done <- s.Handshake() }()
		if err := c.Handshake(); err != nil {
			b.Fatal(err)
		}
		if err := <-done; err != nil {
			b.Fatal(err)
		}
		buf := make([]byte, size)
		move(b, size, c, func() ([]byte, error) {
			n, err := s.Read(buf)
			return buf[:n], err
		})
		report(b, cc, sc)
	})
}

// move writes b.N pieces of size bytes and waits until all were read.
func move(b *testing.B, size int, w io.Writer, read func() ([]byte, error)) {
	b.ReportAllocs()
	b.SetBytes(int64(size))
	done := make(chan error, 1)
	b.ResetTimer()
	go func() {
		for rest := b.N * size; rest > 0; {
			record, err := read()
			if err != nil {
				done <- err
				return
			}
			rest -= len(record)
		}
		done <- nil
	}()
	buf := make([]byte, size)
	for range b.N {
		if _, err := w.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}

// BenchmarkPingPong sends 100 bytes there and back.
func BenchmarkPingPong(b *testing.B) {
	cc, sc := tcpPair(b)
	c, s := handshakes(b, newTransport(b, peer.Ed25519), newTransport(b, peer.Ed25519), cc, sc, Config{})
	go func() {
		for {
			record, err := s.ReadRecord(nil)
			if err != nil {
				return
			}
			s.Write(record)
		}
	}()
	msg := make([]byte, 100)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(msg); err != nil {
			b.Fatal(err)
		}
		if _, err := c.ReadRecord(nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkIdleMemory reports what one end of an idle Conn keeps on the heap: when
// nothing but the handshake has happened, and after both ends have received 1 MiB.
func BenchmarkIdleMemory(b *testing.B) {
	const conns = 200
	client, server := newTransport(b, peer.Ed25519), newTransport(b, peer.Ed25519)
	receive := func(c *Conn, size int) {
		for got := 0; got < size; {
			record, err := c.ReadRecord(nil)
			if err != nil {
				b.Fatal(err)
			}
			got += len(record)
		}
		c.SetReadDeadline(time.Unix(1, 0))
		if _, err := c.ReadRecord(nil); !errors.Is(err, os.ErrDeadlineExceeded) { // as if it waited
			b.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		bulk int
	}{{"fresh", 0}, {"after-1MiB", 1 << 20}} {
		b.Run(c.name, func(b *testing.B) {
			for range b.N {
				pipes := make([][2]net.Conn, conns)
				for i := range pipes {
					pipes[i][0], pipes[i][1] = net.Pipe()
				}
				before := liveHeap()
				held := make([]*Conn, 0, 2*conns)
				for _, p := range pipes {
					cc, sc := handshakes(b, client, server, p[0], p[1], Config{})
					go cc.Write(make([]byte, c.bulk))
					receive(sc, c.bulk)
					go sc.Write(make([]byte, c.bulk))
					receive(cc, c.bulk)
					held = append(held, cc, sc)
				}
				b.ReportMetric(float64(liveHeap()-before)/float64(2*conns), "B/end")
				runtime.KeepAlive(held)
			}
		})
	}
}

func liveHeap() uint64 {
	runtime.GC()
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

func newTransport(tb testing.TB, t peer.KeyType) *Transport {
	tb.Helper()
	key, err := peer.GenerateKey(t)
	if err != nil {
		tb.Fatal(err)
	}
	tr, err := New(key)
	if err != nil {
		tb.Fatal(err)
	}
	return tr
}

// handshakes runs both sides, and both must succeed.
func handshakes(tb testing.TB, client, server *Transport, cc, sc net.Conn, cfg Config) (c, s *Conn) {
	tb.Helper()
	done := make(chan error, 1)
	go func() {
		var err error
		s, err = server.Server(context.Background(), sc, cfg)
		done <- err
	}()
	c, err := client.Client(context.Background(), cc, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	if err := <-done; err != nil {
		tb.Fatal(err)
	}
	return c, s
}
