package host

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"time"
	"unsafe"

	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

const (
	// maxAddrsPerPeer is how many addresses of one peer are kept: more than any
	// honest host has, few enough to dial.
	maxAddrsPerPeer = 32
	// maxProtocolsPerPeer is how many protocols of one peer are kept, as in go-libp2p.
	maxProtocolsPerPeer = 1024

	// Of a peer without a connection less is kept, in bytes: anybody can come with
	// ever new names. An honest peer has a few dozen protocols and addresses, which fit.
	maxIdleProtocols = 1536
	maxIdleAddrs     = 1024
	maxIdleText      = 256 // of each version, and of our address as it sees us

	// maxPaths is in how many networks it is remembered how well an address works:
	// home, work, a telephone's and one more.
	maxPaths = 4
)

// How long an address is kept after it was last told of, without a connection.
const (
	// TTLConnected is for the addresses of a peer that we were connected to.
	TTLConnected = 15 * time.Minute
	// TTLTold is for addresses that a user or a discovery gave.
	TTLTold = time.Hour
	// TTLWorked is for addresses at which we have reached a peer, from then on.
	TTLWorked = 7 * 24 * time.Hour
	// TTLForever is for addresses that a user configured.
	TTLForever = time.Duration(1<<63 - 1)
)

// A KnownAddr is what is known of one address of a peer. What came of dialing it is
// that of the network that this machine is in now.
type KnownAddr struct {
	Addr      multiaddr.Addr
	Source    Source    // the most trusted of those who told of it
	Told      bool      // the peer itself said so when it last spoke of its addresses
	Certified bool      // and it was in a record that the peer signed
	Expires   time.Time // zero: never

	LastSuccess time.Time     // zero: none
	LastFailure time.Time     // zero: none
	Failures    int           // since the last success, at most 255
	Took        time.Duration // of dials that succeeded, smoothed; 0: unknown

	Elsewhere time.Time // last success in any other network; zero: none
}

// PeerInfo is what is known of a peer. Strings and lists come from the remote;
// they are bounded but not to be trusted.
type PeerInfo struct {
	ID              peer.ID
	Addrs           []multiaddr.Addr // where it can be dialed
	Protocols       []ProtocolID     // what it speaks, sorted; nil until it was identified
	AgentVersion    string
	ProtocolVersion string
	ObservedAddr    multiaddr.Addr // our address as it sees us
	SignedRecord    bool           // it signed a record of its addresses
}

// book remembers peers, within so many bytes. Peers with a connection are always
// known. Of the others the least useful are forgotten first; see rank.
type book struct {
	max    int         // bytes of peers without a connection
	keeper *bookKeeper // nil: nothing is stored

	mu        sync.Mutex
	peers     map[peer.ID]*bookEntry
	idle      [numRanks]bookList // peers without a connection; the most recently used in front
	connected int                // bytes of those with one
}

// A bookRank is how useful it is to remember a peer.
type bookRank uint8

const (
	rankHearsay bookRank = iota // others told of it
	rankMet                     // it told us itself, or is near
	rankReached                 // we have reached it
	rankChosen                  // the user told of it
	numRanks
)

// idleShare is the part of the book, in eighths, that a rank keeps when those above
// it grow: so neither strangers' talk nor a crowd that connects in order to be
// remembered displaces all others.
var idleShare = [numRanks]int{rankHearsay: 1, rankMet: 2, rankReached: 2, rankChosen: 3}

type bookEntry struct {
	id         peer.ID
	about      *PeerInfo // what it said of itself, without addresses; nil: nothing
	addrs      []bookAddr
	next, prev *bookEntry
	size       int32
	rank       bookRank
	connected  bool
	stored     bool // or about to be
}

type bookAddr struct {
	addr      multiaddr.Addr
	expires   int64 // Unix time in ns; never: forever
	paths     []bookPath
	source    Source
	told      bool
	certified bool
}

// A bookPath is how well an address works in one network.
type bookPath struct {
	network          NetworkID
	success, failure int64 // Unix time in ns; 0: none
	took             time.Duration
	failures         uint8
}

const forever = math.MaxInt64

func newBook(max int) *book {
	return &book{max: max, peers: make(map[peer.ID]*bookEntry)}
}

// entry finds or makes the entry of p, which then must be placed. b.mu is held.
func (b *book) entry(p peer.ID) *bookEntry {
	e := b.peers[p]
	if e == nil {
		e = &bookEntry{id: p}
		b.peers[p] = e
	}
	return e
}

// place puts e where it belongs after a change, as used last, and makes room for it.
func (b *book) place(e *bookEntry) {
	b.unplace(e)
	e.size = int32(e.cost())
	e.rank = e.usefulness()
	if e.connected {
		b.connected += int(e.size)
		return
	}
	b.idle[e.rank].pushFront(e)
	b.trim()
}

