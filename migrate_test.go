package kith_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kith-p2p/kith"
	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// far is what a link in these tests takes in each direction: long against all that a
// busy machine adds.
const far = 50 * time.Millisecond

// patience is how long a test waits for what is to come.
const patience = 60 * time.Second

// A connection over TCP makes way for one over QUIC as soon as the peer can be reached
// that way and it is quicker. What is under way in both directions goes on without a
// byte lost, new streams go the new way, and the old connection ends after its streams.
func TestMigrationToQUIC(t *testing.T) {
	t.Parallel()
	a, b := start(t, migrating), start(t, migrating)
	connect(t, a, b, tcpLink(t, b, far))
	talks := talkBoth(t, a, b)
	if err := b.Listen(multiaddr.MustParse("/ip4/127.0.0.1/udp/0/quic-v1")); err != nil {
		t.Fatal(err)
	}
	// Each side's new streams, one of which stays open.
	var kept []*host.Stream
	for _, pair := range [][2]*kith.Node{{a, b}, {b, a}} {
		await(t, "new streams over QUIC", func() bool {
			s := echoOn(t, pair[0], pair[1].ID())
			if !isQUIC(s.Conn()) {
				s.Close()
				return false
			}
			kept = append(kept, s)
			return true
		})
	}
	// The old streams have gone on, and go on.
	for _, talk := range talks {
		before := talk.heard.Load()
		await(t, "more on the streams that were open", func() bool { return talk.heard.Load() > before+100<<10 })
	}
	for _, pair := range [][2]*kith.Node{{a, b}, {b, a}} {
		if n := len(pair[0].ConnsTo(pair[1].ID())); n != 2 {
			t.Errorf("%d connections while old streams are open", n)
		}
	}
	endTalks(t, talks)
	for _, pair := range [][2]*kith.Node{{a, b}, {b, a}} {
		await(t, "the end of the old connection", func() bool {
			conns := pair[0].ConnsTo(pair[1].ID())
			return len(conns) == 1 && isQUIC(conns[0])
		})
	}
	for _, s := range kept {
		say(t, s, "still here")
	}
}

// A connection over TCP stays when QUIC is slower, or fails: no stream of the dialer
// goes that way even for a moment, and those of the other side that do arrive.
func TestNoMigrationToQUIC(t *testing.T) {
	for _, c := range []struct {
		name  string
		tried func(e host.Event) bool // tells from the dialer's events that it has
		leads func(t *testing.T, b *kith.Node, dead *atomic.Bool) multiaddr.Addr
		dies  bool // when there is a connection
	}{
		{"it is slower", endOfQUIC, func(t *testing.T, b *kith.Node, dead *atomic.Bool) multiaddr.Addr {
			return udpLink(t, b, far, dead)
		}, false},
		{"it lets nothing through after the handshake", endOfQUIC, func(t *testing.T, b *kith.Node, dead *atomic.Bool) multiaddr.Addr {
			return udpLink(t, b, 0, dead)
		}, true},
		{"another peer answers", mismatchOfQUIC, func(t *testing.T, _ *kith.Node, _ *atomic.Bool) multiaddr.Addr {
			other := start(t, kith.Config{MDNS: kith.MDNS{Off: true}, Listen: []multiaddr.Addr{multiaddr.MustParse("/ip4/127.0.0.1/udp/0/quic-v1")}})
			return other.Host.Addrs()[0]
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var only atomic.Pointer[multiaddr.Addr] // of QUIC
			var dead atomic.Bool
			tried := make(chan struct{})
			var once sync.Once
			cfg := migrating
			cfg.Gate.DialAddr = func(_ peer.ID, addr multiaddr.Addr) error {
				if leads := only.Load(); addr.Has(multiaddr.QUICV1) && (leads == nil || addr != *leads) {
					return errors.New("not this way")
				}
				return nil
			}
			cfg.Trace = func(e host.Event) {
				if opened, ok := e.(host.ConnOpened); ok && c.dies && isQUIC(opened.Conn) {
					dead.Store(true)
				}
				if c.tried(e) {
					once.Do(func() { close(tried) })
				}
			}
			a, b := start(t, cfg), start(t, migrating)
			connect(t, a, b, b.Host.Addrs()[0])
			talks := talkBoth(t, a, b)
			if err := b.Listen(multiaddr.MustParse("/ip4/127.0.0.1/udp/0/quic-v1")); err != nil {
				t.Fatal(err)
			}
			leads := c.leads(t, b, &dead)
			only.Store(&leads)
			a.AddAddrs(peer.AddrInfo{ID: b.ID(), Addrs: []multiaddr.Addr{leads}}, host.TTLTold)
			await(t, "a try of QUIC", func() bool {
				s := echoOn(t, a, b.ID())
				if isQUIC(s.Conn()) {
					t.Fatalf("a new stream goes over %s", s.Conn())
				}
				s.Close()
				select {
				case <-tried:
					return true
				default:
					return false
				}
			})
			endTalks(t, talks)
			if s := echoOn(t, b, a.ID()); isQUIC(s.Conn()) {
				t.Errorf("a new stream of the other side goes over %s", s.Conn())
			}
		})
	}
}

