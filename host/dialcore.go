//kith:pure

package host

import (
	"container/list"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

const (
	// maxNetworks is of how many networks it is remembered how dials went there: home,
	// work, a telephone's and a few more, at most 8 KiB each.
	maxNetworks = 8
	// maxSetbacks is of how many addresses, and of how many IPs, it is remembered that
	// they failed, at about 300 bytes each. Forgetting one costs a dial.
	maxSetbacks = 4096

	// backoffMin is how long an address is left alone in the background after its
	// first failure; each further one doubles it, up to backoffMax. As in go-libp2p.
	backoffMin = 5 * time.Second
	backoffMax = 5 * time.Minute
	// ipPatience is how many dials in a row may find an IP silent before it is left
	// alone itself: there can be others at it that answer.
	ipPatience = 3

	// maxPaced is to how many IPs we dial on the word of others in a pacingSpan, at
	// about 300 bytes each: more are not dialed, since forgetting one would let us be
	// used against it.
	maxPaced = 4096
	// maxStrangerDials is how many dials go to one IPv4 address or IPv6 /56 in a
	// pacingSpan on the word of others, unless the peer was there. So we are no use
	// against a third party, and an honest peer has a few addresses.
	maxStrangerDials = 10
	pacingSpan       = time.Minute

	// A kind of address is a black hole when of its last blackHoleSpan dials in this
	// network fewer than blackHoleMin were answered; a dial in every probeEvery finds
	// out whether it still is. The first two as in go-libp2p.
	blackHoleSpan = 100
	blackHoleMin  = 5
	probeEvery    = time.Minute

	// A way, such as UDP over IPv6, is doubtful when doubtAfter peers in a row did not
	// answer that way but did another way; for doubtFor after the last of them.
	doubtAfter = 3
	doubtFor   = 5 * time.Minute

	// timesKept is of how many dials of one kind the time is kept: enough that the last
	// but one of them is the 95th percentile, few enough to follow a change. Fewer than
	// timesNeeded say nothing.
	timesKept   = 20
	timesNeeded = 3
)

// A dialer decides what the dials of a host try, in which order and how fast, from
// how those before them went. It is bounded: about 4 MiB when everybody is hostile.
type dialer struct {
	rand      *rand.Rand
	epoch     time.Time
	network   NetworkID  // that backoffs are of
	histories []*history // the one used last in front

	failed lru[target, setback]
	silent lru[netip.Prefix, setback]
	paced  lru[netip.Prefix, pace]
	flying map[endpoint]struct{} // on the word of others; bounded by paced
}

func newDialer(r *rand.Rand, now time.Time) *dialer {
	return &dialer{
		rand:   r,
		epoch:  now,
		failed: lru[target, setback]{max: maxSetbacks},
		silent: lru[netip.Prefix, setback]{max: maxSetbacks},
		paced:  lru[netip.Prefix, pace]{max: maxPaced},
	}
}

// A target is one address of one peer.
type target struct {
	peer peer.ID
	addr multiaddr.Addr
}

// A setback is what is remembered of a failure.
type setback struct {
	n     int           // in a row
	until time.Duration // since the epoch
	dial  uint64        // the last one counted
}

// plan puts the steps of a dial into their order and gives each its turn, from start
// on. Those that are not to be tried it returns separately. background: nobody waits
// for the dial.
func (d *dialer) plan(p peer.ID, steps []*step, background bool, start time.Duration, network NetworkID, now time.Time) (plan []*step, skipped []skippedStep) {
	d.arrive(network)
	look := d.history(network)
	plan = make([]*step, 0, len(steps))
	var dark []*step
	for _, s := range steps {
		s.place = s.placeOf(look.doubts(s.kind, now))
		s.expect = look.expect(s)
		if background {
			if err := d.backoff(p, s, now); err != nil {
				skipped = append(skipped, skippedStep{s, err})
				continue
			}
		}
		if look.blackHole(s.kind) && s.place != placeWorked {
			dark = append(dark, s)
			continue
		}
		plan = append(plan, s)
	}
	only := len(plan) == 0 && len(skipped) == 0
	var probe *step
	for _, s := range dark {
		switch {
		case only:
			plan = append(plan, s)
		case probe == nil && look.probe(now):
			probe = s
		case background:
			skipped = append(skipped, skippedStep{s, &SkipError{Reason: ErrBlackHole, Detail: fmt.Sprintf("of the last %d dials fewer than %d were answered; Connect tries it when all others have failed", blackHoleSpan, blackHoleMin)}})
		default:
			s.place = placeLast
			plan = append(plan, s)
		}
	}
	order(plan)
	schedule(plan, start, background)
	if probe != nil {
		// It finds out whether something gets through again, and nobody waits for it.
		probe.delay = start
		plan = slices.Insert(plan, 0, probe)
	}
	return plan, skipped
}

// A skippedStep is not tried, because of err.
type skippedStep struct {
	*step
	err error
}

// arrive notes the network; in another one backoffs mean nothing.
func (d *dialer) arrive(network NetworkID) {
	if network != d.network {
		d.network = network
		d.moved()
	}
}

// moved forgets which addresses failed: the machine has another network, or the same
// one anew.
func (d *dialer) moved() {
	d.failed.clear()
	d.silent.clear()
}

// backoff tells why s is left alone, if it is.
func (d *dialer) backoff(p peer.ID, s *step, now time.Time) error {
	at := now.Sub(d.epoch)
	if b := d.failed.get(target{p, s.known.Addr}); b != nil && b.until > at {
		return &SkipError{Reason: ErrBackoff, Until: d.epoch.Add(b.until), Detail: fmt.Sprintf("it failed %d times in a row; Connect tries it all the same", b.n)}
	}
	if owner, ok := s.owner(); ok {
		if b := d.silent.get(owner); b != nil && b.until > at {
			return &SkipError{Reason: ErrBackoff, Until: d.epoch.Add(b.until), Detail: fmt.Sprintf("%d dials in a row to %s failed; Connect tries it all the same", b.n, owner)}
		}
	}
	return nil
}

// begin tells whether s, whose turn has come, may be tried, and counts it. Only
// addresses that others named can be refused: ErrInFlight or ErrPaced. Each that was
// not refused needs an end.
func (d *dialer) begin(s *step, now time.Time) error {
	owner, ok := s.owner()
	if !ok || !s.hearsay() {
		return nil
	}
	if _, busy := d.flying[s.endpoint]; busy {
		return &SkipError{Reason: ErrInFlight}
	}
	at := now.Sub(d.epoch)
	p := d.paced.get(owner)
	if p == nil {
		if oldest := d.paced.oldest(); d.paced.len() >= maxPaced && oldest.last() > at-pacingSpan {
			return &SkipError{Reason: ErrPaced, Until: d.epoch.Add(oldest.last() + pacingSpan), Detail: fmt.Sprintf("%d IPs in a minute; give the address to Connect if you know it", maxPaced)}
		}
		p = d.paced.put(owner, pace{})
	}
	p.pass(at)
	if p.n == maxStrangerDials {
		return &SkipError{Reason: ErrPaced, Until: d.epoch.Add(p.starts[0] + pacingSpan), Detail: fmt.Sprintf("%d dials to %s in a minute that did not find their peers; give the address to Connect if you know it", maxStrangerDials, owner)}
	}
	s.begun = at
	p.add(at)
	d.paced.touch(owner)
	if d.flying == nil {
		d.flying = make(map[endpoint]struct{})
	}
	d.flying[s.endpoint] = struct{}{}
	return nil
}

// end notes that s, which had begun, has ended; found: the peer was there.
func (d *dialer) end(s *step, found bool) {
	owner, ok := s.owner()
	if !ok || !s.hearsay() {
		return
	}
	delete(d.flying, s.endpoint)
	if p := d.paced.get(owner); found && p != nil {
		p.forgive(s.begun)
	}
}

// A result tells what became of a step.
type result uint8

const (
	resultUnknown  result = iota // it was given up before it had its time
	resultFound                  // the peer was there
	resultAnswered               // something came back, but no connection
	resultSilent                 // nothing came back
)

// An outcome is a step that was tried, and what became of it.
type outcome struct {
	*step
	result   result
	took     time.Duration
	answered time.Duration // until the first sign of life
}

// learn notes how a dial, by its ID, went.
func (d *dialer) learn(dial uint64, p peer.ID, outcomes []outcome, network NetworkID, now time.Time) {
	d.arrive(network)
	look := d.history(network)
	reached := slices.ContainsFunc(outcomes, func(o outcome) bool { return o.result == resultFound })
	for _, o := range outcomes {
		switch o.result {
		case resultUnknown:
			continue
		case resultFound:
			d.failed.remove(target{p, o.known.Addr})
			if owner, ok := o.owner(); ok {
				d.silent.remove(owner)
			}
		default:
			d.setBack(dial, p, o, now)
		}
		look.learn(o, reached, now)
	}
}

// setBack counts a failure of an address and, if it says something of all that is
// there, of its IP.
func (d *dialer) setBack(dial uint64, p peer.ID, o outcome, now time.Time) {
	key := target{p, o.known.Addr}
	b := d.failed.get(key)
	if b == nil {
		b = d.failed.put(key, setback{})
	}
	d.failed.touch(key)
	b.n++
	b.until = d.pause(b.n, now)

	owner, ok := o.owner()
	if !ok || o.result != resultSilent && !o.hearsay() {
		return
	}
	b = d.silent.get(owner)
	if b == nil {
		b = d.silent.put(owner, setback{})
	}
	d.silent.touch(owner)
	if b.dial == dial {
		return
	}
	b.dial = dial
	if b.n++; b.n >= ipPatience {
		b.until = d.pause(b.n-ipPatience+1, now)
	}
}

// pause tells until when something is left alone that failed n times in a row.
func (d *dialer) pause(n int, now time.Time) time.Duration {
	wait := min(backoffMin<<min(n-1, 10), backoffMax)
	wait += time.Duration((d.rand.Float64() - 0.5) * 0.4 * float64(wait)) // so that many do not come back together
	return now.Sub(d.epoch) + wait
}

// owner is whom packets to the address bother.
func (s *step) owner() (netip.Prefix, bool) {
	owner := ownerOf(s.endpoint.at.Addr())
	return owner, owner.IsValid()
}

// hearsay tells whether only others say that the peer is there: nothing that they
// say may bother a third party.
func (s *step) hearsay() bool {
	k := &s.known
	return (k.Source == SourceStranger || k.Source == SourcePeer) && k.LastSuccess.IsZero() && k.Elsewhere.IsZero()
}

// A pace is when an IP was dialed on the word of others.
type pace struct {
	n      int
	starts [maxStrangerDials]time.Duration // since the epoch
}

// pass forgets what was a pacingSpan ago.
func (p *pace) pass(at time.Duration) {
	old := 0
	for old < p.n && p.starts[old] <= at-pacingSpan {
		old++
	}
	copy(p.starts[:], p.starts[old:p.n])
	p.n -= old
}

func (p *pace) add(at time.Duration) {
	p.starts[p.n] = at
	p.n++
}

// forgive takes back a dial.
func (p *pace) forgive(at time.Duration) {
	if i := slices.Index(p.starts[:p.n], at); i >= 0 {
		copy(p.starts[i:], p.starts[i+1:p.n])
		p.n--
	}
}

func (p *pace) last() time.Duration {
	if p == nil || p.n == 0 {
		return -pacingSpan
	}
	return p.starts[p.n-1]
}

// A history is how dials went in one network.
type history struct {
	network  NetworkID
	times    []times // of each kind that was dialed; there are 80
	udp, six window
	ways     [4]doubt
	probed   time.Time
}

func (d *dialer) history(network NetworkID) *history {
	i := slices.IndexFunc(d.histories, func(l *history) bool { return l.network == network })
	if i == 0 {
		return d.histories[0]
	}
	look := &history{network: network}
	if i > 0 {
		look = d.histories[i]
		d.histories = slices.Delete(d.histories, i, i+1)
	}
	d.histories = slices.Insert(d.histories, 0, look)
	d.histories = d.histories[:min(len(d.histories), maxNetworks)]
	return look
}

// learn notes an outcome. reached: the peer answered at this or another address.
func (l *history) learn(o outcome, reached bool, now time.Time) {
	silent := o.result == resultSilent
	if o.kind.public() {
		if o.kind.udp {
			l.udp.add(!silent)
		}
		if o.kind.six {
			l.six.add(!silent)
		}
		switch way := &l.ways[o.kind.way()]; {
		case !silent:
			*way = doubt{}
		case reached:
			way.n = min(way.n+1, doubtAfter)
			way.last = now
		}
	}
	if o.result == resultFound {
		t := l.timesOf(o.kind)
		if t == nil {
			l.times = append(l.times, times{kind: o.kind})
			t = &l.times[len(l.times)-1]
		}
		t.add(o.answered)
	}
}

func (l *history) timesOf(k kind) *times {
	i := slices.IndexFunc(l.times, func(t times) bool { return t.kind == k })
	if i < 0 {
		return nil
	}
	return &l.times[i]
}

// way numbers the four ways that packets can go.
func (k kind) way() (n int) {
	if k.udp {
		n |= 1
	}
	if k.six {
		n |= 2
	}
	return n
}

// A doubt is how often a way did not work where another did.
type doubt struct {
	n    int
	last time.Time
}

func (l *history) doubts(k kind, now time.Time) bool {
	way := l.ways[k.way()]
	return k.public() && way.n >= doubtAfter && now.Sub(way.last) < doubtFor
}

// blackHole tells whether nothing of a kind gets through.
func (l *history) blackHole(k kind) bool {
	return k.public() && (k.udp && l.udp.dark() || k.six && l.six.dark())
}

// probe tells, once in a probeEvery, that a black hole is to be tried.
func (l *history) probe(now time.Time) bool {
	if now.Sub(l.probed) < probeEvery {
		return false
	}
	l.probed = now
	return true
}

// expect tells how long a sign of life takes: no longer than the whole took from there,
// or than with nearly all of its kind here.
func (l *history) expect(s *step) time.Duration {
	if took := s.known.Took; took > 0 && !s.known.LastSuccess.IsZero() {
		return clamp(took + took/2)
	}
	if t := l.timesOf(s.kind); t != nil && t.n >= timesNeeded {
		return clamp(t.most())
	}
	if s.kind.near {
		return delayPrivate
	}
	return delayPublic
}

func clamp(d time.Duration) time.Duration { return min(max(d, minDelay), maxDelay) }

// times are how long the last dials of a kind took to the first sign of life.
type times struct {
	kind kind
	n    uint8             // how many are known
	next uint8             // where the next one goes
	last [timesKept]uint32 // in µs
}

func (t *times) add(d time.Duration) {
	t.last[t.next] = uint32(min(d.Microseconds(), math.MaxUint32))
	t.next = (t.next + 1) % timesKept
	t.n = min(t.n+1, timesKept)
}

// most is what about 95 of 100 do not exceed.
func (t *times) most() time.Duration {
	sorted := t.last
	kept := sorted[:t.n]
	slices.Sort(kept)
	return time.Duration(kept[(len(kept)*19-1)/20]) * time.Microsecond
}

// A window is whether the last blackHoleSpan dials were answered.
type window struct {
	n, next, answers uint8
	answered         [(blackHoleSpan + 63) / 64]uint64 // one bit each
}

func (w *window) add(answered bool) {
	bits, bit := &w.answered[w.next/64], uint64(1)<<(w.next%64)
	if *bits&bit != 0 {
		w.answers--
	}
	*bits &^= bit
	if answered {
		*bits |= bit
		w.answers++
	}
	w.next = (w.next + 1) % blackHoleSpan
	w.n = min(w.n+1, blackHoleSpan)
}

func (w *window) dark() bool { return w.n == blackHoleSpan && w.answers < blackHoleMin }

// An lru is a map of at most max entries, which forgets the one that was touched the
// longest ago. The zero value with a max is empty and ready.
type lru[K comparable, V any] struct {
	max   int
	by    map[K]*list.Element
	order list.List // of *lruEntry[K, V]; the one touched last in front
}

type lruEntry[K comparable, V any] struct {
	key   K
	value V
}

func (l *lru[K, V]) len() int { return len(l.by) }

// get finds what is at k, or nil.
func (l *lru[K, V]) get(k K) *V {
	e := l.by[k]
	if e == nil {
		return nil
	}
	return &e.Value.(*lruEntry[K, V]).value
}

// put adds v at k, where nothing is.
func (l *lru[K, V]) put(k K, v V) *V {
	for len(l.by) >= l.max {
		l.remove(l.order.Back().Value.(*lruEntry[K, V]).key)
	}
	if l.by == nil {
		l.by = make(map[K]*list.Element)
	}
	entry := &lruEntry[K, V]{k, v}
	l.by[k] = l.order.PushFront(entry)
	return &entry.value
}

func (l *lru[K, V]) touch(k K) {
	if e := l.by[k]; e != nil {
		l.order.MoveToFront(e)
	}
}

func (l *lru[K, V]) remove(k K) {
	if e := l.by[k]; e != nil {
		l.order.Remove(e)
		delete(l.by, k)
	}
}

// oldest is what was touched the longest ago, or nil.
func (l *lru[K, V]) oldest() *V {
	e := l.order.Back()
	if e == nil {
		return nil
	}
	return &e.Value.(*lruEntry[K, V]).value
}

func (l *lru[K, V]) clear() {
	l.by = nil
	l.order.Init()
}
