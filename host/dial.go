package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

const (
	// dialTimeout bounds a whole dial when the caller's context does not.
	dialTimeout = 15 * time.Second
	// attemptTimeout bounds one address.
	attemptTimeout = 10 * time.Second
	// maxAttempts is how many addresses of one peer are tried in one dial.
	maxAttempts = 32
	// maxBackgroundDials is how many dials run at a time that nobody waits for: few
	// enough for a home router. Those that somebody waits for are not counted.
	maxBackgroundDials = 16
	// silence is after which time an address that has not answered counts as silent
	// when its dial ends.
	silence = 3 * time.Second
)

// Connect gives a connection with a peer: one that stands, or the first that
// opens. The addresses are remembered as the user's own. When several callers want
// the same peer at the same time there is one dial, which ends when the last of them
// gives up. It waits neither for other dials nor because addresses failed before.
// The error is a *DialError.
func (h *Host) Connect(ctx context.Context, to peer.AddrInfo) (*Conn, error) {
	return h.connect(ctx, to, false)
}

// ConnectBackground is Connect for a connection that nobody waits for: it keeps off
// addresses that failed lately and kinds of addresses that do not work here, tries
// one after the other, and waits its turn when many such dials are under way. To
// connect with a peer of which others told, call Discovered before, and leave
// to.Addrs empty.
func (h *Host) ConnectBackground(ctx context.Context, to peer.AddrInfo) (*Conn, error) {
	return h.connect(ctx, to, true)
}

func (h *Host) connect(ctx context.Context, to peer.AddrInfo, background bool) (*Conn, error) {
	addrs := dialable(to)
	h.book.addAddrs(to.ID, addrs, SourceUser, TTLTold)
	return h.connTo(ctx, to.ID, addrs, background)
}

// connTo finds or makes a connection with p; addrs are those that the caller
// wants to be tried.
func (h *Host) connTo(ctx context.Context, p peer.ID, addrs []multiaddr.Addr, background bool) (*Conn, error) {
	if p == h.id {
		return nil, ErrDialSelf
	}
	if err := h.gate.dialPeer(p); err != nil {
		return nil, &DialError{Peer: p, Cause: err}
	}
	for {
		stale := h.best(p)
		if stale != nil && !stale.stale.Load() {
			return stale, nil
		}
		d, joined, err := h.joinDial(p, addrs, background)
		if err != nil {
			return nil, err
		}
		if d == nil {
			continue
		}
		select {
		case <-d.done:
		case <-ctx.Done():
			d.leave()
			return nil, d.failure(context.Cause(ctx))
		}
		d.leave()
		// A dial that was over when this caller came says nothing of its addresses.
		if d.err != nil && joined && !d.covers(addrs, background) {
			continue
		}
		if d.err != nil && stale != nil && !stale.ended.Load() {
			return stale, nil // it may still answer
		}
		return d.conn, d.err
	}
}

// A dial is the one attempt to connect to a peer, shared by all who want to.
type dial struct {
	id      uint64
	peer    peer.ID
	host    *Host
	network NetworkID
	start   time.Time
	cancel  context.CancelFunc
	wake    chan struct{}             // there may be more to try
	only    func(multiaddr.Addr) bool // which addresses are tried; nil: all
	done    chan struct{}             // closed after conn and err are set

	conn *Conn
	err  error

	results  chan *attempt // that have ended; room for all
	resolved chan resolution

	// owned by run
	race  race
	names int  // look-ups under way
	turn  bool // one of backgroundDials is taken

	mu         sync.Mutex
	waiters    int
	background bool // nobody waits who is in a hurry
	planned    []multiaddr.Addr
	attempts   []*attempt
	tries      int // attempts that were made or will be
	over       bool
	alone      bool // run is in its one attempt, and sees no wake
}

// An attempt is one address of a dial.
type attempt struct {
	step *step // nil: a name that was not resolved
	addr multiaddr.Addr

	// guarded by dial.mu
	begun   bool
	start   time.Time
	delay   time.Duration
	reached *progress
	ended   bool
	elapsed time.Duration
	err     error
	conn    TransportConn
}

// progress is how far an attempt came. It is apart from all else of the dial, since
// connections can hold on to it.
type progress struct {
	start time.Time

	mu     sync.Mutex
	stage  Stage
	stages [StageMuxed + 1]time.Duration
}

func (p *progress) reach(s Stage) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s > p.stage && s <= StageMuxed {
		p.stage = s
		p.stages[s] = time.Since(p.start)
	}
}

