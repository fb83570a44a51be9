package host

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/kith-p2p/kith/multistream"
)

// Of two connections whose remotes open streams as fast as they can, each is served in
// turns, also by a single processor.
func TestTurns(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const streams = 200
	dialing(t, Config{}, func(t *testing.T, h *Host, _ *scriptedTransport) {
		first := h.connectIdle(t, testKey(t), DirInbound, "", "/ip4/5.6.7.8/tcp/1", nil)
		second := h.connectIdle(t, testKey(t), DirInbound, "", "/ip4/5.6.7.9/tcp/1", nil)
		var mu sync.Mutex
		var served, lead, most int
		h.Handle("/turn/1", func(_ context.Context, s *Stream) error {
			mu.Lock()
			defer mu.Unlock()
			served++
			if lead++; s.Conn() == second {
				lead -= 2
			}
			most = max(most, lead, -lead)
			return nil
		})
		var both sync.WaitGroup
		for _, c := range []*Conn{first, second} {
			both.Go(func() {
				for range streams {
					c.accepts(&scriptedStream{said: multistream.AppendProposal(nil, "/turn/1")})
				}
			})
		}
		both.Wait()
		synctest.Wait()
		if served != 2*streams || most > streams/4 {
			t.Errorf("%d streams were served, and one connection was %d ahead of the other; want %d, and at most %d", served, most, 2*streams, streams/4)
		}
		t.Log(most, "ahead at most")
	})
}
