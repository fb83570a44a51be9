package testkit

import (
	"context"
	"io"
	"testing"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/memory"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/upgrade"
)

// Host makes a host that listens on network and is closed with the test. What cfg
// leaves out is filled in.
func Host(t testing.TB, network *memory.Network, cfg host.Config) *host.Host {
	t.Helper()
	if cfg.Identity.IsZero() {
		cfg.Identity = Key(t)
	}
	transport, err := memory.New(memory.Config{Network: network, Upgrader: Upgrader(t, cfg.Identity)})
	check(t, err)
	cfg.Transports = append(cfg.Transports, transport)
	h := start(t, cfg)
	check(t, h.Listen(multiaddr.MustParse("/memory/0")))
	return h
}

// Pair makes two hosts and connects the first to the second.
func Pair(t testing.TB) (a, b *host.Host) {
	t.Helper()
	network := new(memory.Network)
	a, b = Host(t, network, host.Config{}), Host(t, network, host.Config{})
	Connect(t, a, b)
	return a, b
}

// PairOver makes two hosts over a transport that open makes, of which the second
// listens at addr and the first knows where.
func PairOver[T host.Transport](t testing.TB, addr string, open func(*upgrade.Upgrader) (T, error)) (a, b *host.Host) {
	t.Helper()
	newHost := func() *host.Host {
		key := Key(t)
		transport, err := open(Upgrader(t, key))
		check(t, err)
		return start(t, host.Config{Identity: key, Transports: []host.Transport{transport}})
	}
	a, b = newHost(), newHost()
	check(t, b.Listen(multiaddr.MustParse(addr)))
	a.AddAddrs(Info(b), host.TTLTold)
	return a, b
}

// Connect connects a to b and waits until both know.
func Connect(t testing.TB, a, b *host.Host) *host.Conn {
	t.Helper()
	seen := b.Subscribe(16)
	defer seen.Close()
	c, err := a.Connect(t.Context(), Info(b))
	check(t, err)
	for len(b.ConnsTo(a.ID())) == 0 {
		<-seen.Events()
	}
	return c
}

// BenchmarkStreams opens streams, has a byte go there and back on each, and closes it.
func BenchmarkStreams(b *testing.B, client, server *host.Host) {
	server.Handle("/echo/1", func(_ context.Context, s *host.Stream) error {
		_, err := io.Copy(s, s)
		return err
	})
	one := []byte{1}
	b.ReportAllocs()
	for b.Loop() {
		s, err := client.NewStream(b.Context(), server.ID(), "/echo/1")
		check(b, err)
		_, err = s.Write(one)
		check(b, err)
		_, err = io.ReadFull(s, one)
		check(b, err)
		s.Close()
	}
}

// Info is what one needs to dial h.
func Info(h *host.Host) peer.AddrInfo { return peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()} }

// Key makes an Ed25519 key.
func Key(t testing.TB) peer.PrivateKey {
	t.Helper()
	key, err := peer.GenerateKey(peer.Ed25519)
	check(t, err)
	return key
}

// Upgrader makes an upgrader that speaks Noise.
func Upgrader(t testing.TB, key peer.PrivateKey) *upgrade.Upgrader {
	t.Helper()
	noise, err := upgrade.Noise(key)
	check(t, err)
	u, err := upgrade.New(upgrade.Config{Security: []upgrade.Security{noise}})
	check(t, err)
	return u
}

// start makes a host that is closed with the test.
func start(t testing.TB, cfg host.Config) *host.Host {
	t.Helper()
	h, err := host.New(cfg)
	check(t, err)
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Errorf("closing a host: %v", err)
		}
	})
	return h
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
