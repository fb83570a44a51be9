package identify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/testkit"
	"github.com/kith-p2p/kith/internal/wire"
	"github.com/kith-p2p/kith/memory"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/tcp"
)

// watch collects the identifications that h is told of.
func watch(t *testing.T, h *host.Host) <-chan host.PeerIdentified {
	events := h.Subscribe(1024)
	out := make(chan host.PeerIdentified, 1024)
	go func() {
		defer close(out)
		for e := range events.Events() {
			if e, ok := e.(host.PeerIdentified); ok {
				out <- e
			}
		}
	}()
	t.Cleanup(events.Close)
	return out
}

func all(ch <-chan host.PeerIdentified) (got []host.PeerIdentified) {
	for len(ch) > 0 {
		got = append(got, <-ch)
	}
	return got
}

// counter counts the streams of each protocol that a host serves.
type counter struct {
	mu      sync.Mutex
	streams map[host.ProtocolID]int
}

func (c *counter) trace(e host.Event) {
	if e, ok := e.(host.StreamOpened); ok && e.Dir == host.DirInbound {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.streams == nil {
			c.streams = make(map[host.ProtocolID]int)
		}
		c.streams[e.Protocol]++
	}
}

func (c *counter) of(p host.ProtocolID) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.streams[p]
}

func TestIdentify(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(memory.Network)
		a, b := testkit.Host(t, network, host.Config{}), testkit.Host(t, network, host.Config{})
		b.Handle("/echo/1", func(context.Context, *host.Stream) error { return nil })
		Start(a, Config{})
		Start(b, Config{AgentVersion: "tester/2.0", ProtocolVersion: "/test/1"})
		seenA, seenB := watch(t, a), watch(t, b)
		c := testkit.Connect(t, a, b)
		synctest.Wait()

		got := all(seenA)
		if len(got) != 1 {
			t.Fatalf("identified %d times", len(got))
		}
		info := got[0].Info
		if got[0].Conn != c || got[0].Push || info.ID != b.ID() || info.AgentVersion != "tester/2.0" || info.ProtocolVersion != "/test/1" {
			t.Errorf("identified as %+v", got[0])
		}
		if !slices.Equal(info.Addrs, b.Addrs()) || !info.SignedRecord || !slices.Equal(info.Protocols, b.Protocols()) {
			t.Errorf("addresses %v (signed: %v), protocols %v", info.Addrs, info.SignedRecord, info.Protocols)
		}
		if info.ObservedAddr != c.LocalAddr() {
			t.Errorf("it sees us at %s, we are at %s", info.ObservedAddr, c.LocalAddr())
		}
		if known := a.PeerInfo(b.ID()); known.AgentVersion != "tester/2.0" || !slices.Contains(known.Protocols, "/echo/1") {
			t.Errorf("the host knows %+v", known)
		}
		if got := all(seenB); len(got) != 1 || got[0].Info.AgentVersion != "kith" || got[0].Info.ProtocolVersion != "" {
			t.Errorf("the other side identified %+v", got)
		}
	})
}

