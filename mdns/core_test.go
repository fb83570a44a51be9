package mdns

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

var update = flag.Bool("update", false, "write testdata anew")

// Two peers meet, one changes its addresses, both leave: testdata/meet.txt.
func TestTranscript(t *testing.T) {
	var b strings.Builder
	l := newLAN(t, 1)
	l.log = func(line string) { b.WriteString(line + "\n") }
	l.short = make(map[string]time.Duration)
	ann := l.join("ann")
	l.run(5 * time.Second)
	bob := l.join("bob")
	l.run(1500 * time.Millisecond)
	l.note(bob, "has another address")
	bob.core.SetAddrs(l.now, addrs("/ip4/10.0.0.3/tcp/5000", "/ip4/192.0.2.7/tcp/5000", "/ip4/127.0.0.1/tcp/5000"))
	l.run(time.Second)
	l.leave(ann)
	l.run(time.Second)
	l.leave(bob)
	l.run(time.Minute)
	if *update {
		if err := os.WriteFile("testdata/meet.txt", []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/meet.txt")
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("not as in testdata/meet.txt (go test -update writes it anew):\n%s", b.String())
	}
}

// Packets of the other implementations, as they were on the wire.
func TestVectors(t *testing.T) {
	for _, v := range readVectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			c := newTestCore(t, v.prefixes(t)...)
			c.SetAddrs(epoch, []multiaddr.Addr{multiaddr.FromAddrPort(multiaddr.TCP, netip.AddrPortFrom(c.links[0].Prefixes[0].Addr(), 4001))})
			settle(c)
			now := epoch.Add(time.Minute / 2)
			if v.Goodbye {
				for _, a := range v.Addrs {
					c.HandlePacket(now, answerOf("someone", 120, textOf(a, v.id(t))), v.From, testIndex)
				}
				drain(c)
			}
			c.HandlePacket(now, v.packet(t), v.From, testIndex)
			found, expired, _ := drain(c)
			if v.Goodbye {
				if len(found) > 0 || len(expired) != 1 || expired[0] != v.id(t) {
					t.Errorf("goodbye: found %v, expired %v", found, expired)
				}
			} else if v.ID == "" {
				if len(found) > 0 {
					t.Errorf("found %v", found)
				}
			} else if want := (peer.AddrInfo{ID: v.id(t), Addrs: addrs(v.Addrs...)}); len(found) != 1 || found[0].String() != want.String() {
				t.Errorf("found %v, want %v", found, want)
			}
			if asked := !c.links[0].answerAt.IsZero(); asked != (v.Asks == "service") {
				t.Errorf("asked for all peers: %v", asked)
			}
		})
	}
}

func TestEverybodyFindsEverybody(t *testing.T) {
	for _, loss := range []float64{0, 0.3} {
		t.Run(fmt.Sprintf("loss %v", loss), func(t *testing.T) {
			for seed := range uint64(10) {
				l := newLAN(t, seed)
				l.loss, l.dup = loss, loss/2
				for i := range 20 {
					l.join(fmt.Sprint("n", i))
					l.run(time.Duration(l.rng.Int64N(int64(time.Second))))
				}
				// Without loss, two seconds are enough for the last one; with it, some rounds.
				within := 2 * time.Second
				if loss > 0 {
					within = 20 * time.Second
				}
				l.run(within)
				for _, x := range l.nodes {
					if len(x.known) != 19 {
						t.Errorf("seed %d: %s knows %d of 19 after %v", seed, x.name, len(x.known), within)
					}
				}
			}
		})
	}
}

// A newcomer finds, and is found by, those who have settled within 130 ms.
func TestNewcomer(t *testing.T) {
	for seed := range uint64(50) {
		l := newLAN(t, seed)
		for i := range 5 {
			l.join(fmt.Sprint("n", i))
		}
		l.run(10*time.Minute + time.Duration(seed)*time.Second)
		for _, x := range l.nodes {
			clear(x.known)
		}
		x := l.join("newcomer")
		l.run(130 * time.Millisecond)
		for _, other := range l.nodes[:5] {
			if _, ok := x.known[other.core.id]; !ok && l.now.Sub(other.core.links[0].answered) > answerInterval {
				t.Errorf("seed %d: the newcomer does not know %s", seed, other.name)
			}
			if _, ok := other.known[x.core.id]; !ok {
				t.Errorf("seed %d: %s does not know the newcomer", seed, other.name)
			}
		}
	}
}

// Two dozen peers on one network ask about once a minute, all together, each
// answers each time, and with a tenth of the packets lost nobody is forgotten.
func TestSettledNetworkIsQuiet(t *testing.T) {
	l := newLAN(t, 1)
	l.loss = 0.1
	for i := range 24 {
		l.join(fmt.Sprint("n", i))
		l.run(10 * time.Millisecond)
	}
	l.run(5 * time.Minute)
	l.queries, l.answers = 0, 0
	const minutes = 15
	l.run(minutes * time.Minute)
	t.Logf("%d queries, %d answers in %d minutes", l.queries, l.answers, minutes)
	if perMinute := float64(l.queries) / minutes; perMinute > 2 {
		t.Errorf("%.1f queries a minute", perMinute)
	}
	if perQuery := float64(l.answers) / float64(l.queries); perQuery > 25 {
		t.Errorf("%.1f answers to a query", perQuery)
	}
	for _, x := range l.nodes {
		if len(x.known) != 23 || x.lost > 0 {
			t.Errorf("%s knows %d of 23, and has lost %d on the way", x.name, len(x.known), x.lost)
		}
	}
}