func (p *progress) get() (Stage, [StageMuxed + 1]time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stage, p.stages
}

// first is when the first sign of life came; 0: none has.
func (p *progress) first() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, at := range p.stages {
		if at > 0 {
			return at
		}
	}
	return 0
}

// joinDial joins the dial to p that runs, or starts one. The dial is nil if there is a
// connection by now.
func (h *Host) joinDial(p peer.ID, addrs []multiaddr.Addr, background bool) (d *dial, joined bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if d := h.dials[p]; d != nil && d.join(addrs, background) {
		return d, true, nil
	}
	// One that was under way when the caller looked for a connection can have ended since.
	if c := h.bestOf(p, nil); c != nil && !c.stale.Load() {
		return nil, false, nil
	}
	h.lastDial++
	d = &dial{
		id: h.lastDial, peer: p, host: h, background: background, waiters: 1,
		wake: make(chan struct{}, 1), done: make(chan struct{}), results: make(chan *attempt, maxAttempts),
	}
	started := h.spawn(func(ctx context.Context) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		d.mu.Lock()
		d.cancel = cancel
		abandoned := d.waiters == 0
		d.mu.Unlock()
		if abandoned {
			cancel()
		}
		d.conn, d.err = d.run(ctx)
		d.end()
		h.mu.Lock()
		if h.dials[p] == d {
			delete(h.dials, p)
		}
		h.mu.Unlock()
		h.hub.emit(DialEnded{ID: d.id, Peer: p, Conn: d.conn, Err: d.err, Elapsed: time.Since(d.start)})
		close(d.done)
	})
	if !started {
		return nil, false, ErrClosed
	}
	h.dials[p] = d
	return d, false, nil
}

// join makes one more wait for the dial, unless everybody has left it. If need be the
// dial looks for more to try; if it cannot, the new one needs a dial of its own.
func (d *dial) join(addrs []multiaddr.Addr, background bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	covered := d.coversLocked(addrs, background)
	if d.waiters == 0 || d.alone && !covered {
		return false
	}
	d.waiters++
	if !covered && !d.over {
		d.background = d.background && background
		select {
		case d.wake <- struct{}{}:
		default:
		}
	}
	return true
}

// covers tells whether the dial did for a caller all that one of its own would.
func (d *dial) covers(addrs []multiaddr.Addr, background bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.coversLocked(addrs, background)
}

func (d *dial) coversLocked(addrs []multiaddr.Addr, background bool) bool {
	return (background || !d.background) && !slices.ContainsFunc(addrs, func(a multiaddr.Addr) bool { return !slices.Contains(d.planned, a) })
}

// leave ends the dial if nobody else waits for it.
func (d *dial) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.waiters--; d.waiters == 0 && d.cancel != nil {
		d.cancel()
	}
}

