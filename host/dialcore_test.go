package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// A dialing world: a dialer, a clock, and one peer.
type dialWorld struct {
	*testing.T
	d       *dialer
	now     time.Time
	network NetworkID
	peer    peer.ID
	dials   uint64
}

func newDialWorld(t *testing.T) *dialWorld {
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	return &dialWorld{T: t, d: newDialer(rand.New(rand.NewPCG(1, 2)), start), now: start, network: 1, peer: testID(t)}
}

func (w *dialWorld) pass(d time.Duration) { w.now = w.now.Add(d) }

// known is a user's address, changed by with.
func known(text string, with ...func(*KnownAddr)) KnownAddr {
	k := KnownAddr{Addr: multiaddr.MustParse(text), Source: SourceUser}
	for _, f := range with {
		f(&k)
	}
	return k
}

func (w *dialWorld) worked(took time.Duration) func(*KnownAddr) {
	return func(k *KnownAddr) { k.LastSuccess, k.Took = w.now.Add(-time.Hour), took }
}

func (w *dialWorld) failed(k *KnownAddr) { k.LastFailure, k.Failures = w.now.Add(-time.Minute), 1 }

func elsewhere(k *KnownAddr) { k.Elsewhere = time.Unix(1, 0) }

func told(by Source) func(*KnownAddr) { return func(k *KnownAddr) { k.Source = by } }

// plan tells, a line each, what a dial tries, when and why not.
func (w *dialWorld) plan(background bool, addrs ...KnownAddr) string {
	var steps []*step
	for _, k := range addrs {
		steps = append(steps, newStep(k, k.Addr))
	}
	var b strings.Builder
	plan, skipped := w.d.plan(w.peer, steps, background, 0, w.network, w.now)
	for _, s := range plan {
		if s.place == placeLast {
			fmt.Fprintf(&b, "last %s\n", s.known.Addr)
		} else {
			fmt.Fprintf(&b, "%v %s\n", s.delay.Round(time.Millisecond), s.known.Addr)
		}
	}
	for _, s := range skipped {
		reason := "?"
		for _, r := range []error{ErrBackoff, ErrBlackHole} {
			if errors.Is(s.err, r) {
				reason = strings.TrimPrefix(r.Error(), "host: ")
			}
		}
		fmt.Fprintf(&b, "not %s: %s\n", s.known.Addr, reason)
	}
	return b.String()
}

func (w *dialWorld) wantPlan(what string, background bool, want []string, addrs ...KnownAddr) {
	w.Helper()
	if got := w.plan(background, addrs...); got != strings.Join(want, "\n")+"\n" {
		w.Errorf("%s:\n%swant:\n%s", what, got, strings.Join(want, "\n"))
	}
}

// dialed lets a dial have an outcome for each of its addresses.
func (w *dialWorld) dialed(took time.Duration, outcomes map[string]result) {
	w.dials++
	var all []outcome
	for text, r := range outcomes {
		all = append(all, outcome{newStep(known(text), multiaddr.Addr{}), r, 3 * took, took})
	}
	slices.SortFunc(all, func(a, b outcome) int { return a.known.Addr.Compare(b.known.Addr) })
	w.d.learn(w.dials, w.peer, all, w.network, w.now)
}

const (
	hash  = "/certhash/uEiAkH5a4DPGKUuOBjYw0CgwjvcJCJMD2K_1aluKR_tpevQ"
	quic4 = "/ip4/8.8.8.8/udp/1/quic-v1"
	quic6 = "/ip6/2606:4700::1/udp/1/quic-v1"
	tcp4  = "/ip4/8.8.8.8/tcp/1"
	tcp6  = "/ip6/2606:4700::1/tcp/1"
)

