package quic

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/testkit"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/multistream"
)

// reluctant makes a host that does not read what it is sent on streams of /unread/1.
func reluctant(t *testing.T, cfg EndpointConfig) (*host.Host, *Endpoint) {
	t.Helper()
	key := testkit.Key(t)
	transport := newTransport(t, key, cfg)
	h, err := host.New(host.Config{Identity: key, Transports: []host.Transport{transport}, Limits: host.Limits{Memory: 64 << 20}})
	check(t, err)
	t.Cleanup(func() { h.Close() })
	h.Handle("/unread/1", func(ctx context.Context, _ *host.Stream) error {
		<-ctx.Done()
		return nil
	})
	h.Handle("/read/1", func(_ context.Context, s *host.Stream) error {
		_, err := io.Copy(io.Discard, s)
		return err
	})
	check(t, h.Listen(multiaddr.MustParse("/ip4/127.0.0.1/udp/0/quic-v1")))
	return h, transport.endpoint
}

// attack connects somebody new.
func attack(t *testing.T, h *host.Host) *conn {
	t.Helper()
	key := testkit.Key(t)
	tc, err := newTransport(t, key, EndpointConfig{}).Dial(t.Context(), h.Addrs()[0], h.ID(), func(host.Stage) {})
	check(t, err)
	await(t, "the host knows the peer", func() bool { return len(h.ConnsTo(key.ID())) == 1 })
	return tc.Mux.(*conn)
}

// fill sends what the remote lets in, on n streams of a protocol.
func (c *conn) fill(t *testing.T, proto string, n, each int) {
	t.Helper()
	for range n {
		s := open(t, c)
		go s.Write(append(multistream.AppendProposal(nil, proto), make([]byte, each)...))
	}
}

// holds is what the meters have charged, and what connections hold beyond that by the
// bytes that came, both without what windows grew by.
func (o *meters) holds() (charged, unread int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, m := range o.of {
		charged += m.held
		surplus, _, _ := m.surplus()
		unread += surplus - m.from
	}
	return charged, unread
}

// Many connections fill their windows as fast as they can, and nobody reads. At no time
// has more come than the slack without all connections being looked at.
func TestChargedOnArrival(t *testing.T) {
	const attackers, streams = 8, 8
	h, e := reluctant(t, EndpointConfig{})
	o := &e.meters
	var conns []*conn
	for range attackers {
		conns = append(conns, attack(t, h))
	}
	var most, gap atomic.Int64
	done := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		for {
			net := o.net.Load() // before seen, which may have passed it since
			most.Store(max(most.Load(), net-o.seen.Load()))
			charged, unread := o.holds()
			gap.Store(max(gap.Load(), unread-charged))
			select {
			case <-done:
				return
			default:
			}
		}
	})
	for _, c := range conns {
		c.fill(t, "/unread/1", streams, wideStreamWindow)
	}
	// Of what comes before a Read has noticed, some is taken for the heads of packets.
	const all = attackers * wideConnWindow
	await(t, "the windows are full", func() bool { _, unread := o.holds(); return unread > all*80/100 })
	await(t, "all is charged", func() bool { charged, _ := o.holds(); return charged > all*80/100 })
	close(done)
	watch.Wait()
	slack := o.slack.Load()
	t.Logf("%d KiB came; at most %d KiB since the last look, with a slack of %d KiB; at most %d KiB were held and not charged", all>>10, most.Load()>>10, slack>>10, gap.Load()>>10)
	if batch := int64(8 * 1500); slack == 0 || most.Load() > slack+batch {
		t.Errorf("%d bytes came without a look, want at most %d", most.Load(), slack+batch)
	}
	for _, s := range h.Usage().Scopes {
		if s.Name == "StreamMemory" && (s.Used < all*80/100 || s.Used > s.Limit) {
			t.Errorf("%d bytes are taken of %d", s.Used, s.Limit)
		}
	}
	for _, c := range conns {
		c.CloseWithCode(0)
	}
	await(t, "all is back", func() bool {
		for _, s := range h.Usage().Scopes {
			if s.Name == "StreamMemory" {
				return s.Used == 0
			}
		}
		return false
	})
}

// What nobody takes from quic-go stays charged, although somebody waits for data on each
// stream that there is.
func TestChargedWhatNobodyAccepts(t *testing.T) {
	h, e := reluctant(t, EndpointConfig{})
	c := attack(t, h)
	c.fill(t, "/read/1", 1, 1)
	for range incomingUniStreams {
		s, err := c.qc.OpenUniStream()
		check(t, err)
		go s.Write(make([]byte, wideConnWindow/incomingUniStreams))
	}
	const want = wideConnWindow * 3 / 4 // some of it might be the heads of packets
	await(t, "all is there", func() bool { return e.meters.any().came() > wideConnWindow*95/100 })
	for range 20 {
		e.meters.look()
	}
	if charged, _ := e.meters.holds(); charged < want {
		t.Errorf("%d bytes are charged, want at least %d", charged, want)
	}
}

// What comes for streams that are refused is given back when the remote has taken note,
// and what was read is, so that a connection in long use is charged nothing.
func TestChargedNothingInTheEnd(t *testing.T) {
	h, e := reluctant(t, EndpointConfig{})
	c := attack(t, h)
	for range 50 {
		c.fill(t, "/nobody/1", 1, 60<<10)
		c.fill(t, "/read/1", 1, 200<<10)
	}
	await(t, "all has come", func() bool { return e.meters.any().came() > 50*200<<10 })
	await(t, "nothing is charged", func() bool {
		e.meters.look()
		charged, _ := e.meters.holds()
		return charged == 0
	})
}

func (o *meters) any() *Meter {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, m := range o.of {
		return m
	}
	return nil
}

func (m *Meter) came() int64 {
	_, _, bytes := m.surplus()
	return bytes
}

// New connections start with narrow windows while there are many.
func TestWindowsOfMany(t *testing.T) {
	h, e := reluctant(t, EndpointConfig{MaxWide: 1})
	first, second := attack(t, h), attack(t, h)
	if e.config() != e.narrow {
		t.Error("two connections are not more than one")
	}
	for _, c := range []*conn{first, second} {
		c.fill(t, "/unread/1", 8, wideConnWindow)
	}
	const all = wideConnWindow + narrowConnWindow
	var unread int64
	await(t, "the windows are full", func() bool { _, unread = e.meters.holds(); return unread > all*80/100 })
	if unread > all*11/10 { // with the heads of packets
		t.Errorf("%d bytes were let in, want at most %d", unread, all)
	}
	first.CloseWithCode(0)
	second.CloseWithCode(0)
	await(t, "there is room again", func() bool { return e.config() == e.wide })
}
