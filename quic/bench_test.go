package quic

import (
	"context"
	"io"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	quicgo "github.com/quic-go/quic-go"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/testkit"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/p2ptls"
	"github.com/kith-p2p/kith/peer"
)

// BenchmarkBulk moves 1 MiB over one stream; CPU time is of both ends. quic-go is
// the same with quic-go alone on an ordinary UDP socket.
func BenchmarkBulk(b *testing.B) {
	b.Run("kith", func(b *testing.B) {
		near, far := pair(b)
		s, err := near.OpenStream(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		moveBulk(b, s, accepted(b, far, s))
	})
	b.Run("quic-go", func(b *testing.B) {
		near, far := barePair(b)
		s, err := near.OpenStream()
		if err != nil {
			b.Fatal(err)
		}
		s.Write([]byte{0})
		r, err := far.AcceptStream(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		io.ReadFull(r, make([]byte, 1))
		moveBulk(b, s, r)
	})
}

func moveBulk(b *testing.B, w io.Writer, r io.Reader) {
	const size = 1 << 20
	b.SetBytes(size)
	b.ReportAllocs()
	start := cpuTime()
	b.ResetTimer()
	go func() {
		buf := make([]byte, 64<<10)
		for range b.N * size / len(buf) {
			if _, err := w.Write(buf); err != nil {
				return
			}
		}
	}()
	if n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, io.LimitReader(r, int64(b.N)*size), make([]byte, 64<<10)); err != nil || n != int64(b.N)*size {
		b.Fatal(n, err)
	}
	b.StopTimer()
	b.ReportMetric((cpuTime()-start).Seconds()/float64(b.N)*1024, "cpu-s/GiB")
}

// BenchmarkStream opens a stream, sends 100 bytes there and back, and closes it.
// Allocations are of both ends.
func BenchmarkStream(b *testing.B) {
	for name, parallel := range map[string]int{"sequential": 0, "parallel": 64} {
		b.Run(name, func(b *testing.B) {
			near, far := pair(b)
			go far.Serve(func(s host.MuxedStream) {
				go func() {
					buf := make([]byte, 128)
					n, _ := io.ReadAtLeast(s, buf, 100)
					s.Write(buf[:n])
					s.Close()
				}()
			})
			go near.Serve(func(host.MuxedStream) {})
			msg := make([]byte, 100)
			op := func() {
				s, err := near.OpenStream(context.Background())
				if err != nil {
					b.Error(err)
					return
				}
				s.Write(msg)
				var buf [100]byte
				if _, err := io.ReadFull(s, buf[:]); err != nil {
					b.Error(err)
				}
				s.Close()
			}
			b.ReportAllocs()
			if parallel == 0 {
				for b.Loop() {
					op()
				}
				return
			}
			b.SetParallelism(parallel / runtime.GOMAXPROCS(0))
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					op()
				}
			})
		})
	}
}

// BenchmarkDial makes connections, one after the other.
func BenchmarkDial(b *testing.B) {
	near, far := newTransport(b, testkit.Key(b), EndpointConfig{}), newTransport(b, testkit.Key(b), EndpointConfig{})
	l, err := far.Listen(multiaddr.MustParse("/ip4/127.0.0.1/udp/0/quic-v1"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go in.Upgrade(context.Background(), func(host.Stage) {})
		}
	}()
	b.ReportAllocs()
	for b.Loop() {
		tc, err := near.Dial(b.Context(), l.Addr(), peer.ID{}, func(host.Stage) {})
		if err != nil {
			b.Fatal(err)
		}
		tc.Mux.CloseWithCode(0)
	}
}

