//kith:pure

package mdns

import (
	"container/list"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// The schedule.
const (
	// minQueryInterval and maxQueryInterval: a node asks when it comes up, then
	// after 1 s, 2 s, 4 s… and at last about once a minute, as RFC 6762 §5.2
	// wants it: at least doubling, and up to an hour.
	minQueryInterval = time.Second
	maxQueryInterval = time.Minute
	// queryJitter spreads the settled queries, so that one node of many asks and
	// the others, having heard it, do not (RFC 6762 §7.3).
	queryJitter = maxQueryInterval / 5
	// maxSilence is how long the queries of others may stand in for ours: nobody
	// keeps us from asking for good, and a hundred peers add two queries a minute.
	maxSilence = time.Hour
	// minAnswerDelay and maxAnswerDelay spread the answers of many (RFC 6762 §6).
	minAnswerDelay = 20 * time.Millisecond
	maxAnswerDelay = 120 * time.Millisecond
	// answerInterval is the least time between two multicast answers on one
	// interface (RFC 6762 §6), whoever asks and how often.
	answerInterval = time.Second
	// lifetime is how long an address is kept after it was last heard: with a
	// query a minute three rounds in a row may be lost. The TTLs of peers (120 s
	// to 3200 s are in use) are not followed, but 0 is a goodbye.
	lifetime = 4 * time.Minute
	// renewInterval is how often a peer that keeps answering is told of again.
	renewInterval = time.Minute
	// sweepInterval is how exactly lifetimes are kept.
	sweepInterval = 10 * time.Second
)

// The bounds. Whoever is on the local network can send anything here, under any
// source address: nothing below may cost more than a constant.
const (
	// MaxInterfaces bounds the interfaces used: a container host can have hundreds.
	MaxInterfaces = 16
	// MaxPeers bounds the peers remembered; the one not heard for longest goes first.
	MaxPeers = 1024
	// MaxAddrs bounds the addresses of one peer, and of our own that are announced.
	MaxAddrs = 32
	// MaxNews bounds how many peers that are new, or have a new address, are told
	// of in any minute: each may cost its reader a dial.
	MaxNews = 100
	// packetRate is how many packets a second are read on one interface: above
	// what some hundred peers answering at once send, and a few percent of a core.
	packetRate = 1000
	// unicastRate is how many unicast replies a second leave one interface, so
	// that forged source addresses make no weapon of us.
	unicastRate = 10
)

// An Action is something that the core wants done: a SendPacket, a Discovered or
// an Expired.
type Action interface{ action() }

// SendPacket asks for a packet to be sent from port 5353 of one interface.
type SendPacket struct {
	Interface int            // index of the interface
	To        netip.AddrPort // zero: to the mDNS groups, over IPv4 and IPv6
	Packet    []byte
}

// Discovered tells of a peer that is new, has a new address, or has gone on
// answering for a minute since it was told of last. Info holds all its addresses
// that are alive, without their /p2p part.
type Discovered struct{ Info peer.AddrInfo }

// Expired tells of a peer that said goodbye, fell silent, or had to make room.
type Expired struct{ ID peer.ID }

func (SendPacket) action() {}
func (Discovered) action() {}
func (Expired) action()    {}

// An Interface is a network interface as the core sees it.
type Interface struct {
	Index    int
	Name     string         // the zone of its link-local IPv6 addresses
	Prefixes []netip.Prefix // its addresses, with the length of their networks
	Loopback bool
}

// A Core is mDNS discovery without sockets, clock or goroutines: a drive.Machine.
// It is not safe for concurrent use.
type Core struct {
	// config
	id    peer.ID
	names names
	rng   *rand.Rand

	// state
	addrs   []multiaddr.Addr          // our own, best first
	links   []*link                   // by index
	peers   map[peer.ID]*list.Element // of *neighbour
	heard   list.List                 // the neighbours, heard longest ago first
	news    [MaxNews]time.Time        // when news was last told of: a ring
	oldest  int                       // index into news
	sweepAt time.Time                 // zero: no peers
	closed  bool
	actions []Action
}

// A link is what the core knows of one interface.
type link struct {
	Interface
	interval  time.Duration // between the next query and the one after it
	queryAt   time.Time
	queriedAt time.Time
	asked     questions // to be answered at answerAt
	answerAt  time.Time // zero: nothing is asked
	answered  time.Time
	packets   bucket // what may be read
	unicasts  bucket // what may be sent
}

// A neighbour is a peer found.
type neighbour struct {
	id     peer.ID
	addrs  []heardAddr
	toldAt time.Time
	news   bool // to be told of when the packet is read
}

type heardAddr struct {
	addr multiaddr.Addr
	at   time.Time
}

// NewCore returns a core for the peer id and a service such as "_p2p._udp". It
// takes a name of its own from rng, which it keeps.
func NewCore(id peer.ID, service string, rng *rand.Rand) (*Core, error) {
	names, err := newNames(service, rng)
	if err != nil {
		return nil, err
	}
	return &Core{id: id, names: names, rng: rng, peers: make(map[peer.ID]*list.Element)}, nil
}

// SetInterfaces replaces the interfaces in use. On one that is new, or has
// changed its addresses, the queries start afresh.
func (c *Core) SetInterfaces(now time.Time, interfaces []Interface) {
	var links []*link
	for _, i := range interfaces[:min(len(interfaces), MaxInterfaces)] {
		l := c.link(i.Index)
		if l == nil {
			l = &link{}
		}
		if !slices.Equal(l.Prefixes, i.Prefixes) || l.interval == 0 {
			l.interval, l.queryAt = minQueryInterval, now
		}
		l.Interface = i
		links = append(links, l)
	}
	slices.SortFunc(links, func(a, b *link) int { return a.Index - b.Index })
	c.links = links
}

// SetAddrs replaces the addresses that are announced, and announces them anew if
// they have changed. Each interface announces those that lie in its own networks.
func (c *Core) SetAddrs(now time.Time, addrs []multiaddr.Addr) {
	if slices.Equal(addrs, c.addrs) {
		return
	}
	c.addrs = slices.Clone(addrs)
	for _, l := range c.links {
		c.ask(now, l, askService)
	}
}

// HandlePacket reads a packet that came in on an interface in use.
func (c *Core) HandlePacket(now time.Time, packet []byte, from netip.AddrPort, iface int) {
	l := c.link(iface)
	if c.closed || l == nil || !l.hears(from.Addr()) || !l.packets.take(now, packetRate) {
		return
	}
	msg, ok := parse(packet, &c.names)
	switch {
	case !ok:
	case msg.response:
		c.handleResponse(now, l, msg)
	case msg.asked != 0:
		c.handleQuery(now, l, msg, from)
	}
}

// HandleTimeout sends what is due and forgets who has fallen silent.
func (c *Core) HandleTimeout(now time.Time) {
	if c.closed {
		return
	}
	for _, l := range c.links {
		if !now.Before(l.queryAt) {
			c.query(now, l)
		}
		if !l.answerAt.IsZero() && !now.Before(l.answerAt) {
			c.answer(now, l)
		}
	}
	if !c.sweepAt.IsZero() && !now.Before(c.sweepAt) {
		c.sweep(now)
	}
}

// Timeout returns when HandleTimeout is due; zero: never.
func (c *Core) Timeout() time.Time {
	if c.closed {
		return time.Time{}
	}
	next := c.sweepAt
	for _, l := range c.links {
		for _, at := range [...]time.Time{l.queryAt, l.answerAt} {
			if !at.IsZero() && (next.IsZero() || at.Before(next)) {
				next = at
			}
		}
	}
	return next
}

// NextAction returns the next thing to be done, if any.
func (c *Core) NextAction() (Action, bool) {
	if len(c.actions) == 0 {
		c.actions = nil
		return nil, false
	}
	a := c.actions[0]
	c.actions = c.actions[1:]
	return a, true
}

// Close says goodbye. Afterwards the core does nothing any more.
func (c *Core) Close() {
	if c.closed {
		return
	}
	c.closed = true
	for _, l := range c.links {
		if l.answered.IsZero() {
			continue // nobody has heard of us
		}
		for _, packet := range c.names.answerService(l.announced(c.addrs), c.id, reply{goodbye: true}) {
			c.send(l, netip.AddrPort{}, packet)
		}
	}
}

// Query returns the packet that asks for all peers.
func (c *Core) Query() []byte { return c.names.query() }

// query asks for all peers. It is also an occasion to be found: a peer answers
// its own queries, for those who only listen.
func (c *Core) query(now time.Time, l *link) {
	c.send(l, netip.AddrPort{}, c.Query())
	c.ask(now, l, askService)
	l.queriedAt = now
	l.queryAt = now.Add(l.interval)
	if l.interval == maxQueryInterval {
		l.queryAt = l.queryAt.Add(c.random(queryJitter))
	}
	l.interval = min(2*l.interval, maxQueryInterval)
}

// handleQuery answers a question soon, on the network it came from.
//
// A question from another port than 5353 comes from a plain resolver, which
// hears the reply only if it is sent there (RFC 6762 §6.7). But rust-libp2p also
// asks from another port, and hears only what is sent to the group: so both are
// done. A question that wants a unicast reply gets only that if the group has
// heard the answer lately (RFC 6762 §5.4).
func (c *Core) handleQuery(now time.Time, l *link, msg message, from netip.AddrPort) {
	plain := from.Port() != port
	direct := msg.unicast && !l.answered.IsZero() && now.Sub(l.answered) < recordTTL/4
	if (plain || direct) && !from.Addr().IsUnspecified() && l.unicasts.take(now, unicastRate) {
		if packets := c.compose(l, msg.asked, reply{plain: plain, id: msg.id, echo: msg.questions}); len(packets) > 0 {
			c.send(l, from, packets[0])
		}
	}
	if direct && !plain {
		return
	}
	c.ask(now, l, msg.asked)
	if msg.asked&askService != 0 && !msg.unicast && l.interval == maxQueryInterval {
		// Their query brings us the same answers as ours would.
		l.queryAt = now.Add(maxQueryInterval + c.random(queryJitter))
		if latest := l.queriedAt.Add(maxSilence); l.queryAt.After(latest) {
			l.queryAt = latest
		}
	}
}

// ask makes sure that an answer leaves, after a short random time, and no sooner
// than a second after the last.
func (c *Core) ask(now time.Time, l *link, q questions) {
	l.asked |= q
	if !l.answerAt.IsZero() {
		return
	}
	l.answerAt = now.Add(minAnswerDelay + c.random(maxAnswerDelay-minAnswerDelay))
	if earliest := l.answered.Add(answerInterval); l.answerAt.Before(earliest) {
		l.answerAt = earliest
	}
}

func (c *Core) answer(now time.Time, l *link) {
	packets := c.compose(l, l.asked, reply{})
	l.asked, l.answerAt = 0, time.Time{}
	if len(packets) == 0 {
		return
	}
	l.answered = now
	for _, packet := range packets {
		c.send(l, netip.AddrPort{}, packet)
	}
}

// compose returns the answers to q on an interface: none unless it has an
// address to announce.
func (c *Core) compose(l *link, q questions, r reply) (packets [][]byte) {
	addrs := l.announced(c.addrs)
	if len(addrs) == 0 {
		return nil
	}
	if q&askService != 0 {
		packets = append(packets, c.names.answerService(addrs, c.id, r)...)
	}
	if q&askInstance != 0 {
		packets = append(packets, c.names.answerInstance(addrs, c.id, r))
	}
	if q&askTypes != 0 {
		packets = append(packets, c.names.answerTypes(r))
	}
	return packets
}

// handleResponse learns the peers that a packet tells of.
func (c *Core) handleResponse(now time.Time, l *link, msg message) {
	var touched []*neighbour
	for _, r := range msg.records {
		for _, text := range r.texts {
			id, addr, ok := l.read(text)
			if !ok || id == c.id {
				continue
			}
			if r.goodbye {
				c.forget(id, addr)
			} else if n := c.learn(now, id, addr); n != nil && !slices.Contains(touched, n) {
				touched = append(touched, n)
			}
		}
	}
	for _, n := range touched {
		if _, alive := c.peers[n.id]; alive && (n.news || now.Sub(n.toldAt) >= renewInterval) {
			n.news, n.toldAt = false, now
			c.actions = append(c.actions, Discovered{n.info()})
		}
	}
}

// learn notes that a peer has an address. It returns nil if the peer is unknown
// and there has been too much news of late.
func (c *Core) learn(now time.Time, id peer.ID, addr multiaddr.Addr) *neighbour {
	e := c.peers[id]
	if e == nil {
		if !c.takeNews(now) {
			return nil
		}
		if len(c.peers) == MaxPeers {
			c.remove(c.heard.Front())
		}
		e = c.heard.PushBack(&neighbour{id: id, news: true})
		c.peers[id] = e
		if c.sweepAt.IsZero() {
			c.sweepAt = now.Add(sweepInterval)
		}
	}
	c.heard.MoveToBack(e)
	n := e.Value.(*neighbour)
	for i := range n.addrs {
		if n.addrs[i].addr == addr {
			n.addrs[i].at = now
			return n
		}
	}
	if !n.news && !c.takeNews(now) {
		return n
	}
	n.news = true
	if len(n.addrs) == MaxAddrs {
		// The one not heard for longest makes room; of equals the first said stay.
		oldest := len(n.addrs) - 1
		for i := oldest; i >= 0; i-- {
			if n.addrs[i].at.Before(n.addrs[oldest].at) {
				oldest = i
			}
		}
		n.addrs = slices.Delete(n.addrs, oldest, oldest+1)
	}
	n.addrs = append(n.addrs, heardAddr{addr, now})
	return n
}

// forget notes that a peer has said goodbye to an address.
func (c *Core) forget(id peer.ID, addr multiaddr.Addr) {
	e := c.peers[id]
	if e == nil {
		return
	}
	n := e.Value.(*neighbour)
	n.addrs = slices.DeleteFunc(n.addrs, func(h heardAddr) bool { return h.addr == addr })
	if len(n.addrs) == 0 {
		c.remove(e)
	}
}

// sweep forgets what has not been heard for a lifetime.
func (c *Core) sweep(now time.Time) {
	for e := c.heard.Front(); e != nil; {
		n, this := e.Value.(*neighbour), e
		e = e.Next()
		n.addrs = slices.DeleteFunc(n.addrs, func(h heardAddr) bool { return now.Sub(h.at) >= lifetime })
		if len(n.addrs) == 0 {
			c.remove(this)
		}
	}
	c.sweepAt = time.Time{}
	if len(c.peers) > 0 {
		c.sweepAt = now.Add(sweepInterval)
	}
}

func (c *Core) remove(e *list.Element) {
	id := c.heard.Remove(e).(*neighbour).id
	delete(c.peers, id)
	c.actions = append(c.actions, Expired{id})
}

// takeNews reports whether something new may be told of now.
func (c *Core) takeNews(now time.Time) bool {
	if last := c.news[c.oldest]; !last.IsZero() && now.Sub(last) < time.Minute {
		return false
	}
	c.news[c.oldest] = now
	c.oldest = (c.oldest + 1) % MaxNews
	return true
}

func (c *Core) link(index int) *link {
	for _, l := range c.links {
		if l.Index == index {
			return l
		}
	}
	return nil
}

func (c *Core) random(below time.Duration) time.Duration {
	return time.Duration(c.rng.Int64N(int64(below)))
}

func (c *Core) send(l *link, to netip.AddrPort, packet []byte) {
	c.actions = append(c.actions, SendPacket{Interface: l.Index, To: to, Packet: packet})
}

func (n *neighbour) info() peer.AddrInfo {
	info := peer.AddrInfo{ID: n.id, Addrs: make([]multiaddr.Addr, len(n.addrs))}
	for i, h := range n.addrs {
		info.Addrs[i] = h.addr
	}
	return info
}

// hears reports whether a packet from an address can have come from this network.
// On the loopback interface any can: the kernel lets none in from outside, and
// multicast there leaves with the address of another interface, or none at all.
func (i *Interface) hears(from netip.Addr) bool {
	return i.Loopback || i.reaches(from)
}

// reaches reports whether an address is one of this network's: only such are
// announced here, and only such are believed here. So an answer on the local
// network can make nobody dial the internet, nor their own machine.
func (i *Interface) reaches(ip netip.Addr) bool {
	ip = ip.WithZone("")
	if ip.IsLoopback() && !i.Loopback || ip.IsUnspecified() || ip.IsMulticast() {
		return false
	}
	return slices.ContainsFunc(i.Prefixes, func(p netip.Prefix) bool {
		return p.Bits() >= minPrefix && p.Masked().Contains(ip) && (p.Addr() == ip || !isBroadcast(p, ip))
	})
}

// minPrefix keeps out "networks" that are most of the internet, as tunnels have them.
const minPrefix = 8

// isBroadcast reports whether ip stands for all hosts of an IPv4 network.
func isBroadcast(p netip.Prefix, ip netip.Addr) bool {
	if !ip.Is4() || p.Bits() >= 31 {
		return false
	}
	host := ^uint32(0) >> p.Bits()
	b := ip.As4()
	n := (uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])) & host
	return n == 0 || n == host
}

