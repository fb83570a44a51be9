package interop

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/interop/internal/peercmd"
)

// TestSimultaneousDial lets both peers dial the other at the same moment, many times, and then both open streams at once, over
// whichever connections there are. Every stream must carry its bytes both ways: go-libp2p keeps both connections, Kith prefers one.
func TestSimultaneousDial(t *testing.T) {
	const (
		couples = 5  // one peer may not connect without end: it asks who the other is each time
		rounds  = 10 // of each couple
		streams = 8
		lead    = 30 * time.Millisecond // for both to have read their orders
	)
	for _, transport := range []string{"tcp", "quic-v1", "ws"} {
		for _, pair := range []pair{{kithPeer, goPeer}, {kithPeer, kithPeer}} {
			t.Run(fmt.Sprintf("%s-and-%s/%s", pair.dialer.name, pair.listener.name, transport), func(t *testing.T) {
				t.Parallel()
				flags := []string{"--listen=" + stack{transport: transport}.listen(), fmt.Sprintf("--streams=%d", streams), "--bytes=5000"}
				dials := 0
				for range couples {
					a, b := pair.dialer.run(t, "listen", flags...), pair.listener.run(t, "listen", flags...)
					peerA, peerB := await[peercmd.Listening](t, a), await[peercmd.Listening](t, b)
					for range rounds {
						moment := fmt.Sprint(time.Now().Add(lead).UnixNano())
						a.order(t, "meet", peerB.Addrs[0], moment)
						b.order(t, "meet", peerA.Addrs[0], moment)
						a.answer(t)
						b.answer(t)
						a.order(t, "close", peerB.Peer, "0")
						b.order(t, "close", peerA.Peer, "0")
						a.answer(t)
						b.answer(t)
					}
					a.terminate(t)
					b.terminate(t)
					dials += strings.Count(a.stdout.all()+b.stdout.all(), `"direction":"outbound"`)
				}
				t.Logf("%d connections in %d rounds", dials, couples*rounds)
				if dials == couples*rounds {
					t.Error("never did both dial at once: the test shows nothing")
				}
			})
		}
	}
}

// TestCloseCodes ends connections for the reasons that there are, and wants the remote to understand why.
func TestCloseCodes(t *testing.T) {
	for _, transport := range []string{"tcp", "quic-v1"} {
		for _, pair := range []pair{{kithPeer, goPeer}, {goPeer, kithPeer}} {
			dialer, listener := pair.dialer, pair.listener
			listen := "--listen=" + stack{transport: transport}.listen()
			t.Run(fmt.Sprintf("%s/%s/closed", pair, transport), func(t *testing.T) {
				t.Parallel()
				server, client := listener.run(t, "listen", listen), dialer.run(t, "listen", listen)
				serving, dialing := await[peercmd.Listening](t, server), await[peercmd.Listening](t, client)
				for _, code := range []uint32{host.ConnCodeGarbageCollected, host.ConnCodeShutdown, host.ConnCodeGated, 0x4711} {
					client.do(t, "connect", serving.Addrs[0])
					server.do(t, "has", dialing.Peer)
					client.do(t, "hold", serving.Peer)
					server.do(t, "close", dialing.Peer, fmt.Sprint(code))
					client.checkReleased(t, code)
					client.do(t, "gone", serving.Peer)
					client.do(t, "connect", serving.Addrs[0])
					server.do(t, "has", dialing.Peer)
					server.do(t, "hold", dialing.Peer)
					client.do(t, "close", serving.Peer, fmt.Sprint(code))
					server.checkReleased(t, code)
					server.do(t, "gone", dialing.Peer)
				}
				client.terminate(t)
				server.terminate(t)
			})
		}
		for _, remote := range []program{goPeer, kithPeer} {
			listen := "--listen=" + stack{transport: transport}.listen()
			t.Run(fmt.Sprintf("kith-trims-%s/%s", remote.name, transport), func(t *testing.T) {
				t.Parallel()
				server, client, other := kithPeer.run(t, "listen", listen, "--high-water=1"), remote.run(t, "listen", listen), remote.run(t, "listen", listen)
				serving, dialing, another := await[peercmd.Listening](t, server), await[peercmd.Listening](t, client), await[peercmd.Listening](t, other)
				server.do(t, "value", dialing.Peer, "-1")
				client.do(t, "connect", serving.Addrs[0])
				client.do(t, "hold", serving.Peer)
				other.do(t, "connect", serving.Addrs[0])
				client.checkReleased(t, host.ConnCodeGarbageCollected)
				other.do(t, "hold", serving.Peer) // who is worth more stays

				server.do(t, "refuse", another.Peer) // ends what stands, too
				other.checkReleased(t, host.ConnCodeGated)
				other.do(t, "gone", serving.Peer)
				other.order(t, "connect", serving.Addrs[0]) // may succeed for a moment
				await[peercmd.Did](t, other)
				other.do(t, "gone", serving.Peer)
				server.do(t, "gone", another.Peer)
			})
		}
	}
}

