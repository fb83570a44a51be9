package transporttest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// Both ends know each other, and where they are, on each of the addresses.
func testConnect(t *testing.T, c Case) {
	for _, addr := range c.Listen(t) {
		t.Run(strings.ReplaceAll(strings.Trim(addr.String(), "/"), "/", "-"), func(t *testing.T) {
			nothingLeft(t)
			a, b := c.node(t), c.node(t)
			if !b.CanListen(addr) {
				t.Errorf("CanListen(%s) is false", addr)
			}
			l := b.listen(t, addr)
			if to := c.Dial(l.Addr()); !a.CanDial(to) {
				t.Errorf("CanDial(%s) is false", to)
			}
			near, err := a.dial(t.Context(), l.Addr(), b.id)
			check(t, err)
			near.closes(t)
			far := await(t, "the accepted connection", l.conns).closes(t)
			if got := near.RemoteKey.ID(); got != b.id {
				t.Errorf("dialed %s, and the remote is %s", b.id, got)
			}
			if got := far.RemoteKey.ID(); got != a.id {
				t.Errorf("was dialed by %s, and the remote is %s", a.id, got)
			}
			if near.Security != far.Security || near.Muxer != far.Muxer {
				t.Errorf("one end has %q and %q, the other %q and %q", near.Security, near.Muxer, far.Security, far.Muxer)
			}
			if near.Limited || far.Limited {
				t.Error("the connection is limited")
			}
			if near.RTT() < 0 || near.RTT() > patience || far.RTT() < 0 || far.RTT() > patience {
				t.Errorf("round trips of %v and %v", near.RTT(), far.RTT())
			}
			wantAddrs(t, l.Addr(), c.Dial(l.Addr()), near, far)

			near.echo()
			far.echo()
			for range 3 {
				check(t, near.roundTrip(t.Context(), "from the dialer"))
				check(t, far.roundTrip(t.Context(), "from the listener"))
			}
			until(t, "streams that have ended are not counted", func() bool { return near.Mux.NumStreams() == 0 && far.Mux.NumStreams() == 0 })
		})
	}
}

// RTT is that of the muxer.
func (e *end) RTT() time.Duration { return e.Mux.RTT() }

// wantAddrs checks what the two ends of a connection say of where they are.
func wantAddrs(t *testing.T, listening, dialed multiaddr.Addr, near, far *end) {
	t.Helper()
	if near.RemoteAddr != dialed {
		t.Errorf("dialed %s, and the remote's address is %s", dialed, near.RemoteAddr)
	}
	for what, addr := range map[string]multiaddr.Addr{
		"the dialer's own": near.LocalAddr, "the listener's own": far.LocalAddr, "the listener's remote": far.RemoteAddr,
	} {
		if addr.IsZero() {
			t.Errorf("%s address is missing", what)
		}
	}
	lap, code, ok := listening.AddrPort()
	if !ok {
		return
	}
	if lap.Port() == 0 {
		t.Errorf("the listener's address is %s", listening)
	}
	if got, gotCode, ok := far.LocalAddr.AddrPort(); !ok || gotCode != code || got != lap {
		t.Errorf("listens on %s, and a connection's own address is %s", listening, far.LocalAddr)
	}
	from, fromCode, ok := far.RemoteAddr.AddrPort()
	if !ok || fromCode != code || from.Addr() != lap.Addr() || from.Port() == 0 {
		t.Errorf("the listener at %s sees a connection from %s", listening, far.RemoteAddr)
	}
	own, ownCode, ok := near.LocalAddr.AddrPort()
	if !ok || ownCode != code || own.Port() != from.Port() || !own.Addr().IsUnspecified() && own.Addr() != from.Addr() {
		t.Errorf("the dialer is at %s, and is seen at %s", near.LocalAddr, far.RemoteAddr)
	}
}

// The unspecified address is that of every interface, of its own family alone: one
// port serves both.
func testUnspecified(t *testing.T, c Case) {
	b := c.node(t)
	port := 0
	for _, addr := range c.Listen(t) {
		ip, ok := addr.IP()
		if !ok {
			continue
		}
		unspecified := "0.0.0.0"
		if ip.Is6() {
			unspecified = "::"
		}
		all := with(addr, ipCode(ip), unspecified)
		if port != 0 {
			_, code, _ := addr.AddrPort()
			all = with(all, code, fmt.Sprint(port))
		}
		l := b.listen(t, all)
		if got, _ := l.Addr().IP(); !got.IsUnspecified() {
			t.Errorf("listens on %s, and says %s", all, l.Addr())
		}
		ap, _, _ := l.Addr().AddrPort()
		port = int(ap.Port())
		to := with(l.Addr(), ipCode(ip), ip.String())
		near, err := c.node(t).dial(t.Context(), to, b.id)
		check(t, err)
		near.closes(t)
		far := await(t, "the accepted connection", l.conns).closes(t)
		far.echo()
		check(t, near.roundTrip(t.Context(), "hello"))
		if from, ok := far.RemoteAddr.IP(); !ok || from != ip {
			t.Errorf("a dial from %s comes from %s", ip, far.RemoteAddr)
		}
		if own, ok := far.LocalAddr.IP(); !ok || own != ip && !own.IsUnspecified() {
			t.Errorf("a dial to %s comes to %s", ip, far.LocalAddr)
		}
	}
}

