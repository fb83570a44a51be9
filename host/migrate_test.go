package host_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/testkit"
	"github.com/kith-p2p/kith/memory"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// A guise is the memory transport with addresses of other transports: those that end
// in p2p-circuit give limited connections, and all can be slow. The number in an
// address is that of the memory address.
type guise struct {
	*memory.Transport
	delays map[multiaddr.Code]time.Duration // of each write, by the last component
	wrong  map[multiaddr.Code]*atomic.Int32
}

// plain is the memory address behind addr, and what is special about it.
func (g guise) plain(addr multiaddr.Addr) (plain multiaddr.Addr, kind multiaddr.Code, ok bool) {
	last, _ := addr.Last()
	for _, c := range []multiaddr.Code{multiaddr.Memory, multiaddr.TCP, multiaddr.UDP} {
		if n, found := addr.Value(c); found {
			return multiaddr.MustParse("/memory/" + n), last.Code(), true
		}
	}
	return multiaddr.Addr{}, 0, false
}

func (g guise) CanDial(addr multiaddr.Addr) bool   { _, _, ok := g.plain(addr); return ok }
func (g guise) CanListen(addr multiaddr.Addr) bool { return g.CanDial(addr) }

func (g guise) Dial(ctx context.Context, addr multiaddr.Addr, p peer.ID, progress func(host.Stage)) (host.TransportConn, error) {
	plain, kind, _ := g.plain(addr)
	tc, err := g.Transport.Dial(ctx, plain, p, progress)
	return g.disguise(tc, addr, kind), err
}

func (g guise) disguise(tc host.TransportConn, addr multiaddr.Addr, kind multiaddr.Code) host.TransportConn {
	tc.LocalAddr, tc.RemoteAddr, tc.Limited = addr, addr, kind == multiaddr.P2PCircuit
	if tc.Mux != nil {
		tc.Mux = slowMux{tc.Mux, g.delays[kind], g.wrong[kind]}
	}
	return tc
}

func (g guise) Listen(addr multiaddr.Addr) (host.TransportListener, error) {
	plain, _, _ := g.plain(addr)
	l, err := g.Transport.Listen(plain)
	return guiseListener{l, g, addr}, err
}

type guiseListener struct {
	host.TransportListener
	guise guise
	addr  multiaddr.Addr
}

func (l guiseListener) Addr() multiaddr.Addr { return l.addr }

func (l guiseListener) Accept() (host.Incoming, error) {
	in, err := l.TransportListener.Accept()
	return guiseIncoming{in, l}, err
}

type guiseIncoming struct {
	host.Incoming
	l guiseListener
}

func (i guiseIncoming) RemoteAddr() multiaddr.Addr { return i.l.addr }

func (i guiseIncoming) Upgrade(ctx context.Context, progress func(host.Stage)) (host.TransportConn, error) {
	tc, err := i.Incoming.Upgrade(ctx, progress)
	last, _ := i.l.addr.Last()
	return i.l.guise.disguise(tc, i.l.addr, last.Code()), err
}

// A slowMux has streams whose writes take a while, until something goes wrong.
type slowMux struct {
	host.MuxedConn
	delay time.Duration
	wrong *atomic.Int32 // nil: nothing
}

const (
	wrongSilent = 1 // what is written does not arrive
	wrongFull   = 2 // no stream can be opened
)

func (m slowMux) OpenStream(ctx context.Context) (host.MuxedStream, error) {
	if m.wrong != nil && m.wrong.Load() == wrongFull {
		return nil, errors.New("no more streams")
	}
	s, err := m.MuxedConn.OpenStream(ctx)
	if m.wrong != nil && m.wrong.Load() == wrongSilent && err == nil {
		return silentStream{s}, nil
	}
	return slowStream{s, m.delay}, err
}

type silentStream struct{ host.MuxedStream }

func (s silentStream) Write(p []byte) (int, error) { return len(p), nil }

