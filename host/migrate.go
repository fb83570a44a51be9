package host

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// A connection that stands is not always the best that there could be: it was made
// through a relay, or over TCP because a router dropped UDP in that moment. While it
// is used, the host dials for a better one. New streams then go over that, those that
// are open stay where they are, and the old connection ends when it is idle.

const (
	// How soon a better connection is looked for: one without a relay at once, when the
	// peer's addresses are known; QUIC in place of TCP when the connection was used for
	// a while, see Migrate.After. What has failed is tried again after a while that doubles.
	migrateLimited = time.Second
	migrateTCP     = 15 * time.Second
	migrateAgain   = 10 * time.Minute
	// migrateTrips is how many round trips are measured on each of two connections, and
	// who does not answer within migrateTrip lets nothing through.
	migrateTrips = 5
	migrateTrip  = 5 * time.Second
	// migrateTimeout bounds a dial for a better connection with all that is measured.
	migrateTimeout = 20 * time.Second
	// maxMigrations is how many connections are looked after at the same time; of more,
	// each has its turn when the ones before have ended.
	maxMigrations = 1024
)

// Migrate says whether and when a peer's new streams move to a better connection.
type Migrate struct {
	// Off keeps the host from dialing for a better connection than the one it has.
	Off bool

	// After is how long a connection over TCP has to have stood before the host looks
	// for one over QUIC, which it does while streams are open or the peer has a value.
	// What came to nothing is tried again after twice as long, and so on, at most 10 min.
	// 0: 15 s.
	After time.Duration

	// Linger is how long there has to have been no stream on a connection that another
	// has replaced before it is closed, with a peer that cannot agree on that; those that
	// can (docs/supplant.md) do so within seconds. 0: a minute.
	Linger time.Duration

	// Better decides whether new streams go over candidate, a connection that was just
	// made, rather than over current. Until then the host opens no stream on the
	// candidate. It must not block. Nil: unlimited is better than limited, and QUIC is
	// better than TCP when its round trips are shorter by a tenth and by a millisecond.
	Better func(current, candidate MigratePath) bool
}

func (m Migrate) filled() Migrate {
	if m.After <= 0 {
		m.After = migrateTCP
	}
	if m.Linger <= 0 {
		m.Linger = spareIdleForeign
	}
	return m
}

// A MigratePath is a connection of which the round trip was measured.
type MigratePath struct {
	Conn *Conn
	RTT  time.Duration // median of some; on TCP it grows when packets are lost
}

// migrateBetter is the default of Migrate.Better.
func migrateBetter(current, candidate MigratePath) bool {
	if current.Conn.limited != candidate.Conn.limited {
		return current.Conn.limited
	}
	return candidate.RTT < current.RTT-current.RTT/10 && candidate.RTT < current.RTT-time.Millisecond
}

// A migration is what is kept of a connection for which there may be a better one.
type migration struct {
	at   time.Time // of the next dial
	wait time.Duration
	busy bool
}

// migratesTo tells whether an address is worth a dial while there is a connection that
// is limited, or goes over TCP.
func migratesTo(limited bool, a multiaddr.Addr) bool {
	if a.Has(multiaddr.P2PCircuit) {
		return false
	}
	return limited || a.Has(multiaddr.QUICV1) && !a.Has(multiaddr.WebTransport)
}

// noteMigration sees whether there may be a better connection than c. h.mu is held.
func (h *Host) noteMigration(c *Conn, now time.Time) {
	if h.migrate.Off || h.migrations[c] != nil || len(h.migrations) >= maxMigrations {
		return
	}
	first := migrateLimited
	if !c.limited {
		if c.dir == DirInbound || !c.addr.Has(multiaddr.TCP) {
			return // the dialer looks for it
		}
		first = h.migrate.After
	}
	if !slices.ContainsFunc(h.book.info(c.remote).Addrs, func(a multiaddr.Addr) bool { return migratesTo(c.limited, a) }) {
		return
	}
	if h.migrations == nil {
		h.migrations = make(map[*Conn]*migration)
	}
	h.migrations[c] = &migration{at: now.Add(first), wait: first}
}

// identifiedNow looks anew whether there may be a better connection, since the peer
// has told of its addresses.
func (h *Host) identifiedNow(c *Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c.usable() && slices.Contains(h.conns[c.remote], c) {
		h.noteMigration(c, time.Now())
		h.tend()
	}
}

