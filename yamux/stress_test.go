package yamux

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// pattern fills p with bytes that tell where in a stream they belong.
func pattern(p []byte, at int, seed byte) {
	for i := range p {
		n := at + i
		p[i] = seed ^ byte(n) ^ byte(n>>8)*3 ^ byte(n>>16)*7
	}
}

// TestBothFull moves data in both directions over a connection that holds next
// to nothing, so that writes wait for each other everywhere.
func TestBothFull(t *testing.T) {
	p := newPair(t, 1000, 0, Config{})
	const streams, size = 8, 600_000
	var wg sync.WaitGroup
	use := func(st *Stream, seed byte) {
		wg.Go(func() {
			buf := make([]byte, 70_000)
			for at := 0; at < size; {
				n := min(len(buf), size-at)
				pattern(buf[:n], at, seed)
				n, err := st.Write(buf[:n])
				if err != nil {
					t.Error(err)
					return
				}
				at += n
			}
			st.CloseWrite()
		})
		wg.Go(func() {
			got, err := io.ReadAll(st)
			want := make([]byte, size)
			pattern(want, 0, seed^0xff)
			if !bytes.Equal(got, want) || err != nil {
				t.Errorf("read %d bytes, %v", len(got), err)
			}
		})
	}
	for i := range streams {
		near := mustOpen(t, p.client)
		if i%2 == 1 {
			near = mustOpen(t, p.server)
		}
		use(near, 0)
	}
	for range streams / 2 {
		use(<-p.accepted, 0xff)
		use(<-p.acceptedBack, 0xff)
	}
	wg.Wait()
}

// TestConcurrentWrites has two writers of one stream: the bytes of each Write
// stay together.
func TestConcurrentWrites(t *testing.T) {
	p := newPair(t, 10000, 0, Config{})
	near, far := p.open(t)
	const each = 3 * initialWindow
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() {
			if _, err := near.Write(bytes.Repeat([]byte{byte('a' + i)}, each)); err != nil {
				t.Error(err)
			}
		})
	}
	go func() {
		wg.Wait()
		near.CloseWrite()
	}()
	got, err := io.ReadAll(far)
	if err != nil || len(got) != 2*each {
		t.Fatalf("read %d bytes, %v", len(got), err)
	}
	for i, c := range got {
		if c != got[i/each*each] {
			t.Fatalf("byte %d is of the other Write", i)
		}
	}
}

// TestConcurrentReads has readers of one stream share what comes in.
func TestConcurrentReads(t *testing.T) {
	p := newPair(t, 10000, 0, Config{})
	near, far := p.open(t)
	const size = 3 * initialWindow
	var counts [256]atomic.Int64
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for buf := make([]byte, 1000); ; {
				clear(buf)
				n, err := far.Read(buf)
				for _, c := range buf[:n] {
					counts[c].Add(1)
				}
				if err != nil {
					return
				}
			}
		})
	}
	buf := make([]byte, 256)
	for i := range buf {
		buf[i] = byte(i)
	}
	for range size / len(buf) {
		near.Write(buf)
	}
	near.CloseWrite()
	wg.Wait()
	for c := range counts {
		if n := counts[c].Load(); n != size/256 {
			t.Errorf("byte %d was read %d times, want %d", c, n, size/256)
		}
	}
}

