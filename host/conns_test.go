package host

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// connectIdle gives h a connection on which nothing happens.
func (h *Host) connectIdle(t *testing.T, key peer.PrivateKey, dir Direction, local, remote string, charge func(*Account)) *Conn {
	t.Helper()
	tc := TransportConn{Mux: &idleMux{ended: make(chan struct{})}, RemoteKey: key.Public(), RemoteAddr: multiaddr.MustParse(remote), Charge: charge}
	if local != "" {
		tc.LocalAddr = multiaddr.MustParse(local)
	}
	type result struct {
		c   *Conn
		err error
	}
	made := make(chan result, 1)
	h.spawn(func(context.Context) { c, err := h.addConn(tc, dir, false); made <- result{c, err} })
	r := <-made
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.c
}

// What a muxer makes its account is set before anybody can open streams.
func TestChargedBeforeUse(t *testing.T) {
	dialing(t, Config{}, func(t *testing.T, h *Host, _ *scriptedTransport) {
		key := testKey(t)
		called := false
		h.connectIdle(t, key, DirInbound, "", "/ip4/5.6.7.8/tcp/1", func(a *Account) {
			called = true
			if a.budget == nil || len(h.conns[key.Public().ID()]) > 0 {
				t.Error("others can use the connection already")
			}
		})
		if !called {
			t.Error("not charged")
		}
	})
}

// Who agreed to the end of a connection uses it again when it has not ended, even if it
// is the best there is.
func TestYieldedComesBack(t *testing.T) {
	dialing(t, Config{}, func(t *testing.T, h *Host, _ *scriptedTransport) {
		key := testKey(t)
		c := h.connectIdle(t, key, DirInbound, "", "/ip4/5.6.7.8/tcp/1", nil)
		other := h.connectIdle(t, key, DirInbound, "", "/ip4/5.6.7.8/tcp/2", nil)
		time.Sleep(2 * yieldFor) // what follows from the second one is over
		other.stale.Store(true)
		time.Sleep(2 * tendEvery) // c is the best now
		if !h.yield(c) {
			t.Fatal("not agreed")
		}
		if c.begin() {
			t.Fatal("a stream could be opened")
		}
		time.Sleep(2 * yieldFor)
		if !c.begin() {
			t.Fatal("no stream can be opened ever again")
		}
		c.begun()
	})
}

// What peers see is announced when enough of them see the same.
func TestObservedIsAnnounced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, err := New(Config{Identity: testKey(t), Transports: []Transport{listening{}}})
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		if err := h.Listen(multiaddr.MustParse("/ip4/10.1.2.3/udp/4001/quic-v1")); err != nil {
			t.Fatal(err)
		}
		const seen = "/ip4/9.9.9.9/udp/4001/quic-v1"
		for n := range minObservers {
			if slices.Contains(h.Addrs(), multiaddr.MustParse(seen)) {
				t.Fatalf("announced on the word of %d", n)
			}
			remote := fmt.Sprintf("/ip4/%d.1.1.1/udp/4001/quic-v1", 11+n)
			c := h.connectIdle(t, testKey(t), Direction(n%2), "/ip4/10.1.2.3/udp/4001/quic-v1", remote, nil)
			h.Identified(c, PeerInfo{ObservedAddr: multiaddr.MustParse(seen)}, false)
			time.Sleep(2 * judgeDelay)
		}
		if !slices.Contains(h.Addrs(), multiaddr.MustParse(seen)) {
			t.Errorf("announced: %v", h.Addrs())
		}
	})
}

// listening is a transport that listens, and nobody comes.
type listening struct{ Transport }

func (listening) CanDial(multiaddr.Addr) bool   { return false }
func (listening) CanListen(multiaddr.Addr) bool { return true }
func (listening) Listen(a multiaddr.Addr) (TransportListener, error) {
	return &idleListener{a, make(chan struct{})}, nil
}

type idleListener struct {
	addr multiaddr.Addr
	done chan struct{}
}

func (l *idleListener) Accept() (Incoming, error) { <-l.done; return nil, ErrClosed }
func (l *idleListener) Addr() multiaddr.Addr      { return l.addr }
func (l *idleListener) Close() error              { close(l.done); return nil }

// Of addresses that are found at the same time, those found last are told last.
func TestAddrsInOrder(t *testing.T) {
	var version atomic.Int64
	h, err := New(Config{Identity: testKey(t), Announce: func([]multiaddr.Addr) []multiaddr.Addr {
		v := version.Load()
		for range v % 7 {
			runtime.Gosched()
		}
		return []multiaddr.Addr{multiaddr.MustParse(fmt.Sprintf("/memory/%d", v))}
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	for range 100 {
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				version.Add(1)
				h.noteAddrs()
			})
		}
		all.Wait()
		if want := multiaddr.MustParse(fmt.Sprintf("/memory/%d", version.Load())); !slices.Equal(h.lastAddrs, []multiaddr.Addr{want}) {
			t.Fatalf("told %v, and is at %v", h.lastAddrs, want)
		}
	}
}