// announced returns the addresses that are announced on this network.
func (i *Interface) announced(addrs []multiaddr.Addr) (out []multiaddr.Addr) {
	for _, a := range addrs {
		a, ok := i.local(a)
		if ok && !needsBrowser(a) && !slices.Contains(out, a) && len(out) < MaxAddrs {
			out = append(out, a)
		}
	}
	return out
}

// read decodes a "dnsaddr=…" string. Names are not believed: whoever answers for
// them could send us anywhere.
func (i *Interface) read(text string) (id peer.ID, addr multiaddr.Addr, ok bool) {
	text, ok = strings.CutPrefix(text, dnsaddr)
	if !ok {
		return id, addr, false
	}
	full, err := multiaddr.Parse(text)
	if err != nil {
		return id, addr, false
	}
	addr, id = peer.SplitAddr(full)
	if id.IsZero() {
		return id, addr, false
	}
	addr, ok = i.local(addr)
	if ok && addr.Has(multiaddr.IP6) {
		addr, ok = i.zoned(addr)
	}
	return id, addr, ok
}

// local reports whether an address is a direct one in this network, and returns
// it without a zone, which means nothing on another machine.
func (i *Interface) local(a multiaddr.Addr) (multiaddr.Addr, bool) {
	if first, ok := a.First(); ok && first.Code() == multiaddr.IP6Zone {
		_, a = a.SplitFirst()
	}
	ap, _, ok := a.AddrPort()
	ok = ok && ap.Port() != 0 && i.reaches(ap.Addr()) && !a.Has(multiaddr.P2P) && !a.Has(multiaddr.P2PCircuit)
	return a, ok
}

// zoned adds the zone that a link-local address needs to be dialled from here.
func (i *Interface) zoned(a multiaddr.Addr) (multiaddr.Addr, bool) {
	if ip, _ := a.IP(); !ip.IsLinkLocalUnicast() {
		return a, true
	}
	zone, err := multiaddr.NewComponent(multiaddr.IP6Zone, i.Name)
	return multiaddr.Join(zone.Addr(), a), err == nil
}

// needsBrowser reports whether an address is of use to browsers only, which do
// not speak mDNS: every other peer has a shorter way to the same host. Left out
// they leave room for the rest in one packet, as go-libp2p does.
func needsBrowser(a multiaddr.Addr) bool {
	return a.Has(multiaddr.WebTransport) || a.Has(multiaddr.WebRTC) || a.Has(multiaddr.WebRTCDirect)
}

// A bucket lets through a number of things a second, and as many at once.
type bucket struct {
	tokens float64
	at     time.Time // zero: never used, full
}

func (b *bucket) take(now time.Time, rate float64) bool {
	if b.at.IsZero() {
		b.tokens = rate
	} else {
		b.tokens = min(rate, b.tokens+rate*now.Sub(b.at).Seconds())
	}
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
