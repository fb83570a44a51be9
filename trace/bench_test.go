package trace_test

import (
	"testing"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/testkit"
	"github.com/kith-p2p/kith/trace"
)

// What a trace costs a stream that is opened, carries a byte there and back, and is
// closed: both ends are in this process, and the one that opens it is traced.
func BenchmarkStream(b *testing.B) {
	for _, c := range []struct {
		name   string
		attach func(h *host.Host) (detach func())
	}{
		{"trace=none", func(*host.Host) func() { return func() {} }},
		{"trace=func", func(h *host.Host) func() { return h.Trace(func(host.Event) {}) }},
		{"trace=read", func(h *host.Host) func() {
			t := trace.Start(h, 4096)
			go func() {
				for range t.Records() {
				}
			}()
			return t.Close
		}},
		{"trace=unread", func(h *host.Host) func() { return trace.Start(h, 4096).Close }},
		{"trace=20-unread", func(h *host.Host) func() {
			var all []*trace.Trace
			for range 20 {
				all = append(all, trace.Start(h, 4096))
			}
			return func() {
				for _, t := range all {
					t.Close()
				}
			}
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			client, server := testkit.Pair(b)
			defer c.attach(client)()
			testkit.BenchmarkStreams(b, client, server)
		})
	}
}

// What a line costs.
func BenchmarkDescribe(b *testing.B) {
	r := records(host.PeerConnected{Peer: testkit.Key(b).ID()})[0]
	b.Run("text", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = r.String()
		}
	})
	b.Run("json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r.MarshalJSON()
		}
	})
}