func TestRankOfAnUnknownPeer(t *testing.T) {
	w := newDialWorld(t)
	w.wantPlan("nearest first, then IPv6 before IPv4 and QUIC before TCP; browsers' transports after them; all in a third of a second", false, []string{
		"0s /ip4/127.0.0.1/tcp/1",
		"30ms /ip4/192.168.1.1/tcp/1",
		"45ms /ip4/192.168.1.1/udp/1/quic-v1/webtransport" + hash,
		"75ms " + quic6,
		"225ms " + quic4,
		"250ms " + tcp6,
		"275ms " + tcp4,
		"300ms /dns4/example.com/tcp/443/wss",
		"350ms /ip4/8.8.8.8/udp/1/webrtc-direct" + hash,
	}, known("/ip4/8.8.8.8/udp/1/webrtc-direct"+hash), known("/dns4/example.com/tcp/443/wss"), known(tcp4), known(tcp6), known(quic4), known(quic6),
		known("/ip4/192.168.1.1/udp/1/quic-v1/webtransport"+hash), known("/ip4/127.0.0.1/tcp/1"), known("/ip4/192.168.1.1/tcp/1"))
	w.wantPlan("the best of each kind before the second of any", false, []string{
		"0s " + quic4, "150ms " + tcp4, "175ms /ip4/9.9.9.9/udp/1/quic-v1", "200ms /ip4/9.9.9.9/tcp/1",
	}, known(quic4), known("/ip4/9.9.9.9/udp/1/quic-v1"), known(tcp4), known("/ip4/9.9.9.9/tcp/1"))
	w.wantPlan("nobody waits: one after the other", true, []string{
		"0s " + quic4, "150ms " + tcp4, "300ms /ip4/9.9.9.9/tcp/1",
	}, known(quic4), known(tcp4), known("/ip4/9.9.9.9/tcp/1"))
}

func TestRankByWhatWorked(t *testing.T) {
	w := newDialWorld(t)
	w.wantPlan("what worked here first and for as long as it takes, the fastest of them; then the unknown; what failed last", false, []string{
		"0s " + tcp4, "60ms " + quic6, "90ms " + tcp6, "240ms " + quic4,
	}, known(quic4, w.failed), known(tcp6), known(quic6, w.worked(90*time.Millisecond)), known(tcp4, w.worked(40*time.Millisecond)))
	w.wantPlan("what worked and failed since is not what works", false, []string{
		"0s " + tcp4, "150ms " + quic4,
	}, known(quic4, w.worked(time.Millisecond), w.failed), known(tcp4))
	w.wantPlan("what worked in another network is better than what never did", false, []string{
		"0s /ip4/9.9.9.9/tcp/1", "150ms " + tcp4,
	}, known(tcp4), known("/ip4/9.9.9.9/tcp/1", elsewhere))
	w.wantPlan("relayed only when the direct ones have had their time", false, []string{
		"0s " + tcp4, "150ms /ip4/8.8.8.8/tcp/1/p2p/" + w.peer.String() + "/p2p-circuit",
	}, known("/ip4/8.8.8.8/tcp/1/p2p/"+w.peer.String()+"/p2p-circuit"), known(tcp4))
}

func TestDelaysAreMeasured(t *testing.T) {
	w := newDialWorld(t)
	want := func(what, delay string) {
		t.Helper()
		w.wantPlan(what, false, []string{"0s " + quic4, delay + " " + tcp4}, known(tcp4), known(quic4))
	}
	want("cold", "150ms")
	for range timesNeeded {
		w.dialed(80*time.Millisecond, map[string]result{quic4: resultFound})
	}
	want("as long as it took", "80ms")
	for range timesKept {
		w.dialed(2*time.Millisecond, map[string]result{quic4: resultFound})
	}
	want("not below what a busy machine takes", "30ms")
	for range 2 {
		w.dialed(time.Minute, map[string]result{quic4: resultFound})
	}
	want("two in twenty are more than one in twenty; but not above what a person waits", "350ms")
	w.network = 2
	want("cold in another network", "150ms")
	w.wantPlan("of an address that is known its own time", false, []string{"0s " + quic4, "150ms " + tcp4}, known(tcp4), known(quic4, w.worked(100*time.Millisecond)))
}