// Over TCP the observed address is a real one, and loopback addresses are told,
// because the connection is within this machine.
func TestIdentifyTCP(t *testing.T) {
	newHost := func() *host.Host {
		key := testkit.Key(t)
		transport, err := tcp.New(tcp.Config{Upgrader: testkit.Upgrader(t, key)})
		if err != nil {
			t.Fatal(err)
		}
		h := testkit.Host(t, new(memory.Network), host.Config{Identity: key, Transports: []host.Transport{transport}})
		if err := h.Listen(multiaddr.MustParse("/ip4/127.0.0.1/tcp/0")); err != nil {
			t.Fatal(err)
		}
		return h
	}
	a, b := newHost(), newHost()
	sa := Start(a, Config{})
	Start(b, Config{})
	var where []multiaddr.Addr
	for _, addr := range b.Addrs() {
		if addr.Has(multiaddr.TCP) {
			where = append(where, addr)
		}
	}
	c, err := a.Connect(t.Context(), peer.AddrInfo{ID: b.ID(), Addrs: where})
	if err != nil {
		t.Fatal(err)
	}
	info, err := sa.Identify(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if info.ObservedAddr != c.LocalAddr() || !slices.Equal(info.Addrs, b.Addrs()) || len(where) != 1 || !slices.Contains(info.Addrs, where[0]) {
		t.Errorf("observed %s, we are at %s; addresses %v, it listens at %v", info.ObservedAddr, c.LocalAddr(), info.Addrs, b.Addrs())
	}
}

// Whoever asks while the peer is being asked gets that answer.
func TestIdentifyTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(memory.Network)
		var count counter
		a, b := testkit.Host(t, network, host.Config{}), testkit.Host(t, network, host.Config{Trace: count.trace})
		sa := Start(a, Config{})
		release := make(chan struct{})
		sb := newService(b, Config{AgentVersion: "b"})
		b.Handle(ProtocolID, func(ctx context.Context, s *host.Stream) error {
			<-release
			return sb.answer(ctx, s)
		})
		c := testkit.Connect(t, a, b)
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if info, err := sa.Identify(t.Context(), c); err != nil || info.AgentVersion != "b" {
					t.Errorf("%+v, %v", info, err)
				}
			})
		}
		synctest.Wait()
		close(release)
		wg.Wait()
		if n := count.of(ProtocolID); n != 1 {
			t.Errorf("the peer was asked %d times", n)
		}
		// Later it is asked again: what it says may have changed.
		if _, err := sa.Identify(t.Context(), c); err != nil || count.of(ProtocolID) != 2 {
			t.Errorf("asked %d times: %v", count.of(ProtocolID), err)
		}
	})
}

// A connection that stood before the service started is identified too.
func TestStartLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := testkit.Pair(t)
		seen := watch(t, a)
		Start(b, Config{})
		Start(a, Config{})
		synctest.Wait()
		if got := all(seen); len(got) != 1 {
			t.Errorf("identified %d times", len(got))
		}
	})
}

// A config that cannot be sent as it is becomes one that can.
func TestConfigIsMadeFit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := testkit.Pair(t)
		seen := watch(t, a)
		Start(b, Config{AgentVersion: "a\nb" + string(make([]byte, 1000))})
		Start(a, Config{PushDelay: -1})
		synctest.Wait()
		if got := all(seen); len(got) != 1 || len(got[0].Info.AgentVersion) > maxVersionLen || !isPrintable([]byte(got[0].Info.AgentVersion)) {
			t.Errorf("%+v", got)
		}
	})
}

func TestIdentifyErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := testkit.Pair(t)
		sa := Start(a, Config{})
		c := a.ConnsTo(b.ID())[0]

		var refused *host.ProtocolError
		if _, err := sa.Identify(t.Context(), c); !errors.As(err, &refused) {
			t.Errorf("a peer that does not speak identify: %v", err)
		}

		b.Handle(ProtocolID, func(ctx context.Context, s *host.Stream) error {
			s.Write([]byte{100, 1, 2, 3}) // less than announced, and no more
			<-ctx.Done()
			return nil
		})
		begin := time.Now()
		if _, err := sa.Identify(t.Context(), c); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begin) != timeout {
			t.Errorf("a peer that stalls: %v after %v", err, time.Since(begin))
		}

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := sa.Identify(ctx, c); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a caller that does not wait: %v", err)
		}
		go func() {
			time.Sleep(time.Second)
			c.Close()
		}()
		if _, err := sa.Identify(t.Context(), c); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a connection that ends: %v", err)
		}
		synctest.Wait()
		if _, err := sa.Identify(t.Context(), c); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a connection that has ended: %v", err)
		}
		if n := sa.known(); n != 0 {
			t.Errorf("%d contacts are kept", n)
		}
	})
}

func (s *Service) known() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.contacts)
}

// introduce gives what a peer with key would say, signed by signer.
func introduce(t *testing.T, key peer.PrivateKey, listen, signed []multiaddr.Addr, signer peer.PrivateKey) []byte {
	t.Helper()
	e, _ := encode(key.Public().Marshal(), "", "liar", listen, []host.ProtocolID{"/a/1"})
	if !signer.IsZero() {
		sealed, err := peer.Record{ID: signer.ID(), Seq: 1, Addrs: signed}.Seal(signer)
		if err != nil {
			t.Fatal(err)
		}
		e.setRecord(sealed)
	}
	return e.messages(multiaddr.Addr{})
}

