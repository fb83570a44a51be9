package tcp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/testkit"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/upgrade"
)

func newTransport(t testing.TB, key peer.PrivateKey, channels ...func(peer.PrivateKey) (upgrade.Security, error)) *Transport {
	t.Helper()
	var security []upgrade.Security
	for _, channel := range channels {
		s, err := channel(key)
		if err != nil {
			t.Fatal(err)
		}
		security = append(security, s)
	}
	u, err := upgrade.New(upgrade.Config{Security: security})
	if err != nil {
		t.Fatal(err)
	}
	transport, err := New(Config{Upgrader: u})
	if err != nil {
		t.Fatal(err)
	}
	return transport
}

func newHost(t testing.TB, listen string, channels ...func(peer.PrivateKey) (upgrade.Security, error)) *host.Host {
	t.Helper()
	key := testkit.Key(t)
	h, err := host.New(host.Config{Identity: key, Transports: []host.Transport{newTransport(t, key, channels...)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := h.Listen(multiaddr.MustParse(listen)); err != nil {
		t.Fatal(err)
	}
	h.Handle("/echo/1", echo)
	return h
}

func echo(_ context.Context, s *host.Stream) error {
	_, err := io.Copy(s, s)
	return err
}

// Every pair of secure channels that has one in common agrees on it, also where
// the dialer's first choice is refused.
func TestChannels(t *testing.T) {
	type channel = func(peer.PrivateKey) (upgrade.Security, error)
	for _, c := range []struct {
		name             string
		dialer, listener []channel
		want             host.ProtocolID
	}{
		{"noise", []channel{upgrade.Noise}, []channel{upgrade.Noise}, "/noise"},
		{"tls", []channel{upgrade.TLS}, []channel{upgrade.TLS}, "/tls/1.0.0"},
		{"both", []channel{upgrade.TLS, upgrade.Noise}, []channel{upgrade.Noise, upgrade.TLS}, "/tls/1.0.0"},
		{"second choice noise", []channel{upgrade.TLS, upgrade.Noise}, []channel{upgrade.Noise}, "/noise"},
		{"second choice tls", []channel{upgrade.Noise, upgrade.TLS}, []channel{upgrade.TLS}, "/tls/1.0.0"},
		{"none in common", []channel{upgrade.Noise}, []channel{upgrade.TLS}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := newHost(t, "/ip4/127.0.0.1/tcp/0", c.dialer...), newHost(t, "/ip4/127.0.0.1/tcp/0", c.listener...)
			for range 2 { // the second time, a refusal is remembered
				conn, err := a.Connect(t.Context(), testkit.Info(b))
				if c.want == "" {
					if err == nil || !strings.Contains(err.Error(), "secure channel") && !strings.Contains(err.Error(), "handshake") {
						t.Errorf("connected or failed without the reason: %v", err)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				if conn.Security() != c.want || conn.Muxer() != "/yamux/1.0.0" {
					t.Errorf("agreed on %s and %s, want %s", conn.Security(), conn.Muxer(), c.want)
				}
				if err := echoOnce(a, b.ID()); err != nil {
					t.Error(err)
				}
				conn.Close()
				<-conn.Done()
			}
		})
	}
}

func echoOnce(h *host.Host, p peer.ID) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s, err := h.NewStream(ctx, p, "/echo/1")
	if err != nil {
		return err
	}
	defer s.Close()
	s.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprint(s, "hello")
	s.CloseWrite()
	got, err := io.ReadAll(s)
	if string(got) != "hello" || err != nil {
		return fmt.Errorf("echo gave %q, %v", got, err)
	}
	return nil
}

func TestIPv6(t *testing.T) {
	if !testkit.HasIPv6(t) {
		return
	}
	a, b := newHost(t, "/ip6/::1/tcp/0", upgrade.Noise), newHost(t, "/ip6/::1/tcp/0", upgrade.Noise)
	conn, err := a.Connect(t.Context(), testkit.Info(b))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(conn.RemoteAddr().String(), "/ip6/::1/tcp/") || !strings.HasPrefix(conn.LocalAddr().String(), "/ip6/::1/tcp/") {
		t.Errorf("addresses %s and %s", conn.LocalAddr(), conn.RemoteAddr())
	}
	if err := echoOnce(a, b.ID()); err != nil {
		t.Error(err)
	}
}

func TestCanDial(t *testing.T) {
	transport := newTransport(t, testkit.Key(t), upgrade.Noise)
	for addr, want := range map[string][2]bool{
		"/ip4/1.2.3.4/tcp/5":         {true, true},
		"/ip6/fe80::1/tcp/5":         {true, true},
		"/ip4/0.0.0.0/tcp/0":         {false, true},
		"/ip4/1.2.3.4/udp/5":         {false, false},
		"/ip4/1.2.3.4/tcp/5/ws":      {false, false},
		"/ip4/1.2.3.4":               {false, false},
		"/dns4/example.com/tcp/5":    {false, false},
		"/ip6zone/lo/ip6/::1/tcp/5":  {true, true},
		"/ip4/1.2.3.4/udp/5/quic-v1": {false, false},
	} {
		a := multiaddr.MustParse(addr)
		if got := [2]bool{transport.CanDial(a), transport.CanListen(a)}; got != want {
			t.Errorf("%s: can dial, listen: %v, want %v", a, got, want)
		}
	}
}

// Two hosts never share a port by accident, although their sockets could.
func TestPortTaken(t *testing.T) {
	first := newHost(t, "/ip4/127.0.0.1/tcp/0", upgrade.Noise)
	taken := first.Addrs()[0]
	transport := newTransport(t, testkit.Key(t), upgrade.Noise)
	l, err := transport.Listen(taken)
	if err == nil {
		l.Close()
		t.Fatalf("%s was opened twice", taken)
	}
	ap, _, _ := taken.AddrPort()
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), fmt.Sprint(ap.Port())) || !strings.Contains(err.Error(), "choose another") {
		t.Errorf("the error does not name the port and the remedy: %v", err)
	}
}

func TestDialFromListeningPort(t *testing.T) {
	if !canReusePort {
		t.Logf("this system does not share ports")
		return
	}
	transport := newTransport(t, testkit.Key(t), upgrade.Noise)
	l, err := transport.Listen(multiaddr.MustParse("/ip4/127.0.0.1/tcp/0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	from, _, _ := l.Addr().AddrPort()
	remote, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer remote.Close()
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(from), Control: reusePort}
	conn, err := d.Dial("tcp4", remote.Addr().String())
	if err != nil {
		t.Fatalf("dialing from the port that is listened on: %v", err)
	}
	defer conn.Close()
	if got := conn.LocalAddr().String(); got != from.String() {
		t.Errorf("dialed from %s, want %s", got, from)
	}
	// The same again has the same four numbers: the port's trouble is recognised.
	if again, err := d.Dial("tcp4", remote.Addr().String()); err == nil {
		again.Close()
		t.Error("two connections have the same ends")
	} else if !portTrouble(err) {
		t.Errorf("not recognised as trouble with the port: %v", err)
	}
	// Loopback has no NAT, and nothing else is listened on.
	for _, to := range []string{"127.0.0.1", "8.8.8.8", "2001:db8::1"} {
		if from, ok := transport.source(netip.MustParseAddr(to)); ok {
			t.Errorf("a dial to %s would leave from %s", to, from)
		}
	}
	transport.listening = append(transport.listening, netip.MustParseAddrPort("0.0.0.0:4001"))
	if from, ok := transport.source(netip.MustParseAddr("8.8.8.8")); !ok || from.String() != "0.0.0.0:4001" {
		t.Errorf("a dial to 8.8.8.8 would leave from %s", from)
	}
}

// A connection whose other side is gone without a word ends for both who wait on it.
func TestRefused(t *testing.T) {
	a := newHost(t, "/ip4/127.0.0.1/tcp/0", upgrade.Noise)
	gone, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := fromNet(gone.Addr())
	gone.Close()
	_, err = a.Connect(t.Context(), peer.AddrInfo{ID: testkit.Key(t).ID(), Addrs: []multiaddr.Addr{addr}})
	var failed *host.DialError
	if !errors.As(err, &failed) || !errors.Is(err, syscall.ECONNREFUSED) || !strings.Contains(err.Error(), "nothing listens there") {
		t.Errorf("dialing a closed port: %v", err)
	}
}
