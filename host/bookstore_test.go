package host

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-p2p/kith/internal/wire"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// A mapStore is a Store that counts writes and fails or hangs when told to.
type mapStore struct {
	mu     sync.Mutex
	values map[string][]byte
	writes int
	err    error
	delay  time.Duration
}

func (m *mapStore) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

func (m *mapStore) hang(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.delay = d
}

func (m *mapStore) Get(key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.values[key], m.err
}

func (m *mapStore) Write(changes ...Change) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	time.Sleep(m.delay) // in a bubble
	if m.err != nil {
		return m.err
	}
	m.writes++
	if m.values == nil {
		m.values = make(map[string][]byte)
	}
	for _, c := range changes {
		if m.values[c.Key] = c.Value; c.Value == nil {
			delete(m.values, c.Key)
		}
	}
	return nil
}

func (m *mapStore) Each(prefix string, f func(string, []byte) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(m.values)) {
		if strings.HasPrefix(key, prefix) {
			if err := f(key, m.values[key]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *mapStore) peers() int {
	n := 0
	m.Each(bookPrefix, func(string, []byte) error { n++; return nil })
	return n
}

// keptBook is a book that is saved by hand.
func keptBook(t *testing.T, max int, store Store) *book {
	t.Helper()
	b := newBook(max)
	if _, err := b.load(store, peer.ID{}); err != nil {
		t.Fatal(err)
	}
	return b
}

func save(t *testing.T, b *book) {
	t.Helper()
	if err := b.saveAll(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
}

// What is known of a peer is known after a restart, also of one with a connection.
func TestBookSurvives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := new(mapStore)
		b := keptBook(t, 1<<20, store)
		user, met, heard := testID(t), testID(t), testID(t)
		b.addAddrs(user, []multiaddr.Addr{memoryAddr(1), memoryAddr(2)}, SourceUser, TTLForever)
		b.connect(met, true)
		b.identified(PeerInfo{ID: met, Addrs: []multiaddr.Addr{memoryAddr(3)}, SignedRecord: true}, memoryAddr(3))
		b.addAddrs(heard, []multiaddr.Addr{memoryAddr(4)}, SourceStranger, TTLTold)
		now := time.Now()
		b.dialed(user, memoryAddr(1), 7, 30*time.Millisecond, nil, now)
		b.dialed(user, memoryAddr(1), 8, 0, errSilent, now)
		save(t, b)
		if n := store.peers(); n != 2 {
			t.Fatalf("%d peers are stored, want 2: hearsay is not", n)
		}

		time.Sleep(24 * time.Hour)
		b = keptBook(t, 1<<20, store)
		got := b.known(user, 7)
		if len(got) != 2 || got[0].Addr != memoryAddr(1) || got[0].Source != SourceUser || !got[0].LastSuccess.Equal(now) || got[0].Took != 30*time.Millisecond || got[0].Failures != 0 {
			t.Errorf("of the user's peer: %+v", got)
		}
		if want := time.Now().Add(TTLWorked); len(got) == 2 && !got[1].Expires.Equal(want) {
			t.Errorf("what was configured expires %v, want %v", got[1].Expires, want)
		}
		if got := b.known(user, 8); len(got) != 2 || got[0].Failures != 1 || !got[0].LastFailure.Equal(now) || !got[0].Elsewhere.Equal(now) {
			t.Errorf("of the user's peer in the other network: %+v", got)
		}
		if got := b.known(met, 7); len(got) != 1 || got[0].Source != SourcePeer || !got[0].Told || !got[0].Certified || !got[0].Expires.Equal(time.Now().Add(TTLTold)) {
			t.Errorf("of the connected peer: %+v", got)
		}
		if b.known(heard, 7) != nil {
			t.Error("hearsay was stored")
		}
		// Nothing is written again that did not change.
		writes := store.writes
		if save(t, b); store.writes != writes {
			t.Error("reading makes for writing")
		}
		b.addAddrs(user, []multiaddr.Addr{memoryAddr(1)}, SourceUser, TTLTold)
		if save(t, b); store.writes != writes {
			t.Error("what is known already was written")
		}
		b.addAddrs(user, []multiaddr.Addr{memoryAddr(5)}, SourceStranger, TTLTold)
		if save(t, b); store.writes != writes+1 {
			t.Error("a new address was not written")
		}
	})
}