func (m slowMux) Serve(accept func(host.MuxedStream)) error {
	return m.MuxedConn.Serve(func(s host.MuxedStream) { accept(slowStream{s, m.delay}) })
}

type slowStream struct {
	host.MuxedStream
	delay time.Duration
}

func (s slowStream) Write(p []byte) (int, error) {
	time.Sleep(s.delay)
	return s.MuxedStream.Write(p)
}

// guises makes two hosts of which the second listens at addrs, and the first does not
// know where.
func guises(t *testing.T, migrate host.Migrate, delays map[multiaddr.Code]time.Duration, wrong map[multiaddr.Code]*atomic.Int32, addrs ...string) (a, b *host.Host) {
	network := new(memory.Network)
	start := func() *host.Host {
		key := testkit.Key(t)
		transport, err := memory.New(memory.Config{Network: network, Upgrader: testkit.Upgrader(t, key)})
		if err != nil {
			t.Fatal(err)
		}
		h, err := host.New(host.Config{Identity: key, Transports: []host.Transport{guise{transport, delays, wrong}}, Migrate: migrate})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := h.Close(); err != nil {
				t.Error(err)
			}
		})
		h.Handle("/echo/1", echo)
		return h
	}
	a, b = start(), start()
	for _, addr := range addrs {
		if err := b.Listen(multiaddr.MustParse(addr)); err != nil {
			t.Fatal(err)
		}
	}
	return a, b
}

// say uses a stream that is open, which stays open.
func say(t *testing.T, s *host.Stream, text string) {
	t.Helper()
	fmt.Fprint(s, text)
	got := make([]byte, len(text))
	if _, err := io.ReadFull(s, got); err != nil || string(got) != text {
		t.Errorf("%q came back as %q, %v", text, got, err)
	}
}

// open opens a stream and tells which address it goes over.
func open(t *testing.T, from, to *host.Host) (*host.Stream, string) {
	t.Helper()
	s, err := from.NewStream(t.Context(), to.ID(), "/echo/1")
	if err != nil {
		t.Fatal(err)
	}
	say(t, s, "new")
	return s, s.Conn().RemoteAddr().String()
}

