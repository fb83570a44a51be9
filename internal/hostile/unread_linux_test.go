package hostile

import (
	"fmt"
	"testing"
	"time"
)

// fill opens an echo stream and sends as much as the host takes in while its
// echo is not read: what it may send back, and half a window more.
func (s *session) fill() error {
	id, err := s.open("/echo/1")
	if err != nil {
		return err
	}
	piece := make([]byte, 16<<10)
	for credit, given := initialWindow-len(propose("/echo/1")), initialWindow; ; {
		for credit > 0 {
			n := min(credit, len(piece))
			if err := s.send(dataFrame(0, id, piece[:n])); err != nil {
				return err
			}
			credit -= n
		}
		if given >= initialWindow+initialWindow/2 {
			return nil
		}
		f, err := s.receive()
		if err != nil {
			return err
		}
		if f.id == id && f.typ == typeWindow {
			credit += int(f.length)
			given += int(f.length)
		}
	}
}

// Peers who send and do not read hold what the windows of their streams let them
// hold, and all of it is back when they are gone.
func TestUnread(t *testing.T) {
	const peers, streams = 16, 8
	v := newVictim(t, victimConfig{bare: true})
	h := v.honest(t)
	check(t, echoOnce(t.Context(), h, v.ID()))
	before, calm := v.level(), calm()
	var attackers []*session
	for range peers {
		s := v.attack(t, "127.0.0.2")
		for range streams {
			check(t, s.fill())
		}
		attackers = append(attackers, s)
	}
	now, grown := v.level(), int64(mapped())-int64(calm)
	t.Logf("%d streams of %d peers that do not read hold %.1f MiB of heap, %.1f MiB of memory", peers*streams, peers, mib(now.heap, before.heap), float64(grown)/(1<<20))
	heap := int64(now.heap) - int64(before.heap)
	if limit := int64(peers * streams * 3 * initialWindow / 4); heap > limit || grown > maxGrowth {
		t.Errorf("%d bytes of heap and %d of memory, want at most %d and %d", heap, grown, limit, maxGrowth)
	}
	check(t, echoOnce(t.Context(), h, v.ID()))
	for _, s := range attackers {
		s.conn.Close()
	}
	v.recovers(t, before)
}

// A host that is closed while nobody reads is closed all the same, and leaves
// nothing behind.
func TestCloseWhileNobodyReads(t *testing.T) {
	each := 15
	if *full {
		each = 50
	}
	v := newVictim(t, victimConfig{bare: true})
	before := v.level()
	for i := range each {
		from := fmt.Sprintf("127.3.%d.1", i)
		for _, how := range []struct {
			tls bool
			do  func(*session) error
		}{{false, (*session).fill}, {true, (*session).fill}, {false, (*session).flood}, {true, (*session).flood}} {
			a, err := newAttacker()
			check(t, err)
			open := a.session
			if how.tls {
				open = a.sessionOverTLS
			}
			s, err := open(v.connect(t, from))
			check(t, err)
			check(t, how.do(s))
		}
	}
	until(t, "all are in", func() bool { return len(v.Conns()) == 4*each })
	begin := time.Now()
	err := v.Close()
	t.Logf("with %d connections that nobody reads, Close took %v", 4*each, time.Since(begin).Round(time.Millisecond))
	check(t, err)
	until(t, "no goroutine is left", func() bool { return v.level().goroutines <= before.goroutines })
}
