//kith:pure

package host

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/kith-p2p/kith/multiaddr"
)

// The addresses of a peer are raced, as in RFC 8305, but the race is short: whoever
// is likeliest to answer has a chance to do so alone, and then the others follow
// closely, each a little after the one before. So a good address costs one dial, and
// nine bad ones in front of it a quarter of a second. Who has shown a sign of life is
// not raced against at once: see race.hold.
const (
	// delayPublic and delayPrivate are how long an address has for a sign of life before
	// the next one starts, as long as nothing was measured: a round trip through most of
	// the internet. RFC 8305 allows 100 ms and more, for the whole of TCP's handshake.
	delayPublic  = 150 * time.Millisecond
	delayPrivate = 30 * time.Millisecond
	// minDelay and maxDelay bound what is made of measurements: below the first a busy
	// machine looks dead, above the second a person waits.
	minDelay = 30 * time.Millisecond
	maxDelay = 350 * time.Millisecond
	// maxStagger is when the last address of a dial starts that somebody waits for.
	maxStagger = 350 * time.Millisecond
	// followers is the part of the first one's delay in which all the others of its
	// group start.
	followers = 2
)

// A step is an address that a dial can try, and what decides about its turn.
type step struct {
	known  KnownAddr      // Addr: what is dialed
	origin multiaddr.Addr // what known.Addr was resolved from, or known.Addr

	kind     kind
	endpoint endpoint      // where packets go; zero: the transport knows
	place    place         // in which group of the race it runs
	turn     int           // how many of its kind are before it
	expect   time.Duration // how long a sign of life takes
	delay    time.Duration // from the start of the dial to its turn
	begun    time.Duration // for pacing; see dialer.begin
}

// newStep takes an address apart.
func newStep(known KnownAddr, origin multiaddr.Addr) *step {
	s := &step{known: known, origin: origin}
	ip, _ := known.Addr.IP()
	s.kind.near = known.Addr.Scope() < multiaddr.ScopeInternet
	s.kind.six = ip.Is6() && !ip.Is4In6()
	for c := range known.Addr.Components() {
		switch c.Code() {
		case multiaddr.DNS6:
			s.kind.six = true
		case multiaddr.UDP:
			s.kind.udp = true
		case multiaddr.QUICV1:
			s.kind.how = 0
		case multiaddr.TCP:
			s.kind.how = 1
		case multiaddr.WebTransport:
			s.kind.how = 2
		case multiaddr.WS, multiaddr.WSS:
			s.kind.how = 3
		case multiaddr.WebRTCDirect, multiaddr.WebRTC:
			s.kind.how = 4
		case multiaddr.P2PCircuit:
			s.kind.relayed = true
		}
	}
	if ip.IsValid() && !s.kind.relayed {
		ap, _, _ := known.Addr.AddrPort() // not all have a port: /wss has one of its own
		s.endpoint = endpoint{udp: s.kind.udp, at: netip.AddrPortFrom(bothered(ip), ap.Port())}
	}
	return s
}

// A kind is what addresses have in common that tend to work, or not, together.
type kind struct {
	six     bool // IPv6
	udp     bool
	near    bool  // in this machine or a network nearby
	relayed bool  // through another peer
	how     uint8 // the transport, by what a connection costs: QUIC takes one round trip, TCP three or so, and what was made for browsers more and is slower afterwards
}

// slow tells of transports that are there for who cannot use a better one.
func (k kind) slow() bool { return k.how >= 2 }

// public tells whether it says something of the network how the address fares.
func (k kind) public() bool { return !k.near && !k.relayed }

// An endpoint is where packets to an address go.
type endpoint struct {
	udp bool
	at  netip.AddrPort
}

// A place is a group of addresses in the race: those of a later one start after
// those of an earlier one have had their time.
type place uint8

const (
	placeWorked   place = iota // it worked here, and has not failed since
	placeNear                  // in this machine, or a network nearby
	placeUntried               // nothing is known, or only that it worked elsewhere
	placeDoubtful              // others of its kind did not answer lately where other kinds did
	placeRelayed               // through another peer, which is slower
	placeFailed                // it failed here, the last time that it was tried
	placeLast                  // it is dialed when all others have failed: a black hole, perhaps
)

