package host

import (
	"errors"
	"fmt"
	"testing"

	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// idle is a connection that has so many streams and nothing else.
type idle struct {
	MuxedConn
	streams int
	closed  chan struct{}
}

func (i idle) NumStreams() int { return i.streams }

func (i idle) CloseWithCode(uint32) error {
	close(i.closed)
	return nil
}

func TestCrowdsPay(t *testing.T) {
	key, err := peer.GenerateKey(peer.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	h, err := New(Config{Identity: key, Limits: Limits{Conns: 6, ConnsPerPeer: -1}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	add := func(ip string, dir Direction, streams int) (*Conn, error) {
		c := &Conn{
			host: h, mux: idle{streams: streams, closed: make(chan struct{})}, dir: dir, done: make(chan struct{}),
			addr: multiaddr.MustParse(fmt.Sprintf("/ip4/%s/tcp/1", ip)),
		}
		_, err := h.register(c)
		return c, err
	}
	var conns []*Conn
	for _, c := range []struct {
		ip      string
		dir     Direction
		streams int
	}{
		{"1.1.1.1", DirInbound, 0}, {"2.2.2.1", DirInbound, 0}, {"2.2.2.2", DirInbound, 1},
		{"2.2.2.2", DirInbound, 0}, {"3.3.3.3", DirOutbound, 0}, {"3.3.3.3", DirOutbound, 0},
	} {
		conn, err := add(c.ip, c.dir, c.streams)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	paid := func(want int) {
		t.Helper()
		<-conns[want].mux.(idle).closed
		for i, c := range conns {
			if c.leaving != (i == want) {
				t.Errorf("connection %d leaves: %v", i, c.leaving)
			}
		}
		h.unregister(conns[want])
		conns = append(conns[:want], conns[want+1:]...)
	}
	// The address with two pays, with the one that has no streams.
	if _, err := add("4.4.4.4", DirInbound, 0); err != nil {
		t.Fatal(err)
	}
	paid(3)
	// Now nobody has two more than a newcomer would have: 1.1.1, 2.2.2 and 4.4.4 have 1, 2 and 1.
	var full *LimitError
	if _, err := add("1.1.1.2", DirInbound, 0); !errors.As(err, &full) || full.Scope != "Conns" {
		t.Errorf("a newcomer of a group with as many: %v", err)
	}
	// A dial of ours is worth more than one of two.
	if _, err := add("5.5.5.5", DirOutbound, 0); err != nil {
		t.Fatal(err)
	}
	paid(1)
	if _, err := add("6.6.6.6", DirOutbound, 0); !errors.As(err, &full) {
		t.Errorf("a dial when nobody has two: %v", err)
	}
	if h.leaving != 0 || len(h.perGroup) != 3 || h.numConns != 6 {
		t.Errorf("%d leave, groups %v, %d connections", h.leaving, h.perGroup, h.numConns)
	}
}
