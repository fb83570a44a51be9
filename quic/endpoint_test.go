package quic

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	quicgo "github.com/quic-go/quic-go"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/testkit"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/p2ptls"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/udp"
)

var loopback = netip.MustParseAddrPort("127.0.0.1:0")

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tlsFor is a configuration of libp2p, but for the name of the application protocol.
func tlsFor(t testing.TB, alpn ...string) *tls.Config {
	t.Helper()
	security, err := p2ptls.New(testkit.Key(t))
	check(t, err)
	conf := security.QUICConfig(peer.ID{})
	conf.NextProtos = alpn
	return conf
}

func listenFor(t testing.TB, e *Endpoint, ap netip.AddrPort, alpn string) *Listener {
	t.Helper()
	conf := tlsFor(t, alpn)
	l, err := e.Listen(ap, alpn, func(*tls.ClientHelloInfo) (*tls.Config, error) { return conf, nil })
	check(t, err)
	return l
}

// Application protocols share a port, come and go, and are told apart.
func TestProtocolsShareAPort(t *testing.T) {
	sockets := new(udp.Sockets)
	e := NewEndpoint(EndpointConfig{Sockets: sockets})
	defer e.Close()
	one := listenFor(t, e, loopback, "libp2p")
	two := listenFor(t, e, one.Addr(), "h3")
	if one.Addr() != two.Addr() {
		t.Fatalf("listening at %v and %v", one.Addr(), two.Addr())
	}
	if _, err := e.Listen(one.Addr(), "h3", nil); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("one protocol twice: %v", err)
	}
	other, err := sockets.Other(one.Addr())
	check(t, err)
	defer other.Close()

	dialer := NewEndpoint(EndpointConfig{})
	defer dialer.Close()
	dial := func(alpn ...string) (*quicgo.Conn, error) {
		return dialer.Dial(t.Context(), one.Addr(), tlsFor(t, alpn...))
	}
	reach := func(l *Listener, alpn ...string) {
		t.Helper()
		conn, err := dial(alpn...)
		check(t, err)
		taken, err := l.Accept(t.Context())
		check(t, err)
		if got := taken.ConnectionState().TLS.NegotiatedProtocol; got != l.alpn {
			t.Errorf("agreed on %q", got)
		}
		conn.CloseWithError(0, "")
		<-taken.Context().Done()
	}
	reach(one, "libp2p")
	reach(two, "h3")
	reach(two, "h4", "h3", "libp2p") // the client's order counts
	if _, err := dial("h4"); err == nil || errors.Is(err, net.ErrClosed) {
		t.Errorf("a protocol that nobody speaks: %v", err)
	}
	check(t, one.Close())
	check(t, one.Close())
	if _, err := one.Accept(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accepting from what is closed: %v", err)
	}
	if _, err := dial("libp2p"); err == nil {
		t.Error("a protocol that nobody speaks any more was taken")
	}
	reach(two, "h3")
	one = listenFor(t, e, two.Addr(), "libp2p")
	reach(one, "libp2p")
}

func TestDialLeavesFromListener(t *testing.T) {
	a, b := NewEndpoint(EndpointConfig{}), NewEndpoint(EndpointConfig{})
	defer a.Close()
	defer b.Close()
	from, to := listenFor(t, a, loopback, alpn), listenFor(t, b, loopback, alpn)
	conn, err := a.Dial(t.Context(), to.Addr(), tlsFor(t, alpn))
	check(t, err)
	taken, err := to.Accept(t.Context())
	check(t, err)
	if got := taken.RemoteAddr().String(); got != from.Addr().String() {
		t.Errorf("dialed from %s, not from %s", got, from.Addr())
	}
	// The connection outlives the listener, the socket does not outlive the connection.
	check(t, from.Close())
	s, err := conn.OpenStream()
	check(t, err)
	s.Write([]byte{1})
	_, err = taken.AcceptStream(t.Context())
	check(t, err)
	conn.CloseWithError(0, "")
	await(t, "the socket closes", func() bool {
		l, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(from.Addr()))
		if err == nil {
			l.Close()
		}
		return err == nil
	})
}