// tendMigrations dials for better connections when it is time, and tells when it will
// be; zero: never. h.mu is held.
func (h *Host) tendMigrations(now time.Time) (next time.Time) {
	for c, m := range h.migrations {
		switch {
		case m.busy:
			continue
		case !c.usable() || h.bestOf(c.remote, nil) != c:
			delete(h.migrations, c) // there is a better one already
			continue
		case now.Before(m.at):
		case c.limited || c.mux.NumStreams() > 0 || h.trimmer.protects(c.remote) || h.trimmer.worth(now, c.remote) > 0:
			m.wait = min(2*m.wait, migrateAgain)
			m.at = now.Add(m.wait)
			m.busy = h.spawn(func(ctx context.Context) { h.dialBetter(ctx, c, m) })
			continue
		default: // nobody uses it
			m.at = now.Add(h.migrate.After)
		}
		if next.IsZero() || m.at.Before(next) {
			next = m.at
		}
	}
	return next
}

// dialBetter tries to find a better connection than c.
func (h *Host) dialBetter(ctx context.Context, c *Conn, m *migration) {
	ctx, cancel := context.WithTimeout(ctx, migrateTimeout)
	defer cancel()
	conn, err := h.dialOnly(ctx, c.remote, func(a multiaddr.Addr) bool { return migratesTo(c.limited, a) })
	if err == nil {
		h.choose(ctx, c, conn)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	m.busy = false
	h.tend()
}

// choose decides between a connection that stands and one that was made to be better.
func (h *Host) choose(ctx context.Context, current, candidate *Conn) {
	better := h.migrate.Better
	if better == nil {
		better = migrateBetter
	}
	candidate.askForEnd(ctx) // it is on trial, so that the remote does not use it either
	paths, failed, err := compare(ctx, candidate, current)
	silent := errors.Is(err, errUnanswered)
	switch {
	case failed == candidate && silent: // it let us connect and lets nothing else through
		candidate.CloseWithCode(ConnCodeSupplanted)
	case failed == current && silent, current.ended.Load(), err == nil && better(paths[1], paths[0]):
		h.prefer(candidate, current)
	default: // it is no better, or nobody knows
		h.dismiss(candidate)
	}
}

// errUnanswered tells that a connection did not answer within migrateTrip.
var errUnanswered = errors.New("host: no answer")

// compare gives the medians of some round trips of two connections, taken in turns, so
// that both are under the same load. It ends with the first that fails.
func compare(ctx context.Context, a, b *Conn) (paths [2]MigratePath, failed *Conn, err error) {
	paths = [2]MigratePath{{Conn: a}, {Conn: b}}
	var trips [2][migrateTrips]time.Duration
	for n := range migrateTrips {
		for i, path := range paths {
			if trips[i][n], err = path.Conn.trip(ctx); err != nil {
				return paths, path.Conn, err
			}
		}
	}
	for i := range paths {
		slices.Sort(trips[i][:])
		paths[i].RTT = trips[i][migrateTrips/2]
	}
	return paths, nil, nil
}

// trip measures one round trip. Where no stream can be opened, nothing is known.
func (c *Conn) trip(ctx context.Context) (time.Duration, error) {
	limit, cancel := context.WithTimeout(ctx, migrateTrip)
	defer cancel()
	start := time.Now()
	err := c.probe(limit)
	if err != nil && limit.Err() != nil && ctx.Err() == nil {
		err = errUnanswered
	}
	return max(time.Since(start), 1), err
}

// prefer makes candidate take the place of current.
func (h *Host) prefer(candidate, current *Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	candidate.judged = false
	if !candidate.usable() || !slices.Contains(h.conns[candidate.remote], candidate) {
		return
	}
	candidate.replaced = false
	delete(h.spares, candidate)
	if current.usable() && !current.replaced {
		current.replaced = true
		h.notePair(current.remote)
		if s := h.spares[current]; s != nil {
			s.tell = true
		}
	}
	h.tend()
}

// dismiss ends a connection that was made in vain, with the consent of the remote,
// which may use it already.
func (h *Host) dismiss(c *Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c.judged = false
	if s := h.spares[c]; s != nil {
		s.tell = true
	}
	h.tend()
}

// dialOnly dials in the background those addresses of p that only wants, though there
// is a connection already.
func (h *Host) dialOnly(ctx context.Context, p peer.ID, only func(multiaddr.Addr) bool) (*Conn, error) {
	if err := h.gate.dialPeer(p); err != nil {
		return nil, err
	}
	h.mu.Lock()
	h.lastDial++
	d := &dial{
		id: h.lastDial, peer: p, host: h, background: true, waiters: 1, only: only,
		wake: make(chan struct{}, 1), done: make(chan struct{}), results: make(chan *attempt, maxAttempts),
	}
	h.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d.conn, d.err = d.run(ctx)
	d.end()
	h.hub.emit(DialEnded{ID: d.id, Peer: p, Conn: d.conn, Err: d.err, Elapsed: time.Since(d.start)})
	return d.conn, d.err
}

// addSpare takes over a connection that is not needed any more. The remote has it
// already, and may be opening a stream on it.
func (h *Host) addSpare(tc TransportConn) {
	if c, err := h.addConn(tc, DirOutbound, true); err == nil {
		h.dismiss(c)
	}
}
