//kith:pure

package host

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/kith-p2p/kith/multiaddr"
)

// What is announced as our own address decides where others look for us, and whom
// they bother if it is not ours. What the machine says of itself is true. What peers
// say is true of honest ones: so several who have nothing to do with each other have
// to say the same.

const (
	// minObservers is how many independent observers have to see us at an address.
	minObservers = 4
	// minDialed is how many of them have to be peers that we chose to dial: who comes
	// to us may have come for this.
	minDialed = 2
	// Observers are independent when they are in different networks of these lengths.
	// Providers get such blocks; one provider can have many, which only a database would tell.
	observerBits4, observerBits6 = 16, 32
	// maxExternal is how many observed addresses are announced for one of ours. An
	// honest host has one, and another for a while when it changes.
	maxExternal = 3
	// externalTTL is how long one is announced after the last time when enough saw it.
	// NATs keep what is in use, and the observers come and go.
	externalTTL = 30 * time.Minute
	// maxAnnounced is how many addresses are announced in all: what a signed record
	// holds, and what others keep of one peer.
	maxAnnounced = maxAddrsPerPeer
)

// A portAddr is an IP address with a port of TCP or UDP, as the first part of an
// address; its IP can be the unspecified one.
type portAddr struct {
	code multiaddr.Code
	ap   netip.AddrPort
}

// portAddrOf gives the portAddr with which a begins, and what follows it.
func portAddrOf(a multiaddr.Addr) (e portAddr, rest multiaddr.Addr, ok bool) {
	ap, code, ok := a.AddrPort()
	if !ok {
		return e, rest, false
	}
	e = portAddr{code, netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())}
	_, rest = a.SplitFirst()
	_, rest = rest.SplitFirst()
	if ap.Addr().Zone() != "" {
		_, rest = rest.SplitFirst()
	}
	return e, rest, true
}

// door is what of one is the same for all addresses of a machine: packets
// from outside that find it arrive at whatever listens there.
type door struct {
	code multiaddr.Code
	port uint16
	ip4  bool
}

func (d door) compare(e door) int {
	return cmp.Or(cmp.Compare(d.code, e.code), cmp.Compare(d.port, e.port), btoi(d.ip4)-btoi(e.ip4))
}

func (e portAddr) door() door { return door{e.code, e.ap.Port(), e.ap.Addr().Is4()} }

// An observation is what the peer at the other end of a connection says it sees.
type observation struct {
	local    multiaddr.Addr // our end
	observed multiaddr.Addr // our end as the peer sees it
	observer multiaddr.Addr // the peer's end
	dialed   bool           // by us
}

// A Mapping is an external address from which a router forwards to a local one, both
// an IP address with a port.
type Mapping struct{ Local, External multiaddr.Addr }

// external is an address at which others reach a door of ours.
type external struct {
	door  door
	at    netip.AddrPort
	until time.Time
	seen  int // so many networks saw it last
}

// A vote is what counts of an observation: a network saw us at an address.
type vote struct {
	door   door
	at     netip.AddrPort
	voter  netip.Prefix
	dialed bool // its peer, by us
}

func (v vote) weight() int { return btoi(v.dialed) }

// ownAddrs remembers which observed addresses are ours.
type ownAddrs struct{ externals []external }

// forget is for another network.
func (o *ownAddrs) forget() { o.externals = nil }

// observe judges what peers see now. listening are the addresses listened on.
func (o *ownAddrs) observe(now time.Time, listening []multiaddr.Addr, seen []observation) {
	doors := make(map[door]bool)
	ours := make(map[netip.Addr]bool)
	for _, a := range listening {
		if e, _, ok := portAddrOf(a); ok {
			doors[e.door()] = true
			ours[e.ap.Addr()] = true
		}
	}

	// A network has one vote for each door, that of a peer that we dialed before that
	// of one that came. Otherwise the order of seen does not matter.
	var votes []vote
	for _, s := range seen {
		if v, ok := s.vote(doors, ours); ok {
			votes = append(votes, v)
		}
	}
	slices.SortFunc(votes, func(a, b vote) int {
		return cmp.Or(a.door.compare(b.door), a.voter.Compare(b.voter), b.weight()-a.weight(), a.at.Compare(b.at))
	})
	votes = slices.CompactFunc(votes, func(a, b vote) bool { return a.door == b.door && a.voter == b.voter })
	slices.SortStableFunc(votes, func(a, b vote) int { return cmp.Or(a.door.compare(b.door), a.at.Compare(b.at)) })
	for len(votes) > 0 {
		first, n, dialed := votes[0], 0, 0
		for n < len(votes) && votes[n].door == first.door && votes[n].at == first.at {
			dialed += votes[n].weight()
			n++
		}
		votes = votes[n:]
		if n < minObservers || dialed < minDialed {
			continue
		}
		i := slices.IndexFunc(o.externals, func(e external) bool { return e.door == first.door && e.at == first.at })
		if i < 0 {
			i = len(o.externals)
			o.externals = append(o.externals, external{door: first.door, at: first.at})
		}
		o.externals[i].until, o.externals[i].seen = now.Add(externalTTL), n
	}
	o.externals = slices.DeleteFunc(o.externals, func(e external) bool { return !doors[e.door] || !now.Before(e.until) })
	slices.SortFunc(o.externals, func(a, b external) int {
		return cmp.Or(b.until.Compare(a.until), b.seen-a.seen, a.door.compare(b.door), a.at.Compare(b.at))
	})
	kept := make(map[door]int)
	o.externals = slices.DeleteFunc(o.externals, func(e external) bool {
		kept[e.door]++
		return kept[e.door] > maxExternal
	})
}

