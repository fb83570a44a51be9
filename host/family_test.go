package host

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// Where a connection goes to whose peer cannot be reached any more where it was dialed:
// to the peer's addresses of the other family, that may be dialed, if it follows there.
func TestElsewhere(t *testing.T) {
	const gone, there = "/ip6/fe80::1/udp/4001/quic-v1", "/ip4/127.0.0.1/udp/4001/quic-v1" // no interface is named
	const otherPort = "/ip4/127.0.0.1/udp/4002/quic-v1"
	knows := func(h *Host, p peer.ID, source Source, addrs ...string) {
		for _, a := range addrs {
			h.book.addAddrs(p, []multiaddr.Addr{multiaddr.MustParse(a)}, source, time.Hour)
		}
	}
	for _, c := range []struct {
		name   string
		at     string
		speaks ProtocolID
		source Source
		known  []string
		gate   Gate
		want   []string
	}{
		{"it follows", gone, FamiliesProtocol, SourceUser, []string{there}, Gate{}, []string{there}},
		{"the same port first", gone, FamiliesProtocol, SourceUser, []string{otherPort, there}, Gate{}, []string{there, otherPort}},
		{"it does not follow", gone, "/ipfs/ping/1.0.0", SourceUser, []string{there}, Gate{}, nil},
		{"packets still leave", there, FamiliesProtocol, SourceUser, []string{gone}, Gate{}, nil},
		{"the same family", gone, FamiliesProtocol, SourceUser, []string{"/ip6/::1/udp/4001/quic-v1"}, Gate{}, nil},
		{"other transports", gone, FamiliesProtocol, SourceUser, []string{"/ip4/127.0.0.1/tcp/4001", there + "/webtransport"}, Gate{}, nil},
		{"another transport", "/ip6/fe80::1/tcp/4001", FamiliesProtocol, SourceUser, []string{there}, Gate{}, nil},
		{"an unsafe word", gone, FamiliesProtocol, SourcePeer, []string{there}, Gate{}, nil},
		{"a stranger's word", gone, FamiliesProtocol, SourceStranger, []string{"/ip4/8.8.8.8/udp/4001/quic-v1"}, Gate{}, nil},
		{"refused", gone, FamiliesProtocol, SourceUser, []string{there}, Gate{DialAddr: func(peer.ID, multiaddr.Addr) error { return errors.New("no") }}, nil},
	} {
		h := crowdedHost(t, 10, Config{Transports: []Transport{&scriptedTransport{}}, Gate: c.gate})
		conn, err := h.enter(0, single(0), DirOutbound, new(puppet))
		if err != nil {
			t.Fatal(err)
		}
		p := conn.RemotePeer()
		knows(h, p, c.source, c.known...)
		if got := h.elsewhere(p, multiaddr.MustParse(c.at)); got != nil {
			t.Errorf("%s: %v before it was identified", c.name, got)
		}
		h.Identified(conn, PeerInfo{Protocols: []ProtocolID{"/a", c.speaks}}, false)
		knows(h, p, c.source, c.known...) // again: identify tells all addresses that there are
		var got []string
		for _, a := range h.elsewhere(p, multiaddr.MustParse(c.at)) {
			got = append(got, a.String())
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
