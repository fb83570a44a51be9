package quic

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"testing"

	quicgo "github.com/quic-go/quic-go"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/testkit"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/udp"
)

// twoFamilies is a listener at 127.0.0.1 and one at ::1, of one transport.
func twoFamilies(t testing.TB, transport *Transport) (l4, l6 host.TransportListener) {
	t.Helper()
	listen := func(addr string) host.TransportListener {
		l, err := transport.Listen(multiaddr.MustParse(addr))
		check(t, err)
		t.Cleanup(func() { l.Close() })
		return l
	}
	return listen("/ip4/127.0.0.1/udp/0/quic-v1"), listen("/ip6/::1/udp/0/quic-v1")
}

// to is an Elsewhere that knows one address.
func to(addr multiaddr.Addr) func(peer.ID, multiaddr.Addr) []multiaddr.Addr {
	return func(peer.ID, multiaddr.Addr) []multiaddr.Addr { return []multiaddr.Addr{addr} }
}

// A connection goes from IPv4 to IPv6 and back, again and again, with its streams, in the
// middle of what they carry in both directions, whether its dialer listens or not, and
// whichever family it was dialed over.
func TestFamilies(t *testing.T) {
	if !testkit.HasIPv6(t) {
		return // there is one family
	}
	for _, test := range []struct{ listens, from6 bool }{{true, false}, {false, false}, {true, true}} {
		near, far := newTransport(t, testkit.Key(t), EndpointConfig{}), newTransport(t, testkit.Key(t), EndpointConfig{})
		l4, l6 := twoFamilies(t, far)
		if test.from6 {
			l4, l6 = l6, l4
		}
		if test.listens {
			twoFamilies(t, near)
		}
		dialed, taken := dialTo(t, near, l4)
		echo(t, dialed.Mux, taken.Mux)
		sent, received := busy(open(t, dialed.Mux), 16<<20)
		server := taken.Mux.(*conn).qc
		for i := range 8 {
			l := []host.TransportListener{l6, l4}[i%2]
			check(t, near.AddrsChanged(t.Context(), to(l.Addr())))
			want, _ := l.Addr().IP()
			await(t, "the server sends to the new address", func() bool {
				echo(t, dialed.Mux, nil)
				ip, _ := fromNet(server.RemoteAddr()).IP()
				return ip == want
			})
		}
		if b := <-received; !bytes.Equal(b, sent) {
			t.Errorf("%+v: %d bytes of %d came back", test, len(b), len(sent))
		}

		// Nothing stays behind when the connection ends.
		dialed.Mux.CloseWithCode(0)
		await(t, "the sockets close", func() bool {
			e := near.endpoint
			e.mu.Lock()
			defer e.mu.Unlock()
			return len(e.away) == 0 && len(e.dialed) == 0 && (test.listens || len(e.open) == 0)
		})
	}
}

// A connection whose remote does not answer at the other address, or that may not go
// there, stays what it was.
func TestFamiliesNobodyThere(t *testing.T) {
	if !testkit.HasIPv6(t) {
		return
	}
	near, far := newTransport(t, testkit.Key(t), EndpointConfig{}), newTransport(t, testkit.Key(t), EndpointConfig{})
	l4, l6 := twoFamilies(t, far)
	twoFamilies(t, near) // who stays there need not ask
	dialed, taken := dialTo(t, near, l4)
	echo(t, dialed.Mux, taken.Mux)
	silent, err := net.ListenPacket("udp6", "[::1]:0")
	check(t, err)
	defer silent.Close()
	nobody := quicAddr(silent.LocalAddr().(*net.UDPAddr).AddrPort())
	ctx, cancel := context.WithCancel(t.Context())
	go func() { // when it has asked
		silent.ReadFrom(make([]byte, 1500))
		cancel()
	}()
	if err := near.AddrsChanged(ctx, to(nobody)); err == nil {
		t.Error("a connection moved to where nobody is")
	}
	echo(t, dialed.Mux, nil)
	for name, elsewhere := range map[string]func(peer.ID, multiaddr.Addr) []multiaddr.Addr{
		"no other address": func(peer.ID, multiaddr.Addr) []multiaddr.Addr { return nil },
		"not QUIC":         to(multiaddr.MustParse("/ip6/::1/tcp/1")),
		"another of IPv4":  to(multiaddr.MustParse("/ip4/127.0.0.2/udp/1/quic-v1")),
	} {
		if err := near.AddrsChanged(t.Context(), elsewhere); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if ip, _ := fromNet(taken.Mux.(*conn).qc.RemoteAddr()).IP(); !ip.Is4() {
			t.Errorf("%s: it is at %v", name, ip)
		}
		echo(t, dialed.Mux, nil)
	}

	// The second address is tried if the first says nothing.
	both := func(peer.ID, multiaddr.Addr) []multiaddr.Addr { return []multiaddr.Addr{nobody, l6.Addr()} }
	check(t, near.AddrsChanged(t.Context(), both))
	echo(t, dialed.Mux, nil)
}