// Others' queries stand in for ours, but not for ever, and not those whose
// answers we do not hear.
func TestOthersQueriesDelayOurs(t *testing.T) {
	for _, v := range []struct {
		class    dnsmessage.Class
		longest  time.Duration
		shortest time.Duration
	}{
		{dnsmessage.ClassINET, maxSilence + 10*time.Second, maxSilence},
		{dnsmessage.ClassINET | topBit, maxQueryInterval + queryJitter + 10*time.Second, maxQueryInterval},
	} {
		c := newTestCore(t)
		c.SetAddrs(epoch, addrs("/ip4/10.0.0.1/tcp/1"))
		query := pack(dnsmessage.Message{Questions: []dnsmessage.Question{{Name: c.names.service, Type: dnsmessage.TypePTR, Class: v.class}}})
		settle(c)
		var last time.Time
		for now := epoch.Add(2 * time.Minute); now.Before(epoch.Add(6 * time.Hour)); now = now.Add(10 * time.Second) {
			c.HandlePacket(now, query, neighbourAt, testIndex)
			c.HandleTimeout(now)
			_, _, sent := drain(c)
			for _, p := range sent {
				if p.Packet[2]&0x80 != 0 {
					continue
				}
				if pause := now.Sub(last); now.After(epoch.Add(2*time.Hour)) && (pause < v.shortest || pause > v.longest) {
					t.Fatalf("class %#x: %v between our queries", v.class, pause)
				}
				last = now
			}
		}
		if last.Before(epoch.Add(6*time.Hour - v.longest)) {
			t.Errorf("class %#x: the last query is of %v", v.class, last.Sub(epoch))
		}
	}
}

func TestExpiry(t *testing.T) {
	l := newLAN(t, 1)
	ann, bob := l.join("ann"), l.join("bob")
	l.run(10 * time.Second)
	if len(ann.known) != 1 || ann.told != 1 {
		t.Fatalf("ann knows %v", ann.known)
	}
	l.run(10 * time.Minute)
	if ann.told < 7 || ann.told > 12 {
		t.Errorf("in ten minutes ann was told of bob %d times, want about once a minute", ann.told)
	}
	bob.gone = true // without a goodbye
	l.run(lifetime - time.Minute - queryJitter)
	if len(ann.known) != 1 {
		t.Error("bob was forgotten early")
	}
	l.run(time.Minute + queryJitter + sweepInterval)
	if len(ann.known) != 0 || ann.lost != 1 {
		t.Errorf("ann knows %v, %d lost", ann.known, ann.lost)
	}
	if n := len(ann.core.peers) + ann.core.heard.Len(); n != 0 || !ann.core.sweepAt.IsZero() {
		t.Errorf("%d entries are left behind, the next sweep is at %v", n, ann.core.sweepAt)
	}
}