// The store holds what the book holds, however much it is told.
func TestStoredIsBounded(t *testing.T) {
	store := new(mapStore)
	b := keptBook(t, 64<<10, store)
	for range 20 {
		for i := range 100 {
			b.addAddrs(testID(t), []multiaddr.Addr{memoryAddr(i)}, SourceUser, TTLTold)
		}
		if n := len(b.keeper.pending); n > 2*len(b.peers) {
			t.Fatalf("%d peers wait to be saved, %d are known", n, len(b.peers))
		}
		save(t, b)
	}
	peers, _ := b.usage()
	if n := store.peers(); n != peers || n < 50 {
		t.Errorf("%d peers are stored, %d are known", n, peers)
	}
	// A book with less room takes what it can, and gives the rest up.
	small := keptBook(t, 16<<10, store)
	save(t, small)
	peers, bytes := small.usage()
	if n := store.peers(); n != peers || bytes > 16<<10 || peers < 10 {
		t.Errorf("%d peers are stored, %d are known, in %d bytes", n, peers, bytes)
	}
}

// A store that fails keeps nothing from being known, and gets it all when it is back.
// That it fails is said once, and once in an hour while it lasts.
func TestStoreFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := new(mapStore)
		b := keptBook(t, 1<<20, store)
		said := new(sayings)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			b.keep(ctx, slog.New(said))
			close(done)
		}()
		store.fail(errors.New("disk full"))
		p := testID(t)
		b.addAddrs(p, []multiaddr.Addr{memoryAddr(1)}, SourceUser, TTLForever)
		time.Sleep(time.Hour - time.Second)
		if got := said.take(); len(got) != 1 || !strings.Contains(got[0], "disk full") || !strings.Contains(got[0], "peers=1") || !strings.Contains(got[0], "make room") {
			t.Errorf("in the first hour it is said that %q", got)
		}
		time.Sleep(time.Hour)
		if got := said.take(); len(got) != 1 || len(b.known(p, 0)) != 1 {
			t.Errorf("in the second hour it is said that %q, and %v is known", got, b.known(p, 0))
		}
		store.fail(nil)
		time.Sleep(saveAfter + time.Second)
		if got := said.take(); store.peers() != 1 || len(got) != 1 || !strings.Contains(got[0], "again") {
			t.Errorf("%d peers stored; it is said that %q", store.peers(), got)
		}
		writes := store.writes
		time.Sleep(time.Hour)
		if store.writes != writes {
			t.Error("the store was written although nothing had changed")
		}
		store.fail(errors.New("disk full again"))
		b.addAddrs(testID(t), []multiaddr.Addr{memoryAddr(2)}, SourceUser, TTLForever)
		time.Sleep(saveAfter + time.Second)
		if got := said.take(); len(got) != 1 {
			t.Errorf("when it fails anew it is said that %q", got)
		}
		store.fail(nil)
		stop()
		<-done
		if n, err := b.unsaved(); store.peers() != 2 || err != nil || n != 0 {
			t.Errorf("what was learned last is not saved: %d peers, %v", n, err)
		}
	})
}

// Close returns within its time whatever the disk does, and says what is not saved.
func TestCloseWithoutDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			name string
			fail func(*mapStore)
			want string
		}{
			{"full", func(m *mapStore) { m.fail(errors.New("disk full")) }, "disk full"},
			{"hung", func(m *mapStore) { m.hang(closeTimeout + time.Second) }, "has not answered"},
		} {
			key, err := peer.GenerateKey(peer.Ed25519)
			if err != nil {
				t.Fatal(err)
			}
			store := new(mapStore)
			h, err := New(Config{Identity: key, Store: store})
			if err != nil {
				t.Fatal(err)
			}
			c.fail(store)
			h.AddAddrs(peer.AddrInfo{ID: testID(t), Addrs: []multiaddr.Addr{memoryAddr(1)}}, TTLForever)
			begin := time.Now()
			err = h.Close()
			if took := time.Since(begin); took > closeTimeout || err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "of 1 peers") {
				t.Errorf("%s: after %v: %v", c.name, took, err)
			}
		}
		time.Sleep(time.Hour) // what hung ends
	})
}

// sayings keeps what is logged, one text for each record.
type sayings struct {
	mu   sync.Mutex
	said []string
}

func (s *sayings) Enabled(context.Context, slog.Level) bool { return true }
func (s *sayings) WithAttrs([]slog.Attr) slog.Handler       { return s }
func (s *sayings) WithGroup(string) slog.Handler            { return s }

func (s *sayings) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool {
		text += " " + a.String()
		return true
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said = append(s.said, text)
	return nil
}

func (s *sayings) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	said := s.said
	s.said = nil
	return said
}

func TestStoreOfNewerVersion(t *testing.T) {
	key, err := peer.GenerateKey(peer.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{"2": "version 2", "0": "none", "x": "none", "": "none"} {
		store := &mapStore{values: map[string][]byte{bookKey: []byte(text)}}
		before := maps.Clone(store.values)
		_, err := New(Config{Identity: key, Store: store})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("version %q: %v", text, err)
		}
		if !maps.EqualFunc(before, store.values, bytes.Equal) {
			t.Errorf("version %q: the store was changed", text)
		}
	}
	store := &mapStore{err: errors.New("broken")}
	if _, err := New(Config{Identity: key, Store: store}); !errors.Is(err, store.err) {
		t.Errorf("a store that fails: %v", err)
	}
}

