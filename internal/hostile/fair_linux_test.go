package hostile

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
)

// TestFairness has 99 honest peers ask for twice what the host can do, and one more who
// asks for as much as it can, on as many streams as the host lets it have.
//
// Capacity is what the honest ones are served in a second, each with a few questions open
// all the time. A fair share is a hundredth of it.
func TestFairness(t *testing.T) {
	if !*full {
		t.Log("-hostile.full measures")
		return
	}
	if os.Getenv(networkEnv) == "" {
		inNetwork(t)
		return
	}
	openNetwork(t)
	const span = 4 * time.Second
	for _, over := range []string{"tcp", "quic"} {
		t.Run(over, func(t *testing.T) {
			f := startFar(t, over, 64, true)
			c := newCrowd(t, f, over, 99)
			c.ask(t, time.Second, 0) // the first ones pay for what is made once
			saturated := c.ask(t, span, 0)
			t.Log(saturated)
			capacity := saturated.rate()
			calm := c.ask(t, span, 2*capacity)
			g := hireFor(t, f, order{Attack: "greed", N: 1, Rate: 1000, Over: over, From: []netip.Addr{netip.MustParseAddr("44.3.0.1")},
				Bytes: append(propose("/task/1"), make([]byte, workSize)...)})
			g.begin()
			g.report("begun")
			attacked := c.ask(t, span, 2*capacity)
			took := g.report("took")
			g.leave()

			share := capacity / 100
			t.Logf("%s: capacity %.0f a second; calm %v; attacked %v; the honest got %.1f %% of their fair share, the least of them %.1f %%; p99 %.2f times as long; the greedy one: %s",
				over, capacity, calm, attacked, 100*attacked.rate()/(99*share), 100*attacked.least()/share, float64(attacked.at(0.99))/float64(calm.at(0.99)), took)
			if attacked.rate() < 0.8*99*share {
				t.Errorf("%.0f of the honest are served a second, want at least %.0f", attacked.rate(), 0.8*99*share)
			}
			if attacked.at(0.99) > 3*calm.at(0.99) {
				t.Errorf("their p99 is %v, want at most three times %v", attacked.at(0.99), calm.at(0.99))
			}
			if len(attacked.failed) > 0 {
				t.Errorf("%d failed: %v", len(attacked.failed), attacked.failed[0])
			}
		})
	}
}

// A throng is honest peers that are connected, each from an address of its own.
type throng struct {
	hosts []*host.Host
	far   *far
}

func newCrowd(t testing.TB, f *far, over string, n int) *throng {
	t.Helper()
	c := &throng{far: f}
	for i := range n {
		h := visitor(over).host(t)
		listen := fmt.Sprintf("/ip4/44.2.%d.1/tcp/0", i)
		if over == "quic" {
			listen = fmt.Sprintf("/ip4/44.2.%d.1/udp/0/quic-v1", i)
		}
		check(t, h.Listen(multiaddr.MustParse(listen))) // it dials from there
		_, err := h.Connect(t.Context(), f.info)
		check(t, err)
		c.hosts = append(c.hosts, h)
	}
	return c
}

// answers is how a crowd fared.
type answers struct {
	times
	span time.Duration
	each []int // so many each was served

	busy, ours float64 // how much of a processor the host had, and this process
}

func (a answers) rate() float64 { return float64(len(a.ok)) / a.span.Seconds() }

func (a answers) least() float64 { return float64(slices.Min(a.each)) / a.span.Seconds() }

func (a answers) String() string {
	return fmt.Sprintf("%.0f a second with %.2f processors (and theirs %.2f), p50 %v, p99 %v", a.rate(), a.busy, a.ours, a.at(0.5).Round(100*time.Microsecond), a.at(0.99).Round(100*time.Microsecond))
}