// TestFair has 64 writers compete for a connection. Those that write alike get
// the same, within a fifth, and small writes do not mean a small share (by frames
// it would be a 65th).
func TestFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const streams = 64
		sizes := []int{1000, 10_000, 100_000, 1_000_000} // from little to far more than a frame
		p := newPair(t, 64<<10, 6*time.Millisecond, Config{})
		var got [streams]atomic.Int64
		rush := time.Now().Add(20 * time.Second)
		start := func(i int) {
			near := mustOpen(t, p.client)
			mustWrite(t, near, "x")
			go func() {
				for buf := make([]byte, sizes[i%len(sizes)]); ; {
					if _, err := near.Write(buf); err != nil {
						return
					}
					if time.Now().Before(rush) {
						time.Sleep(time.Millisecond)
					}
				}
			}()
			far := <-p.accepted
			go func() {
				for buf := make([]byte, 64<<10); ; {
					n, err := far.Read(buf)
					if err != nil {
						return
					}
					got[i].Add(int64(n))
				}
			}()
		}
		// One has sent much before, and never had to wait: it is not to pay for that.
		start(0)
		time.Sleep(time.Until(rush))
		for i := 1; i < streams; i++ {
			start(i)
		}
		for i := range got {
			got[i].Store(0)
		}
		time.Sleep(20 * time.Second)
		all := spread{low: 1 << 62}
		for kind := range sizes {
			alike := spread{low: 1 << 62}
			for i := kind; i < streams; i += len(sizes) {
				n := got[i].Load()
				alike.add(n)
				all.add(n)
			}
			if alike.ratio() > 1.2 {
				t.Errorf("writes of %d bytes: %+v bytes a stream", sizes[kind], alike)
			}
		}
		if all.ratio() > 4 {
			t.Errorf("%+v bytes a stream", all)
		}
	})
}

// A spread is the least and the most of some numbers.
type spread struct{ low, high int64 }

func (s *spread) add(n int64)    { s.low, s.high = min(s.low, n), max(s.high, n) }
func (s *spread) ratio() float64 { return float64(s.high) / float64(max(s.low, 1)) }

// TestStress opens, half-closes, resets and abandons streams at random, with
// deadlines. What arrives must be a prefix of what was sent, and all of it
// where a stream ended well.
func TestStress(t *testing.T) {
	p := newPair(t, 50_000, 0, Config{})
	var opening, answering sync.WaitGroup
	whole, broken := new(atomic.Int64), new(atomic.Int64)
	for i, s := range []*Session{p.client, p.server} {
		for worker := range 12 {
			opening.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(worker), uint64(i)))
				for range 15 {
					stressOpen(t, s, rng, whole, broken)
				}
			})
		}
	}
	opened := make(chan struct{})
	for _, accepted := range []chan *Stream{p.accepted, p.acceptedBack} {
		answering.Go(func() {
			for {
				select {
				case st := <-accepted:
					answering.Go(func() { stressAccept(t, st, rand.New(rand.NewPCG(uint64(st.ID()), 3))) })
				case <-opened:
					return
				}
			}
		})
	}
	opening.Wait()
	p.client.Ping(t.Context()) // what is on its way arrives before
	p.server.Ping(t.Context())
	close(opened)
	answering.Wait()
	p.client.Ping(t.Context())
	p.server.Ping(t.Context())
	if whole.Load() < 50 || broken.Load() < 50 {
		t.Errorf("%d streams went well, %d did not: not much of a test", whole.Load(), broken.Load())
	}
	if n := p.client.NumStreams() + p.server.NumStreams(); n != 0 {
		t.Errorf("%d streams are left", n)
	}
	if n := len(p.client.opens) + len(p.server.opens); n != 0 {
		t.Errorf("%d streams count as unacknowledged", n)
	}
	for _, s := range []*Session{p.client, p.server} {
		if s.held.Load() != 0 || s.grown != 0 || s.incoming != 0 || s.out.booked != 0 || s.out.line != nil {
			t.Errorf("left: %d bytes held, windows grown by %d, %d incoming, %d booked, %d in line",
				s.held.Load(), s.grown, s.incoming, s.out.booked, len(s.out.line))
		}
	}
}