var placeNames = [...]string{
	placeWorked: "it worked in this network", placeNear: "it is near", placeUntried: "it was not tried in this network yet",
	placeDoubtful: "addresses of its kind did not answer lately", placeRelayed: "it is relayed",
	placeFailed: "it failed when it was last tried", placeLast: "its kind gets nothing through in this network: only when all others have failed",
}

func (p place) String() string { return placeNames[p] }

// placeOf tells in which group of the race a step runs, black holes aside.
func (s *step) placeOf(doubtful bool) place {
	k := &s.known
	switch {
	case s.kind.relayed:
		return placeRelayed
	case !k.LastFailure.IsZero() && !k.LastSuccess.After(k.LastFailure):
		return placeFailed
	case !k.LastSuccess.IsZero():
		return placeWorked
	case s.kind.near:
		return placeNear
	case doubtful:
		return placeDoubtful
	}
	return placeUntried
}

// order puts steps, whose places are set, in the order in which they are tried.
func order(steps []*step) {
	slices.SortStableFunc(steps, func(a, b *step) int {
		return cmp.Or(cmp.Compare(a.place, b.place), compareKnown(a, b))
	})
	// The best address of each kind comes before the second of any, so that what all
	// of a kind suffer from costs one attempt.
	for i, s := range steps {
		s.turn = 0
		for _, before := range steps[:i] {
			if before.kind == s.kind && before.place == s.place {
				s.turn++
			}
		}
	}
	slices.SortStableFunc(steps, func(a, b *step) int {
		if c := cmp.Compare(a.place, b.place); c != 0 || a.place == placeWorked {
			return c
		}
		return cmp.Or(
			cmp.Compare(a.known.Addr.Scope(), b.known.Addr.Scope()),
			cmp.Compare(slowness(a.kind), slowness(b.kind)),
			cmp.Compare(a.turn, b.turn),
			cmp.Compare(a.kind.how, b.kind.how),
			cmp.Compare(family(a.kind), family(b.kind)),
		)
	})
}

// compareKnown prefers, in one place, what is known to be better.
func compareKnown(a, b *step) int {
	switch a.place {
	case placeWorked:
		return cmp.Or(
			cmp.Compare(took(&a.known), took(&b.known)),
			cmp.Compare(a.kind.how, b.kind.how),
		)
	case placeFailed:
		return cmp.Or(
			b.known.LastSuccess.Compare(a.known.LastSuccess),
			cmp.Compare(a.known.Failures, b.known.Failures),
			a.known.LastFailure.Compare(b.known.LastFailure),
		)
	}
	return cmp.Or(
		b.known.Elsewhere.Compare(a.known.Elsewhere),
		cmp.Compare(untold(&a.known), untold(&b.known)),
	)
}

func took(k *KnownAddr) time.Duration {
	if k.Took <= 0 {
		return time.Hour
	}
	return k.Took
}

func untold(k *KnownAddr) int {
	switch {
	case k.Certified:
		return 0
	case k.Told || k.Source == SourceUser:
		return 1
	}
	return 2
}

func slowness(k kind) int {
	if k.slow() {
		return 1
	}
	return 0
}

// family puts IPv6 first: where it does not work that shows at once.
func family(k kind) int {
	if k.six {
		return 0
	}
	return 1
}

// schedule sets the delays of steps, which are in order, from start on. When nobody
// waits for the dial each address has its time alone.
func schedule(steps []*step, start time.Duration, patient bool) {
	at := start
	for len(steps) > 0 {
		n := 1
		for n < len(steps) && sameGroup(steps[0], steps[n]) {
			n++
		}
		group := steps[:n]
		steps = steps[n:]
		chance := group[0].expect
		rest := chance / followers
		for i, s := range group {
			s.delay = at
			switch {
			case patient:
				at += s.expect
			case i == 0:
				at += chance
			default:
				at += rest / time.Duration(max(n-1, 1))
			}
			if !patient {
				at = min(at, start+maxStagger)
			}
		}
	}
}

func sameGroup(a, b *step) bool {
	return a.place == b.place && a.kind.near == b.kind.near && a.kind.slow() == b.kind.slow()
}