func ipCode(ip netip.Addr) multiaddr.Code {
	if ip.Is4() {
		return multiaddr.IP4
	}
	return multiaddr.IP6
}

// Peers with keys of all types reach each other.
func testKeyTypes(t *testing.T, c Case) {
	for _, typ := range []peer.KeyType{peer.RSA, peer.Secp256k1, peer.ECDSA} {
		a, b := c.nodeOf(t, typ), c.nodeOf(t, typ)
		l := b.listen(t, c.Listen(t)[0])
		near, err := a.dial(t.Context(), l.Addr(), b.id)
		if err != nil {
			t.Errorf("%s: %v", typ, err)
			continue
		}
		near.closes(t)
		far := await(t, "the accepted connection", l.conns).closes(t)
		if near.RemoteKey.ID() != b.id || far.RemoteKey.ID() != a.id || near.RemoteKey.Type() != typ || far.RemoteKey.Type() != typ {
			t.Errorf("%s: %s met %s, a %s", typ, a.id, near.RemoteKey.ID(), near.RemoteKey.Type())
		}
		far.echo()
		check(t, near.roundTrip(t.Context(), "hello"))
	}
}

// Both sides tell of their stages in order, to the last.
func testProgress(t *testing.T, c Case) {
	a, b := c.node(t), c.node(t)
	l, err := b.Listen(c.Listen(t)[0])
	check(t, err)
	defer l.Close()
	var dialing, accepting stages
	type made struct {
		tc  host.TransportConn
		err error
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	accepted := async(func() made {
		in, err := l.Accept()
		if err != nil {
			return made{err: err}
		}
		tc, err := in.Upgrade(ctx, accepting.note)
		if err == nil && in.RemoteAddr() != tc.RemoteAddr {
			err = fmt.Errorf("comes from %s before it is upgraded and from %s after", in.RemoteAddr(), tc.RemoteAddr)
		}
		return made{tc, err}
	})
	tc, err := a.Dial(ctx, c.Dial(l.Addr()), b.id, dialing.note)
	check(t, err)
	serve(tc).closes(t)
	far := await(t, "the accepted connection", accepted)
	check(t, far.err)
	serve(far.tc).closes(t)
	dialing.check(t, "dialing")
	accepting.check(t, "accepting")
}

// stages are those that progress was told of.
type stages struct {
	mu   sync.Mutex
	seen []host.Stage
}

func (s *stages) note(stage host.Stage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, stage)
}

func (s *stages) check(t *testing.T, what string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.seen) == 0 || !slices.IsSorted(s.seen) || s.seen[len(s.seen)-1] != host.StageMuxed {
		t.Errorf("%s: the stages were %v", what, s.seen)
	}
}

// A dialer who meets another peer than it wanted says whom, and has no connection;
// neither has the other, or not for long.
func testWrongPeer(t *testing.T, c Case) {
	a, b, wanted := c.node(t), c.node(t), c.node(t)
	l := b.listen(t, c.Listen(t)[0])
	e, err := a.dial(t.Context(), l.Addr(), wanted.id)
	if err == nil {
		e.closes(t)
		t.Fatalf("wanted %s, and the connection is with %s", wanted.id, e.RemoteKey.ID())
	}
	if !strings.Contains(err.Error(), wanted.id.String()) || !strings.Contains(err.Error(), b.id.String()) {
		t.Errorf("the error does not say who was wanted and who was met: %v", err)
	}
	select {
	case <-l.failed:
	case far := <-l.conns:
		await(t, "the end of a connection that the dialer does not want", far.served)
		far.closes(t)
	case <-time.After(patience):
		t.Error("the listener still waits for a dialer that met the wrong peer")
	}
	// It is the peer that was wrong, not the address.
	near, err := a.dial(t.Context(), l.Addr(), b.id)
	check(t, err)
	near.closes(t)
	await(t, "the right connection", l.conns).closes(t)
}

