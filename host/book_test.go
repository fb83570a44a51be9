package host

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

func testID(t *testing.T) peer.ID {
	t.Helper()
	key, err := peer.GenerateKey(peer.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	return key.ID()
}

func memoryAddr(n int) multiaddr.Addr { return multiaddr.MustParse(fmt.Sprintf("/memory/%d", n+1)) }

func TestBookIsBounded(t *testing.T) {
	b := newBook(10)
	kept := testID(t)
	b.connected(kept, true)
	for i := range 100 {
		b.addAddrs(testID(t), []multiaddr.Addr{memoryAddr(i)}, TTLTold)
	}
	if len(b.peers) != 11 || b.idle.Len() != 10 {
		t.Errorf("%d peers known, %d of them idle; want 11 and 10", len(b.peers), b.idle.Len())
	}
	if b.peers[kept] == nil {
		t.Error("a connected peer was forgotten")
	}
	b.connected(kept, false)
	if len(b.peers) != 10 {
		t.Errorf("%d peers known after the connection ended, want 10", len(b.peers))
	}
}

func TestBookBoundsAddrs(t *testing.T) {
	b := newBook(10)
	p := testID(t)
	configured := memoryAddr(1000)
	b.addAddrs(p, []multiaddr.Addr{configured}, TTLForever)
	for i := range 100 {
		b.addAddrs(p, []multiaddr.Addr{memoryAddr(i)}, TTLTold)
	}
	addrs := b.info(p).Addrs
	if len(addrs) != maxAddrsPerPeer || addrs[0] != configured {
		t.Errorf("%d addresses, the first is %v", len(addrs), addrs[0])
	}
}

func TestBookForgetsAddrs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBook(10)
		p := testID(t)
		b.addAddrs(p, []multiaddr.Addr{memoryAddr(1)}, TTLTold)
		b.addAddrs(p, []multiaddr.Addr{memoryAddr(2)}, TTLForever)
		b.connected(p, true)
		time.Sleep(2 * TTLTold)
		if n := len(b.info(p).Addrs); n != 2 {
			t.Errorf("%d addresses of a connected peer, want 2", n)
		}
		b.connected(p, false)
		time.Sleep(TTLConnected + time.Second)
		if addrs := b.info(p).Addrs; len(addrs) != 1 || addrs[0] != memoryAddr(2) {
			t.Errorf("addresses after their time: %v", addrs)
		}
	})
}

func TestIdentifyReplacesAddrs(t *testing.T) {
	b := newBook(10)
	p := testID(t)
	b.addAddrs(p, []multiaddr.Addr{memoryAddr(1)}, TTLForever)
	b.addAddrs(p, []multiaddr.Addr{memoryAddr(2)}, TTLTold)
	b.identified(PeerInfo{ID: p, Addrs: []multiaddr.Addr{memoryAddr(3)}, AgentVersion: "x"})
	info := b.info(p)
	if len(info.Addrs) != 2 || info.Addrs[0] != memoryAddr(1) || info.Addrs[1] != memoryAddr(3) || info.AgentVersion != "x" {
		t.Errorf("after identify: %+v", info)
	}
}