func TestPortTaken(t *testing.T) {
	a, b := NewEndpoint(EndpointConfig{}), NewEndpoint(EndpointConfig{})
	defer a.Close()
	defer b.Close()
	l := listenFor(t, a, loopback, alpn)
	_, err := b.Listen(l.Addr(), alpn, nil)
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), fmt.Sprintf("port %d is taken", l.Addr().Port())) {
		t.Errorf("a port that is taken: %v", err)
	}
}

// After Close there are no goroutines, no sockets, and no way to make more.
func TestEndpointClose(t *testing.T) {
	before := runtime.NumGoroutine()
	a, b := NewEndpoint(EndpointConfig{}), NewEndpoint(EndpointConfig{})
	l := listenFor(t, b, loopback, alpn)
	for range 20 {
		_, err := a.Dial(t.Context(), l.Addr(), tlsFor(t, alpn))
		check(t, err)
	}
	took := testkit.Took(func() {
		check(t, a.Close())
		check(t, b.Close())
		check(t, b.Close())
	})
	if took > 2*time.Second {
		t.Errorf("closing took %v", took)
	}
	if _, err := a.Dial(t.Context(), l.Addr(), tlsFor(t, alpn)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("dialing from what is closed: %v", err)
	}
	if _, err := b.Listen(loopback, alpn, nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("listening on what is closed: %v", err)
	}
	await(t, "goroutines end", func() bool { return runtime.NumGoroutine() <= before })
}

// Under load strangers have to show where they are, which costs them a round trip.
func TestRetry(t *testing.T) {
	e, dialer := NewEndpoint(EndpointConfig{}), NewEndpoint(EndpointConfig{})
	defer e.Close()
	defer dialer.Close()
	asked := 0
	e.mu.Lock()
	s, err := e.socket(loopback)
	e.mu.Unlock()
	check(t, err)
	s.tr.VerifySourceAddress = func(net.Addr) bool { asked++; return true }
	l := listenFor(t, e, s.local, alpn)
	_, err = dialer.Dial(t.Context(), l.Addr(), tlsFor(t, alpn))
	check(t, err)
	_, err = l.Accept(t.Context())
	check(t, err)
	if asked == 0 {
		t.Error("nobody was asked")
	}
}

func TestGate(t *testing.T) {
	var g gate
	now := time.Unix(1000, 0)
	for i := range retryRate {
		if g.busy(now) {
			t.Fatalf("busy after %d handshakes", i)
		}
	}
	if !g.busy(now) {
		t.Error("never busy")
	}
	if now = now.Add(time.Second / 10); g.busy(now) {
		t.Error("busy a moment later")
	}
	if g.wantsRetry(&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}) {
		t.Error("loopback has to show where it is")
	}

	enter := func(ip string) (context.Context, context.CancelFunc, error) {
		ctx, cancel := context.WithCancel(t.Context())
		ctx, err := g.enter(ctx, &quicgo.ClientInfo{RemoteAddr: &net.UDPAddr{IP: net.ParseIP(ip)}})
		return ctx, cancel, err
	}
	var last context.Context
	var fail context.CancelFunc
	for i := range maxOpeningPerGroup {
		var err error
		last, fail, err = enter(fmt.Sprintf("192.0.2.%d", i))
		check(t, err)
	}
	if _, _, err := enter("192.0.2.200"); err == nil {
		t.Error("one network takes more than its places")
	}
	if !g.busy(now.Add(time.Hour)) {
		t.Error("not busy with many that are opening")
	}
	for i := range maxOpening - maxOpeningPerGroup {
		_, _, err := enter(fmt.Sprintf("2001:db8:%x::1", i))
		check(t, err)
	}
	if _, _, err := enter("2001:db8:ffff::1"); err == nil {
		t.Error("more than all places are taken")
	}
	g.leave(last) // accepted
	fail()        // and ended: one place, not two
	await(t, "a place is free", func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.opening == maxOpening-1 && g.groups[netip.MustParsePrefix("192.0.2.0/24")] == maxOpeningPerGroup-1
	})
	_, fail, err := enter("2001:db8:ffff::1")
	check(t, err)
	fail()
	await(t, "a place is free again", func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.opening == maxOpening-1
	})
}

