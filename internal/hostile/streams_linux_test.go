package hostile

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/kith-p2p/kith/host"
)

// Limits on what is not negotiated are not for peers who negotiate: an honest
// one may open all the streams that the muxer lets it open, at once.
func TestBurstIsServed(t *testing.T) {
	v := newVictim(t, victimConfig{})
	h := v.honest(t)
	for range 10 {
		var mu sync.Mutex
		var ts times
		var all sync.WaitGroup
		for range 250 {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				err := echoOnce(ctx, h, v.ID())
				mu.Lock()
				defer mu.Unlock()
				ts.add(0, err)
			})
		}
		all.Wait()
		ts.served(t, 1)
	}
}

// Peers who open streams and never finish the negotiation take places from each
// other, not from those who do.
func TestStreamFlood(t *testing.T) {
	streams := 100
	if *full {
		streams = 2000
	}
	for _, peers := range []int{1, 20} {
		t.Run(fmt.Sprint(peers, " peers"), func(t *testing.T) {
			v := newVictim(t, victimConfig{bare: true})
			h := v.honest(t)
			check(t, echoOnce(t.Context(), h, v.ID()))
			before, calm := v.level(), calm()
			var idle, during times
			for range streams {
				idle.add(timed(func() error { return echoOnce(t.Context(), h, v.ID()) }))
			}
			var attackers []*session
			for range peers {
				s := v.attack(t, "127.0.0.2")
				for range 200 {
					check(t, s.send(dataFrame(syn, s.id(), propose("/echo/1")[:23])))
				}
				_, err := s.resets(200 - 64) // one peer's share is 64
				check(t, err)
				attackers = append(attackers, s)
			}
			var p peak
			for range streams {
				during.add(timed(func() error { return echoOnce(t.Context(), h, v.ID()) }))
				p.look(v)
			}
			during.served(t, 1)
			newcomers := v.visits(t, &p, streams/10, func() bool { return true })
			newcomers.served(t, 1)
			waiting := v.Usage().UnnegotiatedStreams
			if want := min(64*peers, 512); waiting > want || waiting < want-1 {
				t.Errorf("%d streams wait, want %d", waiting, want)
			}
			if more, limit := p.goroutines-before.goroutines, 2*512; more > limit {
				t.Errorf("%d goroutines more, want at most %d", more, limit)
			}
			if grown := int64(p.memory) - int64(calm); grown > maxGrowth {
				t.Errorf("memory grew by %d bytes, want at most %d", grown, maxGrowth)
			}
			t.Logf("streams, idle: %v; attacked: %v; newcomers: %v; %d wait; memory %+.1f MiB, %d goroutines more",
				idle, during, newcomers, waiting, mib(p.memory, calm), p.goroutines-before.goroutines)
			for _, s := range attackers {
				s.conn.Close()
			}
			v.recovers(t, before)
		})
	}
}

// What one peer may have open counts on all of its connections together.
func TestStreamsOfOnePeer(t *testing.T) {
	v := newVictim(t, victimConfig{bare: true, limits: host.Limits{InboundStreamsPerPeer: 100}})
	h := v.honest(t)
	check(t, echoOnce(t.Context(), h, v.ID()))
	before := v.level()
	a, err := newAttacker()
	check(t, err)
	var all []*session
	for range 8 {
		s, err := a.session(v.connect(t, "127.0.0.2"))
		check(t, err)
		for range 50 {
			_, err := s.open("/echo/1")
			check(t, err)
		}
		all = append(all, s)
	}
	open := func() (n int) {
		for _, c := range v.Conns() {
			n += c.NumStreams()
		}
		return n
	}
	until(t, "the streams beyond the limit are refused", func() bool { return v.log.count("stream refused") == 300 })
	if n := open(); n != 100 {
		t.Errorf("%d streams are open, want 100", n)
	}
	check(t, echoOnce(t.Context(), h, v.ID()))
	for _, s := range all {
		s.conn.Close()
	}
	v.recovers(t, before)
}

// A peer that goes on opening streams beyond its share is sent away.
func TestEndlessStreams(t *testing.T) {
	for name, open := range map[string]func(id uint32) []frame{
		"without a proposal":     func(id uint32) []frame { return []frame{{typ: typeWindow, flags: syn, id: id}} },
		"with half a proposal":   func(id uint32) []frame { return []frame{dataFrame(syn, id, propose("/echo/1")[:23])} },
		"for what nobody serves": func(id uint32) []frame { return []frame{dataFrame(syn|fin, id, propose("/nobody/1"))} },
		"reset at once": func(id uint32) []frame {
			return []frame{{typ: typeWindow, flags: syn, id: id}, {typ: typeWindow, flags: rst, id: id}}
		},
		"reset in the same frame": func(id uint32) []frame { return []frame{{typ: typeWindow, flags: syn | rst, id: id}} },
		"reset after a proposal": func(id uint32) []frame {
			return []frame{dataFrame(syn, id, propose("/echo/1")), {typ: typeWindow, flags: rst, id: id}}
		},
		"that begin with nonsense": func(id uint32) []frame { return []frame{dataFrame(syn, id, random(64))} },
	} {
		t.Run(name, func(t *testing.T) {
			v := newVictim(t, victimConfig{bare: true})
			h := v.honest(t)
			before := v.level()
			s := v.attack(t, "127.0.0.2")
			opened, err := s.openUntilRefused(t, 1_000_000, open) // more than the kernel takes for us
			if err != nil {
				t.Errorf("after %d streams: %v", opened, err)
			}
			check(t, echoOnce(t.Context(), h, v.ID()))
			t.Logf("%d streams, closed: %s", opened, v.log.last("closed"))
			v.recovers(t, before)
		})
	}
}

// openUntilRefused opens up to n streams and returns how many it could send
// before the host ended the session. A GOAWAY is often lost: the kernel drops what
// waits for a sender who has not stopped.
func (s *session) openUntilRefused(t testing.TB, n int, open func(id uint32) []frame) (int, error) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.end()
	}()
	for i := range n {
		if s.send(open(s.id())...) != nil {
			<-ended
			return i, nil
		}
		select {
		case <-ended:
			return i, nil
		default:
		}
	}
	s.conn.Close()
	<-ended
	return n, errors.New("the session did not end")
}