// vote tells at which address the observer saw which door, if that counts: a public
// address, seen from a public one, of a door at which we listen.
func (s observation) vote(doors map[door]bool, ours map[netip.Addr]bool) (vote, bool) {
	local, _, ok1 := portAddrOf(s.local)
	seen, _, ok2 := portAddrOf(s.observed)
	from, ok3 := s.observer.IP()
	if !ok1 || !ok2 || !ok3 {
		return vote{}, false
	}
	d, ip := local.door(), seen.ap.Addr()
	from = from.Unmap().WithZone("")
	if seen.code != d.code || ip.Is4() != d.ip4 || seen.ap.Port() == 0 || !doors[d] || ours[ip] ||
		!isPublic(ip) || !isPublic(from) || from == ip {
		return vote{}, false
	}
	bits := observerBits6
	if from.Is4() {
		bits = observerBits4
	}
	voter, err := from.Prefix(bits)
	return vote{d, seen.ap, voter, s.dialed}, err == nil
}

// isPublic tells of an address to which strangers may be sent.
func isPublic(ip netip.Addr) bool {
	return ip.IsGlobalUnicast() && safeAnywhere(ip, surroundings{}) == nil
}

// announced makes the list of what others are told, best first: public addresses of
// this machine, those that a router maps to us, those that peers see us at, relays,
// private ones, and those within this machine.
func (o *ownAddrs) announced(listening []multiaddr.Addr, mapped []Mapping, relayed []multiaddr.Addr) []multiaddr.Addr {
	listening = slices.Clone(listening)
	slices.SortStableFunc(listening, func(a, b multiaddr.Addr) int { return cmp.Compare(b.Scope(), a.Scope()) })
	inner := slices.IndexFunc(listening, func(a multiaddr.Addr) bool { return a.Scope() != multiaddr.ScopeInternet })
	if inner < 0 {
		inner = len(listening)
	}
	all := slices.Clone(listening[:inner])
	for _, m := range mapped {
		local, _, ok1 := portAddrOf(m.Local)
		outer, _, ok2 := portAddrOf(m.External)
		if ok1 && ok2 && outer.code == local.code {
			all = append(all, through(listening, local.door(), outer.ap)...)
		}
	}
	for _, e := range o.externals {
		all = append(all, through(listening, e.door, e.at)...)
	}
	all = append(append(all, relayed...), listening[inner:]...)

	told := make(map[multiaddr.Addr]bool)
	all = slices.DeleteFunc(all, func(a multiaddr.Addr) bool {
		before := told[a]
		told[a] = true
		return before || a.IsZero()
	})
	return all[:min(len(all), maxAnnounced)]
}

// through gives the addresses that lead through at to what listens behind a door.
func through(listening []multiaddr.Addr, d door, at netip.AddrPort) (addrs []multiaddr.Addr) {
	for _, a := range listening {
		e, rest, ok := portAddrOf(a)
		if !ok || e.door() != d || e.ap.Addr().IsLoopback() {
			continue
		}
		if outer := multiaddr.FromAddrPort(d.code, at).Encapsulate(rest); !slices.Contains(addrs, outer) {
			addrs = append(addrs, outer)
		}
	}
	return addrs
}

// specific replaces an unspecified IP by those of this machine's interfaces.
func specific(a multiaddr.Addr, local []netip.Addr) []multiaddr.Addr {
	ip, ok := a.IP()
	if !ok || !ip.IsUnspecified() {
		return []multiaddr.Addr{a}
	}
	_, rest := a.SplitFirst()
	var addrs []multiaddr.Addr
	for _, l := range local {
		if l.Is4() != ip.Is4() {
			continue
		}
		if c, err := multiaddr.NewComponent(ipCode(l), l.String()); err == nil {
			addrs = append(addrs, multiaddr.Join(c.Addr(), rest))
		}
	}
	return addrs
}

func ipCode(ip netip.Addr) multiaddr.Code {
	if ip.Is4() {
		return multiaddr.IP4
	}
	return multiaddr.IP6
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