// An address that is not announced any more dies, while the peer lives on.
func TestAddressExpires(t *testing.T) {
	c := newTestCore(t)
	id := testID(7)
	const a, b = "/ip4/10.0.0.7/tcp/1", "/ip4/10.0.0.7/tcp/2"
	c.HandlePacket(epoch, answerOf("x", 120, textOf(a, id), textOf(b, id)), neighbourAt, testIndex)
	want := []string{a + " " + b}
	var got []string
	for now := epoch; now.Before(epoch.Add(2 * lifetime)); now = now.Add(30 * time.Second) {
		c.HandleTimeout(now)
		c.HandlePacket(now, answerOf("x", 120, textOf(a, id)), neighbourAt, testIndex)
		found, expired, _ := drain(c)
		if len(expired) > 0 {
			t.Fatal("expired")
		}
		for _, info := range found {
			if s := strings.Trim(fmt.Sprint(info.Addrs), "[]"); len(got) == 0 || got[len(got)-1] != s {
				got = append(got, s)
			}
		}
	}
	want = append(want, a)
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The reader of go-libp2p takes one TXT record of one packet, and that only with
// an SRV record and an A or AAAA record for its target; others read all packets.
func TestManyAddresses(t *testing.T) {
	c := newTestCore(t)
	var own []multiaddr.Addr
	for i := range 30 {
		own = append(own, multiaddr.MustParse(fmt.Sprintf("/ip4/10.0.0.1/tcp/%d", 4001+i)))
	}
	tooLong := multiaddr.MustParse("/ip4/10.0.0.1/tcp/443/tls/sni/" + strings.Repeat("long.", 40) + "example/ws")
	own = slices.Insert(own, 3, tooLong, multiaddr.MustParse("/ip4/10.0.0.1/tcp/4003")) // and one twice
	c.SetAddrs(epoch, own)
	var packets [][]byte
	for _, p := range settle(c) {
		if p.Packet[2]&0x80 != 0 {
			packets = append(packets, p.Packet)
		}
	}
	if len(packets) != 5*3 {
		t.Fatalf("%d packets in five answers", len(packets))
	}
	packets = packets[:3]
	var texts []string
	reader, err := NewCore(testID(1), DefaultService, rand.New(rand.NewPCG(3, 4)))
	if err != nil {
		t.Fatal(err)
	}
	reader.SetInterfaces(epoch, []Interface{c.links[0].Interface})
	for _, packet := range packets {
		if len(packet) > maxSent {
			t.Errorf("a packet has %d bytes", len(packet))
		}
		var m dnsmessage.Message
		if err := m.Unpack(packet); err != nil {
			t.Fatal(err)
		}
		var ptr, target string
		var txt, ips int
		for _, r := range append(m.Answers, m.Additionals...) {
			switch body := r.Body.(type) {
			case *dnsmessage.PTRResource:
				ptr = body.PTR.String()
			case *dnsmessage.SRVResource:
				target = body.Target.String()
			case *dnsmessage.TXTResource:
				txt++
				texts = append(texts, body.TXT...)
				if r.Header.Name.String() != ptr {
					t.Error("the TXT record has another name than the PTR record points to")
				}
			case *dnsmessage.AResource:
				ips++
				if r.Header.Name.String() != target || body.A != [4]byte{10, 0, 0, 1} {
					t.Error("the A record does not belong to the SRV record")
				}
			}
		}
		if txt != 1 || ips != 1 || len(m.Answers) != 1 {
			t.Errorf("%d TXT and %d A records, %d answers", txt, ips, len(m.Answers))
		}
		reader.HandlePacket(epoch, packet, neighbourAt, testIndex)
	}
	if len(texts) != 30 || texts[0] != textOf("/ip4/10.0.0.1/tcp/4001", c.id) {
		t.Errorf("%d addresses, the first is %s", len(texts), texts[0])
	}
	found, _, _ := drain(reader)
	if last := found[len(found)-1]; len(last.Addrs) != 30 || last.ID != c.id {
		t.Errorf("the reader found %v", last)
	}
}

// Each interface announces the addresses in its own networks, as far as mDNS
// peers can use them.
func TestAnnounced(t *testing.T) {
	own := addrs(
		"/ip4/10.0.0.1/tcp/4001",
		"/ip4/10.0.0.1/udp/4001/quic-v1",
		"/ip4/10.0.0.1/udp/4001/quic-v1/webtransport",
		"/ip4/10.0.0.1/udp/4001/webrtc-direct",
		"/ip4/10.0.0.1/tcp/4001/ws",
		"/ip4/10.0.0.2/tcp/4001/p2p/"+testID(8).String()+"/p2p-circuit",
		"/ip6zone/eth7/ip6/fe80::1/tcp/4001",
		"/ip6/2001:db8::1/tcp/4001",
		"/ip4/127.0.0.1/tcp/4001",
		"/ip6/::1/tcp/4001",
		"/ip4/192.0.2.1/tcp/4001",
		"/ip4/0.0.0.0/tcp/4001",
		"/dns4/example.com/tcp/4001",
		"/ip4/10.0.0.1",
	)
	for _, c := range []struct {
		prefixes string
		want     []string
	}{
		{"10.0.0.1/16", []string{"/ip4/10.0.0.1/tcp/4001", "/ip4/10.0.0.1/udp/4001/quic-v1", "/ip4/10.0.0.1/tcp/4001/ws"}},
		{"fe80::1/64 2001:db8::1/64", []string{"/ip6/fe80::1/tcp/4001", "/ip6/2001:db8::1/tcp/4001"}},
		{"127.0.0.1/8 ::1/128", []string{"/ip4/127.0.0.1/tcp/4001", "/ip6/::1/tcp/4001"}},
		{"172.16.0.1/12", nil},
	} {
		i := testInterface(prefixes(t, c.prefixes)...)
		if got := i.announced(own); !slices.Equal(got, addrs(c.want...)) {
			t.Errorf("on %s: %v, want %v", c.prefixes, got, c.want)
		}
	}
}

// What others may make us dial: hosts on the network that they speak on.
func TestRead(t *testing.T) {
	id := testID(7)
	p2p := "/p2p/" + id.String()
	eth := testInterface(prefixes(t, "10.0.0.1/16 192.168.1.1/32 fe80::1/64 2001:db8:1::1/64 169.254.7.7/16 1.2.3.4/0 127.0.1.1/8")...)
	lo := testInterface(prefixes(t, "127.0.0.1/8 ::1/128")...)
	for _, c := range []struct {
		on   Interface
		text string
		want string // "": not believed
	}{
		{eth, "dnsaddr=/ip4/10.0.0.7/tcp/4001" + p2p, "/ip4/10.0.0.7/tcp/4001"},
		{eth, "dnsaddr=/ip4/10.0.200.7/udp/4001/quic-v1" + p2p, "/ip4/10.0.200.7/udp/4001/quic-v1"},
		{eth, "dnsaddr=/ip4/10.0.0.7/tcp/4001/tls/sni/example.com/ws" + p2p, "/ip4/10.0.0.7/tcp/4001/tls/sni/example.com/ws"},
		{eth, "dnsaddr=/ip4/10.0.0.1/tcp/4001" + p2p, "/ip4/10.0.0.1/tcp/4001"},       // another program on this machine
		{eth, "dnsaddr=/ip4/192.168.1.1/tcp/4001" + p2p, "/ip4/192.168.1.1/tcp/4001"}, // a network of one
		{eth, "dnsaddr=/ip6/2001:db8:1::7/tcp/4001" + p2p, "/ip6/2001:db8:1::7/tcp/4001"},
		{eth, "dnsaddr=/ip6/fe80::7/tcp/4001" + p2p, "/ip6zone/eth0/ip6/fe80::7/tcp/4001"},
		{eth, "dnsaddr=/ip6zone/wlan9/ip6/fe80::7/tcp/4001" + p2p, "/ip6zone/eth0/ip6/fe80::7/tcp/4001"},
		{lo, "dnsaddr=/ip4/127.0.0.1/tcp/4001" + p2p, "/ip4/127.0.0.1/tcp/4001"},
		{lo, "dnsaddr=/ip6/::1/tcp/4001" + p2p, "/ip6/::1/tcp/4001"},

		{eth, "dnsaddr=/ip4/10.1.0.7/tcp/4001" + p2p, ""},
		{eth, "dnsaddr=/ip4/8.8.8.8/tcp/53" + p2p, ""}, // 1.2.3.4/0 is no local network
		{eth, "dnsaddr=/ip4/127.0.0.1/tcp/6379" + p2p, ""},
		{eth, "dnsaddr=/ip6/::1/tcp/6379" + p2p, ""},
		{eth, "dnsaddr=/ip6/::ffff:10.0.0.7/tcp/4001" + p2p, ""},
		{eth, "dnsaddr=/ip6/::ffff:127.0.0.1/tcp/4001" + p2p, ""},
		{eth, "dnsaddr=/ip6/2001:db8:2::7/tcp/4001" + p2p, ""},
		{eth, "dnsaddr=/ip4/0.0.0.0/tcp/4001" + p2p, ""},
		{eth, "dnsaddr=/ip6/::/tcp/4001" + p2p, ""},
		{eth, "dnsaddr=/ip4/10.0.255.255/udp/4001/quic-v1" + p2p, ""},
		{eth, "dnsaddr=/ip4/10.0.0.0/udp/4001/quic-v1" + p2p, ""},
		{eth, "dnsaddr=/ip4/255.255.255.255/udp/4001/quic-v1" + p2p, ""},
		{eth, "dnsaddr=/ip4/224.0.0.251/udp/5353" + p2p, ""},
		{eth, "dnsaddr=/ip6/ff02::fb/udp/5353" + p2p, ""},
		{eth, "dnsaddr=/ip4/10.0.0.7/tcp/0" + p2p, ""},
		{eth, "dnsaddr=/ip4/10.0.0.7" + p2p, ""},
		{eth, "dnsaddr=/dns4/printer.local/tcp/4001" + p2p, ""},
		{eth, "dnsaddr=/dnsaddr/bootstrap.libp2p.io" + p2p, ""},
		{eth, "dnsaddr=/unix/run.sock" + p2p, ""},
		{eth, "dnsaddr=/memory/1" + p2p, ""},
		{eth, "dnsaddr=/ip4/10.0.0.7/tcp/4001/p2p/" + testID(8).String() + "/p2p-circuit" + p2p, ""},
		{eth, "dnsaddr=/ip4/10.0.0.7/tcp/4001/p2p-circuit" + p2p, ""},
		{eth, "dnsaddr=/ip4/10.0.0.7/tcp/4001" + p2p + p2p, ""},
		{eth, "dnsaddr=/ip4/10.0.0.7/tcp/4001", ""},
		{eth, "dnsaddr=" + p2p, ""},
		{eth, "dnsaddr=", ""},
		{eth, "dnsaddr=/ip4/10.0.0.7/tcp/4001/p2p/xyz", ""},
		{eth, "/ip4/10.0.0.7/tcp/4001" + p2p, ""},
		{eth, "path=/", ""},
		{eth, "", ""},
		{lo, "dnsaddr=/ip4/10.0.0.7/tcp/4001" + p2p, ""},
	} {
		got, addr, ok := c.on.read(c.text)
		if c.want == "" {
			if ok {
				t.Errorf("%s on %s is believed: %v", c.text, c.on.Prefixes, addr)
			}
		} else if !ok || got != id || addr.String() != c.want {
			t.Errorf("%s on %s: %v %v %v", c.text, c.on.Prefixes, got, addr, ok)
		}
	}
}

// Packets that come from elsewhere are not read, even if they say the right thing.
func TestSourceMustBeLocal(t *testing.T) {
	packet := answerOf("x", 120, textOf("/ip4/10.0.0.7/tcp/1", testID(7)))
	for from, want := range map[string]bool{
		"10.0.0.7:5353":       true,
		"10.0.0.7:40000":      true, // rust-libp2p
		"10.1.0.7:5353":       false,
		"8.8.8.8:53":          false,
		"127.0.0.1:5353":      false,
		"0.0.0.0:5353":        false,
		"[fe80::7%eth0]:5353": false, // the interface has no IPv6
		"[::ffff:a00:7]:5353": false,
	} {
		c := newTestCore(t)
		c.HandlePacket(epoch, packet, netip.MustParseAddrPort(from), testIndex)
		if found, _, _ := drain(c); (len(found) == 1) != want {
			t.Errorf("from %s: found %v", from, found)
		}
		c.HandlePacket(epoch, packet, neighbourAt, testIndex+1) // not in use
		if found, _, _ := drain(c); len(found) > 0 {
			t.Errorf("on another interface: found %v", found)
		}
	}
}

func TestOurselves(t *testing.T) {
	c := newTestCore(t)
	own, _, _ := strings.Cut(c.names.instance.String(), ".")
	for _, packet := range [][]byte{
		answerOf(own, 120, textOf("/ip4/10.0.0.7/tcp/1", testID(7))),
		answerOf(strings.ToUpper(own), 120, textOf("/ip4/10.0.0.7/tcp/1", testID(7))),
		answerOf("other", 120, textOf("/ip4/10.0.0.1/tcp/1", c.id)),
	} {
		c.HandlePacket(epoch, packet, neighbourAt, testIndex)
		if found, _, _ := drain(c); len(found) > 0 {
			t.Errorf("found ourselves: %v", found)
		}
	}
}

// Peers of another service are not seen, on either side.
func TestServices(t *testing.T) {
	l := newLAN(t, 1)
	ann, bob, eve := l.join("ann"), l.join("bob"), l.join("eve")
	var err error
	for _, x := range []*node{ann, bob} {
		if x.core, err = NewCore(x.core.id, "_p2p-0123456789abcdef0123456789abcdef._udp", rand.New(rand.NewPCG(1, uint64(len(x.name))+l.rng.Uint64()))); err != nil {
			t.Fatal(err)
		}
		x.core.SetInterfaces(l.now, []Interface{x.iface})
		x.core.SetAddrs(l.now, []multiaddr.Addr{multiaddr.FromAddrPort(multiaddr.TCP, netip.AddrPortFrom(x.ip, 1))})
	}
	l.run(time.Minute)
	if len(ann.known) != 1 || len(bob.known) != 1 || len(eve.known) != 0 {
		t.Errorf("ann knows %v, bob %v, eve %v", ann.known, bob.known, eve.known)
	}
	for _, service := range []string{"", "p2p._udp", "_p2p", "_p2p._udp.local", "_p2p._quic", "_P2P._udp", "_._udp", "_" + strings.Repeat("x", 63) + "._udp", "_p.p._udp", "_p2p\x00._udp"} {
		if _, err := NewCore(testID(1), service, l.rng); err == nil || !strings.HasPrefix(err.Error(), "mdns: service ") {
			t.Errorf("service %q: %v", service, err)
		}
	}
}

func TestNames(t *testing.T) {
	seen := make(map[string]bool)
	for seed := range uint64(200) {
		n, err := newNames(DefaultService, rand.New(rand.NewPCG(seed, seed)))
		if err != nil {
			t.Fatal(err)
		}
		label, rest, _ := strings.Cut(n.instance.String(), ".")
		if len(label) < 32 || len(label) > 63 || strings.Trim(label, alphabet) != "" || rest != "_p2p._udp.local." || seen[label] {
			t.Errorf("name %q", n.instance)
		}
		seen[label] = true
	}
}

// ask sends a question to a core that has been up for half a minute, and returns
// what leaves within two seconds.
func ask(t *testing.T, from netip.AddrPort, questions ...dnsmessage.Question) (replies, answers []dnsmessage.Message) {
	t.Helper()
	c := newTestCore(t)
	c.SetAddrs(epoch, addrs("/ip4/10.0.0.1/tcp/4001"))
	settle(c)
	for i := range questions {
		if questions[i].Name.Length == 0 {
			questions[i].Name = c.names.instance
		}
	}
	query := pack(dnsmessage.Message{Header: dnsmessage.Header{ID: 77}, Questions: questions})
	now := epoch.Add(25 * time.Second) // the last answer was given at 15 s
	c.HandlePacket(now, query, from, testIndex)
	c.HandleTimeout(now.Add(2 * time.Second))
	_, _, sent := drain(c)
	for _, p := range sent {
		var m dnsmessage.Message
		if err := m.Unpack(p.Packet); err != nil {
			t.Fatal(err)
		}
		if p.To.IsValid() {
			if p.To != from {
				t.Errorf("a reply goes to %v", p.To)
			}
			replies = append(replies, m)
		} else {
			answers = append(answers, m)
		}
	}
	return replies, answers
}

func TestQuestions(t *testing.T) {
	service, types := dnsmessage.MustNewName("_p2p._udp.local."), dnsmessage.MustNewName("_services._dns-sd._udp.local.")
	for _, c := range []struct {
		name             string
		question         dnsmessage.Question
		from             netip.AddrPort
		replies, answers int
	}{
		{"usual", dnsmessage.Question{Name: service, Type: dnsmessage.TypePTR, Class: 1}, neighbourAt, 0, 1},
		{"in capitals", dnsmessage.Question{Name: dnsmessage.MustNewName("_P2P._UDP.Local."), Type: dnsmessage.TypePTR, Class: 1}, neighbourAt, 0, 1},
		{"any type and class", dnsmessage.Question{Name: service, Type: dnsmessage.TypeALL, Class: dnsmessage.ClassANY}, neighbourAt, 0, 1},
		{"by unicast", dnsmessage.Question{Name: service, Type: dnsmessage.TypePTR, Class: 1 | topBit}, neighbourAt, 1, 0},
		{"plain", dnsmessage.Question{Name: service, Type: dnsmessage.TypePTR, Class: 1}, plainAt, 1, 1},
		{"which services", dnsmessage.Question{Name: types, Type: dnsmessage.TypePTR, Class: 1}, neighbourAt, 0, 1},
		{"our TXT", dnsmessage.Question{Type: dnsmessage.TypeTXT, Class: 1}, neighbourAt, 0, 1},
		{"our SRV", dnsmessage.Question{Type: dnsmessage.TypeSRV, Class: 1}, neighbourAt, 0, 1},
		{"not ours", dnsmessage.Question{Name: dnsmessage.MustNewName("_ipp._tcp.local."), Type: dnsmessage.TypePTR, Class: 1}, plainAt, 0, 0},
		{"wrong type", dnsmessage.Question{Name: service, Type: dnsmessage.TypeA, Class: 1}, plainAt, 0, 0},
		{"wrong class", dnsmessage.Question{Name: service, Type: dnsmessage.TypePTR, Class: 3}, plainAt, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			replies, answers := ask(t, c.from, c.question)
			if len(replies) != c.replies || len(answers) != c.answers {
				t.Fatalf("%d replies, %d answers", len(replies), len(answers))
			}
			for _, m := range answers {
				if m.ID != 0 || len(m.Questions) > 0 || !m.Authoritative || len(m.Answers) == 0 {
					t.Errorf("answer %+v", m)
				}
			}
			for _, m := range replies {
				if m.ID != 77 || (len(m.Questions) == 1) != (c.from == plainAt) {
					t.Errorf("reply %+v", m)
				}
				for _, r := range append(m.Answers, m.Additionals...) {
					if c.from == plainAt && (r.Header.TTL > 10 || r.Header.Class != dnsmessage.ClassINET) {
						t.Errorf("reply to a plain resolver: %+v", r.Header)
					}
				}
			}
		})
	}
}