func TestHostileAnswers(t *testing.T) {
	own, other := testkit.Key(t), testkit.Key(t)
	listen := []multiaddr.Addr{multiaddr.MustParse("/ip4/192.0.2.1/tcp/1")}
	signed := []multiaddr.Addr{multiaddr.MustParse("/ip4/192.0.2.2/tcp/2")}
	broken := introduce(t, own, listen, signed, own)
	broken[len(broken)-1] ^= 1
	many := wire.AppendBytesField(nil, fieldListenAddr, listen[0].Bytes())
	many = wire.AppendFrame(nil, bytes.Repeat(many, maxMessageLen/len(many)))

	for _, c := range []struct {
		name    string
		answer  []byte
		endless bool
		addrs   []multiaddr.Addr // wanted; ignored when code is set
		code    uint32           // with which the stream is reset
		fails   bool
	}{
		{name: "own record", answer: introduce(t, own, listen, signed, own), addrs: signed},
		{name: "no record", answer: introduce(t, own, listen, nil, peer.PrivateKey{}), addrs: listen},
		{name: "another's record", answer: introduce(t, own, listen, signed, other)},
		{name: "broken record", answer: broken, addrs: listen},
		{name: "another's key", answer: introduce(t, other, listen, signed, own), code: host.CodeProtocolViolation, fails: true},
		{name: "another's key and record", answer: introduce(t, other, listen, signed, other), code: host.CodeProtocolViolation, fails: true},
		{name: "not protobuf", answer: []byte{3, 0xff, 0xff, 0xff}, code: host.CodeProtocolViolation, fails: true},
		{name: "nothing", fails: true},
		{name: "oversized", answer: wire.AppendFrame(nil, make([]byte, maxMessageLen+1)), fails: true},
		{name: "a million addresses", answer: many, endless: true, fails: true},
		{name: "half a message", answer: many[:100], fails: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := new(memory.Network)
				a, b := testkit.Host(t, network, host.Config{}), testkit.Host(t, network, host.Config{Identity: own})
				sa := Start(a, Config{})
				seen := watch(t, a)
				ended := make(chan error, 2)
				b.Handle(ProtocolID, func(_ context.Context, s *host.Stream) error {
					s.Write(c.answer)
					var err error
					for c.endless && err == nil {
						_, err = s.Write(c.answer)
					}
					if err == nil {
						s.CloseWrite()
						_, err = s.Read(make([]byte, 1))
					}
					ended <- err
					return nil
				})
				conn := testkit.Connect(t, a, b)
				info, err := sa.Identify(t.Context(), conn)
				if (err != nil) != c.fails {
					t.Fatalf("%+v, %v", info, err)
				}
				synctest.Wait()
				// The connection was also identified by itself, unless that was the same exchange.
				got := all(seen)
				if c.fails {
					if len(got) != 0 || len(a.PeerInfo(b.ID()).Protocols) != 0 {
						t.Errorf("identified all the same: %+v", got)
					}
				} else if len(got) == 0 || !slices.Equal(info.Addrs, c.addrs) || info.SignedRecord != (c.name == "own record") || info.AgentVersion != "liar" {
					t.Errorf("identified as %+v", info)
				}
				if c.code != 0 {
					var reset *host.StreamError
					if err := <-ended; !errors.As(err, &reset) || reset.Code != c.code {
						t.Errorf("the stream ended with %v", err)
					}
				}
			})
		})
	}
}

// Of third peers nothing is kept, whatever is told of them.
func TestRecordsOfOthersAreNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(memory.Network)
		a, b := testkit.Host(t, network, host.Config{}), testkit.Host(t, network, host.Config{})
		sa := Start(a, Config{})
		keys := make([]peer.PrivateKey, 20)
		for i := range keys {
			keys[i] = testkit.Key(t)
		}
		var n atomic.Int32
		b.Handle(ProtocolID, func(_ context.Context, s *host.Stream) error {
			key := keys[int(n.Add(1))%len(keys)]
			_, err := s.Write(introduce(t, b.Key(), addrs(3), addrs(3), key))
			return err
		})
		c := testkit.Connect(t, a, b)
		for range keys {
			if _, err := sa.Identify(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		for _, k := range keys {
			if info := a.PeerInfo(k.ID()); len(info.Addrs) != 0 {
				t.Errorf("a third peer is known: %+v", info)
			}
		}
		if info := a.PeerInfo(b.ID()); slices.ContainsFunc(info.Addrs, func(a multiaddr.Addr) bool { return slices.Contains(addrs(3), a) }) {
			t.Errorf("the peer's addresses are those of another: %v", info.Addrs)
		}
	})
}

