//go:build !race

// The race detector doubles stacks.

package kith_test

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/kith-p2p/kith"
	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/upgrade"
)

// The budgets of what an idle connection and an idle stream hold, both ends
// together, as bytes of live objects and of stacks. They are a little above what is
// measured. Who has to raise one has found a regression, or has a reason to tell.
const (
	connHeap, connStack     = 13 << 10, 13 << 10
	streamHeap, streamStack = 1600, 5 << 10
)

// footprint is what this process holds after garbage collection.
type footprint struct{ heap, stack, goroutines int }

func measure() footprint {
	runtime.GC()
	runtime.GC() // what sync.Pools held is free only now
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return footprint{int(m.HeapAlloc), int(m.StackInuse), runtime.NumGoroutine()}
}

// checkBudget compares what n things cost since before with their budget. What
// ends by itself, such as an exchange of identify, gets time for that.
func checkBudget(t *testing.T, what string, before footprint, n, heap, stack, goroutines int) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		now := measure()
		got := footprint{(now.heap - before.heap) / n, (now.stack - before.stack) / n, now.goroutines - before.goroutines}
		if got.heap <= heap && got.stack <= stack && got.goroutines <= goroutines*n {
			t.Logf("%s: %d bytes of heap, %d of stacks, %d goroutines for %d", what, got.heap, got.stack, got.goroutines, n)
			return
		}
		select {
		case <-again.C:
		case <-deadline:
			t.Fatalf("%s: %d bytes of heap, budget %d; %d of stacks, budget %d; %d goroutines for %d, budget %d each",
				what, got.heap, heap, got.stack, stack, got.goroutines, n, goroutines)
		}
	}
}

func budgetNode(t *testing.T, listen ...multiaddr.Addr) *kith.Node {
	t.Helper()
	n, err := kith.Start(t.Context(), kith.Config{
		Listen:   append([]multiaddr.Addr{}, listen...),
		Security: []func(peer.PrivateKey) (upgrade.Security, error){upgrade.Noise}, // crypto/tls holds three times as much
		MDNS:     kith.MDNS{Off: true},
		Limits:   host.Limits{InboundStreamsPerPeer: -1},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

func TestMemoryBudget(t *testing.T) {
	const conns, streams = 200, 3000 // many, since a buffer that is kept or freed meanwhile can have 256 KiB
	server := budgetNode(t, multiaddr.MustParse("/ip4/127.0.0.1/tcp/0"))
	server.Handle("/idle/1", func(_ context.Context, s *host.Stream) error {
		b := make([]byte, 1)
		s.Read(b)
		s.Write(b)
		_, err := s.Read(b)
		return err
	})
	to := peer.AddrInfo{ID: server.ID(), Addrs: server.Addrs()}
	connect := func(n *kith.Node) {
		c, err := n.Connect(t.Context(), to)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.Identify.Identify(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	var clients []*kith.Node
	for range conns + 1 {
		clients = append(clients, budgetNode(t))
	}
	connect(clients[conns]) // what is made once is not counted
	before := measure()
	for _, n := range clients[:conns] {
		connect(n)
	}
	checkBudget(t, "connection", before, conns, connHeap, connStack, 2)

	var open []*host.Stream
	hold := func() {
		s, err := clients[0].NewStream(t.Context(), server.ID(), "/idle/1")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		open = append(open, s)
	}
	hold()
	before = measure()
	for range streams {
		hold()
	}
	checkBudget(t, "stream", before, streams, streamHeap, streamStack, 1)
	runtime.KeepAlive(open)
}