// However many ask, one answer a second leaves an interface, and ten replies.
func TestAnswersAreBounded(t *testing.T) {
	c := newTestCore(t)
	c.SetAddrs(epoch, addrs("/ip4/10.0.0.1/tcp/4001"))
	settle(c)
	start := epoch.Add(25 * time.Second)
	var replies, answers int
	for i := range 9000 { // in ten seconds
		now := start.Add(time.Duration(i) * time.Second / 900)
		c.HandleTimeout(now)
		c.HandlePacket(now, c.Query(), netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 53), testIndex)
		_, _, sent := drain(c)
		for _, p := range sent {
			if p.To.IsValid() {
				replies++
			} else if p.Packet[2]&0x80 != 0 {
				answers++
			}
		}
	}
	if answers < 9 || answers > 11 || replies < 10*unicastRate || replies > 11*unicastRate+1 {
		t.Errorf("%d answers and %d replies in ten seconds", answers, replies)
	}
}

func TestPacketsReadAreBounded(t *testing.T) {
	c := newTestCore(t)
	garbage := make([]byte, 100)
	for range 10 * packetRate {
		c.HandlePacket(epoch, garbage, neighbourAt, testIndex)
	}
	hello := answerOf("x", 120, textOf("/ip4/10.0.0.7/tcp/1", testID(7)))
	c.HandlePacket(epoch, hello, neighbourAt, testIndex)
	if found, _, _ := drain(c); len(found) > 0 {
		t.Error("packets beyond the bound are read")
	}
	c.HandlePacket(epoch.Add(time.Second), hello, neighbourAt, testIndex)
	if found, _, _ := drain(c); len(found) != 1 {
		t.Error("a second later packets are not read")
	}
}

