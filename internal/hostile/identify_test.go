package hostile

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/wire"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

const (
	identifyID = "/ipfs/id/1.0.0"
	pushID     = "/ipfs/id/push/1.0.0"
)

// answerIdentify waits for the host's question who we are and says body, in
// frames of at most 16 KiB.
func (s *session) answerIdentify(body []byte) error {
	var asked []byte
	for {
		f, err := s.receive()
		if err != nil {
			return err
		}
		if asked = append(asked, f.payload...); !bytes.Contains(asked, token(identifyID)) {
			continue
		}
		accept := append(token("/multistream/1.0.0"), token(identifyID)...)
		if err := s.send(dataFrame(ack, f.id, accept)); err != nil {
			return err
		}
		for part := range slices.Chunk(body, 16<<10) {
			if err := s.send(dataFrame(0, f.id, part)); err != nil {
				return err
			}
		}
		return s.send(frame{typ: typeWindow, flags: fin, id: f.id})
	}
}

// A message is what a peer says of itself.
// https://github.com/libp2p/specs/blob/master/identify/README.md#the-identify-message
type identity struct {
	key, record, observed []byte
	addrs                 []multiaddr.Addr
	protocols             []string
	agent                 string
}

func (i identity) bytes() []byte {
	var b []byte
	if i.key != nil {
		b = wire.AppendBytesField(b, 1, i.key)
	}
	for _, a := range i.addrs {
		b = wire.AppendBytesField(b, 2, a.Bytes())
	}
	for _, p := range i.protocols {
		b = wire.AppendStringField(b, 3, p)
	}
	if i.observed != nil {
		b = wire.AppendBytesField(b, 4, i.observed)
	}
	if i.agent != "" {
		b = wire.AppendStringField(b, 6, i.agent)
	}
	if i.record != nil {
		b = wire.AppendBytesField(b, 8, i.record)
	}
	return b
}

func framed(messages ...[]byte) []byte {
	var all []byte
	for _, m := range messages {
		all = wire.AppendFrame(all, m)
	}
	return all
}

// What a peer says of itself is believed of itself only, and bounded, however it
// is said.
func TestIdentifyLies(t *testing.T) {
	third := newKey(t)
	private := multiaddr.MustParse("/ip4/10.0.0.1/tcp/22")
	public := multiaddr.MustParse("/ip4/192.88.99.1/tcp/4001")
	record, err := peer.Record{ID: third.ID(), Seq: 1, Addrs: []multiaddr.Addr{public}}.Seal(third)
	check(t, err)
	many := make([]multiaddr.Addr, 500)
	for i := range many {
		many[i] = multiaddr.MustParse(fmt.Sprintf("/ip4/192.88.%d.%d/tcp/4001", i/250, i%250))
	}
	protocols := make([]string, 400)
	for i := range protocols {
		protocols[i] = fmt.Sprintf("/p/%d", i)
	}
	var long [][]byte
	for range 10 {
		long = append(long, identity{protocols: []string{"/" + strings.Repeat("x", 1000)}}.bytes())
	}
	for _, c := range []struct {
		name string
		body []byte
		want func(info host.PeerInfo) bool // of what is known of the liar
	}{
		{"another's key", framed(identity{key: third.Public().Marshal(), addrs: []multiaddr.Addr{public}, agent: "liar"}.bytes()), unknown},
		{"another's record", framed(identity{record: record, addrs: []multiaddr.Addr{public}, agent: "liar"}.bytes()), func(i host.PeerInfo) bool { return len(i.Addrs) == 0 && i.AgentVersion == "liar" }},
		{"addresses in our network", framed(identity{addrs: []multiaddr.Addr{private, public, multiaddr.MustParse("/ip4/127.0.0.1/tcp/1")}}.bytes()),
			func(i host.PeerInfo) bool { return len(i.Addrs) == 1 && i.Addrs[0] == public }},
		{"five hundred addresses", framed(identity{addrs: many[:250]}.bytes(), identity{addrs: many[250:]}.bytes()), func(i host.PeerInfo) bool { return len(i.Addrs) == 32 }},
		{"four thousand protocols", framed(slices.Repeat([][]byte{identity{protocols: protocols}.bytes()}, 10)...), func(i host.PeerInfo) bool { return len(i.Protocols) == 400 }},
		{"escape sequences", framed(identity{agent: "\x1b[2Jkith\x00\u202e"}.bytes()), func(i host.PeerInfo) bool { return !strings.ContainsAny(i.AgentVersion, "\x1b\x00\u202e") }},
		{"a name of 4000 bytes", framed(identity{agent: strings.Repeat("x", 4000)}.bytes()), func(i host.PeerInfo) bool { return len(i.AgentVersion) == 256 }},
		{"a message of 8193 bytes", framed(make([]byte, 8193)), unknown},
		{"a message of 4 GiB", append([]byte{0xff, 0xff, 0xff, 0xff, 0x0f}, make([]byte, 100<<10)...), unknown},
		{"eleven messages", framed(append(long, long[0])...), unknown},
		{"no protobuf", framed([]byte("\xff\xff\xff\xff")), unknown},
		{"groups in groups", framed(bytes.Repeat([]byte{0x0b}, 8000)), unknown},
		{"nothing", nil, unknown},
		{"messages without an end", framed(slices.Repeat([][]byte{{}}, 9)...)[:8], func(host.PeerInfo) bool { return true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := new(network)
				v := newVictimOn(t, n, victimConfig{})
				s := v.attackOn(t, n)
				go s.answerIdentify(c.body)
				time.Sleep(6 * time.Second) // an exchange takes at most 5 s
				synctest.Wait()
				conns := v.Conns()
				if len(conns) != 1 {
					t.Fatalf("%d connections, want the liar's: %s", len(conns), v.log.last("closed"))
				}
				if info := v.PeerInfo(conns[0].RemotePeer()); !c.want(info) {
					t.Errorf("known of the liar: %.300q", fmt.Sprintf("%+v", info))
				}
				if info := v.PeerInfo(third.ID()); len(info.Addrs) != 0 || v.Usage().KnownPeers != 1 {
					t.Errorf("known of another peer: %+v; %d peers are known", info, v.Usage().KnownPeers)
				}
				if conns[0].NumStreams() != 0 {
					t.Errorf("%d streams are left", conns[0].NumStreams())
				}
			})
		})
	}
}

func unknown(i host.PeerInfo) bool {
	return len(i.Addrs) == 0 && len(i.Protocols) == 0 && i.AgentVersion == ""
}