// Two do not listen on one address, and when the first has gone, the next can.
func testAddressInUse(t *testing.T, c Case) {
	a, b := c.node(t), c.node(t)
	first := a.listen(t, c.Listen(t)[0])
	taken := withoutHashes(first.Addr())
	second, err := b.Listen(taken)
	if err == nil {
		second.Close()
		t.Fatalf("%s was opened twice", taken)
	}
	name := taken.String()
	if ap, _, ok := taken.AddrPort(); ok {
		name = fmt.Sprint(ap.Port())
	}
	if !strings.Contains(err.Error(), name) {
		t.Errorf("the error does not name %s: %v", name, err)
	}
	near, err := c.node(t).dial(t.Context(), first.Addr(), a.id)
	if err != nil {
		t.Fatalf("the first listener is gone: %v", err)
	}
	near.closes(t)
	await(t, "a connection on the first listener", first.conns).closes(t)
}

// withoutHashes is the part of an address that can be listened on.
func withoutHashes(a multiaddr.Addr) multiaddr.Addr {
	var kept multiaddr.Addr
	for c := range a.Components() {
		if c.Code() != multiaddr.CertHash {
			kept = multiaddr.Join(kept, c.Addr())
		}
	}
	return kept
}

// A listener that closes takes nothing more, and keeps what it has.
func testCloseListener(t *testing.T, c Case) {
	a, b := c.node(t), c.node(t)
	l := b.listen(t, c.Listen(t)[0])
	addr := l.Addr()
	near, err := a.dial(t.Context(), addr, b.id)
	check(t, err)
	near.closes(t)
	far := await(t, "the accepted connection", l.conns).closes(t)
	far.echo()
	check(t, near.roundTrip(t.Context(), "before"))

	check(t, await(t, "Close of a listener", async(l.Close)))
	if err := await(t, "the end of Accept", l.ended); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v, want net.ErrClosed", err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept once more: %v, want net.ErrClosed", err)
	}
	await(t, "Close once more", async(l.Close))
	if l.Addr() != addr {
		t.Errorf("the address of a closed listener is %s; it was %s", l.Addr(), addr)
	}

	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if e, err := c.node(t).dial(ctx, addr, b.id); err == nil {
		e.closes(t)
		t.Error("a listener that is closed was dialed")
	}
	check(t, near.roundTrip(t.Context(), "after"))
	check(t, near.Mux.CloseWithCode(0))
	await(t, "the end of the other side", far.served)

	// Without connections the address is free again.
	again := c.node(t)
	until(t, "the address can be listened on again", func() bool {
		tl, err := again.Listen(withoutHashes(addr))
		if err == nil {
			tl.Close()
		}
		return err == nil
	})
}

// A listener closes while many dial: some are in time, and the others fail.
func testCloseBusyListener(t *testing.T, c Case) {
	const many = 20
	a, b := c.node(t), c.node(t)
	l := b.listen(t, c.Listen(t)[0])
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var dialing sync.WaitGroup
	first := make(chan struct{}, many)
	for range many {
		dialing.Go(func() {
			defer func() { first <- struct{}{} }()
			if e, err := a.dial(ctx, l.Addr(), b.id); err == nil {
				e.Mux.CloseWithCode(0)
				<-e.served
			}
		})
	}
	await(t, "one of many dials", first)
	check(t, await(t, "Close of a listener", async(l.Close)))
	await(t, "the end of Accept", l.ended)
	dialing.Wait()
}

// A connection that nobody serves yet keeps what comes.
func testNotServedYet(t *testing.T, c Case) {
	a, b := c.node(t), c.node(t)
	l := b.listen(t, c.Listen(t)[0])
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tc, err := a.Dial(ctx, c.Dial(l.Addr()), b.id, func(host.Stage) {})
	check(t, err)
	far := await(t, "the accepted connection", l.conns).closes(t)
	theirs, err := far.Mux.OpenStream(ctx)
	check(t, err)
	write(t, theirs, "early")
	ours, err := tc.Mux.OpenStream(ctx)
	check(t, err)
	write(t, ours, "early too")
	read(t, await(t, "our stream", far.streams), "early too")
	near := serve(tc).closes(t)
	read(t, await(t, "the stream that was early", near.streams), "early")
}