// A10: 10^5 answers, each of a peer of its own, make at most 100 dials in any
// minute; a peer that keeps answering is not pushed out; memory is bounded.
func TestFloodOfPeers(t *testing.T) {
	c := newTestCore(t)
	honest := testID(1 << 30)
	hello := answerOf("honest", 120, textOf("/ip4/10.0.0.9/tcp/1", honest))
	c.HandlePacket(epoch, hello, neighbourAt, testIndex)
	if found, _, _ := drain(c); len(found) != 1 {
		t.Fatal("the honest peer was not found")
	}
	const answers, rate = 100_000, 900 // a second
	var times []time.Time
	for i := range answers {
		now := epoch.Add(time.Duration(i) * time.Second / rate)
		c.HandleTimeout(now)
		ip := netip.AddrFrom4([4]byte{10, 0, byte(1 + i>>8), byte(i | 1)})
		c.HandlePacket(now, answerOf("x", 120, textOf(fmt.Sprintf("/ip4/%v/tcp/%d", ip, 1+i%65535), testID(i))), neighbourAt, testIndex)
		if i%(30*rate) == 0 {
			c.HandlePacket(now, hello, neighbourAt, testIndex)
		}
		found, expired, _ := drain(c)
		if slices.Contains(expired, honest) {
			t.Fatal("the honest peer was pushed out")
		}
		for _, f := range found {
			if f.ID != honest {
				times = append(times, now)
			}
		}
		if len(c.peers) > MaxPeers || c.heard.Len() != len(c.peers) {
			t.Fatalf("%d peers, %d in the list", len(c.peers), c.heard.Len())
		}
	}
	checkNews(t, times)
	if len(times) < MaxNews {
		t.Errorf("only %d were told of", len(times))
	}
}