// Whoever knows a connection's ID and sends packets with it to the other family's socket
// neither moves the connection nor ends it, and makes nothing grow. It is the same
// with those that lead nowhere.
func TestFamiliesForged(t *testing.T) {
	if !testkit.HasIPv6(t) {
		return
	}
	key := testkit.Key(t)
	near, far := newTransport(t, testkit.Key(t), EndpointConfig{}), newTransport(t, key, EndpointConfig{})
	l4, l6 := twoFamilies(t, far)
	seen := make(chan []byte, 1)
	wiretap := tap(t, l4, seen) // in between, to learn the ID
	dialed, taken := dialTo(t, near, listenerAt{l4, wiretap})
	echo(t, dialed.Mux, taken.Mux)
	id := (<-seen)[shortHeader:][:connIDLen]
	e := far.endpoint
	if h := e.homes.of(id); h == nil || h.local.String() != l4.(*listener).ln.Addr().String() {
		t.Fatalf("the ID %x is of %v", id, h)
	}
	before := taken.Mux.(*conn).qc.RemoteAddr().String()

	at := l6.(*listener).ln.Addr()
	attacker, err := net.Dial("udp", at.String())
	check(t, err)
	defer attacker.Close()
	random := rand.NewChaCha8([32]byte{2})
	goroutines := runtime.NumGoroutine()
	p := make([]byte, 1200)
	for i := range 20_000 {
		random.Read(p)
		p[0] = 0x40 | p[0]&0x3f
		switch i % 3 {
		case 0: // the connection's own
			copy(p[shortHeader:], id)
		case 1: // one that its home does not know
			p[shortHeader] = byte(e.slot(l4)) ^ e.homes.mask(p[shortHeader:][1:connIDLen])
		}
		attacker.Write(p[:1+i%len(p)])
		if i%1000 == 0 {
			echo(t, dialed.Mux, nil)
		}
	}
	echo(t, dialed.Mux, nil)
	if got := taken.Mux.(*conn).qc.RemoteAddr().String(); got != before {
		t.Errorf("it moved from %s to %s", before, got)
	}
	if n := runtime.NumGoroutine(); n > goroutines+8 { // those of streams that are closing
		t.Errorf("%d goroutines, %d before", n, goroutines)
	}
}

// slot is the place of a listener's socket.
func (e *Endpoint) slot(l host.TransportListener) int { return l.(*listener).ln.socket.place }

// A listenerAt is reached at another address.
type listenerAt struct {
	host.TransportListener
	addr netip.AddrPort
}

func (l listenerAt) Addr() multiaddr.Addr { return quicAddr(l.addr) }