// A connection makes way for a better one: new streams of both sides go over that, an
// open one goes on, and when it has ended so does its connection.
func TestMigration(t *testing.T) {
	slowTCP := map[multiaddr.Code]time.Duration{multiaddr.TCP: 20 * time.Millisecond, multiaddr.QUICV1: 5 * time.Millisecond}
	asked := 0
	for name, c := range map[string]struct {
		migrate  host.Migrate
		delays   map[multiaddr.Code]time.Duration
		from, to string
		want     bool
	}{
		"relayed to direct": {host.Migrate{}, nil, "/memory/7/p2p-circuit", "/memory/8", true},
		"TCP to QUIC":       {host.Migrate{}, slowTCP, "/ip4/1.2.3.4/tcp/4007", "/ip4/1.2.3.4/udp/4008/quic-v1", true},
		"not if it is as slow": {host.Migrate{}, map[multiaddr.Code]time.Duration{multiaddr.TCP: 20 * time.Millisecond, multiaddr.QUICV1: 19 * time.Millisecond},
			"/ip4/1.2.3.4/tcp/4007", "/ip4/1.2.3.4/udp/4008/quic-v1", false},
		"not if the program does not want": {host.Migrate{Better: func(old, candidate host.MigratePath) bool {
			if old.RTT <= candidate.RTT || candidate.RTT == 0 {
				t.Errorf("round trips of %v and %v", old.RTT, candidate.RTT)
			}
			asked++
			return false
		}}, slowTCP, "/ip4/1.2.3.4/tcp/4007", "/ip4/1.2.3.4/udp/4008/quic-v1", false},
		"off": {host.Migrate{Off: true}, slowTCP, "/ip4/1.2.3.4/tcp/4007", "/ip4/1.2.3.4/udp/4008/quic-v1", false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := guises(t, c.migrate, c.delays, nil, c.from, c.to)
				from, to := multiaddr.MustParse(c.from), multiaddr.MustParse(c.to)
				conn, err := a.Connect(t.Context(), peer.AddrInfo{ID: b.ID(), Addrs: []multiaddr.Addr{from}})
				if err != nil {
					t.Fatal(err)
				}
				old, over := open(t, a, b)
				if over != c.from {
					t.Errorf("the first stream goes over %s", over)
				}
				a.Identified(conn, host.PeerInfo{Addrs: []multiaddr.Addr{from, to}}, false)
				time.Sleep(time.Minute)
				want := c.from
				if c.want {
					want = c.to
				}
				if _, over := open(t, a, b); over != want {
					t.Errorf("a new stream goes over %s, want %s", over, want)
				}
				if _, over := open(t, b, a); over != want {
					t.Errorf("a new stream of the other side goes over %s, want %s", over, want)
				}
				say(t, old, "still here")
				wantConns := 1
				if c.want {
					wantConns = 2
				}
				for _, pair := range [][2]*host.Host{{a, b}, {b, a}} {
					if n := len(pair[0].ConnsTo(pair[1].ID())); n != wantConns {
						t.Errorf("%d connections while the old stream is open, want %d", n, wantConns)
					}
				}
				old.Close()
				time.Sleep(2 * time.Minute)
				for _, pair := range [][2]*host.Host{{a, b}, {b, a}} {
					conns := pair[0].ConnsTo(pair[1].ID())
					if len(conns) != 1 || conns[0].RemoteAddr().String() != want {
						t.Errorf("%v is left, want %s", conns, want)
					}
				}
			})
		})
	}
	if asked == 0 {
		t.Error("the program was not asked")
	}
}

// A connection whose round trips cannot be measured stays, unless it is silent while the
// new one answers; and a new one that cannot be measured is not better.
func TestMigrationWithoutMeasurement(t *testing.T) {
	for name, c := range map[string]struct {
		kind  multiaddr.Code // of the connection with which something is wrong
		wrong int32
		moves bool
	}{
		"the old one is silent":            {multiaddr.TCP, wrongSilent, true},
		"the old one opens no streams":     {multiaddr.TCP, wrongFull, false},
		"the new one is silent":            {multiaddr.QUICV1, wrongSilent, false},
		"the new one opens no streams":     {multiaddr.QUICV1, wrongFull, false},
		"nothing is wrong with either one": {multiaddr.QUICV1, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const tcp, quic = "/ip4/1.2.3.4/tcp/4007", "/ip4/1.2.3.4/udp/4008/quic-v1"
				wrong := new(atomic.Int32)
				a, b := guises(t, host.Migrate{}, map[multiaddr.Code]time.Duration{multiaddr.TCP: 20 * time.Millisecond, multiaddr.QUICV1: time.Millisecond},
					map[multiaddr.Code]*atomic.Int32{c.kind: wrong}, tcp, quic)
				conn, err := a.Connect(t.Context(), peer.AddrInfo{ID: b.ID(), Addrs: []multiaddr.Addr{multiaddr.MustParse(tcp)}})
				if err != nil {
					t.Fatal(err)
				}
				open(t, a, b)
				a.Identified(conn, host.PeerInfo{Addrs: []multiaddr.Addr{multiaddr.MustParse(tcp), multiaddr.MustParse(quic)}}, false)
				time.Sleep(10 * time.Second)
				wrong.Store(c.wrong)
				time.Sleep(20 * time.Second) // it is dialed after 15 s
				wrong.Store(0)
				want := tcp
				if c.moves {
					want = quic
				}
				if _, over := open(t, a, b); over != want {
					t.Errorf("a new stream goes over %s, want %s", over, want)
				}
			})
		})
	}
}
