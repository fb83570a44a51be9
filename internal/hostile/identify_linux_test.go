package hostile

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/wire"
	"github.com/kith-p2p/kith/multiaddr"
)

// Streams that announce a long message and do not send it cost what was
// sent, not what was announced.
func TestAnnouncedIsNotAllocated(t *testing.T) {
	for _, c := range []struct {
		proto   string
		claim   uint64
		streams int
		waiting int // of them, for the rest; the others are refused
		limit   int // bytes a stream
	}{
		{pushID, 8 << 10, 12, 4 + 1, 64 << 10}, // and the host asks
		{"/framed/1", 4 << 20, 500, 500, 24 << 10},
	} {
		t.Run(c.proto, func(t *testing.T) {
			v := newVictim(t, victimConfig{bare: c.proto != pushID})
			v.Handle("/framed/1", func(_ context.Context, s *host.Stream) error {
				_, err := wire.ReadFrame(s, 4<<20)
				return err
			})
			before, calm := v.level(), calm()
			s := v.attack(t, "127.0.0.2")
			go io.Copy(io.Discard, s.conn)
			for range c.streams {
				_, err := s.open(c.proto, append(wire.AppendUvarint(nil, c.claim), random(100)...)...)
				check(t, err)
			}
			until(t, "the attacker is in", func() bool { return len(v.Conns()) == 1 })
			conn := v.Conns()[0]
			until(t, "the streams wait", func() bool { return conn.NumStreams() == c.waiting && v.Usage().UnnegotiatedStreams == 0 })
			heap, grown := int(v.level().heap)-int(before.heap), int(mapped())-int(calm)
			t.Logf("%d streams that announce %d bytes each and send 100: %d wait, %d KiB of heap, %d KiB of memory", c.streams, c.claim, c.waiting, heap>>10, grown>>10)
			if heap > c.streams*c.limit || grown > 2*c.streams*c.limit+heapSlack {
				t.Errorf("%d bytes of heap and %d of memory, want at most %d and twice as much", heap, grown, c.streams*c.limit)
			}
			s.conn.Close()
			v.recovers(t, before)
		})
	}
}

// Peers that come with ever new names, say as much of themselves as they can and
// leave, are remembered with little.
func TestManyNames(t *testing.T) {
	names := 300
	if *full {
		names = 10_000
	}
	v := newVictim(t, victimConfig{})
	var messages [][]byte
	for m := range 8 {
		var i identity
		for p := range 128 {
			i.protocols = append(i.protocols, fmt.Sprintf("/%d/%s", m*128+p, strings.Repeat("x", 8)))
		}
		for a := range 16 {
			i.addrs = append(i.addrs, multiaddr.MustParse(fmt.Sprintf("/dns4/%s.%d.%d.example/tcp/4001", strings.Repeat("x", 60), m, a)))
		}
		i.agent = strings.Repeat("x", 4000)
		messages = append(messages, i.bytes())
	}
	body := framed(messages...)
	before := v.level()
	for range names {
		s := v.attack(t, "127.0.0.2")
		check(t, s.answerIdentify(body))
		// Pings are answered in order: by then all of it was taken in.
		until(t, "the peer is identified", func() bool {
			conns := v.Conns()
			return len(conns) == 1 && v.PeerInfo(conns[0].RemotePeer()).AgentVersion != ""
		})
		s.conn.Close()
		until(t, "the peer is gone", func() bool { return len(v.Conns()) == 0 })
	}
	after := v.level()
	known := after.usage.KnownPeers
	each := (int(after.heap) - int(before.heap)) / known
	t.Logf("%d names, %d are known, %d bytes each, and %d KiB were said", names, known, each, len(body)>>10)
	if known != min(names, 8192) || each > 5<<10 {
		t.Errorf("%d peers are known with %d bytes each, want at most 8192 with at most 5120", known, each)
	}
}