// The same with one peer that claims ever new addresses.
func TestFloodOfAddresses(t *testing.T) {
	c := newTestCore(t)
	var times []time.Time
	for i := range 50_000 {
		now := epoch.Add(time.Duration(i) * time.Second / 900)
		texts := []string{textOf(fmt.Sprintf("/ip4/10.0.0.7/tcp/%d", 1+i), testID(7))}
		if i == 0 {
			for p := range 2 * MaxAddrs {
				texts = append(texts, textOf(fmt.Sprintf("/ip4/10.0.0.8/udp/%d", 1+p), testID(7)))
			}
		}
		c.HandlePacket(now, answerOf("x", 120, texts...), neighbourAt, testIndex)
		found, _, _ := drain(c)
		for _, f := range found {
			times = append(times, now)
			if len(f.Addrs) > MaxAddrs {
				t.Fatalf("%d addresses", len(f.Addrs))
			}
		}
	}
	checkNews(t, times)
}

// Full, the table drops the peer that was not heard for longest.
func TestTableIsBounded(t *testing.T) {
	c := newTestCore(t)
	now := epoch
	hello := func(i int) []byte { return answerOf("x", 120, textOf("/ip4/10.0.0.7/tcp/1", testID(i))) }
	for i := range MaxPeers {
		if i%MaxNews == 0 {
			now = now.Add(time.Minute)
			for known := range i { // they are all still there
				c.HandlePacket(now.Add(time.Duration(known)*10*time.Millisecond), hello(known), neighbourAt, testIndex)
			}
			now = now.Add(time.Duration(i) * 10 * time.Millisecond)
		}
		now = now.Add(10 * time.Millisecond)
		c.HandlePacket(now, hello(i), neighbourAt, testIndex)
	}
	if _, expired, _ := drain(c); len(c.peers) != MaxPeers || len(expired) != 0 {
		t.Fatalf("%d peers, %d expired", len(c.peers), len(expired))
	}
	now = now.Add(time.Minute)
	c.HandlePacket(now, hello(0), neighbourAt, testIndex) // the first one is heard again: it is the second's turn
	drain(c)
	oldest := testID(1)
	c.HandlePacket(now, hello(MaxPeers), neighbourAt, testIndex)
	if _, expired, _ := drain(c); len(c.peers) != MaxPeers || len(expired) != 1 || expired[0] != oldest {
		t.Errorf("%d peers, expired %v, want %v", len(c.peers), expired, oldest)
	}
}

func checkNews(t *testing.T, times []time.Time) {
	t.Helper()
	for i := range times {
		if j := i + MaxNews; j < len(times) && times[j].Sub(times[i]) < time.Minute {
			t.Fatalf("%d peers were told of within %v", MaxNews+1, times[j].Sub(times[i]))
		}
	}
}

func TestHostilePackets(t *testing.T) {
	valid := answerOf("x", 120, textOf("/ip4/10.0.0.7/tcp/1", testID(7)))
	header := func(flags, qd, an, ns, ar uint16) []byte {
		b := binary.BigEndian.AppendUint16(nil, 1)
		for _, v := range []uint16{flags, qd, an, ns, ar} {
			b = binary.BigEndian.AppendUint16(b, v)
		}
		return b
	}
	with := func(packet []byte, flags uint16) []byte {
		packet = slices.Clone(packet)
		binary.BigEndian.PutUint16(packet[2:], flags)
		return packet
	}
	const response = 0x8400
	service := "\x04_p2p\x04_udp\x05local\x00"
	packets := map[string][]byte{
		"nothing":                         {},
		"a header's half":                 valid[:6],
		"too long":                        append(slices.Clone(valid), make([]byte, MaxPacket)...),
		"a name that points to itself":    append(header(response, 0, 1, 0, 0), "\xc0\x0c\x00\x0c\x00\x01\x00\x00\x00\x78\x00\x02\xc0\x0c"...),
		"two names that point to another": append(header(response, 0, 2, 0, 0), "\xc0\x0e\xc0\x0c\x00\x0c\x00\x01\x00\x00\x00\x78\x00\x00"...),
		"a pointer out of the packet":     append(header(response, 0, 1, 0, 0), "\xff\xff\x00\x0c\x00\x01\x00\x00\x00\x78\x00\x00"...),
		"counts without records":          header(response, 65535, 65535, 65535, 65535),
		"counts without questions":        header(0, 65535, 65535, 65535, 65535),
		"a TXT string over its record":    append(header(response, 0, 1, 0, 0), "\x01x"+service+"\x00\x10\x00\x01\x00\x00\x00\x78\x00\x03\xffab"...),
		"a record over the packet":        append(header(response, 0, 1, 0, 0), "\x01x"+service+"\x00\x10\x00\x01\x00\x00\x00\x78\xff\xff\x03abc"...),
		"a reserved label":                append(header(response, 0, 1, 0, 0), "\x80x\x00\x00\x10\x00\x01\x00\x00\x00\x78\x00\x00"...),
		"an error code":                   with(valid, response|3),
		"another opcode":                  with(valid, response|0x2800),
	}
	for n := range valid {
		packets[fmt.Sprint("the first ", n, " bytes")] = valid[:n]
	}
	// A name of 127 labels, 8000 bytes of records that point to it.
	bomb := append(header(response, 0, 65535, 0, 0), strings.Repeat("\x01a", 126)...)
	bomb = append(bomb, "\x00\x00\x0c\x00\x01\x00\x00\x00\x78\x00\x00"...)
	for len(bomb) < MaxPacket-12 {
		bomb = append(bomb, "\xc0\x0c\x00\x0c\x00\x01\x00\x00\x00\x78\x00\x00"...)
	}
	packets["records that point to a long name"] = bomb
	for name, packet := range packets {
		for _, from := range []netip.AddrPort{neighbourAt, plainAt} {
			c := newTestCore(t)
			c.SetAddrs(epoch, addrs("/ip4/10.0.0.1/tcp/4001"))
			settle(c)
			c.HandlePacket(epoch.Add(25*time.Second), packet, from, testIndex)
			if found, expired, sent := drain(c); len(found)+len(expired)+len(sent) > 0 || !c.links[0].answerAt.IsZero() {
				t.Errorf("%s: found %v, expired %v, sent %d", name, found, expired, len(sent))
			}
		}
	}
}