// A connection that is not wanted ends although nobody has served it, and the
// other side is told why.
func testNeverServed(t *testing.T, c Case) {
	a, b := c.node(t), c.node(t)
	l := b.listen(t, c.Listen(t)[0])
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tc, err := a.Dial(ctx, c.Dial(l.Addr()), b.id, func(host.Stage) {})
	check(t, err)
	far := await(t, "the accepted connection", l.conns).closes(t)
	far.echo()
	near := &end{TransportConn: tc}
	near.closeInTime(t, connCode)
	await(t, "the end of the other side's Serve", far.served)
	if !c.NoConnCodes {
		wantCode(t, "the remote's Serve", far.err, connCode, true)
	}
	if err := await(t, "Serve on a connection that has ended", async(func() error { return tc.Mux.Serve(func(host.MuxedStream) {}) })); err == nil {
		t.Error("Serve on a connection that has ended: nil")
	}
}

// A dial ends with its context, at whatever it is.
func testDialEnds(t *testing.T, c Case) {
	a, b := c.node(t), c.node(t)
	l := b.listen(t, c.Listen(t)[0])
	silent := b.silent(t, l.Addr())

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if e, err := a.dial(ended, l.Addr(), b.id); !errors.Is(err, context.Canceled) {
		t.Errorf("dialing with a context that has ended: %v", err)
		if err == nil {
			e.closes(t)
		}
	}
	for what, end := range map[string]func() (context.Context, context.CancelFunc){
		"a deadline": func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(t.Context(), 100*time.Millisecond)
		},
		"cancellation": func() (context.Context, context.CancelFunc) { return context.WithCancel(t.Context()) },
	} {
		ctx, cancel := end()
		dialed := async(func() error {
			e, err := a.dial(ctx, silent, b.id)
			if err == nil {
				e.Mux.CloseWithCode(0)
				<-e.served
			}
			return err
		})
		want := context.DeadlineExceeded
		if what == "cancellation" {
			select {
			case err := <-dialed:
				t.Fatalf("dialing who says nothing: %v", err)
			case <-time.After(100 * time.Millisecond):
			}
			cancel()
			want = context.Canceled
		}
		select {
		case err := <-dialed:
			if !errors.Is(err, want) {
				t.Errorf("dialing who says nothing, until %s: %v, want %v", what, err, want)
			}
		case <-time.After(patience):
			t.Errorf("a dial goes on after %s", what)
			<-dialed
		}
		cancel()
	}
	// The end of the context of a dial is not that of its connection.
	ctx, cancel := context.WithCancel(t.Context())
	near, err := a.dial(ctx, l.Addr(), b.id)
	check(t, err)
	near.closes(t)
	far := await(t, "the accepted connection", l.conns).closes(t)
	far.echo()
	cancel()
	check(t, near.roundTrip(t.Context(), "hello"))
}

// silent gives an address like that of a listener, at which nobody answers.
func (n *node) silent(t *testing.T, like multiaddr.Addr) multiaddr.Addr {
	t.Helper()
	ap, code, ok := like.AddrPort()
	switch {
	case ok && code == multiaddr.TCP:
		l, err := net.Listen("tcp", net.JoinHostPort(ap.Addr().String(), "0"))
		check(t, err)
		t.Cleanup(func() { l.Close() })
		return with(like, code, fmt.Sprint(l.Addr().(*net.TCPAddr).Port))
	case ok:
		conn, err := net.ListenPacket("udp", net.JoinHostPort(ap.Addr().String(), "0"))
		check(t, err)
		t.Cleanup(func() { conn.Close() })
		return with(like, code, fmt.Sprint(conn.LocalAddr().(*net.UDPAddr).Port))
	}
	// Nobody accepts.
	l, err := n.Listen(n.c.Listen(t)[0])
	check(t, err)
	t.Cleanup(func() { l.Close() })
	return l.Addr()
}

// with is a with another value of one component.
func with(a multiaddr.Addr, code multiaddr.Code, value string) multiaddr.Addr {
	var out multiaddr.Addr
	for c := range a.Components() {
		if c.Code() == code {
			c, _ = multiaddr.NewComponent(code, value)
		}
		out = multiaddr.Join(out, c.Addr())
	}
	return out
}