// unplace takes e from where it is.
func (b *book) unplace(e *bookEntry) {
	switch {
	case e.size == 0: // nowhere yet
	case e.next != nil:
		b.idle[e.rank].remove(e)
	default:
		b.connected -= int(e.size)
	}
	e.size = 0
}

func (e *bookEntry) usefulness() bookRank {
	rank := rankHearsay
	for i := range e.addrs {
		k := &e.addrs[i]
		switch {
		case k.source == SourceUser:
			return rankChosen
		case k.worked():
			rank = rankReached
		case k.source > SourceStranger:
			rank = max(rank, rankMet)
		}
	}
	return rank
}

// worked tells whether the peer was ever reached at k.
func (k *bookAddr) worked() bool {
	return slices.ContainsFunc(k.paths, func(p bookPath) bool { return p.success != 0 })
}

// trim forgets peers until the others fit.
func (b *book) trim() {
	for {
		size := 0
		for i := range b.idle {
			size += b.idle[i].bytes
		}
		if size <= b.max {
			return
		}
		for rank := range b.idle {
			if l := &b.idle[rank]; l.bytes > b.max/8*idleShare[rank] {
				b.forget(l.back())
				break
			}
		}
	}
}

func (b *book) forget(e *bookEntry) {
	b.unplace(e)
	delete(b.peers, e.id)
	b.gone(e)
}

// addAddrs notes addresses of p, without their /p2p part.
func (b *book) addAddrs(p peer.ID, addrs []multiaddr.Addr, source Source, ttl time.Duration) {
	if len(addrs) == 0 {
		return
	}
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.entry(p)
	news := false
	if len(e.addrs) == 0 {
		e.reserve(len(addrs))
	}
	for _, a := range addrs {
		news = e.add(bookAddr{addr: a, source: source, expires: after(now, ttl)}, now) || news
	}
	if news {
		b.changed(e)
	}
	b.place(e)
}

// after is the time ttl from now.
func after(now time.Time, ttl time.Duration) int64 {
	if t := now.UnixNano(); int64(ttl) < forever-t {
		return t + int64(ttl)
	}
	return forever
}

// add notes one address, or that somebody else has told of it too. It tells whether
// that is worth saving: that an address lives on is now and then.
func (e *bookEntry) add(a bookAddr, now time.Time) bool {
	if a.addr.IsZero() {
		return false
	}
	if k := e.find(a.addr); k != nil {
		was := *k
		k.source = max(k.source, a.source)
		k.expires = max(k.expires, a.expires)
		k.told = k.told || a.told
		k.certified = k.certified || a.certified
		return k.differs(&was)
	}
	if len(e.addrs) >= maxAddrsPerPeer && !e.drop(a.source, now) {
		return false
	}
	a.addr = a.addr.Clone() // it may be a part of something larger
	e.reserve(1)
	e.addrs = append(e.addrs, a)
	return true
}

// reserve makes room for n more addresses, and no more: most peers have few, and
// there are many peers.
func (e *bookEntry) reserve(n int) {
	if n = min(len(e.addrs)+n, maxAddrsPerPeer); n > cap(e.addrs) {
		e.addrs = append(make([]bookAddr, 0, n), e.addrs...)
	}
}

// differs tells whether k is worth saving when was is saved.
func (k *bookAddr) differs(was *bookAddr) bool {
	const often = int64(TTLConnected)
	return k.source != was.source || k.told != was.told || k.certified != was.certified || k.expires/often != was.expires/often
}

func (e *bookEntry) find(a multiaddr.Addr) *bookAddr {
	for i := range e.addrs {
		if e.addrs[i].addr == a {
			return &e.addrs[i]
		}
	}
	return nil
}

// drop makes room for an address from source: it forgets the one that is trusted
// least, and of those the one that never worked, and then that expires first.
func (e *bookEntry) drop(source Source, now time.Time) bool {
	e.expire(now)
	if len(e.addrs) < maxAddrsPerPeer {
		return true
	}
	worst := 0
	for i := range e.addrs {
		if e.addrs[i].compare(&e.addrs[worst]) < 0 {
			worst = i
		}
	}
	w := &e.addrs[worst]
	if w.source > source || w.expires == forever {
		return false
	}
	e.addrs = slices.Delete(e.addrs, worst, worst+1)
	return true
}

// compare orders addresses of a peer by how little would be lost with them.
func (k *bookAddr) compare(o *bookAddr) int {
	order := func(a, b bool) int {
		switch {
		case a == b:
			return 0
		case a:
			return 1
		}
		return -1
	}
	if c := int(k.source) - int(o.source); c != 0 {
		return c
	}
	if c := order(k.worked(), o.worked()); c != 0 {
		return c
	}
	return order(k.expires > o.expires, o.expires > k.expires)
}

