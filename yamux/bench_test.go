package yamux

import (
	"io"
	"net"
	"sync"
	"testing"
)

// tcpPair returns two sessions over TCP on loopback.
func tcpPair(tb testing.TB, accept func(*Stream)) (client *Session, writes func() (int64, int64)) {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	type result struct {
		c   net.Conn
		err error
	}
	dialed := make(chan result, 1)
	go func() {
		c, err := net.Dial("tcp", l.Addr().String())
		dialed <- result{c, err}
	}()
	sc, err := l.Accept()
	if err != nil {
		tb.Fatal(err)
	}
	r := <-dialed
	if r.err != nil {
		tb.Fatal(r.err)
	}
	a, b := &counted{Conn: r.c}, &counted{Conn: sc}
	return serveBoth(tb, Records(a), Records(b), accept), func() (int64, int64) { return a.n, b.n }
}

// counted counts writes; a session never makes two at a time.
type counted struct {
	net.Conn
	n int64
}

func (c *counted) Write(p []byte) (int, error) {
	c.n++
	return c.Conn.Write(p)
}

func serveBoth(tb testing.TB, a, b Conn, accept func(*Stream)) *Session {
	client, server := New(a, true, Config{}), New(b, false, Config{})
	var wg sync.WaitGroup
	wg.Go(func() { client.Serve(nil) })
	wg.Go(func() { server.Serve(accept) })
	tb.Cleanup(func() {
		client.Close()
		server.Close()
		wg.Wait()
	})
	return client
}

func echo(st *Stream) {
	go func() {
		var b [64]byte
		for {
			n, err := st.Read(b[:])
			if err != nil {
				break
			}
			st.Write(b[:n])
		}
		st.Close()
	}()
}

// openEchoClose is one use of a stream: open, a byte there and back, both ends.
func openEchoClose(b *testing.B, s *Session, buf []byte) {
	st, err := s.Open(b.Context())
	if err != nil {
		b.Error(err)
		return
	}
	if _, err := st.Write(buf[:1]); err != nil {
		b.Error(err)
	}
	if _, err := io.ReadFull(st, buf[:1]); err != nil {
		b.Error(err)
	}
	st.CloseWrite()
	if _, err := st.Read(buf); err != io.EOF {
		b.Error(err)
	}
	st.Close()
}

func BenchmarkStreamSequential(b *testing.B) {
	s, writes := tcpPair(b, echo)
	b.ReportAllocs()
	buf := make([]byte, 64)
	for b.Loop() {
		openEchoClose(b, s, buf)
	}
	report(b, writes)
}

func BenchmarkStream64(b *testing.B) {
	s, writes := tcpPair(b, echo)
	b.ReportAllocs()
	b.SetParallelism(32) // times two processors
	b.RunParallel(func(pb *testing.PB) {
		buf := make([]byte, 64)
		for pb.Next() {
			openEchoClose(b, s, buf)
		}
	})
	report(b, writes)
}

func report(b *testing.B, writes func() (int64, int64)) {
	near, far := writes()
	b.ReportMetric(float64(near)/float64(b.N), "near-writes/op")
	b.ReportMetric(float64(far)/float64(b.N), "far-writes/op")
}

func drain(st *Stream) {
	go func() {
		buf := make([]byte, 64<<10)
		for {
			if _, err := st.Read(buf); err != nil {
				break
			}
		}
		st.Close()
	}()
}

func benchmarkBulk(b *testing.B, s *Session, size, streams int) {
	b.ReportAllocs()
	b.SetBytes(int64(size))
	b.ResetTimer()
	var wg sync.WaitGroup
	for i := range streams {
		n := b.N / streams
		if i < b.N%streams {
			n++
		}
		wg.Go(func() {
			st, err := s.Open(b.Context())
			if err != nil {
				b.Error(err)
				return
			}
			buf := make([]byte, size)
			for range n {
				if _, err := st.Write(buf); err != nil {
					b.Error(err)
					return
				}
			}
			st.CloseWrite()
			if _, err := st.Read(buf); err != io.EOF { // all has arrived
				b.Error(err)
			}
		})
	}
	wg.Wait()
}

func BenchmarkBulkTCP(b *testing.B) {
	for _, c := range []struct {
		name          string
		size, streams int
	}{{"64K", 64 << 10, 1}, {"1M", 1 << 20, 1}, {"4K", 4 << 10, 1}, {"100B", 100, 1}, {"64K-8streams", 64 << 10, 8}, {"64K-64streams", 64 << 10, 64}} {
		b.Run(c.name, func(b *testing.B) {
			s, writes := tcpPair(b, drain)
			benchmarkBulk(b, s, c.size, c.streams)
			report(b, writes)
		})
	}
}

func BenchmarkBulkMemory(b *testing.B) {
	cc, sc := newLink(1<<20, 0)
	benchmarkBulk(b, serveBoth(b, cc, sc, drain), 64<<10, 1)
}

// BenchmarkRawTCP is what the connection does without streams, for comparison.
func BenchmarkRawTCP(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, _ := l.Accept()
		buf := make([]byte, 64<<10)
		for {
			if _, err := c.Read(buf); err != nil {
				c.Close()
				return
			}
		}
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 64<<10)
	b.SetBytes(64 << 10)
	for b.Loop() {
		if _, err := c.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRapidReset is what a peer that opens and resets streams costs, until
// it has done so too often.
func BenchmarkRapidReset(b *testing.B) {
	s := New(make(silent), false, Config{})
	defer s.Close()
	s.accept = func(*Stream) {}
	b.ReportAllocs()
	id := uint32(1)
	for b.Loop() {
		s.resets = rate{}
		if err := s.receive(append(credit(flagSYN, id, 0), credit(flagRST, id, 0)...)); err != nil {
			b.Fatal(err)
		}
		id += 2
	}
}

// BenchmarkSmallFrames is what it costs to take in frames of one byte.
func BenchmarkSmallFrames(b *testing.B) {
	s := New(make(silent), false, Config{})
	defer s.Close()
	var st *Stream
	s.accept = func(opened *Stream) { st = opened }
	s.receive(credit(flagSYN, 1, 0))
	record := repeat(1000, func(int) []byte { return data(0, 1, "x") })
	buf := make([]byte, 1000)
	b.ReportAllocs()
	for b.Loop() {
		if err := s.receive(record); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(st, buf); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/frame")
}

// BenchmarkBulkCharged is BenchmarkBulkTCP where the receiver takes what it holds
// from shared memory.
func BenchmarkBulkCharged(b *testing.B) {
	for _, c := range []struct {
		name string
		size int
	}{{"64K", 64 << 10}, {"4K", 4 << 10}, {"100B", 100}} {
		b.Run(c.name, func(b *testing.B) {
			s, _ := tcpPair(b, func(st *Stream) {
				st.session.Charge(&ledger{left: 1 << 30, windows: 1 << 29})
				drain(st)
			})
			benchmarkBulk(b, s, c.size, 1)
		})
	}
}
