package host

import (
	"context"
	"fmt"
	"slices"
	"sync"
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
)

// Connect gives a connection with a peer: one that stands, or the first that
// opens. The addresses are remembered. When several callers want the same peer at
// the same time there is one dial, which ends when the last of them gives up.
// The error is a *DialError.
func (h *Host) Connect(ctx context.Context, to peer.AddrInfo) (*Conn, error) {
	addrs := dialable(to)
	h.book.addAddrs(to.ID, addrs, SourceUser, TTLTold)
	return h.connTo(ctx, to.ID, addrs)
}

// ConnectBackground is Connect for a connection that nobody waits for: it keeps
// off addresses that failed lately, and waits its turn when many such dials are under way.
// The addresses are a user's; for those of others, call Discovered before and
// leave to.Addrs empty.
func (h *Host) ConnectBackground(ctx context.Context, to peer.AddrInfo) (*Conn, error) {
	return h.Connect(ctx, to)
}

// connTo finds or makes a connection with p; addrs are those that the caller
// wants to be tried.
func (h *Host) connTo(ctx context.Context, p peer.ID, addrs []multiaddr.Addr) (*Conn, error) {
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
		d, joined, err := h.joinDial(p)
		if err != nil {
			return nil, err
		}
		select {
		case <-d.done:
		case <-ctx.Done():
			d.leave()
			return nil, &DialError{Peer: p, Attempts: d.report(context.Cause(ctx)), Cause: context.Cause(ctx)}
		}
		d.leave()
		// A dial that had begun without this caller's addresses says nothing of them.
		if d.err != nil && joined && slices.ContainsFunc(addrs, func(a multiaddr.Addr) bool { return !slices.Contains(d.planned, a) }) {
			addrs = nil
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
	peer   peer.ID
	host   *Host
	cancel context.CancelFunc
	done   chan struct{} // closed after conn, err and planned are set

	id      uint64
	start   time.Time
	conn    *Conn
	err     error
	planned []multiaddr.Addr // the addresses that were known when it began

	mu       sync.Mutex
	waiters  int
	attempts []*attempt
}

// joinDial joins the dial to p that runs, or starts one.
func (h *Host) joinDial(p peer.ID) (d *dial, joined bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if d := h.dials[p]; d != nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.waiters > 0 {
			d.waiters++
			return d, true, nil
		}
	}
	h.lastDial++
	d = &dial{id: h.lastDial, peer: p, host: h, done: make(chan struct{}), waiters: 1}
	started := h.spawn(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		d.mu.Lock()
		d.cancel = cancel
		abandoned := d.waiters == 0
		d.mu.Unlock()
		if abandoned {
			cancel()
		}
		d.start = time.Now()
		d.conn, d.err = d.run(ctx)
		d.end()
		h.hub.emit(DialEnded{ID: d.id, Peer: p, Conn: d.conn, Err: d.err, Elapsed: time.Since(d.start)})
		h.mu.Lock()
		if h.dials[p] == d {
			delete(h.dials, p)
		}
		h.mu.Unlock()
		close(d.done)
	})
	if !started {
		return nil, false, ErrClosed
	}
	h.dials[p] = d
	return d, false, nil
}

// leave ends the dial if nobody else waits for it.
func (d *dial) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.waiters--; d.waiters == 0 && d.cancel != nil {
		d.cancel()
	}
}

// An attempt is one address of a dial.
type attempt struct {
	addr  multiaddr.Addr
	start time.Time // zero: skipped
	delay time.Duration

	// guarded by dial.mu
	stage   Stage
	stages  [StageMuxed + 1]time.Duration
	ended   bool
	elapsed time.Duration
	err     error
}

// run tries the peer's addresses, the likeliest first, until one answers.
func (d *dial) run(ctx context.Context) (*Conn, error) {
	h := d.host
	d.planned = h.book.info(d.peer).Addrs
	h.hub.emit(DialStarted{ID: d.id, Peer: d.peer, Addrs: d.planned})
	if len(d.planned) == 0 {
		return nil, &DialError{Peer: d.peer, Cause: ErrNoAddrs}
	}
	addrs, skipped := h.resolveAll(ctx, d.peer, d.planned)
	if slices.ContainsFunc(d.planned, isName) {
		h.hub.emit(DialResolved{ID: d.id, Peer: d.peer, Addrs: addrs, Failed: skipped, Elapsed: time.Since(d.start)})
	}
	addrs = slices.DeleteFunc(addrs, func(a multiaddr.Addr) bool {
		err := h.undialable(a)
		if err == nil {
			err = h.forbidden(d.peer, a, SourceUser)
		}
		if err != nil {
			skipped = append(skipped, DialAttempt{Addr: a, Err: err})
		}
		return err != nil
	})
	plan := rank(addrs)
	for len(plan) > maxAttempts {
		skipped = append(skipped, DialAttempt{Addr: plan[len(plan)-1].addr, Err: &SkipError{Reason: ErrTooManyAddrs}})
		plan = plan[:len(plan)-1]
	}
	d.mu.Lock()
	for _, f := range skipped {
		d.attempts = append(d.attempts, &attempt{addr: f.Addr, ended: true, err: f.Err})
	}
	d.mu.Unlock()
	steps := make([]DialStep, len(plan))
	for i, p := range plan {
		steps[i] = DialStep{Addr: p.addr, Delay: p.delay}
	}
	h.hub.emit(DialRanked{ID: d.id, Peer: d.peer, Steps: steps, Skipped: skipped})

	if len(plan) == 1 {
		// No race, so it needs no goroutine, channel and timer.
		r := d.try(ctx, d.begin(plan[0].addr))
		if r.err != nil {
			return nil, d.failure(context.Cause(ctx))
		}
		return d.take(r.conn)
	}

	// The race: the next address starts when its delay has passed or all those
	// before it have failed.
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	results := make(chan result, len(plan))
	begun := time.Now()
	next, running := 0, 0
	timer := time.NewTimer(0)
	defer timer.Stop()
	for next < len(plan) || running > 0 {
		if next < len(plan) && (running == 0 || time.Since(begun) >= plan[next].delay) {
			a := d.begin(plan[next].addr)
			h.start(func(context.Context) { results <- d.try(ctx, a) })
			next++
			running++
			continue
		}
		if next < len(plan) {
			timer.Reset(plan[next].delay - time.Since(begun))
		}
		select {
		case <-timer.C:
		case r := <-results:
			running--
			if r.err != nil {
				continue
			}
			// The losers of the race end by themselves; those that succeed anyway are closed.
			h.start(func(context.Context) { drain(results, running) })
			return d.take(r.conn)
		case <-ctx.Done():
			h.start(func(context.Context) { drain(results, running) })
			return nil, d.failure(context.Cause(ctx))
		}
	}
	return nil, d.failure(nil)
}