// expire forgets the addresses whose time is over.
func (e *bookEntry) expire(now time.Time) {
	if t := now.UnixNano(); !e.connected {
		e.addrs = slices.DeleteFunc(e.addrs, func(k bookAddr) bool { return k.expires < t })
	}
}

// identified notes what a peer said of itself on a connection with remote. Its
// addresses replace those that it gave before and what strangers told; what the user
// or the local network told, and what has worked, stays. It returns what is kept of info.
func (b *book) identified(info PeerInfo, remote multiaddr.Addr) (kept PeerInfo) {
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.entry(info.ID)
	var before []bookAddr
	if b.keeper != nil {
		before = slices.Clone(e.addrs)
	}
	for i := range e.addrs {
		e.addrs[i].told, e.addrs[i].certified = false, false
	}
	addrs := info.Addrs
	info.Addrs = nil
	if b.connected > b.max {
		info = *info.shrunk() // peers with a connection may say a lot, but not all of them
	}
	e.about = &info
	e.addrs = slices.DeleteFunc(e.addrs, func(k bookAddr) bool {
		return k.source < SourceLocal && !k.worked() && !slices.Contains(addrs, k.addr)
	})
	if len(e.addrs) == 0 {
		e.reserve(len(addrs))
	}
	for _, a := range addrs {
		e.add(bookAddr{addr: a, source: heard(a, remote), told: true, certified: info.SignedRecord, expires: after(now, TTLConnected)}, now)
	}
	if b.keeper != nil && !slices.EqualFunc(before, e.addrs, func(a, b bookAddr) bool { return a.addr == b.addr && !a.differs(&b) }) {
		b.changed(e)
	}
	b.place(e)
	return info
}

// dialed notes what came of dialing an address of p in a network; took is how long a
// dial took that succeeded. What is not in the book stays out of it, and a dial that
// was given up says nothing.
func (b *book) dialed(p peer.ID, addr multiaddr.Addr, network NetworkID, took time.Duration, err error, now time.Time) {
	if errors.Is(err, context.Canceled) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.peers[p]
	if e == nil {
		return
	}
	k := e.find(addr)
	if k == nil {
		return
	}
	at := k.path(network)
	if err != nil {
		at.failure = now.UnixNano()
		at.failures = max(at.failures, at.failures+1) // stays at the largest
	} else {
		at.success, at.failures = now.UnixNano(), 0
		at.took = smooth(at.took, took)
		k.expires = max(k.expires, after(now, TTLWorked))
	}
	b.changed(e)
	b.place(e)
}

// path finds what is known of a network and puts it first; it makes room for a new
// one by forgetting the network that was used the longest time ago.
func (k *bookAddr) path(network NetworkID) *bookPath {
	i := slices.IndexFunc(k.paths, func(p bookPath) bool { return p.network == network })
	switch {
	case i >= 0:
	case len(k.paths) < maxPaths:
		i = len(k.paths)
		k.paths = append(k.paths[:i:i], bookPath{network: network})
	default:
		i = maxPaths - 1
		k.paths[i] = bookPath{network: network}
	}
	found := k.paths[i]
	copy(k.paths[1:i+1], k.paths[:i])
	k.paths[0] = found
	return &k.paths[0]
}

// smooth moves what was measured before a quarter of the way to what is measured now.
func smooth(before, now time.Duration) time.Duration {
	if before == 0 {
		return now
	}
	return before + (now-before)/4
}

// known lists the addresses of p, as they are seen from a network.
func (b *book) known(p peer.ID, network NetworkID) []KnownAddr {
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.use(p, now)
	if e == nil || len(e.addrs) == 0 {
		return nil
	}
	known := make([]KnownAddr, len(e.addrs))
	for i := range e.addrs {
		known[i] = e.addrs[i].seenFrom(network)
	}
	return known
}

func (k *bookAddr) seenFrom(network NetworkID) KnownAddr {
	known := KnownAddr{Addr: k.addr, Source: k.source, Told: k.told, Certified: k.certified}
	if k.expires != forever {
		known.Expires = time.Unix(0, k.expires)
	}
	var elsewhere int64
	for _, p := range k.paths {
		if p.network != network {
			elsewhere = max(elsewhere, p.success)
			continue
		}
		known.LastSuccess, known.LastFailure = moment(p.success), moment(p.failure)
		known.Took, known.Failures = p.took, int(p.failures)
	}
	known.Elsewhere = moment(elsewhere)
	return known
}

// moment is a Unix time in ns, of which 0 means never.
func moment(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}

// use finds the entry of p, marks it as used and forgets what has expired.
func (b *book) use(p peer.ID, now time.Time) *bookEntry {
	e := b.peers[p]
	if e == nil || e.connected {
		return e
	}
	if n := len(e.addrs); n > 0 {
		if e.expire(now); len(e.addrs) < n {
			b.place(e)
			return e
		}
	}
	b.idle[e.rank].remove(e)
	b.idle[e.rank].pushFront(e)
	return e
}

