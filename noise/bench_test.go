package noise

import (
	"crypto/ecdh"
	"crypto/rand"
	"net"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
)

// A countingConn counts the system calls of writing.
type countingConn struct {
	net.Conn
	writes atomic.Int64
}

func (c *countingConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// A countingSocket counts the system calls of reading: those that returned
// data, and those that found that there is none yet.
type countingSocket struct {
	syscall.RawConn
	reads, waits atomic.Int64
}

func (s *countingSocket) Read(f func(fd uintptr) bool) error {
	return s.RawConn.Read(func(fd uintptr) bool {
		if f(fd) {
			s.reads.Add(1)
			return true
		}
		s.waits.Add(1)
		return false
	})
}

func BenchmarkHandshake(b *testing.B) {
	for _, kind := range kinds {
		b.Run(kind.String(), func(b *testing.B) {
			x, y := transport(b, kind, "alice"), transport(b, kind, "bob")
			cfg := Config{Muxers: []string{yamux}}
			b.ReportAllocs()
			for b.Loop() {
				ca, cb := net.Pipe()
				if _, _, errA, errB := shake(x, y, ca, cb, cfg, cfg); errA != nil || errB != nil {
					b.Fatal(errA, errB)
				}
				ca.Close()
				cb.Close()
			}
		})
	}
}

// The unit that a handshake's cost is counted in: four a side.
func BenchmarkLadder(b *testing.B) {
	key, _ := ecdh.X25519().GenerateKey(rand.Reader)
	other, _ := ecdh.X25519().GenerateKey(rand.Reader)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := key.ECDH(other.PublicKey()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSeal(b *testing.B) {
	c, _ := newCipherState(make([]byte, keyLen))
	plaintext, out := make([]byte, maxPlaintext), make([]byte, 0, maxMessage)
	b.SetBytes(maxPlaintext)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.seal(out, plaintext, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// Opening and sealing one record in place, since what is opened is gone.
func BenchmarkSealAndOpen(b *testing.B) {
	s, _ := newCipherState(make([]byte, keyLen))
	o, _ := newCipherState(make([]byte, keyLen))
	buf := make([]byte, maxPlaintext, maxMessage)
	b.SetBytes(maxPlaintext)
	b.ReportAllocs()
	for b.Loop() {
		msg, err := s.seal(buf[:0], buf, nil)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := o.open(msg[:0], msg, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// Bulk transfer over TCP on the loopback interface, with system calls a 64 KiB.
func BenchmarkBulk(b *testing.B) {
	for _, size := range []int{64 << 10, maxPlaintext, batch, 1 << 20} {
		for _, socket := range []bool{true, false} {
			name := map[bool]string{true: "socket", false: "conn"}[socket]
			b.Run(name+"/"+sizeName(size), func(b *testing.B) { benchmarkBulk(b, size, socket) })
		}
	}
}

func benchmarkBulk(b *testing.B, size int, socket bool) {
	ca, cb := tcpPair(b)
	counted := &countingConn{Conn: ca}
	reads := &readCounter{Conn: cb}
	var under net.Conn = reads
	if socket {
		under = cb
	}
	client, server := connect(b, counted, under, Config{})
	sock := &countingSocket{RawConn: server.in.socket}
	if socket {
		server.in.socket = sock
	}
	done := make(chan int64)
	records := 0
	go func() {
		var total int64
		for {
			p, err := server.ReadRecord(nil)
			if err != nil {
				done <- total
				return
			}
			total += int64(len(p))
			records++
		}
	}()
	msg := make([]byte, size)
	counted.writes.Store(0)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	var n int64
	for b.Loop() {
		if _, err := client.Write(msg); err != nil {
			b.Fatal(err)
		}
		n++
	}
	client.Close()
	if total := <-done; total != n*int64(size) {
		b.Fatalf("read %d bytes of %d", total, n*int64(size))
	}
	units := float64(n) * float64(size) / (64 << 10)
	b.ReportMetric(float64(counted.writes.Load())/units, "writes/64KiB")
	b.ReportMetric(float64(sock.reads.Load()+reads.n.Load())/units, "reads/64KiB")
	if socket {
		b.ReportMetric(float64(sock.waits.Load())/units, "waits/64KiB")
	}
}

// What a record of the size of a ping costs.
func BenchmarkSmallRecords(b *testing.B) {
	for _, socket := range []bool{true, false} {
		b.Run(map[bool]string{true: "socket", false: "conn"}[socket], func(b *testing.B) {
			ca, cb := tcpPair(b)
			wrap := func(c net.Conn) net.Conn {
				if socket {
					return c
				}
				return &readCounter{Conn: c}
			}
			client, server := connect(b, wrap(ca), wrap(cb), Config{})
			done := make(chan struct{})
			go func() {
				defer close(done)
				for {
					p, err := server.ReadRecord(nil)
					if err != nil {
						return
					}
					if _, err := server.Write(p); err != nil {
						return
					}
				}
			}()
			msg := make([]byte, 12)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := client.Write(msg); err != nil {
					b.Fatal(err)
				}
				if _, err := client.ReadRecord(nil); err != nil {
					b.Fatal(err)
				}
			}
			client.Close()
			<-done
		})
	}
}

// Live heap of one Conn that waits for data, without the connection beneath.
func BenchmarkIdle(b *testing.B) {
	for name, pair := range map[string]func() (net.Conn, net.Conn){
		"pipe": net.Pipe,
		"TCP":  func() (net.Conn, net.Conn) { return tcpPair(b) },
	} {
		b.Run(name, func(b *testing.B) {
			const n = 200
			for b.Loop() {
				var conns []*Conn
				var pairs [n][2]net.Conn
				for i := range pairs {
					pairs[i][0], pairs[i][1] = pair()
				}
				before := liveHeap()
				for _, p := range pairs {
					client, server := connect(b, p[0], p[1], Config{Muxers: []string{yamux}})
					conns = append(conns, client, server)
				}
				b.ReportMetric(float64(liveHeap()-before)/float64(len(conns)), "B/conn")
				for _, c := range conns {
					c.Close()
				}
			}
		})
	}
}

func liveHeap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

type readCounter struct {
	net.Conn
	n atomic.Int64
}

func (c *readCounter) Read(p []byte) (int, error) {
	c.n.Add(1)
	return c.Conn.Read(p)
}

func sizeName(n int) string {
	switch n {
	case 64 << 10:
		return "64KiB"
	case maxPlaintext:
		return "65519B"
	case batch:
		return "batch"
	}
	return "1MiB"
}