// tap passes packets on to l and back, and shows the first to l with a short header.
func tap(t testing.TB, l host.TransportListener, seen chan<- []byte) netip.AddrPort {
	t.Helper()
	front, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	check(t, err)
	back, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(l.(*listener).ln.Addr()))
	check(t, err)
	t.Cleanup(func() { front.Close(); back.Close() })
	client := make(chan netip.AddrPort, 1)
	go func() {
		buf := make([]byte, 2048)
		known := false
		for {
			n, from, err := front.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if !known {
				known = true
				client <- from
			}
			if buf[0]&0x80 == 0 {
				select {
				case seen <- bytes.Clone(buf[:n]):
				default:
				}
			}
			back.Write(buf[:n])
		}
	}()
	go func() {
		from := <-client
		buf := make([]byte, 2048)
		for {
			n, err := back.Read(buf)
			if err != nil {
				return
			}
			front.WriteToUDPAddrPort(buf[:n], from)
		}
	}()
	return front.LocalAddr().(*net.UDPAddr).AddrPort()
}

// Connection IDs name their home to who knows how to read them. To others they are random:
// no byte of them is the same often, and none comes twice.
func TestConnIDs(t *testing.T) {
	e, other := NewEndpoint(EndpointConfig{}), NewEndpoint(EndpointConfig{})
	s := new(socket)
	s.place = e.homes.enter(s)
	g := connIDs{&e.homes, byte(s.place)}
	seen := make(map[quicgo.ConnectionID]bool)
	var counts [connIDLen][256]int
	const n = 64 << 10
	strangers := 0
	for range n {
		id, err := g.GenerateConnectionID()
		check(t, err)
		if id.Len() != g.ConnectionIDLen() || seen[id] {
			t.Fatalf("ID %v of %d bytes, seen: %v", id, id.Len(), seen[id])
		}
		seen[id] = true
		if e.homes.of(id.Bytes()) != s {
			t.Fatalf("ID %v is not of its home", id)
		}
		if other.homes.mask(id.Bytes()[1:]) == e.homes.mask(id.Bytes()[1:]) {
			strangers++
		}
		for i, b := range id.Bytes() {
			counts[i][b]++
		}
	}
	for i := range counts {
		for b, c := range counts[i] {
			if c < n/256/2 || c > n/256*2 {
				t.Errorf("byte %d is %#x in %d of %d IDs", i, b, c, n)
			}
		}
	}
	if strangers > n/64 {
		t.Errorf("another endpoint reads %d of %d IDs", strangers, n)
	}

	// There are so many places, and they are used again.
	all := []*socket{s}
	for len(all) < maxHomes {
		k := new(socket)
		if k.place = e.homes.enter(k); k.place == maxHomes {
			t.Fatalf("no place for socket %d", len(all))
		}
		all = append(all, k)
	}
	late := new(socket)
	if late.place = e.homes.enter(late); late.place != maxHomes {
		t.Errorf("place %d was given twice", late.place)
	}
	e.homes.leave(late)
	for range 1000 {
		id, _ := connIDs{&e.homes, maxHomes}.GenerateConnectionID()
		if e.homes.of(id.Bytes()) != nil {
			t.Fatal("an ID without a home has one")
		}
	}
	e.homes.leave(all[17])
	if late.place = e.homes.enter(late); late.place != 17 {
		t.Errorf("place %d instead of the free one", late.place)
	}
}

// Sockets find their siblings.
func TestSiblings(t *testing.T) {
	for want, at := range map[[2]string][]string{
		{"0.0.0.0:1", "[::]:1"}:           {"0.0.0.0:1", "[::]:1"},
		{"10.0.0.1:1", "[2001:db8::1]:1"}: {"127.0.0.1:1", "[::1]:1", "10.0.0.1:1", "[2001:db8::1]:1"},
		{"127.0.0.1:2", "[::1]:2"}:        {"127.0.0.1:1", "[::1]:1", "127.0.0.1:2", "[::1]:2"},
		{"0.0.0.0:1", "[2001:db8::1]:1"}:  {"0.0.0.0:1", "[2001:db8::1]:1", "[::]:9"},
		{"[2001:db8::1]:1", "10.0.0.1:1"}: {"10.0.0.2:1", "10.0.0.1:1", "[2001:db8::1]:1"},
		{"10.0.0.2:1", "[2001:db8::1]:1"}: {"10.0.0.2:1", "10.0.0.1:1", "[2001:db8::1]:1"},
		{"0.0.0.0:1", "[::]:7"}:           {"0.0.0.0:1", "[::]:7", "[2001:db8::1]:9"},
		{"0.0.0.0:1", ""}:                 {"0.0.0.0:1", "[::1]:1"},
	} {
		e := NewEndpoint(EndpointConfig{})
		for _, a := range at {
			ap := netip.MustParseAddrPort(a)
			e.open[ap] = &socket{endpoint: e, local: ap}
		}
		e.pair()
		got := e.open[netip.MustParseAddrPort(want[0])].sibling.Load()
		if (got == nil) != (want[1] == "") || got != nil && got.local.String() != want[1] {
			t.Errorf("%v: the sibling of %s is %v", at, want[0], got)
		}
	}
}

