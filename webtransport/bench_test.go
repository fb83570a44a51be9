package webtransport

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/kith-p2p/kith/host"
)

// One stream carries as much as it can.
func BenchmarkBulk(b *testing.B) {
	near, far := connect(b)
	const piece = 128 << 10
	go far.Mux.Serve(func(s host.MuxedStream) {
		go func() {
			io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{s}, make([]byte, piece))
			s.Close()
		}()
	})
	s, err := near.Mux.OpenStream(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, piece)
	b.SetBytes(piece)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
	s.CloseWrite()
	s.Read(buf)
}

// A stream is opened, asks for one byte and gets it. Both sides are counted.
func BenchmarkRequest(b *testing.B) {
	near, far := connect(b)
	go far.Mux.Serve(func(s host.MuxedStream) {
		go func() {
			var p [1]byte
			s.Read(p[:])
			s.Write(p[:])
			s.Close()
		}()
	})
	b.ReportAllocs()
	var p [1]byte
	for b.Loop() {
		s, err := near.Mux.OpenStream(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		s.Write(p[:])
		if _, err := io.ReadFull(s, p[:]); err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}

// From nothing to a connection that is used. Both sides are counted.
func BenchmarkDial(b *testing.B) {
	key := newKey(b)
	ln := listen(b, newTransport(b, key))
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	go admitAll(ctx, ln)
	tr := newTransport(b, newKey(b))
	addr := ln.Addr()
	b.ReportAllocs()
	for b.Loop() {
		tc, err := tr.Dial(ctx, addr, key.ID(), func(host.Stage) {})
		if err != nil {
			b.Fatal(err)
		}
		tc.Mux.CloseWithCode(0)
	}
}
