package host

import (
	"container/list"
	"slices"
	"sync"
	"time"

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
)

// How long an address is kept after it was last told of, without a connection.
const (
	// TTLConnected is for the addresses of a peer that we were connected to.
	TTLConnected = 15 * time.Minute
	// TTLTold is for addresses that a user or a discovery gave.
	TTLTold = time.Hour
	// TTLForever is for addresses that a user configured.
	TTLForever = time.Duration(1<<63 - 1)
)

// PeerInfo is what is known of a peer. Strings and lists come from the remote;
// they are bounded but not to be trusted.
type PeerInfo struct {
	ID              peer.ID
	Addrs           []multiaddr.Addr // where it can be dialed
	Protocols       []ProtocolID     // what it speaks, sorted; nil until it was identified
	AgentVersion    string
	ProtocolVersion string
	ObservedAddr    multiaddr.Addr // our address as it sees us
	SignedRecord    bool           // Addrs are from a record that the peer signed
}

// book remembers peers. It is bounded: peers without a connection are forgotten,
// the least recently used first.
type book struct {
	max int

	mu    sync.Mutex
	peers map[peer.ID]*bookEntry
	idle  list.List // of *bookEntry without a connection; the most recently used in front
}

type bookEntry struct {
	info      PeerInfo
	addrs     []bookAddr
	connected bool
	place     *list.Element
}

type bookAddr struct {
	addr    multiaddr.Addr
	expires time.Time // zero: never
}

func newBook(max int) *book {
	return &book{max: max, peers: make(map[peer.ID]*bookEntry)}
}

// entry finds or makes the entry of p and marks it as used. b.mu is held.
func (b *book) entry(p peer.ID) *bookEntry {
	e := b.peers[p]
	if e == nil {
		e = &bookEntry{info: PeerInfo{ID: p}}
		b.peers[p] = e
		e.place = b.idle.PushFront(e)
		b.trim()
		return e
	}
	if e.place != nil {
		b.idle.MoveToFront(e.place)
	}
	return e
}

func (b *book) trim() {
	for b.idle.Len() > b.max {
		last := b.idle.Back()
		b.idle.Remove(last)
		delete(b.peers, last.Value.(*bookEntry).info.ID)
	}
}

// addAddrs notes addresses of p, without their /p2p part.
func (b *book) addAddrs(p peer.ID, addrs []multiaddr.Addr, ttl time.Duration) {
	if len(addrs) == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.entry(p).add(addrs, ttl)
}

func (e *bookEntry) add(addrs []multiaddr.Addr, ttl time.Duration) {
	var expires time.Time
	if ttl != TTLForever {
		expires = time.Now().Add(ttl)
	}
	for _, a := range addrs {
		if a.IsZero() {
			continue
		}
		i := slices.IndexFunc(e.addrs, func(k bookAddr) bool { return k.addr == a })
		if i >= 0 {
			if known := &e.addrs[i]; !known.expires.IsZero() && (expires.IsZero() || expires.After(known.expires)) {
				known.expires = expires
			}
			continue
		}
		if len(e.addrs) >= maxAddrsPerPeer {
			e.drop()
		}
		if len(e.addrs) < maxAddrsPerPeer {
			e.addrs = append(e.addrs, bookAddr{a, expires})
		}
	}
}

// drop forgets the address that would expire first; a configured one stays.
func (e *bookEntry) drop() {
	first := -1
	for i, k := range e.addrs {
		if !k.expires.IsZero() && (first < 0 || k.expires.Before(e.addrs[first].expires)) {
			first = i
		}
	}
	if first >= 0 {
		e.addrs = slices.Delete(e.addrs, first, first+1)
	}
}

// identified notes what a peer said of itself; its addresses replace those that
// it gave before.
func (b *book) identified(info PeerInfo) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.entry(info.ID)
	addrs := info.Addrs
	info.Addrs = nil
	e.info = info
	e.addrs = slices.DeleteFunc(e.addrs, func(k bookAddr) bool { return !k.expires.IsZero() })
	e.add(addrs, TTLConnected)
}

// info gives a copy of what is known of p.
func (b *book) info(p peer.ID) PeerInfo {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.peers[p]
	if e == nil {
		return PeerInfo{ID: p}
	}
	if e.place != nil {
		b.idle.MoveToFront(e.place)
	}
	if !e.connected {
		now := time.Now()
		e.addrs = slices.DeleteFunc(e.addrs, func(k bookAddr) bool { return !k.expires.IsZero() && now.After(k.expires) })
	}
	info := e.info
	info.Addrs = make([]multiaddr.Addr, len(e.addrs))
	for i, k := range e.addrs {
		info.Addrs[i] = k.addr
	}
	return info
}

// connected notes whether there is a connection with p. A connected peer is not
// forgotten, and its addresses live on for a while after.
func (b *book) connected(p peer.ID, yes bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.entry(p)
	e.connected = yes
	switch {
	case yes && e.place != nil:
		b.idle.Remove(e.place)
		e.place = nil
	case !yes && e.place == nil:
		until := time.Now().Add(TTLConnected)
		for i := range e.addrs {
			if k := &e.addrs[i]; !k.expires.IsZero() && k.expires.Before(until) {
				k.expires = until
			}
		}
		e.shrink()
		e.place = b.idle.PushFront(e)
		b.trim()
	}
}

// shrink leaves what is kept of a peer without a connection.
func (e *bookEntry) shrink() {
	const header = 16 // of a string
	size := 0
	for _, p := range e.info.Protocols {
		size += header + len(p)
	}
	if size > maxIdleProtocols {
		e.info.Protocols = nil // they share their memory: all or none
	}
	if len(e.info.AgentVersion) > maxIdleText {
		e.info.AgentVersion = ""
	}
	if len(e.info.ProtocolVersion) > maxIdleText {
		e.info.ProtocolVersion = ""
	}
	if e.info.ObservedAddr.Len() > maxIdleText {
		e.info.ObservedAddr = multiaddr.Addr{}
	}
	room := maxIdleAddrs
	kept := make([]bookAddr, 0, len(e.addrs))
	for _, k := range e.addrs {
		if configured := k.expires.IsZero(); configured || k.addr.Len() <= room {
			kept = append(kept, k)
			room -= k.addr.Len()
		}
	}
	e.addrs = kept
}

// len tells how many peers are known.
func (b *book) len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.peers)
}