// info gives a copy of what is known of p.
func (b *book) info(p peer.ID) PeerInfo {
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.use(p, now)
	if e == nil {
		return PeerInfo{ID: p}
	}
	var info PeerInfo
	if e.about != nil {
		info = *e.about
	}
	info.ID = e.id
	info.Addrs = make([]multiaddr.Addr, len(e.addrs))
	for i := range e.addrs {
		info.Addrs[i] = e.addrs[i].addr
	}
	return info
}

// connect notes whether there is a connection with p. A connected peer is not
// forgotten, and its addresses live on for a while after; one of which nothing is known
// is forgotten at once.
func (b *book) connect(p peer.ID, yes bool) {
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.peers[p]
	switch {
	case e == nil && yes:
		e = b.entry(p)
	case e == nil || e.connected == yes:
		return
	case !yes:
		for i := range e.addrs {
			e.addrs[i].expires = max(e.addrs[i].expires, after(now, TTLConnected))
		}
		e.shrink()
	}
	if !yes && e.about == nil && len(e.addrs) == 0 { // it has said nothing, and cannot be dialed
		b.forget(e)
		return
	}
	b.unplace(e)
	e.connected = yes
	b.changed(e)
	b.place(e)
}

// shrink leaves what is kept of a peer without a connection.
func (e *bookEntry) shrink() {
	if e.about != nil {
		e.about = e.about.shrunk()
	}
	room := maxIdleAddrs
	kept := make([]bookAddr, 0, len(e.addrs))
	for _, k := range e.addrs {
		if configured := k.expires == forever; configured || k.addr.Len() <= room {
			kept = append(kept, k)
			room -= k.addr.Len()
		}
	}
	e.addrs = kept
}

// shrunk is info without what is too large to keep.
func (info *PeerInfo) shrunk() *PeerInfo {
	small := *info
	size := 0
	for _, p := range small.Protocols {
		size += stringCost(string(p))
	}
	if size > maxIdleProtocols {
		small.Protocols = nil
	}
	if len(small.AgentVersion) > maxIdleText {
		small.AgentVersion = ""
	}
	if len(small.ProtocolVersion) > maxIdleText {
		small.ProtocolVersion = ""
	}
	if small.ObservedAddr.Len() > maxIdleText {
		small.ObservedAddr = multiaddr.Addr{}
	}
	return &small
}

// usage tells how many peers are known and what they take, in bytes.
func (b *book) usage() (peers, bytes int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	bytes = b.connected
	for i := range b.idle {
		bytes += b.idle[i].bytes
	}
	return len(b.peers), bytes
}

// What things take of the heap, in bytes: more than their own size, since it comes
// in certain sizes only, and a map keeps places free.
const (
	entryCost   = int(unsafe.Sizeof(bookEntry{})) + mapSlotCost
	idCost      = 48
	mapSlotCost = (int(unsafe.Sizeof(peer.ID{})) + 8 + 1) * 5 / 2
	addrCost    = int(unsafe.Sizeof(bookAddr{}))
	pathCost    = int(unsafe.Sizeof(bookPath{}))
	aboutCost   = int(unsafe.Sizeof(PeerInfo{}))
)

func stringCost(s string) int { return int(unsafe.Sizeof(s)) + bytesCost(len(s)) }

// bytesCost is what n bytes take.
func bytesCost(n int) int { return (n + 15) &^ 15 }

func (e *bookEntry) cost() int {
	size := entryCost + idCost + cap(e.addrs)*addrCost
	for i := range e.addrs {
		k := &e.addrs[i]
		size += bytesCost(k.addr.Len()) + cap(k.paths)*pathCost
	}
	if a := e.about; a != nil {
		size += aboutCost + bytesCost(len(a.AgentVersion)) + bytesCost(len(a.ProtocolVersion)) + bytesCost(a.ObservedAddr.Len())
		for _, p := range a.Protocols {
			size += stringCost(string(p))
		}
	}
	return size
}

// A bookList is a list of entries, the most recently used in front.
type bookList struct {
	root  bookEntry // in a ring with the others
	bytes int
}

func (l *bookList) pushFront(e *bookEntry) {
	if l.root.next == nil {
		l.root.next, l.root.prev = &l.root, &l.root
	}
	e.prev, e.next = &l.root, l.root.next
	e.prev.next, e.next.prev = e, e
	l.bytes += int(e.size)
}

func (l *bookList) remove(e *bookEntry) {
	e.prev.next, e.next.prev = e.next, e.prev
	e.next, e.prev = nil, nil
	l.bytes -= int(e.size)
}

// back is the entry that was used the longest time ago; there must be one.
func (l *bookList) back() *bookEntry { return l.root.prev }
