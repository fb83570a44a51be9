package transporttest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/identify"
	"github.com/kith-p2p/kith/internal/testkit"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/ping"
)

// Under a host the peers identify each other and ping, a stream carries a request
// and its answer, codes of resets arrive, and Close leaves nothing.
func testHost(t *testing.T, c Case) {
	type party struct {
		*host.Host
		identify *identify.Service
	}
	start := func() party {
		n := c.node(t)
		h, err := host.New(host.Config{Identity: n.key, Transports: []host.Transport{n.Transport}})
		check(t, err)
		t.Cleanup(func() {
			took := testkit.Took(func() {
				if err := h.Close(); err != nil {
					t.Errorf("closing a host: %v", err)
				}
			})
			if took > closeLimit {
				t.Errorf("closing a host took %v", took)
			}
		})
		ping.Serve(h)
		h.Handle("/echo/1", func(_ context.Context, s *host.Stream) error {
			_, err := io.Copy(s, s)
			return err
		})
		h.Handle("/refuse/1", func(context.Context, *host.Stream) error {
			return &host.StreamError{Code: host.CodeRateLimited}
		})
		return party{h, identify.Start(h, identify.Config{AgentVersion: "transporttest"})}
	}
	a, b := start(), start()
	for _, addr := range c.Listen(t) {
		check(t, b.Listen(addr))
	}
	addrs := b.Addrs()
	if len(addrs) != len(c.Listen(t)) {
		t.Errorf("listens on %v", addrs)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, addr := range addrs {
		conn, err := a.Connect(ctx, peer.AddrInfo{ID: b.ID(), Addrs: []multiaddr.Addr{c.Dial(addr)}})
		check(t, err)
		info, err := a.identify.Identify(ctx, conn)
		check(t, err)
		if info.AgentVersion != "transporttest" || !slices.Contains(info.Protocols, ping.ProtocolID) || info.ID != b.ID() {
			t.Errorf("identified as %+v", info)
		}
		if rtt, err := ping.Once(ctx, a.Host, b.ID()); err != nil || rtt <= 0 {
			t.Errorf("pinging: %v, %v", rtt, err)
		}
		if rtt, err := ping.Once(ctx, b.Host, a.ID()); err != nil || rtt <= 0 {
			t.Errorf("pinging back: %v, %v", rtt, err)
		}

		s, err := a.NewStream(ctx, b.ID(), "/echo/1")
		check(t, err)
		request := bytes.Repeat([]byte("kith"), 100_000)
		s.SetDeadline(time.Now().Add(patience))
		go func() {
			s.Write(request)
			s.CloseWrite()
		}()
		answer, err := io.ReadAll(s)
		if err != nil || !bytes.Equal(answer, request) {
			t.Errorf("%d bytes of %d came back: %v", len(answer), len(request), err)
		}
		s.Close()

		s, err = a.NewStream(ctx, b.ID(), "/refuse/1")
		check(t, err)
		s.SetDeadline(time.Now().Add(patience))
		_, err = io.ReadAll(s)
		var reset *host.StreamError
		if !errors.As(err, &reset) || !reset.Remote || reset.Code != host.CodeRateLimited && !c.NoCodes {
			t.Errorf("a stream that its handler has reset: %v", err)
		}
		s.Close()
		_, err = a.NewStream(ctx, b.ID(), "/none/1", "/none/2")
		var none *host.ProtocolError
		if !errors.As(err, &none) {
			t.Errorf("protocols that nobody speaks: %v", err)
		}

		check(t, conn.Close())
		await(t, "the end of the connection", conn.Done())
		until(t, "the other side has noticed", func() bool { return len(b.Conns()) == 0 })
	}

	// One host closes, with a stream in use.
	_, err := a.Connect(ctx, peer.AddrInfo{ID: b.ID(), Addrs: []multiaddr.Addr{c.Dial(addrs[0])}})
	check(t, err)
	s, err := a.NewStream(ctx, b.ID(), "/echo/1")
	check(t, err)
	write(t, s, "x")
	read(t, s, "x")
	waiting := reads(s)
	blocked(t, "a read", waiting)
	check(t, b.Close())
	wantDead(t, "a read", await(t, "the end of a read from a host that closes", waiting).err)
	until(t, "the connection is gone", func() bool { return len(a.Conns()) == 0 })
	if _, err := a.Connect(ctx, peer.AddrInfo{ID: b.ID(), Addrs: addrs}); err == nil {
		t.Error("connected to a host that is closed")
	} else if errors.Is(err, net.ErrClosed) {
		t.Errorf("we are not closed: %v", err)
	}
}

// Datagrams arrive whole, or their sending fails; a connection without them says so.
func testDatagrams(t *testing.T, c Case) {
	near, far := c.connect(t)
	if !c.Datagrams {
		if near.Datagrams != nil || far.Datagrams != nil {
			t.Error("the Case does not tell that there are datagrams")
		}
		return
	}
	if near.Datagrams == nil || far.Datagrams == nil {
		t.Fatal("there are no datagrams")
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, way := range [][2]*end{{near, far}, {far, near}} {
		from, to := way[0].Datagrams, way[1].Datagrams
		for _, n := range []int{1, 100, 1200} {
			sent := bytes.Repeat([]byte{byte(n)}, n)
			received := async(func() []byte {
				p, err := to.ReceiveDatagram(ctx)
				if err != nil {
					return []byte(err.Error())
				}
				return p
			})
			// One can be lost, even here.
			until(t, "a datagram arrives", func() bool {
				check(t, from.SendDatagram(sent))
				select {
				case got := <-received:
					if !bytes.Equal(got, sent) && len(got) == len(sent) {
						t.Errorf("%d bytes arrived as %q", n, got)
					}
					return true
				default:
					return false
				}
			})
			drain(to)
		}
		if err := from.SendDatagram(make([]byte, 64<<10)); err == nil {
			t.Error("64 KiB were sent as a datagram")
		}
		ended, cancel := context.WithCancel(ctx)
		waiting := async(func() error {
			_, err := to.ReceiveDatagram(ended)
			return err
		})
		cancel()
		if err := await(t, "the end of ReceiveDatagram", waiting); !errors.Is(err, context.Canceled) {
			t.Errorf("waiting for a datagram until the context ended: %v", err)
		}
	}
	waiting := async(func() error {
		_, err := far.Datagrams.ReceiveDatagram(ctx)
		return err
	})
	near.closeInTime(t, connCode)
	wantDead(t, "ReceiveDatagram", await(t, "the end of ReceiveDatagram", waiting))
	wantDead(t, "SendDatagram", near.Datagrams.SendDatagram([]byte("x")))
}

// drain drops the datagrams that have come.
func drain(d host.Datagrams) {
	for {
		ctx, cancel := context.WithTimeout(context.Background(), quiet/10)
		_, err := d.ReceiveDatagram(ctx)
		cancel()
		if err != nil {
			return
		}
	}
}
