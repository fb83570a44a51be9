package mdns

import (
	"container/heap"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// A lan is a network of cores in virtual time: one link, on which everybody
// hears what is sent to the group, the sender too.
type lan struct {
	t     testing.TB
	rng   *rand.Rand
	start time.Time
	now   time.Time
	nodes []*node
	queue deliveries
	seq   int

	loss, dup float64                  // of each copy
	log       func(line string)        // nil: nothing is written down
	short     map[string]time.Duration // packets written down, and when
	queries   int                      // sent to the group
	answers   int
}

type node struct {
	core  *Core
	name  string
	ip    netip.Addr
	iface Interface
	gone  bool
	known map[peer.ID]peer.AddrInfo
	told  int
	lost  int
}

type delivery struct {
	at     time.Time
	seq    int
	to     *node // nil: somebody else
	dst    netip.AddrPort
	from   netip.AddrPort
	packet []byte
}

type deliveries []delivery

func (q deliveries) Len() int { return len(q) }
func (q deliveries) Less(i, j int) bool {
	if c := q[i].at.Compare(q[j].at); c != 0 {
		return c < 0
	}
	return q[i].seq < q[j].seq
}
func (q deliveries) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *deliveries) Push(x any)   { *q = append(*q, x.(delivery)) }
func (q *deliveries) Pop() any {
	last := len(*q) - 1
	d := (*q)[last]
	*q = (*q)[:last]
	return d
}

const testIndex = 2 // of the interface, on every node

func newLAN(t testing.TB, seed uint64) *lan {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	return &lan{t: t, rng: rand.New(rand.NewPCG(seed, 0)), start: start, now: start}
}

// testID returns the n-th of an endless row of peer IDs.
func testID(n int) peer.ID {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(n)))
	id, err := peer.IDFromBytes(append([]byte{0x12, 0x20}, sum[:]...))
	if err != nil {
		panic(err)
	}
	return id
}

func addrs(texts ...string) (out []multiaddr.Addr) {
	for _, s := range texts {
		out = append(out, multiaddr.MustParse(s))
	}
	return out
}

// join adds a node with the next address of 10.0.0.0/16.
func (l *lan) join(name string) *node {
	n := len(l.nodes) + 1
	ip := netip.AddrFrom4([4]byte{10, 0, byte(n / 250), byte(1 + n%250)})
	x := &node{name: name, ip: ip, known: make(map[peer.ID]peer.AddrInfo)}
	x.iface = Interface{Index: testIndex, Name: "eth0", Prefixes: []netip.Prefix{netip.PrefixFrom(ip, 16)}}
	core, err := NewCore(testID(n), DefaultService, rand.New(rand.NewPCG(l.rng.Uint64(), uint64(n))))
	if err != nil {
		l.t.Fatal(err)
	}
	x.core = core
	l.nodes = append(l.nodes, x)
	l.note(x, "joins")
	core.SetInterfaces(l.now, []Interface{x.iface})
	core.SetAddrs(l.now, addrs(fmt.Sprintf("/ip4/%v/tcp/4001", ip), fmt.Sprintf("/ip4/%v/udp/4001/quic-v1", ip)))
	l.drain(x)
	return x
}

func (l *lan) leave(x *node) {
	l.note(x, "leaves")
	x.core.Close()
	l.drain(x)
	x.gone = true
}

// run lets time pass.
func (l *lan) run(d time.Duration) {
	end := l.now.Add(d)
	for {
		var due *node
		var at time.Time
		for _, x := range l.nodes {
			if next := x.core.Timeout(); !x.gone && !next.IsZero() && (at.IsZero() || next.Before(at)) {
				due, at = x, next
			}
		}
		if len(l.queue) > 0 && (at.IsZero() || !at.Before(l.queue[0].at)) {
			if l.queue[0].at.After(end) {
				break
			}
			d := heap.Pop(&l.queue).(delivery)
			l.now = d.at
			if d.to != nil && !d.to.gone {
				d.to.core.HandlePacket(l.now, d.packet, d.from, testIndex)
				l.drain(d.to)
			}
			continue
		}
		if at.IsZero() || at.After(end) {
			break
		}
		if at.After(l.now) {
			l.now = at
		}
		due.core.HandleTimeout(l.now)
		if next := due.core.Timeout(); !next.IsZero() && !next.After(l.now) {
			l.t.Fatalf("%s: after HandleTimeout(%v) the next one is due at %v", due.name, l.now, next)
		}
		l.drain(due)
	}
	l.now = end
}

func (l *lan) drain(x *node) {
	for {
		a, ok := x.core.NextAction()
		if !ok {
			return
		}
		switch a := a.(type) {
		case SendPacket:
			if a.Interface != testIndex {
				l.t.Fatalf("%s sends on interface %d", x.name, a.Interface)
			}
			to := "all"
			if a.To.IsValid() {
				to = a.To.String()
			}
			if l.log != nil {
				l.note(x, "→ "+to+": "+l.describe(a.Packet))
			}
			l.send(netip.AddrPortFrom(x.ip, 5353), a.To, a.Packet)
		case Discovered:
			l.note(x, "found "+l.nameOf(a.Info.ID)+" "+fmt.Sprint(a.Info.Addrs))
			x.known[a.Info.ID] = a.Info
			x.told++
		case Expired:
			l.note(x, "lost "+l.nameOf(a.ID))
			delete(x.known, a.ID)
			x.lost++
		}
	}
}