// run tries the peer's addresses, the likeliest first, until one answers.
func (d *dial) run(ctx context.Context) (*Conn, error) {
	d.start = time.Now()
	if err := d.takeTurn(ctx); err != nil {
		return nil, d.failure(err)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel() // the losers of the race end by themselves
	d.network = d.host.network()
	if !d.look(ctx) {
		return nil, &DialError{Peer: d.peer, Cause: ErrNoAddrs}
	}
	var timer *time.Timer
	var due <-chan time.Time
	for {
		d.holdForAnswers()
		s, wait, over := d.race.next(time.Since(d.start))
		if s != nil {
			d.begin(ctx, s)
			continue
		}
		if over && d.names == 0 {
			return nil, d.failure(context.Cause(ctx))
		}
		switch {
		case wait >= 0 && timer == nil:
			timer = time.NewTimer(wait)
			defer timer.Stop()
			due = timer.C
		case wait >= 0:
			timer.Reset(wait)
		}
		select {
		case <-due:
		case a := <-d.results:
			if a.err == nil {
				return d.take(a.conn)
			}
			d.race.failed(time.Since(d.start))
		case r := <-d.resolved:
			d.takeIn(r)
		case <-d.wake:
			d.look(ctx)
		case <-ctx.Done():
			return nil, d.failure(context.Cause(ctx))
		}
	}
}

// holdForAnswers gives attempts that were answered the time to succeed alone.
func (d *dial) holdForAnswers() {
	if len(d.race.waiting) == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, a := range d.attempts {
		if a.begun && !a.ended {
			if opened := a.reached.first(); opened > 0 {
				d.race.hold(holdUntil(a.delay, opened))
			}
		}
	}
}

// takeTurn waits until there is room for one more dial in the background. It returns
// at once when somebody waits for this one, and the room is then not used.
func (d *dial) takeTurn(ctx context.Context) error {
	d.mu.Lock()
	background := d.background
	d.mu.Unlock()
	for background {
		select {
		case d.host.backgroundDials <- struct{}{}:
			d.turn = true
			return nil
		case <-d.wake:
			d.mu.Lock()
			background = d.background
			d.mu.Unlock()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// look lets all that is known of the peer and was not tried yet take part in the
// race. It tells whether anything is known.
func (d *dial) look(ctx context.Context) bool {
	known := d.host.KnownAddrs(d.peer)
	if d.only != nil {
		known = slices.DeleteFunc(known, func(k KnownAddr) bool { return !d.only(k.Addr) })
	}
	d.mu.Lock()
	first := d.planned == nil
	background := d.background
	fresh := known[:0:0]
	for _, k := range known {
		if !slices.Contains(d.planned, k.Addr) {
			fresh = append(fresh, k)
			d.planned = append(d.planned, k.Addr)
		}
	}
	d.mu.Unlock()
	if first {
		d.host.hub.emit(DialStarted{ID: d.id, Peer: d.peer, Addrs: slices.Clone(d.planned), Background: background})
	}
	var steps []*step
	var names []KnownAddr
	for _, k := range fresh {
		if d.host.mustResolve(k) {
			names = append(names, k)
		} else {
			steps = append(steps, newStep(k, k.Addr))
		}
	}
	d.plan(append(steps, d.reconsidered(background)...))
	if len(names) > 0 {
		d.resolve(ctx, names)
	}
	return len(known) > 0 || !first
}

// reconsidered are the steps that were not tried because nobody was in a hurry.
func (d *dial) reconsidered(background bool) (steps []*step) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if background {
		return nil
	}
	for i, a := range d.attempts {
		if a.step != nil && !a.begun && a.ended && (errors.Is(a.err, ErrBackoff) || errors.Is(a.err, ErrBlackHole)) {
			steps = append(steps, a.step)
			d.attempts[i] = nil
		}
	}
	d.attempts = slices.DeleteFunc(d.attempts, func(a *attempt) bool { return a == nil })
	return steps
}

// plan ranks steps and lets them take part in the race.
func (d *dial) plan(steps []*step) {
	if len(steps) == 0 {
		return
	}
	h := d.host
	var skipped []skippedStep
	steps = slices.DeleteFunc(steps, func(s *step) bool {
		err := h.undialable(d.peer, s.known)
		if err != nil {
			skipped = append(skipped, skippedStep{s, err})
		}
		return err != nil
	})
	now := time.Now()
	elapsed := now.Sub(d.start)
	d.mu.Lock()
	background := d.background
	d.mu.Unlock()
	h.dialing.Lock()
	plan, more := h.dialer.plan(d.peer, steps, background, d.race.from(elapsed), d.network, now)
	h.dialing.Unlock()
	skipped = append(skipped, more...)

	d.mu.Lock()
	plan = slices.DeleteFunc(plan, func(s *step) bool {
		if d.attempt(s.known.Addr) != nil {
			return true // another name led to it too
		}
		if d.tries == maxAttempts {
			skipped = append(skipped, skippedStep{s, &SkipError{Reason: ErrTooManyAddrs, Detail: fmt.Sprintf("%d are", maxAttempts)}})
			return true
		}
		d.tries++
		d.attempts = append(d.attempts, &attempt{step: s, addr: s.known.Addr})
		return false
	})
	skipped = slices.DeleteFunc(skipped, func(s skippedStep) bool { return d.attempt(s.known.Addr) != nil })
	for _, s := range skipped {
		d.attempts = append(d.attempts, &attempt{step: s.step, addr: s.known.Addr, ended: true, err: s.err})
	}
	d.mu.Unlock()
	d.race.add(plan)
	if !h.hub.traced() {
		return
	}
	ranked := DialRanked{ID: d.id, Peer: d.peer}
	for _, s := range plan {
		ranked.Steps = append(ranked.Steps, DialStep{Addr: s.known.Addr, Source: s.known.Source, Delay: s.delay, Why: s.place.String()})
	}
	for _, s := range skipped {
		ranked.Skipped = append(ranked.Skipped, DialAttempt{Addr: s.known.Addr, Err: s.err})
	}
	h.hub.emit(ranked)
}

// attempt finds the attempt at addr, or nil. d.mu is held.
func (d *dial) attempt(addr multiaddr.Addr) *attempt {
	for _, a := range d.attempts {
		if a.addr == addr {
			return a
		}
	}
	return nil
}

// resolve looks names up beside the race.
func (d *dial) resolve(ctx context.Context, names []KnownAddr) {
	if d.resolved == nil {
		d.resolved = make(chan resolution, 1)
	}
	d.names++
	start := time.Now()
	d.host.start(func(context.Context) {
		r := d.host.resolveAll(ctx, d.peer, names)
		r.elapsed = time.Since(start)
		select {
		case d.resolved <- r:
		case <-ctx.Done(): // the dial is over
		}
	})
}

// takeIn lets the addresses that names stand for take part in the race.
func (d *dial) takeIn(r resolution) {
	d.names--
	d.mu.Lock()
	for _, f := range r.failed {
		d.attempts = append(d.attempts, &attempt{addr: f.Addr, ended: true, err: f.Err})
	}
	d.mu.Unlock()
	if d.host.hub.traced() {
		e := DialResolved{ID: d.id, Peer: d.peer, Failed: r.failed, Elapsed: r.elapsed}
		for _, s := range r.steps {
			e.Addrs = append(e.Addrs, s.known.Addr)
		}
		d.host.hub.emit(e)
	}
	d.plan(r.steps)
}

// begin starts an attempt, whose turn has come.
func (d *dial) begin(ctx context.Context, s *step) {
	h := d.host
	now := time.Now()
	h.dialing.Lock()
	err := h.dialer.begin(s, now)
	h.dialing.Unlock()
	if err != nil {
		if !errors.Is(err, ErrInFlight) {
			d.race.skipped()
		} else if d.race.busy(s) {
			return
		}
	}
	d.mu.Lock()
	a := d.attempt(s.known.Addr)
	// No race, so it needs no goroutine.
	alone := err == nil && !d.background && d.race.alone() && d.names == 0 && len(d.wake) == 0
	d.alone = alone
	if err == nil {
		a.begun, a.start, a.delay, a.reached = true, now, now.Sub(d.start), &progress{start: now}
	}
	d.mu.Unlock()
	if err != nil {
		d.finish(a, err)
		return
	}
	if !alone {
		h.start(func(context.Context) { d.try(ctx, a) })
		return
	}
	d.try(ctx, a)
	d.mu.Lock()
	d.alone = false
	d.mu.Unlock()
}

// try dials one address.
func (d *dial) try(ctx context.Context, a *attempt) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	h := d.host
	tc, err := h.transport(a.addr).Dial(ctx, a.addr, d.peer, a.reached.reach)
	if err == nil && tc.RemoteKey.ID() != d.peer {
		tc.Mux.CloseWithCode(ConnCodeProtocolViolation)
		err = &peer.MismatchError{Want: d.peer, Got: tc.RemoteKey.ID()}
	}
	h.dialing.Lock()
	h.dialer.end(a.step, err == nil)
	h.dialing.Unlock()
	d.finish(a, err)
	d.mu.Lock()
	over := d.over
	if !over {
		a.conn = tc
		d.results <- a // there is room
	}
	d.mu.Unlock()
	if over && err == nil {
		h.addSpare(tc)
	}
}

// finish notes and tells what became of an attempt, once.
func (d *dial) finish(a *attempt, err error) {
	d.mu.Lock()
	if a.ended {
		d.mu.Unlock()
		return
	}
	a.ended, a.err = true, err
	if a.begun {
		a.elapsed = time.Since(a.start)
	}
	report := a.report(nil)
	d.mu.Unlock()
	if d.host.hub.traced() {
		d.host.hub.emit(DialAttempted{ID: d.id, Peer: d.peer, Attempt: report})
	}
}

// take makes a connection of the host of what a transport made.
func (d *dial) take(tc TransportConn) (*Conn, error) {
	c, err := d.host.addConn(tc, DirOutbound, d.only != nil)
	if err != nil {
		return nil, d.failure(err)
	}
	return c, nil
}

// end gives up the attempts that still run, so that nothing is told of them after
// the dial, and learns from all.
func (d *dial) end() {
	d.mu.Lock()
	d.over = true
	attempts := slices.Clone(d.attempts)
	var running []*attempt
	for _, a := range attempts {
		if a.begun && !a.ended {
			running = append(running, a)
		}
	}
	d.mu.Unlock()
	why := ErrNotNeeded
	if d.conn == nil {
		why = context.Canceled
	}
	for _, a := range running {
		d.finish(a, why)
	}
	d.learn(attempts)
	if d.turn {
		<-d.host.backgroundDials
	}
	// Those that were nearly as fast as the first.
	for len(d.results) > 0 {
		if a := <-d.results; a.err == nil {
			d.host.start(func(context.Context) { d.host.addSpare(a.conn) })
		}
	}
}

// learn remembers how the attempts went.
func (d *dial) learn(attempts []*attempt) {
	var last time.Time // when the winner started
	outcomes := make([]outcome, 0, len(attempts))
	d.mu.Lock()
	for _, a := range attempts {
		if a.begun && a.err == nil {
			last = a.start
		}
	}
	for _, a := range attempts {
		if a.begun {
			outcomes = append(outcomes, outcome{a.step, a.result(last), a.elapsed, cmp.Or(a.reached.first(), a.elapsed)})
		}
	}
	d.mu.Unlock()
	if len(outcomes) == 0 {
		return
	}
	h := d.host
	now := time.Now()
	h.dialing.Lock()
	h.dialer.learn(d.id, d.peer, outcomes, d.network, now)
	h.dialing.Unlock()
	for _, o := range outcomes {
		switch {
		case o.result == resultFound:
			h.book.dialed(d.peer, o.origin, d.network, o.took, nil, now)
		case o.result != resultUnknown && o.origin == o.known.Addr: // a name can stand for others, too
			h.book.dialed(d.peer, o.origin, d.network, 0, errSilent, now)
		}
	}
}

// errSilent tells the book that an address failed.
var errSilent = errors.New("host: no connection")

// result tells what an attempt says of its address. winner is when the attempt began
// that gave the connection; zero: none did. dial.mu is held.
func (a *attempt) result(winner time.Time) result {
	stage, _ := a.reached.get()
	switch {
	case a.err == nil:
		return resultFound
	case errors.Is(a.err, syscall.EMFILE), errors.Is(a.err, syscall.ENFILE), errors.Is(a.err, net.ErrClosed):
		return resultUnknown // the fault is ours
	case givenUp(a.err) && a.elapsed < attemptTimeout:
		overtaken := winner.After(a.start) && a.elapsed >= a.step.expect
		if stage == StageStart && (overtaken || a.elapsed >= silence) {
			return resultSilent
		}
		return resultUnknown
	case stage > StageStart, strings.Contains(a.err.Error(), "refused"):
		return resultAnswered
	}
	return resultSilent
}

// givenUp tells of an attempt that did not end by itself.
func givenUp(err error) bool {
	return errors.Is(err, ErrNotNeeded) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
}

func (d *dial) failure(cause error) *DialError {
	return &DialError{Peer: d.peer, Attempts: d.report(cause), Cause: cause}
}

// report tells of every attempt so far; those that still run, or wait, failed by cause.
func (d *dial) report(cause error) []DialAttempt {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]DialAttempt, len(d.attempts))
	for i, a := range d.attempts {
		all[i] = a.report(cause)
	}
	return all
}

