package kith_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kith-p2p/kith"
	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

func start(t *testing.T, cfg kith.Config) *kith.Node {
	t.Helper()
	if cfg.Listen == nil {
		cfg.Listen = []multiaddr.Addr{multiaddr.MustParse("/ip4/127.0.0.1/tcp/0")}
	}
	n, err := kith.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func echo(_ context.Context, s *host.Stream) error {
	_, err := io.Copy(s, s)
	return err
}

func checkEcho(t *testing.T, from *kith.Node, to peer.ID) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	s, err := from.NewStream(ctx, to, "/echo/1")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprint(s, "hello")
	s.CloseWrite()
	if got, err := io.ReadAll(s); string(got) != "hello" || err != nil {
		t.Errorf("echo gave %q, %v", got, err)
	}
}

// next waits for an event of type E that satisfies ok.
func next[E host.Event](t *testing.T, events *host.Subscription, ok func(E) bool) E {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case e := <-events.Events():
			if e, is := e.(E); is && ok(e) {
				return e
			}
		case <-deadline:
			var none E
			t.Fatalf("no %T within 20 s", none)
		}
	}
}

// Two nodes with nothing in common but a network find each other, and an ID is
// enough to talk.
func TestNeighbours(t *testing.T) {
	mdns := kith.MDNS{Interfaces: []string{loopback(t)}, Service: fmt.Sprintf("_kith-%08x._udp", rand.Uint32())}
	a := start(t, kith.Config{MDNS: mdns})
	b := start(t, kith.Config{MDNS: mdns})
	if a.MDNS == nil || b.MDNS == nil {
		t.Fatal("mDNS does not work on the loopback interface")
	}
	b.Handle("/echo/1", echo)
	events := a.Subscribe(64)
	defer events.Close()
	if len(a.ConnsTo(b.ID())) == 0 {
		next(t, events, func(e host.ConnOpened) bool { return e.Conn.RemotePeer() == b.ID() })
	}
	checkEcho(t, a, b.ID())
}

func loopback(t *testing.T) string {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		if i.Flags&net.FlagLoopback != 0 {
			return i.Name
		}
	}
	t.Fatal("no loopback interface")
	return ""
}

// A bootstrap peer is connected to, identified, and connected to again when lost.
func TestBootstrap(t *testing.T) {
	b := start(t, kith.Config{MDNS: kith.MDNS{Off: true}, Agent: "the one/1.0"})
	key, err := peer.GenerateKey(peer.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	connected := make(chan *host.Conn, 8)
	identified := make(chan host.PeerInfo, 8)
	a := start(t, kith.Config{
		Identity:  key,
		MDNS:      kith.MDNS{Off: true},
		Bootstrap: []peer.AddrInfo{{ID: b.ID(), Addrs: b.Addrs()}},
		Trace: func(e host.Event) {
			switch e := e.(type) {
			case host.ConnOpened:
				connected <- e.Conn
			case host.PeerIdentified:
				identified <- e.Info
			}
		},
	})
	if a.ID() != key.ID() {
		t.Errorf("the node is %s, want %s", a.ID(), key.ID())
	}
	first := <-connected
	info := <-identified
	if info.AgentVersion != "the one/1.0" || !info.SignedRecord || len(info.Protocols) < 3 {
		t.Errorf("identified as %+v", info)
	}
	first.Close()
	if again := <-connected; again.RemotePeer() != b.ID() {
		t.Errorf("connected to %s", again.RemotePeer())
	}
}

func TestIdentityIsKept(t *testing.T) {
	dir := t.TempDir()
	off := kith.MDNS{Off: true}
	first := start(t, kith.Config{Dir: dir, MDNS: off})
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	second := start(t, kith.Config{Dir: dir, MDNS: off})
	if first.ID() != second.ID() {
		t.Errorf("the identity was %s and is %s", first.ID(), second.ID())
	}
	file := filepath.Join(dir, "identity.key")
	if err := os.WriteFile(file, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := kith.Start(t.Context(), kith.Config{Dir: dir, MDNS: off, Listen: []multiaddr.Addr{}})
	if err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a damaged key: %v, want an error that names %s", err, file)
	}
	if kept, _ := os.ReadFile(file); string(kept) != "damaged" {
		t.Error("the damaged key was overwritten")
	}
}

func TestStartErrors(t *testing.T) {
	n := start(t, kith.Config{MDNS: kith.MDNS{Off: true}})
	_, err := kith.Start(t.Context(), kith.Config{MDNS: kith.MDNS{Off: true}, Listen: n.Addrs()})
	if err == nil || !strings.Contains(err.Error(), "taken") {
		t.Errorf("a port that is taken: %v", err)
	}
	_, err = kith.Start(t.Context(), kith.Config{MDNS: kith.MDNS{Off: true}, Listen: []multiaddr.Addr{multiaddr.MustParse("/onion3/vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd:1")}})
	if !errors.Is(err, host.ErrNoTransport) {
		t.Errorf("an address that no transport understands: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := kith.Start(ctx, kith.Config{}); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that has ended: %v", err)
	}
}
