package host

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/multistream"
	"github.com/kith-p2p/kith/peer"
)

const (
	// followTimeout bounds all that a change of network sets going. A connection that
	// has not answered by then has other ends: its muxer's.
	followTimeout = 30 * time.Second
	// patience is how long a connection has to answer after a change of network,
	// besides some round trips, until its peer is dialed anew beside it.
	patience      = 500 * time.Millisecond
	patienceTrips = 3
	// farewell is how long a connection that does not answer is kept beside a new one:
	// in that time its packets are sent again several times. Whoever waits for an answer
	// on one of its streams waits for that long.
	farewell = 2 * time.Second
	// farewellPathless is the same for one whose packets cannot even leave: when one of
	// IPv4 and IPv6 has gone, the other often comes back a moment later.
	farewellPathless = 500 * time.Millisecond
	// maxProbes is how many connections are looked at, and peers dialed, at the same time
	// after a change of network. To ask a connection is not to wait for its answer.
	maxProbes = 64
	// askTime is how long a connection may take to let the question out, and glance how
	// long it is listened to for an answer that should be there already.
	askTime = 50 * time.Millisecond
	glance  = time.Millisecond
	// reviveMin is after how long a peer that could not be dialed is dialed again;
	// the wait doubles. Networks often come up in steps: a link, an address, a route.
	reviveMin = 500 * time.Millisecond

	// probeProtocol is proposed to learn whether a connection carries bytes. Nearly
	// everybody speaks it, and a refusal is an answer too.
	probeProtocol = "/ipfs/ping/1.0.0"
)

// NetworkChanged tells the host that this machine's addresses or routes have changed,
// or that it has slept. It returns at once. The host looks at its addresses anew, has
// connections move that can, gives up those that cannot, dials again whom it had
// streams with, and tells its peers. A change during that begins it anew.
//
// Package netwatch calls it; a program that learns of changes otherwise, as on a
// telephone, calls it itself.
func (h *Host) NetworkChanged() { h.spawn(h.follow) }

// follow does what is to be done after a change of network.
func (h *Host) follow(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, followTimeout)
	defer cancel()
	h.moving.Lock()
	if h.stopMoving != nil {
		h.stopMoving()
	}
	h.stopMoving = cancel
	h.moving.Unlock()

	h.links.forget()
	h.lookAround()
	h.forgetSetbacks()
	h.noteAddrs()

	var all sync.WaitGroup
	defer all.Wait()
	if h.move != nil {
		all.Go(func() {
			if err := h.move(ctx, h.elsewhere); err != nil && ctx.Err() == nil {
				h.log.Info("after a change of network", "err", err)
			}
		})
	}
	own := h.localIPs()
	if !slices.ContainsFunc(own, func(ip netip.Addr) bool { return !ip.IsLoopback() }) {
		return // there is no network: what stands may still be good when there is one again
	}
	r := &roaming{host: h, dials: make(chan struct{}, maxProbes)}
	for _, p := range h.orphaned() {
		all.Go(func() { r.revive(ctx, p) })
	}
	var asked []*inquiry
	for _, c := range h.Conns() {
		switch outlook(c.local, c.addr, own) {
		case lost:
			c.stale.Store(true) // before anything waits: new streams go elsewhere
			if r.wants(c) {
				all.Go(func() { r.revive(ctx, c.remote) })
			}
			// The remote will not hear of it, which can take a second.
			h.spawn(func(context.Context) { c.CloseWithCode(ConnCodeNone) })
		case unsure:
			asked = append(asked, &inquiry{conn: c, wanted: r.wants(c)})
		}
	}
	r.check(ctx, asked)
}

// What a change of network means for a connection.
type fate uint8

const (
	unaffected fate = iota // it stays within this machine
	unsure                 // it goes on, can move, or has ended without our knowing
	lost                   // nothing can arrive any more
)

// outlook tells what becomes of a connection of a machine that has the addresses own.
func outlook(local, remote multiaddr.Addr, own []netip.Addr) fate {
	if remote.Scope() == multiaddr.ScopeMachine {
		return unaffected
	}
	ip, ok := local.IP()
	if ok && local.Has(multiaddr.TCP) && !ip.IsUnspecified() && !ip.IsLinkLocalUnicast() &&
		!slices.Contains(own, ip.Unmap().WithZone("")) {
		return lost
	}
	return unsure
}

// A roaming is what one change of network sets going.
type roaming struct {
	host  *Host
	dials chan struct{} // as many as run
}

// wants tells whether the peer of c is dialed anew when c is dead.
func (r *roaming) wants(c *Conn) bool { return c.NumStreams() > 0 || r.host.Protected(c.remote) }

