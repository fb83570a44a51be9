package identify

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/testkit"
	"github.com/kith-p2p/kith/memory"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

func nothing(context.Context, *host.Stream) error { return nil }

// A change is told, all changes of a moment at once.
func TestPush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(memory.Network)
		a, b := testkit.Host(t, network, host.Config{}), testkit.Host(t, network, host.Config{})
		Start(a, Config{})
		Start(b, Config{})
		seen := watch(t, a)
		testkit.Connect(t, a, b)
		time.Sleep(time.Minute)
		if got := all(seen); len(got) != 1 {
			t.Fatalf("identified %d times without a change", len(got))
		}
		for i := range 100 {
			b.Handle(host.ProtocolID(fmt.Sprintf("/new/%d", i)), nothing)
		}
		time.Sleep(time.Second)
		got := all(seen)
		if len(got) != 1 || !got[0].Push || !slices.Equal(got[0].Info.Protocols, b.Protocols()) {
			t.Fatalf("100 new protocols: %+v", got)
		}
		if err := b.Listen(multiaddr.MustParse("/memory/77")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if got := all(seen); len(got) != 1 || !slices.Equal(got[0].Info.Addrs, b.Addrs()) || !got[0].Info.SignedRecord {
			t.Errorf("a new address: %+v", got)
		}
		// A change that is none.
		b.Handle("/new/1", nothing)
		b.Handle("/brief/1", nothing)
		b.RemoveHandler("/brief/1")
		time.Sleep(time.Minute)
		if got := all(seen); len(got) != 0 {
			t.Errorf("nothing has changed: %+v", got)
		}
	})
}

// Changes without end are told at the pace that others accept, and the last one is.
func TestPushPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(memory.Network)
		a, b := testkit.Host(t, network, host.Config{}), testkit.Host(t, network, host.Config{})
		Start(a, Config{})
		Start(b, Config{})
		seen := watch(t, a)
		testkit.Connect(t, a, b)
		synctest.Wait()
		all(seen)
		const minutes = 2
		for i := range minutes * 60 * 10 {
			b.Handle(host.ProtocolID(fmt.Sprintf("/new/%d", i%2)), nothing)
			b.RemoveHandler(host.ProtocolID(fmt.Sprintf("/new/%d", (i+1)%2)))
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(roundLimit.every)
		got := all(seen)
		if want := roundLimit.burst + int(minutes*time.Minute/roundLimit.every); len(got) < want/2 || len(got) > want+1 {
			t.Errorf("pushed %d times in %d minutes, want at most %d", len(got), minutes, want)
		}
		if !slices.Equal(a.PeerInfo(b.ID()).Protocols, b.Protocols()) {
			t.Errorf("the other side knows %v, it speaks %v", a.PeerInfo(b.ID()).Protocols, b.Protocols())
		}
	})
}

func TestPushOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(memory.Network)
		a, b := testkit.Host(t, network, host.Config{}), testkit.Host(t, network, host.Config{})
		sa := Start(a, Config{})
		Start(b, Config{PushDelay: -1})
		seen := watch(t, a)
		c := testkit.Connect(t, a, b)
		synctest.Wait()
		all(seen)
		b.Handle("/new/1", nothing)
		time.Sleep(time.Minute)
		if got := all(seen); len(got) != 0 {
			t.Errorf("pushed all the same: %+v", got)
		}
		// Who asks is told.
		if info, err := sa.Identify(t.Context(), c); err != nil || !slices.Contains(info.Protocols, "/new/1") {
			t.Errorf("%+v, %v", info, err)
		}
	})
}

