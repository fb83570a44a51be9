package host_test

import (
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/testkit"
	"github.com/kith-p2p/kith/memory"
	"github.com/kith-p2p/kith/multiaddr"
)

// What is announced can change without anybody's telling: it is looked at.
func TestAnnounce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		name := multiaddr.MustParse("/dns/kith.example/tcp/1")
		var more atomic.Pointer[multiaddr.Addr]
		h := testkit.Host(t, new(memory.Network), host.Config{Announce: func(listening []multiaddr.Addr) []multiaddr.Addr {
			addrs := append([]multiaddr.Addr{name}, listening...)
			if a := more.Load(); a != nil {
				addrs = append(addrs, *a)
			}
			return addrs
		}})
		if got := h.Addrs(); len(got) != 2 || got[0] != name {
			t.Fatalf("announced: %v", got)
		}
		events := h.Subscribe(4)
		defer events.Close()
		another := multiaddr.MustParse("/dns/kith.example/tcp/2")
		more.Store(&another)
		event := <-events.Events()
		if changed, ok := event.(host.AddrsChanged); !ok || !slices.Equal(changed.Addrs, h.Addrs()) || len(changed.Addrs) != 3 {
			t.Errorf("got %+v", event)
		}
	})
}

func TestNoDatagrams(t *testing.T) {
	a, b := testkit.Pair(t)
	conn := a.ConnsTo(b.ID())[0]
	if err := conn.SendDatagram(nil); err != host.ErrNoDatagrams {
		t.Error(err)
	}
	if _, err := conn.ReceiveDatagram(t.Context()); err != host.ErrNoDatagrams {
		t.Error(err)
	}
}