// BenchmarkLook is what a look at an idle connection takes.
func BenchmarkLook(b *testing.B) {
	near, far := newTransport(b, testkit.Key(b), EndpointConfig{}), newTransport(b, testkit.Key(b), EndpointConfig{})
	h, err := host.New(host.Config{Identity: testkit.Key(b), Transports: []host.Transport{far}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { h.Close() })
	if err := h.Listen(multiaddr.MustParse("/ip4/127.0.0.1/udp/0/quic-v1")); err != nil {
		b.Fatal(err)
	}
	if _, err := near.Dial(b.Context(), h.Addrs()[0], peer.ID{}, func(host.Stage) {}); err != nil {
		b.Fatal(err)
	}
	await(b, "it is charged", func() bool { return far.endpoint.meters.slack.Load() > 0 })
	b.ReportAllocs()
	for b.Loop() {
		far.endpoint.meters.look()
	}
}

// BenchmarkIdleMemory reports what one end of an idle connection keeps in heap and stacks.
func BenchmarkIdleMemory(b *testing.B) {
	const conns = 200
	for range b.N {
		near, l := listening(b)
		before := memory()
		for range conns {
			dialTo(b, near, l)
		}
		// Handshakes leave timers and packets behind that are gone in a moment.
		for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); {
			runtime.Gosched()
		}
		b.ReportMetric(float64(memory()-before)/(2*conns), "B/end")
	}
}

func memory() uint64 {
	runtime.GC()
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc + stats.StackInuse
}

// accepted gives the far end of s, over which one byte has been sent.
func accepted(b *testing.B, far host.MuxedConn, s host.MuxedStream) host.MuxedStream {
	b.Helper()
	streams := make(chan host.MuxedStream, 1)
	go far.Serve(func(s host.MuxedStream) { streams <- s })
	s.Write([]byte{0})
	r := <-streams
	io.ReadFull(r, make([]byte, 1))
	return r
}

// listening gives a transport, and a listener of another one.
func listening(t testing.TB) (near *Transport, l host.TransportListener) {
	t.Helper()
	near = newTransport(t, testkit.Key(t), EndpointConfig{})
	l, err := newTransport(t, testkit.Key(t), EndpointConfig{}).Listen(multiaddr.MustParse("/ip4/127.0.0.1/udp/0/quic-v1"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return near, l
}

// dialTo makes a connection and gives both ends.
func dialTo(t testing.TB, near *Transport, l host.TransportListener) (dialed, taken host.TransportConn) {
	t.Helper()
	ends := make(chan host.TransportConn, 1)
	go func() {
		defer close(ends)
		in, err := l.Accept()
		if err != nil {
			return
		}
		if tc, err := in.Upgrade(context.Background(), func(host.Stage) {}); err == nil {
			ends <- tc
		}
	}()
	dialed, err := near.Dial(t.Context(), l.Addr(), peer.ID{}, func(host.Stage) {})
	if err != nil {
		t.Fatal(err)
	}
	taken, ok := <-ends
	if !ok {
		t.Fatal("not accepted")
	}
	return dialed, taken
}

func pair(t testing.TB) (near, far host.MuxedConn) {
	t.Helper()
	transport, l := listening(t)
	dialed, taken := dialTo(t, transport, l)
	return dialed.Mux, taken.Mux
}

// barePair makes a connection of quic-go, with the windows that go-libp2p sets.
func barePair(b *testing.B) (near, far *quicgo.Conn) {
	b.Helper()
	security, err := p2ptls.New(testkit.Key(b))
	if err != nil {
		b.Fatal(err)
	}
	conf := &quicgo.Config{MaxStreamReceiveWindow: maxStreamWindow, MaxConnectionReceiveWindow: maxConnWindow}
	socket := func() *net.UDPConn {
		conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { conn.Close() })
		return conn
	}
	l, err := quicgo.Listen(socket(), security.QUICConfig(peer.ID{}), conf)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	dialer := &quicgo.Transport{Conn: socket()}
	b.Cleanup(func() { dialer.Close() })
	near, err = dialer.Dial(b.Context(), l.Addr(), security.QUICConfig(peer.ID{}), conf)
	if err != nil {
		b.Fatal(err)
	}
	if far, err = l.Accept(b.Context()); err != nil {
		b.Fatal(err)
	}
	return near, far
}