// What stands before the broken part of a packet counts, what comes after the
// bounds does not.
func TestRecordsAreBounded(t *testing.T) {
	var texts []string
	for i := range 3 * maxTexts {
		texts = append(texts, textOf(fmt.Sprintf("/ip4/10.0.0.7/tcp/%d", 1+i), testID(i)))
	}
	if c := newTestCore(t); true {
		c.HandlePacket(epoch, answerOf("x", 120, texts[:100]...), neighbourAt, testIndex)
		if found, _, _ := drain(c); len(found) != maxTexts {
			t.Errorf("of 100 strings in a record %d are read", len(found))
		}
	}
	name := dnsmessage.MustNewName("x._p2p._udp.local.")
	m := dnsmessage.Message{Header: dnsmessage.Header{Response: true}}
	for range maxRecords {
		m.Answers = append(m.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: 120},
			Body:   &dnsmessage.AResource{},
		})
	}
	m.Additionals = []dnsmessage.Resource{{
		Header: dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: 120},
		Body:   &dnsmessage.TXTResource{TXT: texts[:1]},
	}}
	for records, want := range map[int]int{maxRecords - 1: 1, maxRecords: 0} {
		c := newTestCore(t)
		m.Answers = m.Answers[:records]
		c.HandlePacket(epoch, pack(m), neighbourAt, testIndex)
		if found, _, _ := drain(c); len(found) != want {
			t.Errorf("behind %d records %d peers are found", records, len(found))
		}
		m.Answers = m.Answers[:cap(m.Answers)][:maxRecords]
	}
}

func TestInterfacesComeAndGo(t *testing.T) {
	c := newTestCore(t)
	c.SetAddrs(epoch, addrs("/ip4/10.0.0.1/tcp/1", "/ip4/192.168.0.1/tcp/1"))
	settle(c)
	now := epoch.Add(30 * time.Second)
	first := c.links[0].Interface
	second := Interface{Index: 5, Name: "wlan0", Prefixes: prefixes(t, "192.168.0.1/24")}
	c.SetInterfaces(now, []Interface{second, first})
	c.HandleTimeout(now)
	_, _, sent := drain(c)
	if len(sent) != 1 || sent[0].Interface != 5 || sent[0].Packet[2]&0x80 != 0 {
		t.Fatalf("on a new interface: %+v, want a query", sent)
	}
	for now = now.Add(time.Second); now.Before(epoch.Add(40 * time.Second)); now = now.Add(time.Second) {
		c.HandleTimeout(now)
	}
	_, _, sent = drain(c)
	for _, p := range sent {
		text := describePacket(t, p.Packet)
		if strings.Contains(text, "192.168.0.1") != (p.Interface == 5) && p.Packet[2]&0x80 != 0 {
			t.Errorf("on interface %d: %s", p.Interface, text)
		}
	}
	c.SetInterfaces(now, []Interface{second})
	for end := now.Add(10 * time.Minute); now.Before(end); now = now.Add(time.Second) {
		c.HandleTimeout(now)
	}
	_, _, sent = drain(c)
	if len(sent) == 0 || slices.ContainsFunc(sent, func(p SendPacket) bool { return p.Interface != 5 }) {
		t.Errorf("after an interface has gone: %d packets, or some on it", len(sent))
	}
	var many []Interface
	for i := range 100 {
		many = append(many, Interface{Index: i + 1, Prefixes: first.Prefixes})
	}
	c.SetInterfaces(now, many)
	if len(c.links) != MaxInterfaces {
		t.Errorf("%d interfaces", len(c.links))
	}
}

func TestClosed(t *testing.T) {
	c := newTestCore(t)
	c.Close() // nobody has heard of us: no goodbye
	if _, _, sent := drain(c); len(sent) > 0 {
		t.Errorf("%d goodbyes", len(sent))
	}
	c = newTestCore(t)
	c.SetAddrs(epoch, addrs("/ip4/10.0.0.1/tcp/1"))
	settle(c)
	c.Close()
	c.Close()
	_, _, sent := drain(c)
	if len(sent) != 1 || strings.Count(describePacket(t, sent[0].Packet), "ttl=0") != 4 {
		t.Errorf("goodbyes: %v", sent)
	}
	c.HandlePacket(epoch.Add(time.Hour), c.Query(), plainAt, testIndex)
	c.HandleTimeout(epoch.Add(time.Hour))
	if _, _, sent := drain(c); len(sent) > 0 || !c.Timeout().IsZero() {
		t.Error("the core goes on after Close")
	}
}