// A host that was restarted tells its peers at once that it has forgotten their connections.
func TestRestart(t *testing.T) {
	key := testkit.Key(t)
	far := NewEndpoint(EndpointConfig{Key: key})
	transport, err := New(Config{Key: key, Endpoint: far})
	check(t, err)
	l, err := transport.Listen(multiaddr.MustParse("/ip4/127.0.0.1/udp/0/quic-v1"))
	check(t, err)
	near := newTransport(t, testkit.Key(t), EndpointConfig{})
	dialed, taken := dialTo(t, near, l)
	echo(t, dialed.Mux, taken.Mux)
	ended := make(chan error, 1)
	go func() { ended <- dialed.Mux.Serve(func(host.MuxedStream) {}) }()

	far.mu.Lock() // as if it was killed: nobody is told
	var dead []*socket
	for _, s := range far.open {
		dead = append(dead, s)
	}
	clear(far.open)
	far.mu.Unlock()
	for _, s := range dead {
		s.close()
	}
	again := newTransport(t, key, EndpointConfig{})
	l, err = again.Listen(l.Addr())
	check(t, err)
	defer l.Close()
	s := open(t, dialed.Mux)
	s.Write(make([]byte, 100))
	var reset *quicgo.StatelessResetError
	if err := <-ended; !errors.As(err, &reset) || !errors.Is(err, net.ErrClosed) {
		t.Errorf("the connection ended by %v", err)
	}
}

// Ten thousand streams are open at once where the configuration allows them.
func TestManyStreams(t *testing.T) {
	const streams = 10_000
	near := newTransport(t, testkit.Key(t), EndpointConfig{})
	l, err := newTransport(t, testkit.Key(t), EndpointConfig{MaxIncomingStreams: streams}).Listen(multiaddr.MustParse("/ip4/127.0.0.1/udp/0/quic-v1"))
	check(t, err)
	defer l.Close()
	dialed, taken := dialTo(t, near, l)
	done := make(chan struct{})
	seen := 0
	go taken.Mux.Serve(func(host.MuxedStream) {
		if seen++; seen == streams {
			close(done)
		}
	})
	for range streams {
		_, err := open(t, dialed.Mux).Write([]byte{1})
		check(t, err)
	}
	<-done
	if n := taken.Mux.NumStreams(); n != streams {
		t.Errorf("%d streams are open", n)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := dialed.Mux.OpenStream(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one more: %v", err)
	}
}

func TestCanDial(t *testing.T) {
	transport := newTransport(t, testkit.Key(t), EndpointConfig{})
	for addr, want := range map[string][2]bool{
		"/ip4/1.2.3.4/udp/5/quic-v1":              {true, true},
		"/ip6/fe80::1/udp/5/quic-v1":              {true, true},
		"/ip6zone/lo/ip6/::1/udp/5/quic-v1":       {true, true},
		"/ip4/0.0.0.0/udp/0/quic-v1":              {false, true},
		"/ip4/1.2.3.4/udp/5":                      {false, false},
		"/ip4/1.2.3.4/udp/5/quic":                 {false, false},
		"/ip4/1.2.3.4/tcp/5/quic-v1":              {false, false},
		"/ip4/1.2.3.4/udp/5/quic-v1/webtransport": {false, false},
		"/dns4/example.com/udp/5/quic-v1":         {false, false},
	} {
		a := multiaddr.MustParse(addr)
		if got := [2]bool{transport.CanDial(a), transport.CanListen(a)}; got != want {
			t.Errorf("%s: %v, want %v", addr, got, want)
		}
	}
	if _, err := New(Config{}); err == nil {
		t.Error("made without a key")
	}
}