func endOfQUIC(e host.Event) bool {
	closed, ok := e.(host.ConnClosed)
	return ok && isQUIC(closed.Conn)
}

func mismatchOfQUIC(e host.Event) bool {
	ended, ok := e.(host.DialEnded)
	var mismatch *peer.MismatchError
	return ok && errors.As(ended.Err, &mismatch)
}

var migrating = kith.Config{MDNS: kith.MDNS{Off: true}, Migrate: host.Migrate{After: time.Millisecond}}

func isQUIC(c *host.Conn) bool { return c.RemoteAddr().Has(multiaddr.QUICV1) }

// connect connects a to b, which both echo.
func connect(t *testing.T, a, b *kith.Node, over multiaddr.Addr) {
	t.Helper()
	for _, n := range []*kith.Node{a, b} {
		n.Handle("/echo/1", echo)
	}
	if _, err := a.Connect(t.Context(), peer.AddrInfo{ID: b.ID(), Addrs: []multiaddr.Addr{over}}); err != nil {
		t.Fatal(err)
	}
	await(t, "the connection at its other end", func() bool { return len(b.ConnsTo(a.ID())) == 1 })
}

// await waits until something holds of which nobody tells.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for limit := time.Now().Add(patience); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("%s: not in time", what)
		}
	}
}

// echoOn opens a stream and uses it.
func echoOn(t *testing.T, from *kith.Node, to peer.ID) *host.Stream {
	t.Helper()
	s, err := from.NewStream(t.Context(), to, "/echo/1")
	if err != nil {
		t.Fatal(err)
	}
	say(t, s, "hello")
	return s
}

func say(t *testing.T, s *host.Stream, text string) {
	t.Helper()
	s.SetDeadline(time.Now().Add(patience))
	fmt.Fprint(s, text)
	got := make([]byte, len(text))
	if _, err := io.ReadFull(s, got); err != nil || string(got) != text {
		t.Fatalf("over %s, %q came back as %q, %v", s.Conn(), text, got, err)
	}
}

// A talk is one end of a stream on which both ends write all the time, and check what
// they read.
type talk struct {
	s            *host.Stream
	wrote, heard atomic.Int64
	stop, ended  chan struct{}
	err          error // set before ended is closed
}

// talkBoth opens a stream on each side, and gives both ends of both.
func talkBoth(t *testing.T, a, b *kith.Node) (all []*talk) {
	t.Helper()
	for _, pair := range [][2]*kith.Node{{a, b}, {b, a}} {
		accepted := make(chan *talk)
		pair[1].Handle("/talk/1", func(_ context.Context, s *host.Stream) error {
			answers := newTalk(s, 2, 1)
			accepted <- answers
			<-answers.ended
			return answers.err
		})
		s, err := pair[0].NewStream(t.Context(), pair[1].ID(), "/talk/1")
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, newTalk(s, 1, 2), <-accepted)
	}
	return all
}

func newTalk(s *host.Stream, mine, theirs byte) *talk {
	c := &talk{s: s, stop: make(chan struct{}), ended: make(chan struct{})}
	written := make(chan error, 1)
	go func() { written <- c.write(rand.NewChaCha8([32]byte{mine})) }()
	go func() {
		defer close(c.ended)
		c.err = errors.Join(c.read(rand.NewChaCha8([32]byte{theirs})), <-written)
	}()
	return c
}

const talkPiece = 4 << 10

func (c *talk) write(noise *rand.ChaCha8) error {
	piece := make([]byte, talkPiece)
	for {
		noise.Read(piece)
		n, err := c.s.Write(piece)
		c.wrote.Add(int64(n))
		if err != nil {
			return err
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-c.stop:
			return c.s.CloseWrite()
		}
	}
}