// send puts a packet on the network; to is zero for the group.
func (l *lan) send(from, to netip.AddrPort, packet []byte) {
	if !to.IsValid() {
		if packet[2]&0x80 == 0 {
			l.queries++
		} else {
			l.answers++
		}
	}
	deliver := func(x *node, dst netip.AddrPort) {
		copies := 1
		if l.rng.Float64() < l.loss {
			copies--
		}
		if l.rng.Float64() < l.dup {
			copies++
		}
		for range copies {
			l.seq++
			at := l.now.Add(time.Millisecond)
			if l.dup > 0 {
				at = at.Add(time.Duration(l.rng.Int64N(int64(10 * time.Millisecond)))) // out of order
			}
			heap.Push(&l.queue, delivery{at, l.seq, x, dst, from, packet})
		}
	}
	if to.IsValid() {
		i := slices.IndexFunc(l.nodes, func(x *node) bool { return netip.AddrPortFrom(x.ip, 5353) == to })
		if i < 0 {
			deliver(nil, to)
		} else {
			deliver(l.nodes[i], to)
		}
		return
	}
	for _, x := range l.nodes {
		deliver(x, to)
	}
}

func (l *lan) nameOf(id peer.ID) string {
	for _, x := range l.nodes {
		if x.core.id == id {
			return x.name
		}
	}
	return id.String()
}

func (l *lan) note(x *node, what string) {
	if l.log != nil {
		l.log(fmt.Sprintf("%8.3f %s %s", l.now.Sub(l.start).Seconds(), x.name, what))
	}
}

// describe writes a packet down in full when it is new.
func (l *lan) describe(packet []byte) string {
	if at, ok := l.short[string(packet)]; ok {
		return fmt.Sprintf("the same as at %.3f", at.Seconds())
	}
	l.short[string(packet)] = l.now.Sub(l.start)
	return describePacket(l.t, packet)
}

// describePacket writes a packet down for people.
func describePacket(t testing.TB, packet []byte) string {
	t.Helper()
	var m dnsmessage.Message
	if err := m.Unpack(packet); err != nil {
		t.Fatalf("a packet of ours is no DNS message: %v", err)
	}
	var b strings.Builder
	kind := "query"
	if m.Response {
		kind = "answer"
	}
	fmt.Fprintf(&b, "%s", kind)
	if m.ID != 0 {
		fmt.Fprintf(&b, " id=%d", m.ID)
	}
	for _, q := range m.Questions {
		fmt.Fprintf(&b, " %s? %s", strings.TrimPrefix(q.Type.String(), "Type"), shorten(q.Name))
	}
	for i, section := range [][]dnsmessage.Resource{m.Answers, m.Authorities, m.Additionals} {
		for _, r := range section {
			fmt.Fprintf(&b, "\n%12s %s %s ttl=%d", "", []string{" ", "?", "+"}[i], shorten(r.Header.Name), r.Header.TTL)
			if r.Header.Class&topBit != 0 {
				b.WriteString(" flush")
			}
			switch body := r.Body.(type) {
			case *dnsmessage.PTRResource:
				fmt.Fprintf(&b, " PTR %s", shorten(body.PTR))
			case *dnsmessage.SRVResource:
				fmt.Fprintf(&b, " SRV %s port %d", shorten(body.Target), body.Port)
			case *dnsmessage.TXTResource:
				b.WriteString(" TXT")
				for _, text := range body.TXT {
					fmt.Fprintf(&b, "\n%16s%s", "", text)
				}
			case *dnsmessage.AResource:
				fmt.Fprintf(&b, " A %v", netip.AddrFrom4(body.A))
			case *dnsmessage.AAAAResource:
				fmt.Fprintf(&b, " AAAA %v", netip.AddrFrom16(body.AAAA))
			}
		}
	}
	return b.String()
}

// shorten cuts a random label to its first letters.
func shorten(name dnsmessage.Name) string {
	label, rest, _ := strings.Cut(name.String(), ".")
	if len(label) >= 32 {
		label = label[:4] + "…"
	}
	return label + "." + rest
}

// answerOf returns the answer of some other peer.
func answerOf(instance string, ttl uint32, texts ...string) []byte {
	service, name := dnsmessage.MustNewName("_p2p._udp.local."), dnsmessage.MustNewName(instance+"._p2p._udp.local.")
	return pack(dnsmessage.Message{
		Header: dnsmessage.Header{Response: true, Authoritative: true},
		Answers: []dnsmessage.Resource{
			{Header: dnsmessage.ResourceHeader{Name: service, Class: dnsmessage.ClassINET, TTL: ttl}, Body: &dnsmessage.PTRResource{PTR: name}},
		},
		Additionals: []dnsmessage.Resource{
			{Header: dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: ttl}, Body: &dnsmessage.TXTResource{TXT: texts}},
		},
	})
}

func textOf(addr string, id peer.ID) string { return "dnsaddr=" + addr + "/p2p/" + id.String() }
