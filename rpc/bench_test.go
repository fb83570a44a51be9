package rpc_test

import (
	"context"
	"testing"

	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/rpc"
)

func BenchmarkCall(b *testing.B) {
	for _, transport := range transports {
		b.Run(transport.name, func(b *testing.B) {
			client, server := transport.pair(b)
			m := rpc.Method[[]byte, []byte]{Protocol: "/echo/1", Codec: rpc.Raw, CallsPerPeer: -1, Calls: -1}
			m.Serve(server, func(_ context.Context, _ peer.ID, req []byte) ([]byte, error) { return req, nil })
			req := make([]byte, 100)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := m.Call(b.Context(), client, server.ID(), req); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

func BenchmarkStream(b *testing.B) {
	for _, transport := range transports {
		b.Run(transport.name, func(b *testing.B) {
			client, server := transport.pair(b)
			m := rpc.Method[[]byte, []byte]{Protocol: "/count/1", Codec: rpc.Raw}
			m.ServeStream(server, func(_ context.Context, s *rpc.ServerStream[[]byte, []byte]) error {
				for {
					if _, err := s.Recv(); err != nil {
						return nil
					}
				}
			})
			s, err := m.Open(b.Context(), client, server.ID())
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			value := make([]byte, 1000)
			b.SetBytes(int64(len(value)))
			b.ReportAllocs()
			for b.Loop() {
				if err := s.Send(value); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