func TestBlackHole(t *testing.T) {
	w := newDialWorld(t)
	for i := range blackHoleSpan {
		if got := w.plan(true, known(quic4), known(tcp4)); i < doubtAfter && !strings.HasPrefix(got, "0s "+quic4) || strings.Contains(got, "not") {
			t.Fatalf("after %d: %s", i, got)
		}
		w.dialed(time.Second, map[string]result{quic4: resultSilent, tcp4: resultFound})
		w.d.moved() // no backoff in this test
	}
	w.wantPlan("in the background it is dialed once in a while, beside the others", true, []string{"0s " + quic4, "0s " + tcp4}, known(quic4), known(tcp4))
	w.wantPlan("and no more", true, []string{"0s " + tcp4, "not " + quic4 + ": in this network nothing of its kind gets through"}, known(quic4), known(tcp4))
	w.wantPlan("for a user it is dialed when nothing else is left", false, []string{"0s " + tcp4, "last " + quic4}, known(quic4), known(tcp4))
	w.wantPlan("if it is all there is it is dialed", true, []string{"0s " + quic4, "150ms /ip4/9.9.9.9/udp/1/quic-v1"}, known(quic4), known("/ip4/9.9.9.9/udp/1/quic-v1"))
	w.wantPlan("in a network nearby all is different", true, []string{"0s /ip4/192.168.1.1/udp/1/quic-v1", "30ms " + tcp4}, known("/ip4/192.168.1.1/udp/1/quic-v1"), known(tcp4))
	w.pass(probeEvery)
	w.wantPlan("once in a while again", true, []string{"0s " + quic4, "0s " + tcp4}, known(quic4), known(tcp4))
	w.network = 2
	w.wantPlan("nothing is known of another network", true, []string{"0s " + quic4, "150ms " + tcp4}, known(quic4), known(tcp4))
	w.network = 1
	for range blackHoleMin {
		w.dialed(time.Second, map[string]result{quic4: resultAnswered})
	}
	w.d.moved()
	w.pass(doubtFor)
	w.wantPlan("answers end it", true, []string{"0s " + quic4, "150ms " + tcp4}, known(quic4), known(tcp4))
}

func TestIPv6BlackHole(t *testing.T) {
	w := newDialWorld(t)
	for range blackHoleSpan {
		w.dialed(time.Second, map[string]result{tcp6: resultSilent})
	}
	w.d.moved()
	w.plan(true, known(quic6), known(tcp4)) // the probe
	w.wantPlan("of every transport", true, []string{"0s " + tcp4, "not " + quic6 + ": in this network nothing of its kind gets through"}, known(quic6), known(tcp4))
}

// A way that does not work where another does loses its place long before it is a
// black hole.
func TestDoubt(t *testing.T) {
	w := newDialWorld(t)
	first := func(want string) {
		t.Helper()
		if got := w.plan(false, known(quic4), known(tcp4)); !strings.HasPrefix(got, "0s "+want) {
			t.Errorf("first is not %s:\n%s", want, got)
		}
	}
	for range 10 {
		w.dialed(time.Second, map[string]result{quic4: resultSilent, tcp4: resultSilent})
	}
	first(quic4) // the peers were not there, which says nothing
	for range doubtAfter {
		first(quic4)
		w.dialed(time.Second, map[string]result{quic4: resultSilent, tcp4: resultFound})
	}
	first(tcp4)
	w.pass(doubtFor)
	first(quic4)
	w.dialed(time.Second, map[string]result{quic4: resultSilent, tcp4: resultFound})
	first(tcp4)
	w.dialed(time.Second, map[string]result{quic4: resultFound})
	first(quic4)
}

