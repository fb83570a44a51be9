//go:build !race

// The race detector doubles stacks.

package kith_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/kith-p2p/kith"
	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/rpc"
	"github.com/kith-p2p/kith/upgrade"
)

// What nodes say that they hold for others is what they hold, within a third: of
// connections, of streams, of what nobody reads, and of what is known of peers. Both
// ends are in this process, so it is the sum of what all of them say.
func TestAccounting(t *testing.T) {
	for _, c := range []struct {
		name, addr string
		security   func(peer.PrivateKey) (upgrade.Security, error)
	}{
		{"tcp", "/ip4/127.0.0.1/tcp/0", upgrade.Noise},
		{"tcp with tls", "/ip4/127.0.0.1/tcp/0", upgrade.TLS},
		{"quic", "/ip4/127.0.0.1/udp/0/quic-v1", upgrade.Noise},
		{"webtransport", "/ip4/127.0.0.1/udp/0/quic-v1/webtransport", upgrade.Noise},
		{"webrtc", "/ip4/127.0.0.1/udp/0/webrtc-direct", upgrade.Noise},
	} {
		t.Run(c.name, func(t *testing.T) { accountFor(t, c.addr, c.security) })
	}
}

func accountFor(t *testing.T, addr string, security func(peer.PrivateKey) (upgrade.Security, error)) {
	const conns, streams, unread = 40, 1000, 24
	node := func(listen ...multiaddr.Addr) *kith.Node {
		n, err := kith.Start(t.Context(), kith.Config{
			Listen:   append([]multiaddr.Addr{}, listen...),
			Security: []func(peer.PrivateKey) (upgrade.Security, error){security},
			MDNS:     kith.MDNS{Off: true},
			Limits:   host.Limits{Memory: 1 << 30},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { n.Close() })
		return n
	}
	server := node(multiaddr.MustParse(addr))
	var open []*host.Stream
	server.Handle("/idle/1", func(_ context.Context, s *host.Stream) error {
		b := make([]byte, 16)
		for {
			if _, err := s.Read(b); err != nil {
				return err
			}
		}
	})
	server.Handle("/unread/1", func(ctx context.Context, s *host.Stream) error {
		<-ctx.Done()
		return nil
	})
	to := peer.AddrInfo{ID: server.ID(), Addrs: server.Addrs()}
	connect := func(n *kith.Node) {
		t.Helper()
		conn, err := n.Connect(t.Context(), to)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.Identify.Identify(t.Context(), conn); err != nil {
			t.Fatal(err)
		}
	}
	var nodes []*kith.Node
	for range conns {
		nodes = append(nodes, node(multiaddr.MustParse(addr))) // listens, so that it has its sockets
	}
	first := node(multiaddr.MustParse(addr))
	connect(first)
	scope := func(name string) int {
		sum := 0
		for _, n := range append([]*kith.Node{server, first}, nodes...) {
			sum += used(n, name)
		}
		return sum
	}

	before, charged := settled(t), scope("ConnMemory")
	for _, n := range nodes {
		connect(n)
	}
	agree(t, "connections", before, 2*conns, func() int { return scope("ConnMemory") - charged })

	stream := func(n *kith.Node, proto host.ProtocolID) *host.Stream {
		t.Helper()
		s, err := n.NewStream(t.Context(), server.ID(), proto)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, s)
		return s
	}
	before, charged = settled(t), scope("StreamMemory")
	for i := range streams {
		if _, err := stream(nodes[i%conns], "/idle/1").Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	agree(t, "streams", before, streams, func() int { return scope("StreamMemory") - charged })

	before, charged = settled(t), scope("StreamMemory")
	for i := range unread {
		s := stream(nodes[i%conns], "/unread/1")
		s.SetWriteDeadline(time.Now().Add(time.Second))
		go s.Write(make([]byte, 1<<20))
	}
	agree(t, "unread", before, unread, func() int { return scope("StreamMemory") - charged })
}

// So is what is said of calls whose handlers keep the request and wait.
func TestCallAccounting(t *testing.T) {
	const calls, size = 800, 8 << 10
	cfg := kith.Config{MDNS: kith.MDNS{Off: true}, Limits: host.Limits{Memory: 1 << 30}}
	client, server := start(t, cfg), start(t, cfg)
	if _, err := client.Connect(t.Context(), peer.AddrInfo{ID: server.ID(), Addrs: server.Addrs()}); err != nil {
		t.Fatal(err)
	}
	charged := func() int { return used(server, "StreamMemory") + used(client, "StreamMemory") }
	m := rpc.Method[[]byte, []byte]{Protocol: "/hold/1", Codec: rpc.Raw, Calls: -1, CallsPerPeer: -1}
	got := make(chan struct{}, calls)
	m.ServeStream(server.Host, func(ctx context.Context, s *rpc.ServerStream[[]byte, []byte]) error {
		request, err := s.Recv()
		got <- struct{}{}
		<-ctx.Done()
		runtime.KeepAlive(request)
		return err
	})
	before, already := settled(t), charged()
	for range calls {
		s, err := m.Open(t.Context(), client.Host, server.ID())
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.Send(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
	}
	for range calls {
		<-got
	}
	agree(t, "calls with requests of 8 KiB", before, calls, func() int { return charged() - already })
}

// So is what is said of the address book.
func TestBookAccounting(t *testing.T) {
	const peers = 50_000 // so that what other tests leave to the collector is little beside it
	n := start(t, kith.Config{Listen: []multiaddr.Addr{}, MDNS: kith.MDNS{Off: true}, Limits: host.Limits{BookMemory: 256 << 20}})
	charged := func() int { return used(n, "BookMemory") }
	random := rand.New(rand.NewPCG(1, 2))
	for _, addrs := range []int{1, 3, 10} {
		before, already := settled(t), charged()
		for range peers {
			// As from the wire: made of bytes that nobody else keeps.
			raw := binary.BigEndian.AppendUint64([]byte{0x12, 0x20}, random.Uint64())
			id, err := peer.IDFromBytes(append(raw, make([]byte, 24)...))
			if err != nil {
				t.Fatal(err)
			}
			var at []multiaddr.Addr
			for i := range addrs {
				ip := netip.AddrFrom4([4]byte{byte(random.Uint32()), byte(random.Uint32()), byte(i), 1})
				at = append(at, multiaddr.FromAddrPort(multiaddr.TCP, netip.AddrPortFrom(ip, 4001)))
			}
			n.Discovered(peer.AddrInfo{ID: id, Addrs: at}, "test", host.SourceStranger)
		}
		agree(t, fmt.Sprintf("peers with %d addresses", addrs), before, peers, func() int { return charged() - already })
	}
}

// used is what n says that it uses of a limit.
func used(n *kith.Node, limit string) int {
	for _, s := range n.Usage().Scopes {
		if s.Name == limit {
			return s.Used
		}
	}
	return 0
}

// settled measures when what went before is gone.
func settled(t *testing.T) footprint {
	t.Helper()
	deadline := time.After(5 * time.Second)
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	last := measure()
	for {
		select {
		case <-again.C:
			now := measure()
			if now.heap+now.stack > last.heap+last.stack-100<<10 {
				return now
			}
			last = now
		case <-deadline:
			return last
		}
	}
}

// agree compares what is charged with what n things came to take since before.
func agree(t *testing.T, what string, before footprint, n int, charged func() int) {
	t.Helper()
	deadline := time.After(time.Minute)
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		now := measure()
		took, said := now.heap+now.stack-before.heap-before.stack, charged()
		report := fmt.Sprintf("%s: each takes %d bytes (%d of stacks) and is charged %d", what, took/n, (now.stack-before.stack)/n, said/n)
		select {
		case <-again.C:
			if took < said*4/3 && said < took*4/3 {
				t.Log(report)
				return
			}
		case <-deadline:
			t.Error(report)
			return
		}
	}
}