// ask has all of them ask for a while, rate times a second in all, but nobody has more
// than four questions open; 0: as often as that lets them.
func (c *throng) ask(t testing.TB, span time.Duration, rate float64) answers {
	t.Helper()
	const open = 4
	a := answers{span: span, each: make([]int, len(c.hosts))}
	ctx, cancel := context.WithTimeout(t.Context(), span+patience)
	defer cancel()
	end := time.Now().Add(span)
	host0, ours0 := busy(t, c.far.gang.cmd.Process.Pid), busy(t, os.Getpid())
	var mu sync.Mutex
	var wg sync.WaitGroup
	one := func(i int) {
		took, err := timed(func() error { return askOnce(ctx, c.hosts[i], c.far) })
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			a.failed = append(a.failed, err)
		} else if time.Now().Before(end) { // what comes later was not served in this span
			a.add(took, nil)
			a.each[i]++
		}
	}
	for i := range c.hosts {
		if rate == 0 {
			for range open {
				wg.Go(func() {
					for time.Now().Before(end) {
						one(i)
					}
				})
			}
			continue
		}
		wg.Go(func() {
			every := time.Duration(float64(time.Second) * float64(len(c.hosts)) / rate)
			<-time.After(every * time.Duration(i) / time.Duration(len(c.hosts)))
			tick := time.NewTicker(every)
			defer tick.Stop()
			for slots := make(chan struct{}, open); time.Now().Before(end); <-tick.C {
				select {
				case slots <- struct{}{}:
					wg.Go(func() { one(i); <-slots })
				default: // it has asked enough
				}
			}
		})
	}
	<-time.After(time.Until(end))
	a.busy = (busy(t, c.far.gang.cmd.Process.Pid) - host0).Seconds() / span.Seconds()
	a.ours = (busy(t, os.Getpid()) - ours0).Seconds() / span.Seconds()
	wg.Wait()
	return a
}

func askOnce(ctx context.Context, h *host.Host, f *far) error {
	s, err := h.NewStream(ctx, f.info.ID, "/task/1")
	if err != nil {
		return err
	}
	defer s.Close()
	if deadline, ok := ctx.Deadline(); ok {
		s.SetDeadline(deadline)
	}
	var b [workSize]byte
	if _, err := s.Write(b[:]); err != nil {
		return err
	}
	_, err = io.ReadFull(s, b[:])
	return err
}

// greedAttack keeps Rate streams busy on each line: for each that has ended it opens another.
// It says each second how many have.
func greedAttack(o order) error {
	var ended, again atomic.Int64
	go func() {
		for last := int64(0); ; {
			<-time.After(4 * time.Second)
			now := ended.Load()
			fmt.Printf("took %d in 4 s, sent away %d times\n", now-last, again.Load())
			last = now
		}
	}()
	o.lines(func(l line) error {
		err := l.greed(o, func() { ended.Add(1) })
		again.Add(1)
		return err
	})
	return nil
}

func (l *tcpLine) greed(o order, ended func()) error {
	l.reads.Do(func() {}) // it is done here
	slots := make(chan struct{}, o.Rate)
	failed := make(chan error, 1)
	pings := make(chan uint32, 16)
	go func() {
		for {
			f, err := l.receive()
			if err != nil {
				failed <- err
				return
			}
			if f.typ == typePing && f.flags&syn != 0 {
				pings <- f.length
			}
			if f.id != 0 && f.flags&(fin|rst) != 0 {
				ended()
				<-slots
			}
		}
	}()
	for {
		select {
		case slots <- struct{}{}:
			if err := l.open(o); err != nil {
				return err
			}
		case ping := <-pings:
			if err := l.send(frame{typ: typePing, flags: ack, length: ping}); err != nil {
				return err
			}
		case err := <-failed:
			return err
		}
	}
}

func (l quicLine) greed(o order, ended func()) error {
	slots := make(chan struct{}, o.Rate)
	for {
		select {
		case slots <- struct{}{}:
		case <-l.conn.Context().Done():
			return l.conn.Context().Err()
		}
		s, err := l.conn.OpenStreamSync(l.conn.Context())
		if err != nil {
			return err
		}
		if _, err := s.Write(o.Bytes); err != nil {
			s.CancelRead(0)
			<-slots
			continue
		}
		s.Close()
		go func() {
			io.Copy(io.Discard, s)
			ended()
			<-slots
		}()
	}
}