// A listener that does not want a connection is rid of it at any time.
func testUpgradeEnds(t *testing.T, c Case) {
	a, b := c.node(t), c.node(t)
	l, err := b.Listen(c.Listen(t)[0])
	check(t, err)
	defer l.Close()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for what, refuse := range map[string]func(in host.Incoming) error{
		"closing it before its upgrade": func(in host.Incoming) error {
			in.Close()
			return nil
		},
		"upgrading it with a context that has ended": func(in host.Incoming) error {
			tc, err := in.Upgrade(ended, func(host.Stage) {})
			if err == nil {
				tc.Mux.CloseWithCode(0)
				return errors.New("it was upgraded")
			}
			if !errors.Is(err, context.Canceled) {
				return fmt.Errorf("%w, want context.Canceled", err)
			}
			return nil
		},
		"closing it twice, and upgrading it": func(in host.Incoming) error {
			in.Close()
			in.Close()
			tc, err := in.Upgrade(t.Context(), func(host.Stage) {})
			if err == nil {
				tc.Mux.CloseWithCode(0)
				return errors.New("it was upgraded")
			}
			return nil
		},
	} {
		refused := async(func() error {
			in, err := l.Accept()
			if err != nil {
				return err
			}
			return refuse(in)
		})
		e, err := a.dial(t.Context(), l.Addr(), b.id)
		if err == nil { // it may not know yet
			await(t, "the end of a connection that was refused by "+what, e.served)
			e.closes(t)
		}
		if errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: the dialer is not told", what)
		}
		if err := await(t, what, refused); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// One who is accepted and not upgraded holds up nobody.
func testAcceptGoesOn(t *testing.T, c Case) {
	const waiting = 5
	a, b := c.node(t), c.node(t)
	l, err := b.Listen(c.Listen(t)[0])
	check(t, err)
	var closing sync.Once
	t.Cleanup(func() { closing.Do(func() { l.Close() }) })
	accepted := make(chan host.Incoming, waiting+1)
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- in
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var dialing sync.WaitGroup
	defer dialing.Wait()
	dials := func() {
		dialing.Go(func() {
			if e, err := a.dial(ctx, l.Addr(), b.id); err == nil {
				<-e.served
				e.Mux.CloseWithCode(0)
			}
		})
	}
	var held []host.Incoming
	for range waiting {
		dials()
		held = append(held, await(t, "one more to be accepted", accepted))
	}
	dials()
	in := await(t, "one more to be accepted, behind those that wait", accepted)
	upgraded := async(func() error {
		tc, err := in.Upgrade(ctx, func(host.Stage) {})
		if err == nil {
			tc.Mux.CloseWithCode(0)
			<-serve(tc).served
		}
		return err
	})
	if err := await(t, "its upgrade", upgraded); err != nil {
		t.Errorf("the upgrade of one behind those that wait: %v", err)
	}
	// They stay when the listener closes, and go when they are closed.
	closing.Do(func() { check(t, l.Close()) })
	tc, err := held[0].Upgrade(ctx, func(host.Stage) {})
	if err != nil {
		t.Errorf("the upgrade of one that was accepted before the listener closed: %v", err)
	} else {
		tc.Mux.CloseWithCode(0)
		<-serve(tc).served
	}
	for _, in := range held[1:] {
		await(t, "Close of one that waits", async(in.Close))
	}
	finished := make(chan struct{})
	go func() {
		dialing.Wait()
		close(finished)
	}()
	await(t, "all dialers to know", finished)
}

// Many connections begin at once, each with a stream.
func testManyConnections(t *testing.T, c Case) {
	const attempts = 5
	a, b := c.node(t), c.node(t)
	l := b.listen(t, c.Listen(t)[0])
	failed := make(chan error, c.Conns)
	release := make(chan struct{})
	var refused atomic.Int32
	var all sync.WaitGroup
	defer func() {
		close(release)
		all.Wait()
	}()
	for i := range c.Conns {
		all.Go(func() {
			for attempt := 1; ; attempt++ {
				near, err := a.dial(t.Context(), l.Addr(), b.id)
				if err == nil {
					err = near.roundTrip(t.Context(), fmt.Sprint("connection ", i))
				}
				if err == nil {
					failed <- nil
					<-release // all are open at the same time
				}
				if near != nil {
					near.Mux.CloseWithCode(0)
					<-near.served
				}
				if err == nil {
					return
				}
				// A listener whose queue is full may refuse, but says so.
				if refused.Add(1); attempt == attempts || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
					failed <- err
					return
				}
			}
		})
	}
	var fars []*end
	for answers := 0; (answers < c.Conns || len(fars) < c.Conns) && !t.Failed(); {
		select {
		case far := <-l.conns:
			far.closes(t).echo()
			fars = append(fars, far)
		case err := <-failed:
			answers++
			if err != nil {
				t.Errorf("after %d connections: %v", len(fars), err)
			}
		case <-l.failed:
		case <-time.After(patience):
			t.Fatalf("not within %v: one more connection or answer: %d and %d of %d\n%s", patience, len(fars), answers, c.Conns, stacks())
		}
	}
	t.Logf("%d connections, %d refused at first", c.Conns, refused.Load())
}