// An inquiry is whether a connection goes on.
type inquiry struct {
	conn    *Conn
	wanted  bool
	stream  MuxedStream // on which was asked; nil: it could not be
	due     time.Time   // of the answer
	parting time.Duration
}

// check finds out which connections go on, and sees to it that the peers of those that
// do not are reached otherwise. All are asked before the first answer is waited for, those
// that are wanted first: 10,000 that are dead are known to be after some seconds.
func (r *roaming) check(ctx context.Context, all []*inquiry) {
	slices.SortStableFunc(all, func(a, b *inquiry) int { return btoi(b.wanted) - btoi(a.wanted) })
	each(all, func(q *inquiry) { q.ask(ctx) })

	var wanted sync.WaitGroup
	defer wanted.Wait()
	each(all, func(q *inquiry) {
		switch {
		case q.answered():
		case ctx.Err() != nil:
			q.wanted = false
		default:
			q.conn.stale.Store(true)
			if !q.wanted {
				q.due = q.due.Add(q.parting)
				return
			}
			wanted.Go(func() {
				r.revive(ctx, q.conn.remote)
				if ctx.Err() == nil {
					q.due = time.Now().Add(q.parting)
				}
				q.part(ctx)
			})
		}
	})
	rest := slices.DeleteFunc(all, func(q *inquiry) bool { return q.wanted })
	each(rest, func(q *inquiry) { q.part(ctx) })
}

// each calls f for all, for those first that are due first.
func each(all []*inquiry, f func(*inquiry)) {
	slices.SortStableFunc(all, func(a, b *inquiry) int { return a.due.Compare(b.due) })
	var next atomic.Int64
	var workers sync.WaitGroup
	defer workers.Wait()
	for range min(maxProbes, len(all)) {
		workers.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(all)); i = next.Add(1) - 1 {
				f(all[i])
			}
		})
	}
}

