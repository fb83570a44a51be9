package host

import (
	"encoding/binary"
	"flag"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

var bookPeers = flag.Int("bookpeers", 200_000, "how many peers TestBookUnderFlood throws at the book; the scorecard's row has 10,000,000")

// strangerID makes the n-th of many peer IDs without making a key.
func strangerID(n uint64) peer.ID {
	mh := [34]byte{0x12, 32}
	binary.BigEndian.PutUint64(mh[2:], n*0x9e3779b97f4a7c15)
	binary.BigEndian.PutUint64(mh[10:], n)
	id, err := peer.IDFromBytes(mh[:])
	if err != nil {
		panic(err)
	}
	return id
}

// strangerAddrs makes the addresses of one of them, an IPv4 and an IPv6 one.
func strangerAddrs(n uint64) []multiaddr.Addr {
	four := [8]byte{4, 1, byte(n >> 16), byte(n >> 8), byte(n), 6, 15, 161} // /ip4/1.x.y.z/tcp/4001
	six := [20]byte{41, 0x2a, 0, 0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
	six[17], six[18], six[19] = 6, 15, 161
	a, err := multiaddr.FromBytes(four[:])
	if err != nil {
		panic(err)
	}
	b, err := multiaddr.FromBytes(six[:])
	if err != nil {
		panic(err)
	}
	return []multiaddr.Addr{a, b}
}

// However many peers it is told of, the book keeps within its memory, keeps those that
// matter, and finds them soon. Scorecard row 24.
func TestBookUnderFlood(t *testing.T) {
	room := 64 << 20
	if *bookPeers < 1_000_000 {
		room = 8 << 20 // so that it overflows all the same
	}
	before := heap()
	b := newBook(room)
	var chosen, reached []peer.ID
	for i := range uint64(200) {
		u, r := strangerID(1<<62+i), strangerID(1<<61+i)
		b.addAddrs(u, strangerAddrs(i), SourceUser, TTLForever)
		b.addAddrs(r, strangerAddrs(i), SourceStranger, TTLTold)
		b.dialed(r, strangerAddrs(i)[0], 1, time.Millisecond, nil, time.Now())
		chosen, reached = append(chosen, u), append(reached, r)
	}

	// One throws peers at the book, as fast as it can, by all ways that there are;
	// another looks for those that it knows.
	var done atomic.Bool
	begin := time.Now()
	go func() {
		defer done.Store(true)
		for n := range uint64(*bookPeers) {
			p := strangerID(n)
			if b.addAddrs(p, strangerAddrs(n), SourceStranger, TTLTold); n%4 == 0 {
				b.connect(p, true)
				b.identified(PeerInfo{ID: p, Addrs: strangerAddrs(n + 1), AgentVersion: "flood"}, multiaddr.Addr{})
				b.connect(p, false)
			}
		}
	}()
	took := make([]time.Duration, 0, 1<<20)
	for n := 0; !done.Load(); n++ {
		p := chosen[n%len(chosen)]
		if n%2 == 0 {
			p = reached[n/2%len(reached)]
		}
		start := time.Now()
		known := b.known(p, 1)
		d := time.Since(start)
		if len(known) != 2 {
			t.Fatalf("%d addresses of a peer that matters are known", len(known))
		}
		if len(took) < cap(took) {
			took = append(took, d)
		} else {
			took[n%len(took)] = d
		}
		runtime.Gosched()
	}
	elapsed := time.Since(begin)
	peers, bytes := b.usage()
	real := heap() - before - int64(cap(took))*8
	runtime.KeepAlive(b)
	slices.Sort(took)
	t.Logf("%d peers in %v: %d are known in %d bytes by the book's account, %d of heap; %d lookups meanwhile: p50 %v, p99 %v, most %v",
		*bookPeers, elapsed.Round(time.Millisecond), peers, bytes, real, len(took), took[len(took)/2], took[len(took)*99/100], took[len(took)-1])
	if bytes > room || real > int64(room) {
		t.Errorf("the book takes %d bytes of heap and says %d, of %d", real, bytes, room)
	}
	if real < int64(bytes)*2/3 || real > int64(bytes)*4/3 {
		t.Errorf("the book takes %d bytes of heap, and says %d", real, bytes)
	}
	// What was heard or met is there beside, as much as its share.
	if heard := b.idle[rankHearsay].bytes; heard < room/8-4096 {
		t.Errorf("%d bytes of hearsay are left", heard)
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func BenchmarkBookKnown(b *testing.B) {
	book := newBook(64 << 20)
	for n := range uint64(100_000) {
		book.addAddrs(strangerID(n), strangerAddrs(n), SourceStranger, TTLTold)
	}
	ids := make([]peer.ID, 1024)
	for i := range ids {
		ids[i] = strangerID(uint64(i) * 97)
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		if len(book.known(ids[n%len(ids)], 1)) != 2 {
			b.Fatal("not known")
		}
	}
}

func BenchmarkBookAdd(b *testing.B) {
	book := newBook(64 << 20)
	b.ReportAllocs()
	n := uint64(0)
	for b.Loop() {
		n++
		book.addAddrs(strangerID(n), strangerAddrs(n), SourceStranger, TTLTold)
	}
}