// TestNewAddress lets a peer listen on one more address while it is connected; the other hears of it by identify push, over
// connections of either direction.
func TestNewAddress(t *testing.T) {
	const more = "/ip4/127.0.0.1/tcp/0"
	for _, pair := range []pair{{kithPeer, goPeer}, {goPeer, kithPeer}} {
		for _, mover := range []program{kithPeer, goPeer} {
			t.Run(fmt.Sprintf("%s/%s-moves", pair, mover.name), func(t *testing.T) {
				t.Parallel()
				client, server := pair.dialer.run(t, "listen"), pair.listener.run(t, "listen")
				dialing, serving := await[peercmd.Listening](t, client), await[peercmd.Listening](t, server)
				client.do(t, "connect", serving.Addrs[0])
				moves, watches, who := client, server, dialing
				if mover.name == pair.listener.name {
					moves, watches, who = server, client, serving
				}
				watches.do(t, "knows", who.Peer, withoutPeer(who.Addrs[0]))
				moves.do(t, "listen", more)
				now := await[peercmd.Listening](t, moves)
				if len(now.Addrs) != 2 {
					t.Fatalf("listens on %v", now.Addrs)
				}
				for _, addr := range now.Addrs {
					watches.do(t, "knows", who.Peer, withoutPeer(addr))
				}
				client.terminate(t)
				server.terminate(t)
			})
		}
	}
	t.Run("js-dials-kith/kith-moves", func(t *testing.T) {
		t.Parallel()
		server := kithPeer.run(t, "listen")
		serving := await[peercmd.Listening](t, server)
		client := jsPeer.run(t, "dial", "--peer="+serving.Addrs[0], "--do=identify,moved")
		await[peercmd.Identify](t, client)
		await[peercmd.Identify](t, server)
		server.do(t, "listen", more)
		checkMoved(t, await[peercmd.Moved](t, client).ListenAddrs, await[peercmd.Listening](t, server))
		client.succeed(t)
		server.terminate(t)
	})
	t.Run("kith-dials-js/kith-moves", func(t *testing.T) {
		t.Parallel()
		server, client := jsPeer.run(t, "listen"), kithPeer.run(t, "listen")
		serving := await[peercmd.Listening](t, server)
		await[peercmd.Listening](t, client)
		client.do(t, "connect", serving.Addrs[0])
		await[peercmd.Identify](t, server)
		client.do(t, "listen", more)
		checkMoved(t, await[peercmd.Identify](t, server).ListenAddrs, await[peercmd.Listening](t, client))
		client.terminate(t)
		server.terminate(t)
	})
}

func checkMoved(t *testing.T, heard []string, now peercmd.Listening) {
	t.Helper()
	var want []string
	for _, addr := range now.Addrs {
		want = append(want, withoutPeer(addr))
	}
	if !slices.Equal(slices.Sorted(slices.Values(heard)), slices.Sorted(slices.Values(want))) || len(want) != 2 {
		t.Errorf("the remote heard of %v, want two: %v", heard, want)
	}
}

// checkReleased waits for the end of the stream that p holds, and wants it to be that of its connection, by the remote.
func (p *process) checkReleased(t *testing.T, code uint32) {
	t.Helper()
	got := await[peercmd.Released](t, p)
	if got.Code == nil || *got.Code != code || !got.Remote {
		t.Errorf("%s: the held stream ended with %s, want code %#x of the remote", p.name, got.Error, code)
	}
}