func (a *attempt) report(cause error) DialAttempt {
	r := DialAttempt{Addr: a.addr, Start: a.start, Delay: a.delay, Elapsed: a.elapsed, Err: a.err}
	if a.begun {
		r.Stage, r.Stages = a.reached.get()
	}
	if !a.ended {
		r.Err = cause
		if a.begun {
			r.Elapsed = time.Since(a.start)
		}
	}
	return r
}

// forgetSetbacks makes the host try again what failed: its network is another now, or
// the same anew.
func (h *Host) forgetSetbacks() {
	h.dialing.Lock()
	defer h.dialing.Unlock()
	h.dialer.moved()
}

// transport finds who dials addr.
func (h *Host) transport(addr multiaddr.Addr) Transport {
	for _, t := range h.transports {
		if t.CanDial(addr) {
			return t
		}
	}
	return nil
}

// undialable tells why an address is not worth an attempt, or not allowed one.
func (h *Host) undialable(p peer.ID, known KnownAddr) error {
	if ip, ok := known.Addr.IP(); ok {
		if ip.IsUnspecified() || ip.IsMulticast() {
			return fmt.Errorf("host: %s is not the address of one machine", ip)
		}
	}
	if h.transport(known.Addr) == nil {
		return ErrNoTransport
	}
	return h.forbidden(p, known.Addr, known.Source)
}