// stressOpen writes a random number of bytes, of which the first says which
// pattern the others have, and reads how many have arrived.
func stressOpen(t *testing.T, s *Session, rng *rand.Rand, whole, broken *atomic.Int64) {
	st, err := s.Open(t.Context())
	if err != nil {
		t.Error(err)
		return
	}
	defer st.Close()
	seed := byte(rng.Int())
	size, buf := 1+rng.IntN(400_000), make([]byte, 1+rng.IntN(100_000))
	for at := 0; at < size; {
		n := min(len(buf), size-at)
		pattern(buf[:n], at, seed)
		if at == 0 {
			buf[0] = seed
		}
		if rng.IntN(4) == 0 {
			st.SetWriteDeadline(time.Now().Add(time.Duration(rng.IntN(2000)) * time.Microsecond))
		}
		n, err := st.Write(buf[:n])
		st.SetWriteDeadline(time.Time{})
		at += n
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) || rng.IntN(20) == 0 {
			st.Reset(uint32(at))
			broken.Add(1)
			return
		}
	}
	st.CloseWrite()
	got, err := io.ReadAll(st)
	var reset *StreamError
	switch {
	case errors.As(err, &reset) && reset.Remote, err == nil && len(got) == 0:
		broken.Add(1)
	case err != nil || string(got) != strconv.Itoa(size):
		t.Errorf("%d bytes written, answer %q, %v", size, got, err)
	default:
		whole.Add(1)
	}
}

// stressAccept reads, and answers with how much it has read.
func stressAccept(t *testing.T, st *Stream, rng *rand.Rand) {
	buf, want := make([]byte, 1+rng.IntN(50_000)), make([]byte, 50_000)
	patience := rng.IntN(1_500_000) // bytes until it gives up
	seed := byte(0)
	for at := 0; ; {
		if rng.IntN(4) == 0 {
			st.SetReadDeadline(time.Now().Add(time.Duration(rng.IntN(2000)) * time.Microsecond))
		}
		n, err := st.Read(buf)
		st.SetReadDeadline(time.Time{})
		if n > 0 && at == 0 {
			seed = buf[0]
			pattern(buf[:1], 0, seed)
		}
		pattern(want[:n], at, seed)
		if at += n; !bytes.Equal(buf[:n], want[:n]) {
			t.Errorf("stream %d: wrong data before %d", st.ID(), at)
		}
		switch {
		case err == io.EOF:
			io.WriteString(st, strconv.Itoa(at))
			st.Close()
			return
		case at > patience && at%2 == 0:
			st.Close() // without reading the rest
			return
		case at > patience, err != nil && !errors.Is(err, os.ErrDeadlineExceeded):
			st.Reset(1)
			return
		}
	}
}

// TestChurn opens and closes streams from many goroutines at once.
func TestChurn(t *testing.T) {
	client, _ := tcpPair(t, echo)
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			buf := make([]byte, 8)
			for range 50 {
				st := mustOpen(t, client)
				mustWrite(t, st, "x")
				if _, err := io.ReadFull(st, buf[:1]); err != nil {
					t.Error(err)
				}
				st.CloseWrite()
				if _, err := st.Read(buf); err != io.EOF {
					t.Error(err)
				}
				st.Close()
			}
		})
	}
	wg.Wait()
	if n := client.NumStreams(); n != 0 {
		t.Errorf("%d streams are left", n)
	}
}

// TestEndUnderLoad ends sessions while everything is in use.
func TestEndUnderLoad(t *testing.T) {
	for i := range 20 {
		p := newPair(t, 10_000, 0, Config{})
		var wg sync.WaitGroup
		use := func(st *Stream) {
			wg.Go(func() { io.Copy(io.Discard, st) })
			wg.Go(func() {
				for buf := make([]byte, 30_000); ; {
					if _, err := st.Write(buf); err != nil {
						return
					}
				}
			})
		}
		for range 10 {
			use(mustOpen(t, p.client))
			use(<-p.accepted)
		}
		switch i % 4 {
		case 0:
			p.client.Close()
		case 1:
			p.server.CloseWithCode(1)
		case 2:
			p.cc.Close()
		case 3:
			p.cc.Write([]byte{99}) // in the middle of anything
		}
		wg.Wait()
		p.close()
		<-p.ended
		<-p.ended
	}
}