// One address that was dialed leads to one elsewhere, as long as a connection needs it.
func TestAliases(t *testing.T) {
	var a aliases
	dialed, one, two := netip.MustParseAddrPort("1.2.3.4:5"), netip.MustParseAddrPort("[2001:db8::1]:5"), netip.MustParseAddrPort("[2001:db8::2]:5")
	at := net.UDPAddrFromAddrPort(dialed)
	check(t, a.add(dialed, one))
	check(t, a.add(dialed, one))
	if err := a.add(dialed, two); err == nil {
		t.Error("one address leads to two")
	}
	a.remove(dialed)
	if got := a.get(at); got == nil || got.AddrPort() != one {
		t.Errorf("it leads to %v", got)
	}
	a.remove(dialed)
	a.remove(dialed)
	if got := a.get(at); got != nil || len(a.to) != 0 {
		t.Errorf("it leads to %v when nobody needs it", got)
	}
	check(t, a.add(dialed, two))
}

// Whatever arrives is ours, another's or nobody's.
func FuzzHome(f *testing.F) {
	e := NewEndpoint(EndpointConfig{})
	open := func(at string) *socket {
		ap := netip.MustParseAddrPort(at)
		s := &socket{endpoint: e, local: ap, conn: new(udp.QUICConn)}
		s.place = e.homes.enter(s)
		e.open[ap] = s
		return s
	}
	four, six, lone := open("10.0.0.1:1"), open("[2001:db8::1]:1"), open("10.0.0.2:9")
	open("[2001:db8::2]:9") // its sibling
	e.pair()
	f.Add([]byte{})
	f.Add([]byte("short"))
	f.Add([]byte("@long enough for an ID"))
	f.Fuzz(func(t *testing.T, p []byte) {
		six.home(p)
		if len(p) < shortHeader+connIDLen {
			if _, ours := four.home(p); !ours {
				t.Error("a packet without an ID is another's")
			}
			return
		}
		name := func(s *socket) { p[shortHeader] = byte(s.place) ^ e.homes.mask(p[shortHeader+1:][:connIDLen-1]) }
		name(six)
		if to, ours := four.home(p); ours || to != six.conn {
			t.Errorf("a packet for the sibling: %v, %v", to, ours)
		}
		if to, ours := six.home(p); !ours || to != nil {
			t.Errorf("a packet of its own: %v, %v", to, ours)
		}
		name(lone)
		if to, ours := six.home(p); ours || to != nil {
			t.Errorf("a packet for one whose sibling answers elsewhere: %v, %v", to, ours)
		}
		if _, ours := four.home(p); !ours {
			t.Error("a packet that moves within its family went away")
		}
	})
}

func BenchmarkHome(b *testing.B) {
	e := NewEndpoint(EndpointConfig{})
	s := &socket{endpoint: e, local: netip.MustParseAddrPort("10.0.0.1:1")}
	s.place = e.homes.enter(s)
	id, _ := connIDs{&e.homes, byte(s.place)}.GenerateConnectionID()
	p := append([]byte{0x40}, id.Bytes()...)
	b.ReportAllocs()
	for b.Loop() {
		s.home(p)
	}
}