func (c *talk) read(noise *rand.ChaCha8) error {
	piece, want := make([]byte, talkPiece), make([]byte, talkPiece)
	for {
		n, err := io.ReadFull(c.s, piece)
		noise.Read(want)
		if !bytes.Equal(piece[:n], want[:n]) {
			return fmt.Errorf("wrong bytes after %d", c.heard.Load())
		}
		c.heard.Add(int64(n))
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// endTalks ends streams, and wants every byte to have arrived. The ends are in pairs.
func endTalks(t *testing.T, all []*talk) {
	t.Helper()
	for _, c := range all {
		close(c.stop)
	}
	for i, c := range all {
		select {
		case <-c.ended:
		case <-time.After(patience):
			t.Fatalf("end %d of the streams: not in time", i)
		}
		if c.err != nil {
			t.Errorf("end %d of the streams: %v", i, c.err)
		}
	}
	for i, c := range all {
		if other := all[i^1]; c.wrote.Load() != other.heard.Load() {
			t.Errorf("end %d wrote %d bytes, and %d were read", i, c.wrote.Load(), other.heard.Load())
		}
	}
}

// A piece is under way on a link until it is due.
type piece struct {
	data []byte
	due  time.Time
}

// tcpLink is an address that leads to the first of n, which is of TCP, and takes a while.
func tcpLink(t *testing.T, n *kith.Node, delay time.Duration) multiaddr.Addr {
	t.Helper()
	server, _, _ := n.Host.Addrs()[0].AddrPort()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var open sync.WaitGroup
	t.Cleanup(func() {
		ln.Close()
		open.Wait()
	})
	carry := func(from, to *net.TCPConn) {
		pieces := make(chan piece, 4096)
		open.Go(func() {
			defer close(pieces)
			for {
				buf := make([]byte, 32<<10)
				n, err := from.Read(buf)
				pieces <- piece{buf[:n], time.Now().Add(delay)}
				if err != nil {
					return
				}
			}
		})
		open.Go(func() {
			for p := range pieces {
				time.Sleep(time.Until(p.due))
				to.Write(p.data)
			}
			to.Close()
			from.Close()
		})
	}
	open.Go(func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			conn, err := net.Dial("tcp4", server.String())
			if err != nil {
				client.Close()
				continue
			}
			carry(client.(*net.TCPConn), conn.(*net.TCPConn))
			carry(conn.(*net.TCPConn), client.(*net.TCPConn))
		}
	})
	return multiaddr.FromAddrPort(multiaddr.TCP, ln.Addr().(*net.TCPAddr).AddrPort())
}

// udpLink is an address that leads to the one of QUIC of n, and takes a while; when it
// is dead it swallows all packets. It serves one client.
func udpLink(t *testing.T, n *kith.Node, delay time.Duration, dead *atomic.Bool) multiaddr.Addr {
	t.Helper()
	var server netip.AddrPort
	for _, addr := range n.Host.Addrs() {
		if ap, code, _ := addr.AddrPort(); code == multiaddr.UDP {
			server = ap
		}
	}
	listen := func() *net.UDPConn {
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	front, back := listen(), listen()
	var open sync.WaitGroup
	t.Cleanup(func() {
		front.Close()
		back.Close()
		open.Wait()
	})
	var client atomic.Pointer[netip.AddrPort]
	carry := func(from, to *net.UDPConn, target func(sender netip.AddrPort) netip.AddrPort) {
		pieces := make(chan func(), 4096)
		open.Go(func() {
			defer close(pieces)
			for {
				buf := make([]byte, 2<<10)
				n, sender, err := from.ReadFromUDPAddrPort(buf)
				if err != nil {
					return
				}
				if dead.Load() {
					continue
				}
				due, ap := time.Now().Add(delay), target(sender)
				pieces <- func() {
					time.Sleep(time.Until(due))
					to.WriteToUDPAddrPort(buf[:n], ap)
				}
			}
		})
		open.Go(func() {
			for deliver := range pieces {
				deliver()
			}
		})
	}
	carry(front, back, func(sender netip.AddrPort) netip.AddrPort {
		client.Store(&sender)
		return server
	})
	carry(back, front, func(netip.AddrPort) netip.AddrPort { return *client.Load() })
	return multiaddr.Join(multiaddr.FromAddrPort(multiaddr.UDP, front.LocalAddr().(*net.UDPAddr).AddrPort()), multiaddr.MustParse("/quic-v1"))
}