func TestBackoff(t *testing.T) {
	w := newDialWorld(t)
	for i, least := range []time.Duration{4 * time.Second, 8 * time.Second, 16 * time.Second, 32 * time.Second, 64 * time.Second, 128 * time.Second, 240 * time.Second, 240 * time.Second} {
		w.wantPlan("before", true, []string{"0s " + tcp4}, known(tcp4))
		w.dialed(0, map[string]result{tcp4: resultAnswered})
		w.pass(least - 1)
		w.wantPlan(fmt.Sprintf("left alone after %d failures", i+1), true, []string{"not " + tcp4 + ": it failed lately"}, known(tcp4))
		w.wantPlan("but not when a user waits", false, []string{"0s " + tcp4}, known(tcp4))
		w.wantPlan("nor another address", true, []string{"0s " + tcp6}, known(tcp6))
		w.pass(least/2 + 1)
	}
	w.dialed(0, map[string]result{tcp4: resultAnswered})
	me := w.peer
	w.peer = testID(t)
	w.wantPlan("another peer there is another matter", true, []string{"0s " + tcp4}, known(tcp4))
	w.peer = me
	w.network = 2
	w.wantPlan("as is another network", true, []string{"0s " + tcp4}, known(tcp4))
	w.dialed(0, map[string]result{tcp4: resultAnswered})
	w.dialed(0, map[string]result{tcp4: resultFound})
	w.wantPlan("success forgets it all", true, []string{"0s " + tcp4}, known(tcp4))
}

func TestBackoffByIP(t *testing.T) {
	w := newDialWorld(t)
	for range ipPatience {
		w.wantPlan("others may be there", true, []string{"0s " + tcp4}, known(tcp4))
		w.peer = testID(t)
		w.dialed(0, map[string]result{"/ip4/8.8.8.8/tcp/2": resultSilent, "/ip4/8.8.8.8/tcp/3": resultSilent})
	}
	w.wantPlan("nobody is there", true, []string{"not " + tcp4 + ": it failed lately"}, known(tcp4))
	w.wantPlan("but when a user waits", false, []string{"0s " + tcp4}, known(tcp4))
	w.dialed(0, map[string]result{"/ip4/8.8.8.8/tcp/4": resultFound})
	w.wantPlan("somebody is there", true, []string{"0s " + tcp4}, known(tcp4))
	for range ipPatience + 1 {
		w.peer = testID(t)
		w.dialed(0, map[string]result{"/ip4/8.8.8.8/tcp/2": resultAnswered})
	}
	w.wantPlan("a machine that refuses is there", true, []string{"0s " + tcp4}, known(tcp4))
}

// begin lets an address have its turn.
func (w *dialWorld) begin(k KnownAddr) (*step, error) {
	s := newStep(k, k.Addr)
	return s, w.d.begin(s, w.now)
}

func TestPacing(t *testing.T) {
	w := newDialWorld(t)
	victim := func(port int, source Source) KnownAddr {
		return known(fmt.Sprintf("/ip4/8.8.8.8/tcp/%d", port), told(source))
	}
	var begun []time.Time
	for i := range 10_000 {
		s, err := w.begin(victim(i%100+1, []Source{SourceStranger, SourcePeer}[i%2]))
		switch {
		case err == nil:
			begun = append(begun, w.now)
			w.d.end(s, false)
		case !errors.Is(err, ErrPaced):
			t.Fatal(err)
		}
		w.pass(30 * time.Millisecond) // 300 s
	}
	if len(begun) != 5*maxStrangerDials {
		t.Errorf("%d dials in five minutes", len(begun))
	}
	for i := range begun[maxStrangerDials:] {
		if d := begun[i+maxStrangerDials].Sub(begun[i]); d < pacingSpan {
			t.Errorf("%d dials within %v", maxStrangerDials+1, d)
		}
	}
	for range maxStrangerDials {
		if s, err := w.begin(victim(1, SourceStranger)); err == nil {
			w.d.end(s, false)
		}
	}
	var skip *SkipError
	if _, err := w.begin(victim(1, SourceStranger)); !errors.As(err, &skip) || !skip.Until.After(w.now) || skip.Until.After(w.now.Add(pacingSpan)) {
		t.Errorf("until when is not told: %v", err)
	}
	for _, k := range []KnownAddr{victim(1, SourceUser), victim(1, SourceLocal), known(tcp4, told(SourceStranger), w.worked(1)), known(tcp4, told(SourcePeer), elsewhere)} {
		if _, err := w.begin(k); err != nil {
			t.Errorf("%+v: %v", k, err)
		}
	}
	if _, err := w.begin(known("/ip4/8.8.4.4/tcp/1", told(SourceStranger))); err != nil {
		t.Errorf("another IP: %v", err)
	}
}

