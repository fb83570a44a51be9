package host_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/testkit"
	"github.com/kith-p2p/kith/memory"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// A subscriber that does nothing gets the first events, the newest state, and a
// mark of what it missed; the host waits for none of that.
func TestSlowSubscriber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := testkit.Host(t, new(memory.Network), host.Config{})
		sub := a.Subscribe(8)
		someone := peer.AddrInfo{ID: testkit.Key(t).ID(), Addrs: []multiaddr.Addr{multiaddr.MustParse("/memory/7")}}
		const sent = 100
		for i := range sent {
			a.Discovered(someone, "test", host.SourceLocal)
			synctest.Wait()
			if i == 5 {
				a.Handle("/first", echo)
			}
		}
		a.Handle("/second", echo)
		var got []string
		lost := 0
		for range 9 {
			switch e := (<-sub.Events()).(type) {
			case host.ProtocolsChanged:
				got = append(got, fmt.Sprint(e.Protocols))
			case host.EventsLost:
				lost += e.N
				got = append(got, "lost")
			case host.PeerDiscovered:
				got = append(got, "found")
			}
			synctest.Wait()
		}
		// Nothing happens any more, and still the loss is told.
		if e, ok := (<-sub.Events()).(host.EventsLost); ok {
			lost += e.N
			got = append(got, "lost")
		}
		want := []string{"found", "found", "found", "found", "found", "found", "[/first /second]", "found", "found", "lost"}
		if !slices.Equal(got, want) || lost != sent-8 || a.EventsLost() != uint64(lost) {
			t.Errorf("got %v with a loss of %d, want %v and %d; the host counts %d", got, lost, want, sent-8, a.EventsLost())
		}
		sub.Close()
		if a.EventsLost() != uint64(lost) {
			t.Errorf("after Close the host counts %d lost, want %d", a.EventsLost(), lost)
		}
	})
}

func TestTraceOfARunningHost(t *testing.T) {
	a := testkit.Host(t, new(memory.Network), host.Config{})
	var mu sync.Mutex
	counts := make(map[string]int)
	count := func(who string) func(host.Event) {
		return func(host.Event) {
			mu.Lock()
			defer mu.Unlock()
			counts[who]++
		}
	}
	stopA := a.Trace(count("a"))
	stopB := a.Trace(count("b"))
	a.Handle("/1", echo)
	stopA()
	stopA()
	a.Handle("/2", echo)
	stopB()
	stopB()
	a.Handle("/3", echo)
	mu.Lock()
	defer mu.Unlock()
	if counts["a"] != 1 || counts["b"] != 2 {
		t.Errorf("got %v", counts)
	}
}
