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
	h.book.addAddrs(to.ID, addrs, TTLTold)
	return h.connTo(ctx, to.ID, addrs)
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
		if c := h.best(p); c != nil {
			return c, nil
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
		return d.conn, d.err
	}
}

// A dial is the one attempt to connect to a peer, shared by all who want to.
type dial struct {
	peer   peer.ID
	host   *Host
	cancel context.CancelFunc
	done   chan struct{} // closed after conn, err and planned are set

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
	d = &dial{peer: p, host: h, done: make(chan struct{}), waiters: 1}
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
		d.conn, d.err = d.run(ctx)
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
	start time.Time

	// guarded by dial.mu
	stage   Stage
	ended   bool
	elapsed time.Duration
	err     error
}

// run tries the peer's addresses, the likeliest first, until one answers.
func (d *dial) run(ctx context.Context) (*Conn, error) {
	h := d.host
	d.planned = h.book.info(d.peer).Addrs
	if len(d.planned) == 0 {
		return nil, &DialError{Peer: d.peer, Cause: ErrNoAddrs}
	}
	addrs, failed := h.resolveAll(ctx, d.peer, d.planned)
	addrs = slices.DeleteFunc(addrs, func(a multiaddr.Addr) bool {
		err := h.undialable(a)
		if err == nil {
			err = h.gate.dialAddr(d.peer, a)
		}
		if err != nil {
			failed = append(failed, DialAttempt{Addr: a, Err: err})
		}
		return err != nil
	})
	d.mu.Lock()
	for _, f := range failed {
		d.attempts = append(d.attempts, &attempt{addr: f.Addr, ended: true, elapsed: f.Elapsed, err: f.Err})
	}
	d.mu.Unlock()
	plan := rank(addrs)
	plan = plan[:min(len(plan), maxAttempts)]
	h.hub.emit(DialStarted{Peer: d.peer, Addrs: addrs})

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
	a := &attempt{addr: addr, start: time.Now()}
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
		a.stage = max(a.stage, s)
		d.mu.Unlock()
	})
	if err == nil && tc.RemoteKey.ID() != d.peer {
		tc.Mux.CloseWithCode(ConnCodeProtocolViolation)
		err = fmt.Errorf("host: %s answered instead of %s", tc.RemoteKey.ID(), d.peer)
	}
	d.mu.Lock()
	a.ended, a.elapsed, a.err = true, time.Since(a.start), err
	report := a.report(nil)
	d.mu.Unlock()
	d.host.hub.emit(DialAttempted{Peer: d.peer, Attempt: report})
	return result{tc, err}
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
	if !a.ended {
		return DialAttempt{Addr: a.addr, Stage: a.stage, Elapsed: time.Since(a.start), Err: cause}
	}
	return DialAttempt{Addr: a.addr, Stage: a.stage, Elapsed: a.elapsed, Err: a.err}
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
