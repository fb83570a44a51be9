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
	connHeap, connStack     = 11 << 10, 11 << 10
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

// idle is what this process holds when nothing is under way: the least of several
// looks. What connections share while they read is there in some and not in others,
// and a block of 256 KiB is 1.3 KB for each of 200 connections.
func idle() footprint {
	least := measure()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for same := 0; same < 5; same++ {
		<-again.C
		now := measure()
		if now.heap < least.heap-16<<10 || now.goroutines < least.goroutines {
			same = 0
		}
		least = footprint{min(now.heap, least.heap), min(now.stack, least.stack), min(now.goroutines, least.goroutines)}
	}
	return least
}

// checkBudget compares what n things cost since before with their budget. What
// ends by itself, such as an exchange of identify, gets time for that.
func checkBudget(t *testing.T, what string, before footprint, n, heap, stack, goroutines int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		now := idle()
		got := footprint{(now.heap - before.heap) / n, (now.stack - before.stack) / n, now.goroutines - before.goroutines}
		if got.heap <= heap && got.stack <= stack && got.goroutines <= goroutines*n {
			t.Logf("%s: %d bytes of heap, %d of stacks, %d goroutines for %d", what, got.heap, got.stack, got.goroutines, n)
			return
		}
		if time.Now().After(deadline) {
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
	other := budgetNode(t, multiaddr.MustParse("/ip4/127.0.0.1/tcp/0"))
	connect := func(n, to *kith.Node) *host.Conn {
		c, err := n.Connect(t.Context(), peer.AddrInfo{ID: to.ID(), Addrs: to.Addrs()})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.Identify.Identify(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		return c
	}
	var clients []*kith.Node
	for range conns + 1 {
		n := budgetNode(t)
		clients = append(clients, n)
		connect(n, other).Close() // what a node makes once is not counted
	}
	connect(clients[conns], server)
	before := idle()
	for _, n := range clients[:conns] {
		connect(n, server)
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
	before = idle()
	for range streams {
		hold()
	}
	checkBudget(t, "stream", before, streams, streamHeap, streamStack, 1)
	runtime.KeepAlive(open)
}