// ask asks without waiting for the answer.
func (q *inquiry) ask(ctx context.Context) {
	c := q.conn
	q.due, q.parting = time.Now(), farewellPathless
	if ap, _, ok := c.addr.AddrPort(); !ok || leaves(ap) || c.movesElsewhere() {
		q.due, q.parting = q.due.Add(min(patience+patienceTrips*c.RTT(), followTimeout/2)), farewell
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	mux, err := c.mux.OpenStream(ctx)
	if err != nil {
		return
	}
	mux.SetWriteDeadline(time.Now().Add(askTime))
	if _, err := mux.Write(multistream.AppendProposal(nil, probeProtocol)); err != nil {
		mux.Reset(CodeNone)
		return
	}
	q.stream = mux
}

// answered waits for the answer, at the longest until it is due, and tells whether there is one.
func (q *inquiry) answered() bool {
	if q.stream == nil {
		return false
	}
	deadline := time.Now().Add(glance)
	if q.due.After(deadline) {
		deadline = q.due
	}
	q.stream.SetReadDeadline(deadline)
	var b [1]byte
	n, err := q.stream.Read(b[:])
	var reset *StreamError
	switch {
	case n > 0 || errors.Is(err, io.EOF):
		q.stream.Close()
	case errors.As(fromMux(err), &reset) && reset.Remote: // a refusal is an answer too
		q.stream.Reset(CodeNone)
	default:
		return false
	}
	q.stream = nil
	q.conn.stale.Store(false)
	return true
}

// part waits for a late answer, and closes the connection if there is another in its place.
func (q *inquiry) part(ctx context.Context) {
	c := q.conn
	if q.stream == nil && !c.stale.Load() {
		return // it has answered
	}
	if q.answered() {
		return
	}
	if q.stream != nil {
		q.stream.Reset(CodeNone)
	}
	if ctx.Err() != nil {
		return
	}
	if other := c.host.best(c.remote); other != nil && other != c && !other.stale.Load() {
		c.CloseWithCode(ConnCodeSupplanted)
	}
}

// leaves tells whether packets to ap find a way out of this machine.
func leaves(ap netip.AddrPort) bool {
	from, to := sourceTo(ap), ap.Addr()
	// A route without an address that fits leaves the kernel with one that does not.
	return from.IsValid() && (!from.IsLinkLocalUnicast() || to.IsLinkLocalUnicast()) && (!from.IsLoopback() || to.IsLoopback())
}

// FamiliesProtocol is announced by identify, and no streams are opened of it: connections
// over QUIC with who announces it can be moved between IPv4 and IPv6 by their dialer,
// from any address that it listens on to any other. To others such packets are those of
// a connection that they know nothing of, and what they answer can end it.
const FamiliesProtocol ProtocolID = "/kith/quic-families/1"

// elsewhere lists the addresses of the other of IPv4 and IPv6 at which p follows a
// connection over QUIC that goes to at, if packets to at have no way and those to there
// do. It may be dialed there.
func (h *Host) elsewhere(p peer.ID, at multiaddr.Addr) []multiaddr.Addr {
	from, _, ok := at.AddrPort()
	if last, _ := at.Last(); !ok || last.Code() != multiaddr.QUICV1 || leaves(from) || !h.announces(p, FamiliesProtocol) {
		return nil
	}
	var found []multiaddr.Addr
	for _, k := range h.KnownAddrs(p) {
		to, _, ok := k.Addr.AddrPort()
		if last, _ := k.Addr.Last(); ok && last.Code() == multiaddr.QUICV1 && to.Addr().Is4() != from.Addr().Is4() &&
			k.Source != SourceStranger && h.undialable(p, k) == nil && leaves(to) {
			found = append(found, k.Addr)
		}
	}
	// On one port there is most likely one node.
	slices.SortStableFunc(found, func(a, b multiaddr.Addr) int {
		x, _, _ := a.AddrPort()
		y, _, _ := b.AddrPort()
		return btoi(y.Port() == from.Port()) - btoi(x.Port() == from.Port())
	})
	return found
}

// announces tells whether p has said that it speaks proto.
func (h *Host) announces(p peer.ID, proto ProtocolID) bool {
	return slices.ContainsFunc(h.ConnsTo(p), func(c *Conn) bool {
		protos := c.protocols.Load()
		if protos == nil {
			return false
		}
		_, found := slices.BinarySearch(*protos, proto)
		return found
	})
}

// movesElsewhere tells whether the connection can move although packets cannot leave to
// where it was dialed.
func (c *Conn) movesElsewhere() bool {
	return c.dir == DirOutbound && c.host.move != nil && len(c.host.elsewhere(c.remote, c.addr)) > 0
}

// suspectOthers asks the other connections that a peer made whether they go on, when it
// has come from elsewhere: it may have moved, and then nobody tells us that they are
// dead. They would keep streams waiting, and soon keep the peer itself out.
func (h *Host) suspectOthers(c *Conn) {
	if c.dir != DirInbound || c.limited || !addrOwner(c.addr).IsValid() {
		return
	}
	for _, k := range h.ConnsTo(c.remote) {
		if k.dir == DirInbound && !k.limited && addrOwner(k.addr) != addrOwner(c.addr) && k.checked.CompareAndSwap(false, true) {
			if !h.spawn(func(ctx context.Context) {
				defer k.checked.Store(false)
				ctx, cancel := context.WithTimeout(ctx, followTimeout)
				defer cancel()
				r := &roaming{host: h, dials: make(chan struct{}, 1)}
				r.check(ctx, []*inquiry{{conn: k, wanted: r.wants(k)}})
			}) {
				return
			}
		}
	}
}

// probe returns nil when the remote has answered.
func (c *Conn) probe(ctx context.Context) error {
	mux, err := c.mux.OpenStream(ctx)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { mux.Reset(CodeNone) })
	defer stop()
	_, err = multistream.Select(mux, probeProtocol)
	if err == nil {
		mux.Close()
		return nil
	}
	mux.Reset(CodeNone)
	var refused *multistream.NotSupportedError
	var reset *StreamError
	if errors.As(err, &refused) || errors.As(fromMux(err), &reset) && reset.Remote {
		return nil
	}
	return err
}

// revive dials a peer until there is a connection with it that can be relied on. What
// the next change of network interrupts, that takes up again.
func (r *roaming) revive(ctx context.Context, p peer.ID) {
	h := r.host
	h.moving.Lock()
	h.orphans[p] = true
	h.moving.Unlock()
	for wait := reviveMin; !r.dial(ctx, p); wait *= 2 {
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
			continue
		case <-ctx.Done():
			timer.Stop()
		}
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			break
		}
		return
	}
	h.moving.Lock()
	delete(h.orphans, p)
	h.moving.Unlock()
}

// dial tells whether there is a connection with p, or never will be.
func (r *roaming) dial(ctx context.Context, p peer.ID) bool {
	select {
	case r.dials <- struct{}{}:
		defer func() { <-r.dials }()
	case <-ctx.Done():
		return false
	}
	c, err := r.host.connTo(ctx, p, nil, false)
	return err == nil && !c.stale.Load() || errors.Is(err, ErrNoAddrs)
}

// orphaned lists the peers that are to be dialed anew and could not be yet.
func (h *Host) orphaned() []peer.ID {
	h.moving.Lock()
	defer h.moving.Unlock()
	return slices.SortedFunc(maps.Keys(h.orphans), peer.ID.Compare)
}