// Peers that are where others say count for nothing, however many there are.
func TestPacingForgivesWhatIsTrue(t *testing.T) {
	w := newDialWorld(t)
	for i := range 1000 {
		s, err := w.begin(known(fmt.Sprintf("/ip4/8.8.8.8/tcp/%d", i+1), told(SourceStranger)))
		if err != nil {
			t.Fatalf("after %d: %v", i, err)
		}
		w.d.end(s, true)
	}
}

func TestOneInFlightPerPort(t *testing.T) {
	w := newDialWorld(t)
	s, err := w.begin(known(tcp4, told(SourceStranger)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.begin(known(tcp4+"/ws", told(SourcePeer))); !errors.Is(err, ErrInFlight) {
		t.Errorf("a second one: %v", err)
	}
	for _, k := range []KnownAddr{known(tcp4), known(quic4, told(SourceStranger)), known("/ip4/8.8.8.8/tcp/2", told(SourceStranger))} {
		if _, err := w.begin(k); err != nil {
			t.Errorf("%s: %v", k.Addr, err)
		}
	}
	w.d.end(s, false)
	if _, err := w.begin(known(tcp4, told(SourceStranger))); err != nil {
		t.Error(err)
	}
}

func TestRace(t *testing.T) {
	at := func(ms int, p place) *step {
		return &step{place: p, delay: time.Duration(ms) * time.Millisecond, expect: delayPublic}
	}
	var r race
	now := time.Duration(0)
	want := func(s *step) {
		t.Helper()
		if got, _, over := r.next(now); got != s || over {
			t.Errorf("at %v: %+v, over %v", now, got, over)
		}
	}
	wait := func(d time.Duration) {
		t.Helper()
		if got, w, over := r.next(now); got != nil || w != d || over {
			t.Errorf("at %v: %v to wait, over %v", now, w, over)
		}
	}
	a, b, c, last := at(0, placeNear), at(100, placeNear), at(300, placeNear), at(0, placeLast)
	r.add([]*step{a, b, c, last})
	want(a)
	wait(100 * time.Millisecond)
	now = 100 * time.Millisecond
	want(b)
	wait(200 * time.Millisecond)
	now = 150 * time.Millisecond
	r.failed(now) // one of two: the next one need not wait
	want(c)
	wait(-1)
	r.failed(now)
	wait(-1)
	r.failed(now)
	want(last) // when all others have failed
	r.failed(now)
	if _, _, over := r.next(now); !over {
		t.Error("it goes on")
	}

	// A busy port: after the one that has it, if that is of this race; not at all otherwise.
	d, e := at(0, placeNear), at(0, placeNear)
	r.add([]*step{d, e})
	want(d)
	want(e)
	if !r.busy(e) {
		t.Error("not kept")
	}
	wait(-1)
	r.failed(now)
	want(e)
	if r.busy(e) {
		t.Error("kept, though nothing of this race can free the port")
	}
	if _, _, over := r.next(now); !over {
		t.Error("it goes on")
	}
}

func TestDialerIsBounded(t *testing.T) {
	w := newDialWorld(t)
	next := netip.MustParseAddr("1.0.0.0")
	for i := range 3 * maxSetbacks {
		text := fmt.Sprintf("/ip4/%s/tcp/1", next)
		next = next.Next()
		w.network = NetworkID(i / (maxSetbacks / 4))
		if s, err := w.begin(known(text, told(SourceStranger))); err == nil {
			w.d.end(s, false)
		} else if i < maxPaced || !errors.Is(err, ErrPaced) {
			t.Fatalf("after %d: %v", i, err)
		}
		w.dialed(0, map[string]result{text: resultSilent})
	}
	checkBounds(t, w.d)
	w.pass(pacingSpan)
	if _, err := w.begin(known(fmt.Sprintf("/ip4/%s/tcp/1", next), told(SourceStranger))); err != nil {
		t.Errorf("a minute later: %v", err)
	}
}

func checkBounds(t *testing.T, d *dialer) {
	t.Helper()
	for what, n := range map[string]int{"addresses": d.failed.len(), "IPs": d.silent.len(), "paces": d.paced.len()} {
		if n > maxSetbacks {
			t.Errorf("%d %s", n, what)
		}
	}
	if len(d.flying) > maxPaced*maxStrangerDials || len(d.histories) > maxNetworks {
		t.Errorf("%d in flight, %d networks", len(d.flying), len(d.histories))
	}
	for _, l := range d.histories {
		if len(l.times) > 80 {
			t.Errorf("%d kinds", len(l.times))
		}
	}
}

// Dials of random peers over a random network keep the rules, whatever happens:
// no address is tried twice in a dial; every address is tried, or it is told why not,
// when nobody answers; who waits is refused nothing but hearsay; hearsay is paced.
func TestDialsKeepTheRules(t *testing.T) {
	for seed := range uint64(300) {
		dialAtRandom(t, rand.New(rand.NewPCG(seed, 1)))
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func FuzzDialer(f *testing.F) {
	f.Add([]byte("a seed"))
	f.Fuzz(func(t *testing.T, seed []byte) {
		var key [32]byte
		copy(key[:], seed)
		key[31] ^= byte(len(seed))
		dialAtRandom(t, rand.New(rand.NewChaCha8(key)))
	})
}

func dialAtRandom(t *testing.T, r *rand.Rand) {
	w := newDialWorld(t)
	w.d.rand = r
	peers := make([]peer.ID, 5)
	for i := range peers {
		peers[i] = randomID(r)
	}
	hearsay := make(map[netip.Addr][]time.Time) // dials on hearsay that found nobody, by IP
	for range 30 {
		w.network = NetworkID(r.IntN(3))
		w.peer = peers[r.IntN(len(peers))]
		w.pass(time.Duration(r.ExpFloat64() * float64(5*time.Second)))
		dialOnce(w, r, hearsay)
		if t.Failed() {
			return
		}
	}
	checkBounds(t, w.d)
	for ip, at := range hearsay {
		for i := maxStrangerDials; i < len(at); i++ {
			if d := at[i].Sub(at[i-maxStrangerDials]); d < pacingSpan {
				t.Errorf("%s was dialed %d times on hearsay in %v", ip, maxStrangerDials+1, d)
			}
		}
	}
	if len(w.d.flying) > 0 {
		t.Errorf("in flight at the end: %v", w.d.flying)
	}
}

func randomID(r *rand.Rand) peer.ID {
	id, err := peer.IDFromBytes(append([]byte{0x12, 32}, binary.BigEndian.AppendUint64(make([]byte, 24), r.Uint64())...))
	if err != nil {
		panic(err)
	}
	return id
}

// dialOnce runs one dial against a clock of its own, as dial.run does.
func dialOnce(w *dialWorld, r *rand.Rand, hearsay map[netip.Addr][]time.Time) {
	const timeout = 10 * time.Second
	background := r.IntN(2) == 0
	start := w.now
	all := make(map[multiaddr.Addr]*step)
	explained := make(map[multiaddr.Addr]error)
	add := func(race *race, now time.Duration) {
		var steps []*step
		for range r.IntN(8) {
			k := known(fmt.Sprintf([]string{"/ip4/8.8.8.%d/tcp/%d", "/ip4/8.8.8.%d/udp/%d/quic-v1", "/ip6/2606:4700:%d::1/tcp/%d", "/ip4/192.168.1.%d/tcp/%d/ws"}[r.IntN(4)], r.IntN(3)+1, r.IntN(3)+1),
				told(Source(r.IntN(4))))
			if r.IntN(4) == 0 {
				k.LastSuccess, k.Took = start.Add(-time.Duration(r.IntN(100))*time.Second), time.Duration(r.IntN(500))*time.Millisecond
			}
			if r.IntN(4) == 0 {
				k.LastFailure, k.Failures = start.Add(-time.Duration(r.IntN(100))*time.Second), r.IntN(5)
			}
			if all[k.Addr] == nil {
				all[k.Addr] = newStep(k, k.Addr)
				steps = append(steps, all[k.Addr])
			}
		}
		plan, skipped := w.d.plan(w.peer, steps, background, race.from(now), w.network, start.Add(now))
		if len(plan)+len(skipped) != len(steps) {
			w.Errorf("of %d addresses %d are planned and %d skipped", len(steps), len(plan), len(skipped))
		}
		for _, s := range skipped {
			explained[s.known.Addr] = s.err
			if !background {
				w.Errorf("%s is not tried although somebody waits: %v", s.known.Addr, s.err)
			}
		}
		for _, s := range plan {
			if !background && s.place != placeLast && s.delay > race.from(now)+maxStagger {
				w.Errorf("%s has its turn after %v", s.known.Addr, s.delay)
			}
		}
		race.add(plan)
	}
	type running struct {
		*step
		begun, ends time.Duration
		result      result
	}
	var race race
	var flying []running
	var outcomes []outcome
	var now time.Duration
	add(&race, 0)
	for rounds := 0; ; rounds++ {
		if rounds > 1000 {
			w.Fatal("the dial does not end")
		}
		s, wait, over := race.next(now)
		if over {
			break
		}
		if s == nil {
			// The clock goes on to whatever is next.
			slices.SortFunc(flying, func(a, b running) int { return int(a.ends - b.ends) })
			if len(flying) == 0 || wait >= 0 && now+wait < flying[0].ends {
				if wait < 0 {
					w.Fatal("it waits for nothing")
				}
				now += wait
				continue
			}
			f := flying[0]
			flying = flying[1:]
			now = f.ends
			w.d.end(f.step, f.result == resultFound)
			outcomes = append(outcomes, outcome{f.step, f.result, now - f.begun, now - f.begun})
			if f.result == resultFound {
				break
			}
			race.failed(now)
			if r.IntN(10) == 0 {
				add(&race, now) // names were resolved
			}
			continue
		}
		if err := w.d.begin(s, start.Add(now)); err != nil {
			if !s.hearsay() {
				w.Errorf("%s is refused: %v", s.known.Addr, err)
			}
			if !errors.Is(err, ErrInFlight) {
				race.skipped()
			} else if race.busy(s) {
				continue
			}
			explained[s.known.Addr] = err
			continue
		}
		if _, twice := explained[s.known.Addr]; twice {
			w.Errorf("%s is tried twice, or although it was skipped", s.known.Addr)
		}
		explained[s.known.Addr] = nil
		for _, f := range flying {
			if f.endpoint == s.endpoint && f.hearsay() && s.hearsay() {
				w.Errorf("two are in flight to %v", s.endpoint)
			}
		}
		f := running{step: s, begun: now, ends: now + timeout, result: resultSilent}
		switch r.IntN(5) {
		case 0:
			f.ends, f.result = now+time.Duration(r.Int64N(int64(timeout))), resultAnswered
		case 1:
			f.ends, f.result = now+time.Duration(r.IntN(int(time.Second))), resultFound
		}
		if f.result != resultFound && s.hearsay() {
			ip := s.endpoint.at.Addr()
			hearsay[ip] = append(hearsay[ip], start.Add(now))
		}
		flying = append(flying, f)
	}
	found := len(outcomes) > 0 && outcomes[len(outcomes)-1].result == resultFound
	for _, f := range flying {
		w.d.end(f.step, false)
		outcomes = append(outcomes, outcome{f.step, resultUnknown, now - f.begun, now - f.begun})
		if f.result == resultFound && f.hearsay() { // it was given up, so it counts
			ip := f.endpoint.at.Addr()
			hearsay[ip] = append(hearsay[ip], start.Add(f.begun))
			slices.SortFunc(hearsay[ip], time.Time.Compare)
		}
	}
	if !found {
		for addr := range all {
			if _, ok := explained[addr]; !ok {
				w.Errorf("%s was neither tried nor explained", addr)
			}
		}
	}
	w.dials++
	w.now = start.Add(now)
	w.d.learn(w.dials, w.peer, outcomes, w.network, w.now)
}