// A reader of events that falls behind finds the connections all the same.
func TestEventsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(memory.Network)
		a, b := testkit.Host(t, network, host.Config{}), testkit.Host(t, network, host.Config{})
		sa := Start(a, Config{})
		Start(b, Config{})
		old := testkit.Connect(t, a, b)
		synctest.Wait()
		if sa.known() != 1 {
			t.Fatalf("%d contacts", sa.known())
		}
		seen := watch(t, a)
		third := testkit.Host(t, network, host.Config{})
		Start(third, Config{})

		sa.mu.Lock() // the service cannot go on
		for i := range 2 * eventBuffer {
			a.Handle(host.ProtocolID(fmt.Sprintf("/x/%d", i)), nil)
		}
		old.Close()
		testkit.Connect(t, a, third)
		sa.mu.Unlock()

		time.Sleep(time.Minute)
		if got := all(seen); len(got) == 0 || got[0].Conn.RemotePeer() != third.ID() {
			t.Errorf("identified %+v", got)
		}
		if sa.known() != 1 {
			t.Errorf("%d contacts", sa.known())
		}
	})
}

// Closing the host ends everything, also what waits for a peer that stalls.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := testkit.Pair(t)
		b.Handle(ProtocolID, func(ctx context.Context, s *host.Stream) error {
			<-ctx.Done()
			return nil
		})
		sa := Start(a, Config{})
		c := a.ConnsTo(b.ID())[0]
		failed := make(chan error, 1)
		go func() {
			_, err := sa.Identify(context.Background(), c)
			failed <- err
		}()
		synctest.Wait()
		begin := time.Now()
		if err := a.Close(); err != nil || time.Since(begin) > 100*time.Millisecond {
			t.Errorf("closing took %v: %v", time.Since(begin), err)
		}
		if err := <-failed; err == nil {
			t.Error("identified by a closed host")
		}
		if _, err := sa.Identify(context.Background(), c); !errors.Is(err, net.ErrClosed) {
			t.Errorf("identify on a closed host: %v", err)
		}
	})
}

// What a push says replaces what was known, what it does not say stays.
func TestPartialPush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(memory.Network)
		a, b := testkit.Host(t, network, host.Config{}), testkit.Host(t, network, host.Config{})
		Start(a, Config{})
		Start(b, Config{AgentVersion: "first", ProtocolVersion: "/v/1", PushDelay: -1})
		seen := watch(t, a)
		c := testkit.Connect(t, a, b)
		synctest.Wait()
		before := all(seen)[0].Info

		push := func(fields []byte) host.PeerInfo {
			t.Helper()
			if err := sendPush(t.Context(), b.ConnsTo(a.ID())[0], wire.AppendFrame(nil, fields)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			got := all(seen)
			if len(got) != 1 || !got[0].Push || got[0].Conn != c {
				t.Fatalf("a push was taken for %+v", got)
			}
			return got[0].Info
		}
		same := func(name string, a, b host.PeerInfo) {
			t.Helper()
			if !slices.Equal(a.Addrs, b.Addrs) || !slices.Equal(a.Protocols, b.Protocols) || a.AgentVersion != b.AgentVersion ||
				a.ProtocolVersion != b.ProtocolVersion || a.ObservedAddr != b.ObservedAddr || a.SignedRecord != b.SignedRecord {
				t.Errorf("%s: got %+v, want %+v", name, a, b)
			}
		}
		want := before
		same("nothing", push(nil), want)
		want.AgentVersion = "second"
		same("agent version", push(wire.AppendStringField(nil, fieldAgentVersion, "second")), want)
		want.ProtocolVersion = "/v/2"
		same("protocol version", push(wire.AppendStringField(nil, fieldProtocolVersion, "/v/2")), want)
		want.Protocols = []host.ProtocolID{"/only/1"}
		same("protocols", push(wire.AppendStringField(nil, fieldProtocol, "/only/1")), want)
		want.Addrs, want.SignedRecord = addrs(1), false
		same("addresses", push(wire.AppendBytesField(nil, fieldListenAddr, addrs(1)[0].Bytes())), want)
		want.ObservedAddr = addrs(2)[1]
		same("observed address", push(wire.AppendBytesField(nil, fieldObservedAddr, addrs(2)[1].Bytes())), want)
	})
}