// A peer is told once, whatever the number of its connections; one that does not
// read pushes is left in peace.
func TestPushTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(memory.Network)
		var count counter
		b := testkit.Host(t, network, host.Config{Trace: count.trace})
		a := testkit.Host(t, network, host.Config{})
		var deafCount counter
		deaf := testkit.Host(t, network, host.Config{Trace: deafCount.trace})
		Start(a, Config{})
		Start(b, Config{})
		Start(deaf, Config{})
		deaf.RemoveHandler(PushProtocolID)
		testkit.Connect(t, a, b)
		testkit.Connect(t, a, deaf)
		// A second connection, made by the other side at the same time, stands in
		// for those that races leave over.
		secondConn(t, network, b, a)
		time.Sleep(time.Minute)
		if n := len(b.ConnsTo(a.ID())); n != 2 {
			t.Fatalf("%d connections", n)
		}
		a.Handle("/new/1", nothing)
		time.Sleep(time.Minute)
		if n := count.of(PushProtocolID); n != 1 {
			t.Errorf("pushed %d times to a peer with two connections", n)
		}
		if n := deafCount.of(PushProtocolID); n != 0 {
			t.Errorf("pushed %d times to a peer that does not read it", n)
		}
	})
}

// secondConn gives a another connection to b, from a host with the same key.
func secondConn(t *testing.T, network *memory.Network, a, b *host.Host) {
	t.Helper()
	transport, err := memory.New(memory.Config{Network: network, Upgrader: testkit.Upgrader(t, b.Key())})
	if err != nil {
		t.Fatal(err)
	}
	tc, err := transport.Dial(t.Context(), a.Addrs()[0], a.ID(), func(host.Stage) {})
	if err != nil {
		t.Fatal(err)
	}
	go tc.Mux.Serve(func(s host.MuxedStream) { s.Reset(0) })
	t.Cleanup(func() { tc.Mux.CloseWithCode(0) })
}

// Peers that stall do not keep the others from being told, and do not take all
// there is.
func TestPushStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(memory.Network)
		a := testkit.Host(t, network, host.Config{})
		Start(a, Config{})
		var mu sync.Mutex
		stalled, most := 0, 0
		for range maxPushing + 10 {
			h := testkit.Host(t, network, host.Config{})
			h.Handle(ProtocolID, func(_ context.Context, s *host.Stream) error {
				e, _ := encode(h.Key().Public().Marshal(), "", "staller", nil, []host.ProtocolID{ProtocolID, PushProtocolID})
				_, err := s.Write(e.messages(multiaddr.Addr{}))
				return err
			})
			h.Handle(PushProtocolID, func(ctx context.Context, s *host.Stream) error {
				mu.Lock()
				stalled++
				most = max(most, stalled)
				mu.Unlock()
				_, err := s.Read(make([]byte, 1))
				for err == nil {
					_, err = s.Read(make([]byte, 1024))
				}
				<-ctx.Done() // does not end its side
				return nil
			})
			testkit.Connect(t, a, h)
		}
		honest := testkit.Host(t, network, host.Config{})
		Start(honest, Config{})
		seen := watch(t, honest)
		testkit.Connect(t, a, honest)
		synctest.Wait()
		all(seen)
		a.Handle("/new/1", nothing)
		time.Sleep(2 * timeout)
		if got := all(seen); len(got) != 1 || !slices.Contains(got[0].Info.Protocols, "/new/1") {
			t.Errorf("the honest peer was told %+v", got)
		}
		begin := time.Now()
		if err := a.Close(); err != nil || time.Since(begin) > 100*time.Millisecond {
			t.Errorf("closing took %v: %v", time.Since(begin), err)
		}
		if most != maxPushing+10 {
			t.Errorf("%d peers were told", most)
		}
	})
}

