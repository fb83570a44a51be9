package host

import (
	"fmt"
	"slices"
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
	const room = 10 << 10
	b := newBook(room)
	kept := testID(t)
	b.connect(kept, true)
	for i := range 100 {
		b.addAddrs(testID(t), []multiaddr.Addr{memoryAddr(i)}, SourceStranger, TTLTold)
	}
	idle := 0
	for i := range b.idle {
		idle += b.idle[i].bytes
	}
	if idle > room || idle < room/2 || b.connected == 0 {
		t.Errorf("%d bytes for peers without a connection, %d for those with one", idle, b.connected)
	}
	if b.peers[kept] == nil {
		t.Error("a connected peer was forgotten")
	}
	b.connect(kept, false)
	if b.connected != 0 {
		t.Errorf("%d bytes are held by connected peers after all connections have ended", b.connected)
	}
}

// Who came and said nothing is not remembered; who said something is.
func TestBookForgetsTheSilent(t *testing.T) {
	b := newBook(1 << 20)
	silent, spoke := testID(t), testID(t)
	for _, p := range []peer.ID{silent, spoke} {
		b.connect(p, true)
	}
	b.identified(PeerInfo{ID: spoke, AgentVersion: "agent"}, multiaddr.Addr{})
	for _, p := range []peer.ID{silent, spoke} {
		b.connect(p, false)
	}
	if n, _ := b.usage(); n != 1 || b.info(spoke).AgentVersion != "agent" {
		t.Errorf("%d peers are known, and one as %+v", n, b.info(spoke))
	}
	b.connect(silent, true)
	if n, _ := b.usage(); n != 2 {
		t.Errorf("%d peers are known with a second connection, want 2", n)
	}
}

func TestBookBoundsAddrs(t *testing.T) {
	b := newBook(1 << 20)
	p := testID(t)
	configured := memoryAddr(1000)
	b.addAddrs(p, []multiaddr.Addr{configured}, SourceUser, TTLForever)
	for i := range 100 {
		b.addAddrs(p, []multiaddr.Addr{memoryAddr(i)}, SourceStranger, TTLTold)
	}
	addrs := b.info(p).Addrs
	if len(addrs) != maxAddrsPerPeer || addrs[0] != configured {
		t.Errorf("%d addresses, the first is %v", len(addrs), addrs[0])
	}
}

func TestBookForgetsAddrs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBook(1 << 20)
		p := testID(t)
		b.addAddrs(p, []multiaddr.Addr{memoryAddr(1)}, SourceStranger, TTLTold)
		b.addAddrs(p, []multiaddr.Addr{memoryAddr(2)}, SourceStranger, TTLForever)
		b.connect(p, true)
		time.Sleep(2 * TTLTold)
		if n := len(b.info(p).Addrs); n != 2 {
			t.Errorf("%d addresses of a connected peer, want 2", n)
		}
		b.connect(p, false)
		time.Sleep(TTLConnected + time.Second)
		if addrs := b.info(p).Addrs; len(addrs) != 1 || addrs[0] != memoryAddr(2) {
			t.Errorf("addresses after their time: %v", addrs)
		}
	})
}

func TestIdentifyReplacesAddrs(t *testing.T) {
	b := newBook(1 << 20)
	p := testID(t)
	b.addAddrs(p, []multiaddr.Addr{memoryAddr(1)}, SourceUser, TTLForever)
	b.addAddrs(p, []multiaddr.Addr{memoryAddr(2)}, SourceStranger, TTLTold)
	b.identified(PeerInfo{ID: p, Addrs: []multiaddr.Addr{memoryAddr(3)}, AgentVersion: "x"}, memoryAddr(3))
	info := b.info(p)
	if len(info.Addrs) != 2 || info.Addrs[0] != memoryAddr(1) || info.Addrs[1] != memoryAddr(3) || info.AgentVersion != "x" {
		t.Errorf("after identify: %+v", info)
	}
}

// Peers with a connection may say a lot of themselves, but all together not without end.
func TestIdentifyIsBounded(t *testing.T) {
	const room = 1 << 20
	b := newBook(room)
	long := make([]ProtocolID, 1024)
	for i := range long {
		long[i] = ProtocolID(fmt.Sprintf("/%050d", i))
	}
	for range 200 {
		p := testID(t)
		b.connect(p, true)
		b.identified(PeerInfo{ID: p, Protocols: slices.Clone(long), AgentVersion: "x"}, memoryAddr(1))
	}
	if _, bytes := b.usage(); bytes > 2*room {
		t.Errorf("200 peers that say 50 KiB each hold %d bytes, want at most %d", bytes, 2*room)
	}
	p := testID(t)
	b.connect(p, true)
	if kept := b.identified(PeerInfo{ID: p, Protocols: []ProtocolID{"/echo/1"}}, memoryAddr(1)); len(kept.Protocols) != 1 {
		t.Error("a peer that says little is not heard any more")
	}
}