// sendPush pushes raw bytes and waits until they were read.
func sendPush(ctx context.Context, c *host.Conn, b []byte) error {
	s, err := c.NewStream(ctx, PushProtocolID)
	if err != nil {
		return err
	}
	defer s.Close()
	if _, err := s.Write(b); err != nil {
		return err
	}
	if err := s.CloseWrite(); err != nil {
		return err
	}
	if _, err := s.Read(make([]byte, 1)); err != io.EOF {
		return err
	}
	return nil
}

func codeIn(err error) uint32 {
	var reset *host.StreamError
	if errors.As(err, &reset) {
		return reset.Code
	}
	return 0
}

// Too many pushes are refused unread, ever more slowly, and then the connection is closed.
func TestPushFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(memory.Network)
		var count counter
		var closed atomic.Uint32
		a := testkit.Host(t, network, host.Config{Trace: count.trace})
		b := testkit.Host(t, network, host.Config{})
		honest := testkit.Host(t, network, host.Config{})
		sa := Start(a, Config{})
		Start(honest, Config{PushDelay: time.Millisecond})
		seen := watch(t, a)
		testkit.Connect(t, honest, a)
		c := testkit.Connect(t, b, a)
		synctest.Wait()
		all(seen)

		msg := introduce(t, b.Key(), addrs(3), nil, peer.PrivateKey{})
		refused, begin := 0, time.Now()
		for i := range 10_000 {
			err := sendPush(t.Context(), c, msg)
			if codeIn(err) == host.CodeRateLimited {
				refused++
			}
			select {
			case <-c.Done():
				closed.Store(uint32(i))
			default:
				continue
			}
			break
		}
		if closed.Load() == 0 {
			t.Fatal("10,000 pushes were endured")
		}
		if got := all(seen); len(got) != pushLimit.burst {
			t.Errorf("%d pushes were read, want %d", len(got), pushLimit.burst)
		}
		if took := time.Since(begin); took < time.Second || refused < 100 {
			t.Errorf("the connection was closed after %v and %d pushes, of which %d were refused", took, closed.Load(), refused)
		}
		synctest.Wait()
		if sa.known() != 1 {
			t.Errorf("%d contacts are kept", sa.known())
		}
		// A new connection is no new budget.
		c = testkit.Connect(t, b, a)
		for range 100 {
			sendPush(t.Context(), c, msg)
		}
		if got := all(seen); len(got) > 1 {
			t.Errorf("after a new connection %d pushes were read", len(got))
		}
		// Another peer's push is read as before.
		honest.Handle("/new/1", func(context.Context, *host.Stream) error { return nil })
		time.Sleep(time.Second)
		if got := all(seen); len(got) != 1 || !got[0].Push || !slices.Contains(got[0].Info.Protocols, "/new/1") {
			t.Errorf("an honest push: %+v", got)
		}
	})
}

// A peer that pushes a little too often keeps its connection.
func TestPushTooOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := testkit.Pair(t)
		Start(a, Config{})
		seen := watch(t, a)
		c := b.ConnsTo(a.ID())[0]
		read := 0
		for range 600 {
			if err := sendPush(t.Context(), c, []byte{0}); err == nil {
				read++
			} else if codeIn(err) != host.CodeRateLimited {
				t.Fatal(err)
			}
			time.Sleep(time.Second / 2)
		}
		if ended(c) {
			t.Error("the connection was closed")
		}
		if want := pushLimit.burst + int(300*time.Second/pushLimit.every); read < want-1 || read > want+1 || len(all(seen)) != read {
			t.Errorf("%d of 600 pushes in 300 s were read, want %d", read, want)
		}
	})
}

