package host

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync"
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
	// maxProbes is how many connections are asked, and peers dialed, at the same time
	// after a change of network.
	maxProbes = 64
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
			if err := h.move(ctx); err != nil && ctx.Err() == nil {
				h.log.Info("after a change of network", "err", err)
			}
		})
	}
	own := h.localIPs()
	if !slices.ContainsFunc(own, func(ip netip.Addr) bool { return !ip.IsLoopback() }) {
		return // there is no network: what stands may still be good when there is one again
	}
	room := make(chan struct{}, maxProbes)
	do := func(f func()) {
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			return
		}
		all.Go(func() {
			defer func() { <-room }()
			f()
		})
	}
	for _, p := range h.orphaned() {
		do(func() { h.revive(ctx, p) })
	}
	for _, c := range h.Conns() {
		fate := outlook(c.local, c.addr, own)
		if fate == unaffected {
			continue
		}
		if fate == lost {
			c.stale.Store(true) // before anything waits: new streams go elsewhere
		}
		do(func() { h.check(ctx, c, fate) })
	}
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

// check finds out whether a connection goes on, and sees to it that its peer is
// reached otherwise if it does not.
func (h *Host) check(ctx context.Context, c *Conn, fate fate) {
	wanted := c.NumStreams() > 0 || h.Protected(c.remote)
	if fate == lost {
		go c.CloseWithCode(ConnCodeNone) // the remote will not hear of it, which can take a second
		if wanted {
			h.revive(ctx, c.remote)
		}
		return
	}
	answer := make(chan error, 1)
	go func() { answer <- c.probe(ctx) }()
	parting := farewellPathless
	if ap, _, ok := c.addr.AddrPort(); !ok || leaves(ap) {
		parting = farewell
		timer := time.NewTimer(patience + patienceTrips*c.RTT())
		defer timer.Stop()
		select {
		case err := <-answer:
			answer <- err
		case <-timer.C:
		}
	}
	select {
	case err := <-answer:
		if err == nil {
			c.stale.Store(false)
			return
		}
		answer <- err
	default:
	}
	if ctx.Err() != nil {
		return
	}
	c.stale.Store(true)
	if wanted {
		h.revive(ctx, c.remote)
	}
	timer := time.NewTimer(parting)
	defer timer.Stop()
	select {
	case err := <-answer:
		if err == nil {
			c.stale.Store(false)
			return
		}
	case <-timer.C:
	case <-ctx.Done():
		return
	}
	if other := h.best(c.remote); other != nil && other != c && !other.stale.Load() {
		c.CloseWithCode(ConnCodeSupplanted)
	}
}

// leaves tells whether packets to ap find a way out of this machine.
func leaves(ap netip.AddrPort) bool {
	from, to := sourceTo(ap), ap.Addr()
	// A route without an address that fits leaves the kernel with one that does not.
	return from.IsValid() && (!from.IsLinkLocalUnicast() || to.IsLinkLocalUnicast()) && (!from.IsLoopback() || to.IsLoopback())
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
				h.check(ctx, k, unsure)
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
func (h *Host) revive(ctx context.Context, p peer.ID) {
	h.moving.Lock()
	h.orphans[p] = true
	h.moving.Unlock()
	for wait := reviveMin; ; wait *= 2 {
		c, err := h.connTo(ctx, p, nil, false)
		if err == nil && !c.stale.Load() || errors.Is(err, ErrNoAddrs) {
			break
		}
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

// orphaned lists the peers that are to be dialed anew and could not be yet.
func (h *Host) orphaned() []peer.ID {
	h.moving.Lock()
	defer h.moving.Unlock()
	return slices.SortedFunc(maps.Keys(h.orphans), peer.ID.Compare)
}