func FuzzPacket(f *testing.F) {
	for _, v := range readVectors(f) {
		f.Add(v.packet(f), false)
	}
	f.Add(answerOf("x", 0, textOf("/ip4/10.0.0.7/tcp/1", testID(7)), textOf("/ip6/fe80::7/udp/1/quic-v1", testID(8)), "dnsaddr=/ip4/1.1.1.1/tcp/1"), true)
	f.Add(pack(dnsmessage.Message{Questions: []dnsmessage.Question{
		{Name: dnsmessage.MustNewName("_services._dns-sd._udp.local."), Type: dnsmessage.TypePTR, Class: 1 | topBit},
		{Name: dnsmessage.MustNewName("_p2p._udp.local."), Type: dnsmessage.TypeALL, Class: dnsmessage.ClassANY},
	}}), true)
	f.Fuzz(func(t *testing.T, packet []byte, plain bool) {
		c := newTestCore(t, prefixes(t, "10.0.0.1/16 fe80::1/64")...)
		c.SetAddrs(epoch, addrs("/ip4/10.0.0.1/tcp/1"))
		settle(c)
		from := neighbourAt
		if plain {
			from = plainAt
		}
		now := epoch.Add(25 * time.Second)
		for range 2 {
			c.HandlePacket(now, packet, from, testIndex)
			found, _, sent := drain(c)
			if len(found) > maxTexts || len(sent) > 1 {
				t.Fatalf("one packet makes %d peers and %d packets", len(found), len(sent))
			}
			for _, info := range found {
				for _, a := range info.Addrs {
					if ap, _, ok := a.AddrPort(); !ok || ap.Port() == 0 || !c.links[0].reaches(ap.Addr()) {
						t.Fatalf("would dial %v", a)
					}
				}
			}
			for _, p := range sent {
				if len(p.Packet) > maxSent+maxQuestions*(255+4) {
					t.Fatalf("a reply of %d bytes", len(p.Packet))
				}
			}
			now = now.Add(time.Second)
			c.HandleTimeout(now)
			drain(c)
			if at := c.Timeout(); !at.After(now) {
				t.Fatalf("due at %v, now is %v", at, now)
			}
		}
	})
}

func BenchmarkHandleAnswer(b *testing.B) {
	c := newTestCore(b)
	packet := answerOf("x", 120, textOf("/ip4/10.0.0.7/tcp/4001", testID(7)), textOf("/ip4/10.0.0.7/udp/4001/quic-v1", testID(7)))
	b.ReportAllocs()
	for i := range b.N {
		c.HandlePacket(epoch.Add(time.Duration(i)*time.Second/packetRate), packet, neighbourAt, testIndex)
		if i%1000 == 0 {
			drain(c)
		}
	}
}

func BenchmarkHandleStrangersAnswer(b *testing.B) {
	c := newTestCore(b)
	packet := pack(dnsmessage.Message{
		Header: dnsmessage.Header{Response: true},
		Answers: []dnsmessage.Resource{
			{Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName("_ipp._tcp.local."), Class: 1}, Body: &dnsmessage.PTRResource{PTR: dnsmessage.MustNewName("printer._ipp._tcp.local.")}},
			{Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName("printer._ipp._tcp.local."), Class: 1}, Body: &dnsmessage.TXTResource{TXT: []string{"rp=ipp", "ty=printer"}}},
		},
	})
	b.ReportAllocs()
	for i := range b.N {
		c.HandlePacket(epoch.Add(time.Duration(i)*time.Second/packetRate), packet, neighbourAt, testIndex)
	}
}

func BenchmarkAnswer(b *testing.B) {
	c := newTestCore(b)
	own := addrs("/ip4/10.0.0.1/tcp/4001", "/ip4/10.0.0.1/udp/4001/quic-v1", "/ip4/10.0.0.1/tcp/4001/ws")
	c.SetAddrs(epoch, own)
	b.ReportAllocs()
	for b.Loop() {
		c.compose(c.links[0], askService, reply{})
	}
}

var (
	epoch       = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	neighbourAt = netip.MustParseAddrPort("10.0.0.7:5353")
	plainAt     = netip.MustParseAddrPort("10.0.0.7:40000")
)

// newTestCore returns a core on one interface, 10.0.0.1/16 unless said otherwise.
func newTestCore(t testing.TB, on ...netip.Prefix) *Core {
	t.Helper()
	if on == nil {
		on = prefixes(t, "10.0.0.1/16")
	}
	c, err := NewCore(testID(1_000_000), DefaultService, rand.New(rand.NewPCG(1, 2)))
	if err != nil {
		t.Fatal(err)
	}
	c.SetInterfaces(epoch, []Interface{testInterface(on...)})
	return c
}

func testInterface(on ...netip.Prefix) Interface {
	return Interface{Index: testIndex, Name: "eth0", Prefixes: on, Loopback: on[0].Addr().IsLoopback()}
}

func prefixes(t testing.TB, text string) (out []netip.Prefix) {
	t.Helper()
	for s := range strings.FieldsSeq(text) {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

// settle runs a core alone for twenty seconds and returns what it has sent.
func settle(c *Core) []SendPacket {
	for c.Timeout().Before(epoch.Add(20 * time.Second)) {
		c.HandleTimeout(c.Timeout())
	}
	_, _, sent := drain(c)
	return sent
}

func drain(c *Core) (found []peer.AddrInfo, expired []peer.ID, sent []SendPacket) {
	for {
		a, ok := c.NextAction()
		if !ok {
			return found, expired, sent
		}
		switch a := a.(type) {
		case Discovered:
			found = append(found, a.Info)
		case Expired:
			expired = append(expired, a.ID)
		case SendPacket:
			sent = append(sent, a)
		}
	}
}

type vector struct {
	Name, Network, Packet string
	From                  netip.AddrPort
	Asks, ID              string
	Addrs                 []string
	Goodbye               bool
}

func readVectors(t testing.TB) []vector {
	t.Helper()
	data, err := os.ReadFile("../testdata/vectors/mdns.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Packets []vector }
	if err := json.Unmarshal(data, &file); err != nil || len(file.Packets) == 0 {
		t.Fatalf("mdns.json: %v", err)
	}
	return file.Packets
}

func (v vector) packet(t testing.TB) []byte {
	t.Helper()
	b, err := hex.DecodeString(v.Packet)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (v vector) id(t testing.TB) peer.ID {
	t.Helper()
	id, err := peer.ParseID(v.ID)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func (v vector) prefixes(t testing.TB) []netip.Prefix { return prefixes(t, v.Network) }
