package webrtc

import (
	"context"
	"io"
	"testing"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/peer"
)

// connected gives two ends of a connection, the listener's of which hands streams to serve.
func connected(b *testing.B, serve func(host.MuxedStream)) host.MuxedConn {
	key, err := peer.GenerateKey(peer.Ed25519)
	if err != nil {
		b.Fatal(err)
	}
	transport, err := New(Config{Key: key})
	if err != nil {
		b.Fatal(err)
	}
	l, err := transport.Listen(address(loopback))
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		i, err := l.Accept()
		if err != nil {
			return
		}
		tc, err := i.Upgrade(context.Background(), func(host.Stage) {})
		if err != nil {
			return
		}
		tc.Mux.Serve(func(s host.MuxedStream) { go serve(s) })
	}()
	tc, err := transport.Dial(b.Context(), l.Addr(), key.ID(), func(host.Stage) {})
	if err != nil {
		b.Fatal(err)
	}
	go tc.Mux.Serve(func(host.MuxedStream) {})
	b.Cleanup(func() {
		tc.Mux.CloseWithCode(0)
		l.Close()
	})
	return tc.Mux
}

func BenchmarkBulk(b *testing.B) {
	mux := connected(b, func(s host.MuxedStream) {
		io.CopyBuffer(struct{ io.Writer }{io.Discard}, s, make([]byte, 64<<10))
		s.Close()
	})
	s, err := mux.OpenStream(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	p := make([]byte, 64<<10)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Write(p); err != nil {
			b.Fatal(err)
		}
	}
	s.CloseWrite()
	io.ReadAll(s)
}

func BenchmarkStreams(b *testing.B) {
	mux := connected(b, func(s host.MuxedStream) {
		io.Copy(s, s)
		s.Close()
	})
	b.ReportAllocs()
	p := make([]byte, 16)
	for b.Loop() {
		s, err := mux.OpenStream(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		s.Write(p)
		s.CloseWrite()
		if _, err := io.ReadFull(s, p); err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}
