package kith_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/kith-p2p/kith"
	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/trace"
)

// BenchmarkSlowSubscribers has 1,000 goroutines open streams to 100 peers over TCP,
// by turns without subscribers and with 20 subscriptions and 20 traces that nobody
// reads. A stream is opened, carries a byte there and back, and is closed; meanwhile
// the host's own state changes a thousand times a second. The aim is that p99-with is within
// twice p99-without:
//
//	go test . -run '^$' -bench SlowSubscribers -benchtime 4x
func BenchmarkSlowSubscribers(b *testing.B) {
	const (
		peers, goroutines, subscribers = 100, 1000, 20
		perRound                       = 20 * goroutines
	)
	start := func(listen ...multiaddr.Addr) *kith.Node {
		n, err := kith.Start(b.Context(), kith.Config{Listen: append([]multiaddr.Addr{}, listen...), MDNS: kith.MDNS{Off: true}})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { n.Close() })
		return n
	}
	client := start()
	var ids []peer.ID
	for range peers {
		n := start(multiaddr.MustParse("/ip4/127.0.0.1/tcp/0"))
		n.Handle("/echo/1", func(_ context.Context, s *host.Stream) error {
			_, err := io.Copy(s, s)
			return err
		})
		if _, err := client.Connect(b.Context(), peer.AddrInfo{ID: n.ID(), Addrs: n.Addrs()}); err != nil {
			b.Fatal(err)
		}
		ids = append(ids, n.ID())
	}
	once := func() error {
		s, err := client.NewStream(b.Context(), ids[rand.IntN(peers)], "/echo/1")
		if err != nil {
			return err
		}
		defer s.Close()
		if _, err := s.Write([]byte{1}); err != nil {
			return err
		}
		_, err = io.ReadFull(s, make([]byte, 1))
		return err
	}
	round := func() []time.Duration {
		all := make([]time.Duration, perRound)
		stop := make(chan struct{})
		var changes, wg sync.WaitGroup
		changes.Go(func() {
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for i := 0; ; i++ {
				select {
				case <-tick.C:
					client.Handle(host.ProtocolID(fmt.Sprintf("/changing/%d", i%8)), func(context.Context, *host.Stream) error { return nil })
				case <-stop:
					return
				}
			}
		})
		for g := range goroutines {
			wg.Go(func() {
				for i := g; i < perRound; i += goroutines {
					begun := time.Now()
					if err := once(); err != nil {
						b.Error(err)
						return
					}
					all[i] = time.Since(begun)
				}
			})
		}
		wg.Wait()
		close(stop)
		changes.Wait()
		return all
	}
	round() // warm
	var without, with []time.Duration
	var lost uint64
	for b.Loop() {
		without = append(without, round()...)
		var ends []func()
		for range subscribers {
			s, t := client.Subscribe(16), trace.Start(client.Host, 16)
			ends = append(ends, s.Close, func() { lost += t.Lost(); t.Close() })
		}
		with = append(with, round()...)
		for _, end := range ends {
			end()
		}
	}
	if lost == 0 {
		b.Fatal("the readers were not slow")
	}
	report := func(name string, all []time.Duration, at float64) float64 {
		slices.Sort(all)
		d := float64(all[int(at*float64(len(all)-1))]) / float64(time.Millisecond)
		b.ReportMetric(d, name)
		return d
	}
	report("p50-without-ms", without, 0.5)
	report("p50-with-ms", with, 0.5)
	before := report("p99-without-ms", without, 0.99)
	after := report("p99-with-ms", with, 0.99)
	b.ReportMetric(after/before, "p99-ratio")
	b.ReportMetric(0, "ns/op")
}
