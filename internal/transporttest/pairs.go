package transporttest

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/identify"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// pairsEnv sets how many pairs of hosts dial each other, in place of 64.
const pairsEnv = "KITH_TRANSPORTTEST_PAIRS"

// streamsOfPair is how many streams each side of a pair opens of each kind.
const streamsOfPair = 3

// Simultaneous lets many pairs of hosts dial each other at the same time while both
// open streams at once. No stream may be lost, and one connection is left.
func Simultaneous(t *testing.T, c Case) {
	pairs := 64
	if n, err := strconv.Atoi(os.Getenv(pairsEnv)); err == nil {
		pairs = n
	}
	SimultaneousPairs(t, c, pairs)
}

// SimultaneousPairs is Simultaneous with so many pairs, 64 at once.
func SimultaneousPairs(t *testing.T, c Case, pairs int) {
	c = c.withDefaults()
	var twice atomic.Int32
	for done := 0; done < pairs; done += 64 {
		var batch sync.WaitGroup
		for i := range min(64, pairs-done) {
			batch.Go(func() {
				p := newPair(t, c, uint64(done+i))
				if p == nil {
					return
				}
				defer p.close()
				if p.run() {
					twice.Add(1)
				}
			})
		}
		batch.Wait()
	}
	t.Logf("of %d pairs %d had two connections", pairs, twice.Load())
	if twice.Load() == 0 {
		t.Error("no pair had two connections: the test tests nothing")
	}
}

// late dials a little late, so that both hosts of a pair dial though the machine is busy.
type late struct {
	host.Transport
	delay time.Duration
}

func (l late) Dial(ctx context.Context, addr multiaddr.Addr, p peer.ID, progress func(host.Stage)) (host.TransportConn, error) {
	time.Sleep(l.delay)
	return l.Transport.Dial(ctx, addr, p, progress)
}

// A pair are two hosts that know each other's address.
type pair struct {
	t     *testing.T
	hosts [2]*host.Host
	seed  uint64

	mu    sync.Mutex
	heard map[uint64]bool // messages that were sent without waiting for an answer
}

func newPair(t *testing.T, c Case, seed uint64) *pair {
	p := &pair{t: t, seed: seed, heard: make(map[uint64]bool)}
	rng := rand.New(rand.NewPCG(seed, 2)) // a connection may be used before the own dial has ended
	for i := range p.hosts {
		n := c.node(t)
		h, err := host.New(host.Config{Identity: n.key, Transports: []host.Transport{late{n.Transport, time.Duration(1+rng.IntN(40)) * time.Millisecond}}})
		check(t, err)
		p.hosts[i] = h
		identify.Start(h, identify.Config{AgentVersion: "kith"})
		h.Handle("/echo/1", func(_ context.Context, s *host.Stream) error {
			_, err := io.Copy(s, s)
			return err
		})
		h.Handle("/tell/1", func(_ context.Context, s *host.Stream) error {
			text, err := io.ReadAll(s)
			if err == nil && len(text) == 8 {
				p.mu.Lock()
				p.heard[binary.BigEndian.Uint64(text)] = true
				p.mu.Unlock()
			}
			return err
		})
		if err := h.Listen(c.Listen(t)[0]); err != nil {
			t.Error(err)
			return nil
		}
	}
	for i, h := range p.hosts {
		other := p.hosts[1-i]
		h.AddAddrs(peer.AddrInfo{ID: other.ID(), Addrs: []multiaddr.Addr{c.Dial(other.Addrs()[0])}}, host.TTLForever)
	}
	return p
}

func (p *pair) close() {
	for _, h := range p.hosts {
		if err := h.Close(); err != nil {
			p.t.Error(err)
		}
	}
}

// run tells whether there were two connections.
func (p *pair) run() bool {
	ctx, cancel := context.WithTimeout(p.t.Context(), 3*patience)
	defer cancel()
	events := p.hosts[0].Subscribe(100)
	var all sync.WaitGroup
	start := make(chan struct{})
	for side := range p.hosts {
		rng := rand.New(rand.NewPCG(p.seed, uint64(side)))
		for i := range streamsOfPair {
			// At once, during the first seconds, and held unused for a while.
			for kind := range 3 {
				delay, hold := time.Duration(0), time.Duration(0)
				switch kind {
				case 1:
					delay = time.Duration(rng.Int64N(int64(7 * time.Second)))
				case 2:
					delay = time.Duration(rng.Int64N(int64(20 * time.Millisecond)))
					hold = time.Duration(rng.Int64N(int64(5 * time.Second)))
				}
				id := uint64(side)<<32 | uint64(i)<<16 | uint64(kind)
				all.Go(func() {
					<-start
					time.Sleep(delay)
					if err := p.use(ctx, side, id, hold); err != nil {
						p.t.Errorf("pair %d, side %d, stream %d of kind %d: %v", p.seed, side, i, kind, err)
					}
				})
			}
		}
	}
	close(start)
	all.Wait()
	for look := time.NewTicker(50 * time.Millisecond); ; {
		told, conns := p.told(), p.connections()
		if told == 2*3*streamsOfPair && conns == [2]int{1, 1} {
			break
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			p.t.Errorf("pair %d: %d messages arrived of %d, and the hosts have %v connections", p.seed, told, 2*3*streamsOfPair, conns)
			return false
		}
	}
	twice := false
	for {
		select {
		case e := <-events.Events():
			if e, ok := e.(host.ConnOpened); ok && e.Conn.ID() > 1 {
				twice = true
			}
			continue
		default:
		}
		return twice
	}
}

func (p *pair) told() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.heard)
}

func (p *pair) connections() (n [2]int) {
	for i, h := range p.hosts {
		n[i] = len(h.ConnsTo(p.hosts[1-i].ID()))
	}
	return n
}

// use asks for an echo on one stream, and says something on another and leaves.
func (p *pair) use(ctx context.Context, side int, id uint64, hold time.Duration) error {
	h, other := p.hosts[side], p.hosts[1-side].ID()
	text := binary.BigEndian.AppendUint64(nil, id)
	open := func(proto host.ProtocolID) (*host.Stream, error) {
		for {
			s, err := h.NewStream(ctx, other, proto)
			var failed *host.DialError
			late := errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)
			if errors.As(err, &failed) && late && ctx.Err() == nil {
				continue // no answer in time, on a busy machine: there was no stream to lose
			}
			return s, err
		}
	}
	s, err := open("/tell/1")
	if err != nil {
		return err
	}
	defer s.Close()
	echo, err := open("/echo/1")
	if err != nil {
		return err
	}
	defer echo.Close()
	time.Sleep(hold)
	s.SetDeadline(time.Now().Add(patience))
	echo.SetDeadline(time.Now().Add(patience))
	if _, err := s.Write(text); err != nil {
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	if _, err := echo.Write(text); err != nil {
		return err
	}
	if err := echo.CloseWrite(); err != nil {
		return err
	}
	got, err := io.ReadAll(echo)
	if err == nil && string(got) != string(text) {
		err = io.ErrUnexpectedEOF
	}
	return err
}
