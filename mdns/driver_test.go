//go:build linux || mdns_loopback

// These tests send multicast packets on the loopback interface, and on no other.
// Linux can always do that. Elsewhere it depends on the system and its routes:
// go test -tags mdns_loopback.

package mdns

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// loopback returns the name of the loopback interface.
func loopback(t *testing.T) string {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		if i.Flags&net.FlagLoopback != 0 && i.Flags&net.FlagUp != 0 {
			return i.Name
		}
	}
	t.Fatal("this machine has no loopback interface that is up: ip link set lo up")
	return ""
}

// testService returns a service that no other program on this machine has.
func testService() string { return fmt.Sprintf("_kith-%08x._udp", rand.Uint32()) }

// A party is a Service that runs, with what it is told.
type party struct {
	*Service
	id    peer.ID
	addrs atomic.Pointer[[]multiaddr.Addr]
	found chan peer.AddrInfo
	lost  chan peer.ID
	stop  func()
}

func start(t *testing.T, service string, n int) *party {
	t.Helper()
	p := &party{id: testID(n), found: make(chan peer.AddrInfo, 100), lost: make(chan peer.ID, 100)}
	own := addrs(fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", n), "/ip4/192.0.2.1/tcp/1", fmt.Sprintf("/ip4/127.0.0.1/udp/%d/quic-v1", n))
	p.addrs.Store(&own)
	s, err := Listen(Config{
		ID:         p.id,
		Addrs:      func() []multiaddr.Addr { return *p.addrs.Load() },
		Found:      func(info peer.AddrInfo) { p.found <- info },
		Lost:       func(id peer.ID) { p.lost <- id },
		Interfaces: []string{loopback(t)},
		Service:    service,
	})
	if err != nil {
		t.Fatalf("multicast on the loopback interface is needed here: %v", err)
	}
	p.Service = s
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); s.Run(ctx) }()
	p.stop = func() {
		cancel()
		wait(t, ended, "Run to return")
	}
	t.Cleanup(p.stop)
	return p
}

func wait[T any](t *testing.T, c <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(time.Minute):
		t.Fatalf("waited a minute for %s", what)
	}
	return v
}

func TestTwoServices(t *testing.T) {
	service := testService()
	ann := start(t, service, 4001)
	bob := start(t, service, 4002)
	carol := start(t, testService(), 4003)
	for _, c := range []struct{ who, whom *party }{{ann, bob}, {bob, ann}} {
		info := wait(t, c.who.found, "a peer")
		want := peer.AddrInfo{ID: c.whom.id, Addrs: []multiaddr.Addr{(*c.whom.addrs.Load())[0], (*c.whom.addrs.Load())[2]}}
		if info.String() != want.String() {
			t.Errorf("found %v, want %v", info, want)
		}
	}

	// A new address is announced without being asked for.
	more := append(addrs("/ip4/127.0.0.1/tcp/5000"), *bob.addrs.Load()...)
	bob.addrs.Store(&more)
	bob.Refresh()
	if info := wait(t, ann.found, "the new address"); info.ID != bob.id || len(info.Addrs) != 3 {
		t.Errorf("found %v", info)
	}

	// Who leaves says so.
	bob.stop()
	if id := wait(t, ann.lost, "the goodbye"); id != bob.id {
		t.Errorf("lost %v", id)
	}
	if len(carol.found) > 0 {
		t.Error("a peer of another service was found")
	}
}

// A plain resolver, such as dig, asks from a port of its own and is told there.
func TestPlainResolver(t *testing.T) {
	service := testService()
	ann := start(t, service, 4001)
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	names, err := newNames(service, rand.New(rand.NewPCG(1, 1)))
	if err != nil {
		t.Fatal(err)
	}
	lo, err := net.InterfaceByName(loopback(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := ipv4.NewPacketConn(conn).SetMulticastInterface(lo); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, MaxPacket)
	n := 0
	for range 20 { // a packet may be lost on a busy machine
		if _, err := conn.WriteTo(names.query(), group4); err != nil {
			t.Fatal(err)
		}
		conn.SetReadDeadline(time.Now().Add(3 * time.Second))
		if n, _, err = conn.ReadFromUDPAddrPort(buf); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatalf("no reply: %v", err)
	}
	if text := describePacket(t, buf[:n]); !strings.Contains(text, textOf("/ip4/127.0.0.1/tcp/4001", ann.id)) {
		t.Errorf("the reply is %s", text)
	}
}

// Sockets are opened and closed as the interfaces come and go.
func TestRescan(t *testing.T) {
	lo := loopback(t)
	var s *Service
	s, err := Listen(Config{
		ID: testID(1), Addrs: func() []multiaddr.Addr { return nil }, Found: func(peer.AddrInfo) {},
		Interfaces: []string{lo}, Service: testService(),
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if len(s.links) != 1 || len(s.core.links) != 1 {
			t.Fatalf("%d interfaces with sockets, %d in the core", len(s.links), len(s.core.links))
		}
		for index := range s.links {
			if i, err := net.InterfaceByIndex(index); err != nil || i.Name != lo {
				t.Errorf("sockets on interface %v, want %s only: %v", i, lo, err)
			}
		}
		s.cfg.Interfaces = []string{"gone0"}
		if err := s.rescan(time.Now(), nil); err == nil || len(s.links)+len(s.core.links) != 0 {
			t.Errorf("with the interface gone: %v, %d interfaces left", err, len(s.links))
		}
		s.cfg.Interfaces = []string{lo}
		opened := 0
		if err := s.rescan(time.Now(), func(*sockets) { opened++ }); err != nil || opened != 1 {
			t.Errorf("with the interface back: %v, %d opened", err, opened)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	s.Run(ended) // frees the sockets
	if len(s.links) != 0 {
		t.Error("Run has not freed the sockets")
	}
}

func TestListenErrors(t *testing.T) {
	good := Config{ID: testID(1), Addrs: func() []multiaddr.Addr { return nil }, Found: func(peer.AddrInfo) {}, Interfaces: []string{loopback(t)}}
	for want, change := range map[string]func(*Config){
		"mdns: Config needs ID, Addrs and Found":   func(c *Config) { c.Found = nil },
		"Interfaces names none":                    func(c *Config) { c.Interfaces = []string{} },
		`no network interface is called "nosuch0"`: func(c *Config) { c.Interfaces = append(c.Interfaces, "nosuch0") },
		`mdns: service "p2p" is not of the form`:   func(c *Config) { c.Service = "p2p" },
	} {
		cfg := good
		change(&cfg)
		if _, err := Listen(cfg); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "mdns: ") {
			t.Errorf("got %v, want …%s…", err, want)
		}
	}
}

// By default neither loopback nor VPNs are used, unless there is nothing else.
// (This looks only; it opens nothing.)
func TestDefaultInterfaces(t *testing.T) {
	wanted, err := wantedInterfaces(nil)
	if err != nil || len(wanted) == 0 || len(wanted) > MaxInterfaces {
		t.Fatalf("%v, %v", wanted, err)
	}
	for _, w := range wanted {
		i, err := net.InterfaceByIndex(w.Index)
		if err != nil {
			t.Fatal(err)
		}
		if w.Loopback != wanted[0].Loopback || i.Flags&net.FlagUp == 0 || i.Flags&net.FlagPointToPoint != 0 || len(w.Prefixes) == 0 {
			t.Errorf("%+v with flags %v", w, i.Flags)
		}
	}
}