// Streams that are begun and not ended have little room, and none for long.
func TestStalledPushes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := testkit.Pair(t)
		Start(a, Config{})
		seen := watch(t, a)
		var streams []*host.Stream
		for range 20 {
			s, err := b.NewStream(t.Context(), a.ID(), PushProtocolID)
			if err != nil {
				t.Fatal(err)
			}
			s.Write([]byte{0x80, 0x40, 1}) // the largest message, of which no more comes
			streams = append(streams, s)
		}
		synctest.Wait()
		begin := time.Now()
		var wg sync.WaitGroup
		var mu sync.Mutex
		ends := make(map[time.Duration]int)
		for _, s := range streams {
			wg.Go(func() {
				if _, err := s.Read(make([]byte, 1)); err == nil {
					t.Error("a stalled push was answered")
				}
				mu.Lock()
				defer mu.Unlock()
				ends[time.Since(begin)]++
			})
		}
		wg.Wait()
		if ends[0] != 20-maxServing || ends[timeout] != maxServing {
			t.Errorf("the streams ended after %v", ends)
		}
		if got := all(seen); len(got) != 0 {
			t.Errorf("identified by half a message: %+v", got)
		}
	})
}

// Asking without end is refused too.
func TestRequestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := testkit.Pair(t)
		Start(a, Config{})
		c := b.ConnsTo(a.ID())[0]
		answered, asked := 0, 0
		for ; asked < 10_000 && !ended(c); asked++ {
			s, err := c.NewStream(t.Context(), ProtocolID)
			if err != nil {
				break
			}
			if b, err := io.ReadAll(s); err == nil && len(b) > 0 {
				answered++
			}
			s.Close()
		}
		if answered > requestLimit.burst+10 || asked == 10_000 {
			t.Errorf("asked %d times, answered %d times", asked, answered)
		}
	})
}

func TestBucket(t *testing.T) {
	now := time.Unix(1000, 0)
	r := rate{every: time.Second, burst: 3}
	var b bucket
	take := func(want bool) {
		t.Helper()
		if b.take(r, now) != want {
			t.Errorf("at %v: %v", now, !want)
		}
	}
	for range 3 {
		take(true)
	}
	take(false)
	if w := b.wait(r, now); w != time.Second {
		t.Errorf("wait for %v", w)
	}
	now = now.Add(999 * time.Millisecond)
	take(false)
	now = now.Add(time.Millisecond)
	take(true)
	take(false)
	now = now.Add(time.Hour)
	for range 3 {
		take(true)
	}
	take(false)
}

func TestGroup(t *testing.T) {
	for addr, want := range map[string]string{
		"/ip4/192.0.2.1/tcp/1":                "192.0.2.0/24",
		"/ip6/::ffff:192.0.2.3/tcp/1":         "192.0.2.0/24",
		"/ip6/2001:db8:1:2::1/tcp/1":          "2001:db8:1::/48",
		"/ip6zone/eth0/ip6/fe80::1/tcp/1":     "fe80::/48",
		"/ip4/127.0.0.1/tcp/1":                "",
		"/ip6/::1/udp/1/quic-v1":              "",
		"/memory/1":                           "",
		"/dns4/example.com/tcp/1/p2p-circuit": "",
	} {
		g, ok := group(multiaddr.MustParse(addr))
		if ok != (want != "") || ok && g.String() != want {
			t.Errorf("%s: %v, %v, want %s", addr, g, ok, want)
		}
	}
}

// A ledger is bounded, and forgets first what says nothing.
func TestLedger(t *testing.T) {
	l := make(ledger[int, bucket, *bucket])
	now := time.Unix(1000, 0)
	r := rate{every: time.Second, burst: 2}
	l.of(-1, 10, now).take(rate{every: 24 * time.Hour, burst: 2}, now)
	used := l.of(-1, 10, now).refilled
	for i := range 100 {
		now = now.Add(time.Minute)
		if !l.of(i, 10, now).take(r, now) {
			t.Fatalf("entry %d is not fresh", i)
		}
		if len(l) > 10 {
			t.Fatalf("%d entries are kept", len(l))
		}
	}
	if l[-1] == nil || l[-1].refilled != used {
		t.Error("what was used up is forgotten, and what is full was not")
	}
	for i := range 100 { // none is full
		l.of(1000+i, 10, now).take(rate{every: time.Hour, burst: 1}, now)
	}
	if len(l) > 10 {
		t.Errorf("%d entries are kept", len(l))
	}
}

// A contact is all that stays of a connection.
func BenchmarkContactMemory(b *testing.B) {
	var before, after runtime.MemStats
	contacts := make(map[*host.Conn]*contact)
	conns := make([]host.Conn, 4096)
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range conns {
		contacts[&conns[i]] = new(contact)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	for b.Loop() {
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(len(conns)), "B/conn")
	runtime.KeepAlive(contacts)
}