// A peer that asked us before a change, and of which we learn only after it that
// it reads pushes, is told.
func TestPushMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(memory.Network)
		a, b := testkit.Host(t, network, host.Config{}), testkit.Host(t, network, host.Config{})
		Start(b, Config{PushDelay: -1})
		sb := newService(b, Config{})
		b.Handle(ProtocolID, func(ctx context.Context, s *host.Stream) error {
			select {
			case <-time.After(3 * time.Second): // a slow answer
				return sb.answer(ctx, s)
			case <-ctx.Done():
				return nil
			}
		})
		Start(a, Config{})
		testkit.Connect(t, a, b)
		time.Sleep(time.Second)
		a.Handle("/new/1", nothing)
		time.Sleep(time.Second)
		if slices.Contains(b.PeerInfo(a.ID()).Protocols, "/new/1") {
			t.Fatal("pushed before it was known that pushes are read: the test tests nothing")
		}
		time.Sleep(5 * time.Second)
		if !slices.Contains(b.PeerInfo(a.ID()).Protocols, "/new/1") {
			t.Error("the change was never told")
		}
	})
}

// Everything is encoded once for all connections, and signed once as long as the
// addresses are the same.
func TestEncodedAndSignedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := testkit.Host(t, new(memory.Network), host.Config{})
		s := Start(h, Config{})
		synctest.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		record := func(within bool) peer.Record {
			t.Helper()
			data := s.encoding(within).messages(multiaddr.Addr{})
			m, err := decode(data[2:])
			if err != nil {
				t.Fatal(err)
			}
			r, err := peer.OpenRecord(m.signedRecord)
			if err != nil || r.ID != h.ID() || !slices.Equal(r.Addrs, m.listenAddrs) {
				t.Fatalf("%+v, %v", r, err)
			}
			return r
		}
		change := func(addrs ...string) {
			s.self.version++
			s.self.encodings = [2]*encoding{}
			s.self.addrs = nil
			for _, a := range addrs {
				s.self.addrs = append(s.self.addrs, multiaddr.MustParse(a))
			}
		}
		change("/ip4/192.0.2.1/tcp/1", "/ip4/10.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/1", "/memory/1", "/ip6/::1/tcp/1")
		outside, within := record(false), record(true)
		if len(outside.Addrs) != 2 || len(within.Addrs) != 5 {
			t.Errorf("told outside %v, within %v", outside.Addrs, within.Addrs)
		}
		first, again := s.encoding(false), s.encoding(false)
		if first != again || first == s.encoding(true) {
			t.Error("encoded for each connection")
		}
		// The protocols change, the addresses do not.
		s.self.protocols = []host.ProtocolID{"/new/1"}
		s.self.encodings = [2]*encoding{}
		if record(false).Seq != outside.Seq || record(true).Seq != within.Seq {
			t.Error("signed again without need")
		}
		change("/ip4/192.0.2.1/tcp/1")
		if next := record(false); next.Seq <= max(outside.Seq, within.Seq) || len(next.Addrs) != 1 {
			t.Errorf("after a change: %+v, before: %+v", next, outside)
		}
	})
}

// BenchmarkIntroduction is what each connection costs us, once the message is encoded.
func BenchmarkIntroduction(b *testing.B) {
	x, y := testkit.Pair(b)
	s := Start(x, Config{})
	c := x.ConnsTo(y.ID())[0]
	b.ReportAllocs()
	for b.Loop() {
		s.introduction(c)
	}
}

// BenchmarkIdentify is a whole exchange, on a connection that stands.
func BenchmarkIdentify(b *testing.B) {
	x, y := testkit.Pair(b)
	s := Start(x, Config{})
	c := x.ConnsTo(y.ID())[0]
	data := introduction(b, y)
	y.Handle(ProtocolID, func(_ context.Context, st *host.Stream) error {
		_, err := st.Write(data)
		return err
	})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Identify(b.Context(), c); err != nil {
			b.Fatal(err)
		}
	}
}

func introduction(t testing.TB, h *host.Host) []byte {
	t.Helper()
	e, kept := encode(h.Key().Public().Marshal(), "", "bench", addrs(5), protocols(20, 25))
	sealed, err := peer.Record{ID: h.ID(), Seq: 1, Addrs: kept}.Seal(h.Key())
	if err != nil {
		t.Fatal(err)
	}
	e.setRecord(sealed)
	return e.messages(addrs(1)[0])
}