// What cannot be read is forgotten, and nothing else.
func TestUnreadablePeers(t *testing.T) {
	store := new(mapStore)
	b := keptBook(t, 1<<20, store)
	good, bad := testID(t), testID(t)
	for _, p := range []peer.ID{good, bad} {
		b.addAddrs(p, []multiaddr.Addr{memoryAddr(1)}, SourceUser, TTLTold)
	}
	save(t, b)
	store.Write(Change{bookPrefix + string(bad.Bytes()), []byte{1, 2, 3}}, Change{bookPrefix + "nobody", []byte{1}}, Change{bookPrefix, []byte{1}})
	b = newBook(1 << 20)
	n, err := b.load(store, peer.ID{})
	if n != 1 || err != nil {
		t.Errorf("%d peers could not be read, %v", n, err)
	}
	save(t, b)
	if len(b.known(good, 0)) != 1 || b.known(bad, 0) != nil || store.peers() != 1 {
		t.Errorf("%d peers are stored", store.peers())
	}
}

// A clock that was set back, and numbers that no clock says, do no harm.
func TestStoredTimes(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano()
	path := wire.AppendVarintField(nil, pathNetwork, 1<<64-1)
	path = wire.AppendVarintField(path, pathSuccess, 1<<64-1)
	path = wire.AppendVarintField(path, pathFailure, uint64(now)/1e9+3600)
	path = wire.AppendVarintField(path, pathMicroseconds, 1<<63)
	path = wire.AppendVarintField(path, pathFailures, 1000)
	addr := wire.AppendBytesField(nil, addressAddr, memoryAddr(1).Bytes())
	addr = wire.AppendVarintField(addr, addressSource, 200)
	addr = wire.AppendVarintField(addr, addressExpires, 1<<64-1)
	addr = wire.AppendBytesField(addr, addressPath, path)
	addr = wire.AppendStringField(addr, 99, "of a later version")
	got, err := decodeRecord(wire.AppendBytesField(nil, peerAddress, addr), now)
	if err != nil || len(got) != 1 {
		t.Fatal(got, err)
	}
	want := bookAddr{addr: memoryAddr(1), expires: now + int64(TTLWorked)}
	wantPath := bookPath{network: 1<<64 - 1, success: now, failure: now, took: maxTook, failures: 255}
	if got[0].addr != want.addr || got[0].expires != want.expires || got[0].source != SourceStranger || len(got[0].paths) != 1 || got[0].paths[0] != wantPath {
		t.Errorf("%+v", got)
	}
}

func FuzzDecodeRecord(f *testing.F) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano()
	e := bookEntry{connected: true}
	for i := range 6 {
		k := bookAddr{addr: memoryAddr(i), source: Source(i % 4), told: i%2 == 0, expires: now + int64(TTLTold)}
		for n := range i % (maxPaths + 1) {
			k.paths = append(k.paths, bookPath{NetworkID(n + 1), now - 5e9, now - 1e9, time.Millisecond, uint8(n)})
		}
		e.addrs = append(e.addrs, k)
	}
	f.Add(e.appendRecord(nil))
	f.Add([]byte{})
	f.Add(wire.AppendBytesField(nil, peerAddress, nil))
	f.Fuzz(func(t *testing.T, record []byte) {
		addrs, err := decodeRecord(record, now)
		if err != nil {
			if addrs != nil {
				t.Error("addresses with an error")
			}
			return
		}
		if len(addrs) > maxAddrsPerPeer {
			t.Errorf("%d addresses", len(addrs))
		}
		for _, k := range addrs {
			if k.addr.IsZero() || k.source > SourceUser || len(k.paths) > maxPaths || k.expires < now || k.expires > now+int64(TTLWorked) {
				t.Errorf("%+v", k)
			}
			for _, p := range k.paths {
				if p.success > now || p.failure > now || p.success < 0 || p.failure < 0 || p.took < 0 || p.took > maxTook {
					t.Errorf("%+v", p)
				}
			}
		}
		// What was read is written and read as the same.
		again, err := decodeRecord((&bookEntry{addrs: addrs}).appendRecord(nil), now)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range again {
			i := slices.IndexFunc(addrs, func(a bookAddr) bool { return a.addr == k.addr })
			if i < 0 || k.differs(&addrs[i]) && k.expires-addrs[i].expires > int64(time.Second) || len(k.paths) != len(addrs[i].paths) {
				t.Errorf("%+v became %+v", addrs, again)
			}
		}
	})
}