// take makes a connection of the host of what a transport made.
func (d *dial) take(tc TransportConn) (*Conn, error) {
	c, err := d.host.addConn(tc, DirOutbound)
	if err != nil {
		return nil, d.failure(err)
	}
	return c, nil
}

func (d *dial) failure(cause error) *DialError {
	return &DialError{Peer: d.peer, Attempts: d.report(cause), Cause: cause}
}

type result struct {
	conn TransportConn
	err  error
}

func drain(results <-chan result, n int) {
	for range n {
		if r := <-results; r.err == nil {
			r.conn.Mux.CloseWithCode(ConnCodeSupplanted)
		}
	}
}

func (d *dial) begin(addr multiaddr.Addr) *attempt {
	now := time.Now()
	a := &attempt{addr: addr, start: now, delay: now.Sub(d.start)}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.attempts = append(d.attempts, a)
	return a
}

// try dials one address.
func (d *dial) try(ctx context.Context, a *attempt) result {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	t := d.host.dialer(a.addr)
	tc, err := t.Dial(ctx, a.addr, d.peer, func(s Stage) {
		d.mu.Lock()
		defer d.mu.Unlock()
		if s > a.stage && s <= StageMuxed && !a.ended {
			a.stage = s
			a.stages[s] = time.Since(a.start)
		}
	})
	if err == nil && tc.RemoteKey.ID() != d.peer {
		tc.Mux.CloseWithCode(ConnCodeProtocolViolation)
		err = fmt.Errorf("host: %s answered instead of %s", tc.RemoteKey.ID(), d.peer)
	}
	d.finish(a, err)
	return result{tc, err}
}

// finish notes and tells what became of an attempt, once.
func (d *dial) finish(a *attempt, err error) {
	d.mu.Lock()
	if a.ended {
		d.mu.Unlock()
		return
	}
	a.ended, a.elapsed, a.err = true, time.Since(a.start), err
	report := a.report(nil)
	d.mu.Unlock()
	d.host.hub.emit(DialAttempted{ID: d.id, Peer: d.peer, Attempt: report})
}

// end gives up the attempts that still run, so that nothing is told of them after
// the dial has ended.
func (d *dial) end() {
	d.mu.Lock()
	running := slices.DeleteFunc(slices.Clone(d.attempts), func(a *attempt) bool { return a.ended })
	d.mu.Unlock()
	err := ErrNotNeeded
	if d.conn == nil {
		err = context.Canceled
	}
	for _, a := range running {
		d.finish(a, err)
	}
}

// report tells of every attempt so far; those that still run failed by cause.
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
	r := DialAttempt{Addr: a.addr, Start: a.start, Delay: a.delay, Stage: a.stage, Stages: a.stages, Elapsed: a.elapsed, Err: a.err}
	if !a.ended {
		r.Elapsed, r.Err = time.Since(a.start), cause
	}
	return r
}

func (h *Host) dialer(addr multiaddr.Addr) Transport {
	for _, t := range h.transports {
		if t.CanDial(addr) {
			return t
		}
	}
	return nil
}

// undialable tells why addr is not worth an attempt.
func (h *Host) undialable(addr multiaddr.Addr) error {
	if ip, ok := addr.IP(); ok {
		if ip.IsUnspecified() || ip.IsMulticast() {
			return fmt.Errorf("host: %s is not the address of one machine", ip)
		}
	}
	if h.dialer(addr) == nil {
		return ErrNoTransport
	}
	return nil
}

func isName(a multiaddr.Addr) bool {
	first, _ := a.First()
	switch first.Code() {
	case multiaddr.DNS, multiaddr.DNS4, multiaddr.DNS6, multiaddr.DNSAddr:
		return true
	}
	return false
}
