package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

const (
	// upgradeTimeout bounds everything from an accepted connection to one with
	// streams, in total and not for each step.
	upgradeTimeout = 10 * time.Second
	// closeTimeout bounds Close.
	closeTimeout = 900 * time.Millisecond
	// addrsEvery is how often a change of the host's addresses is looked for that
	// nothing has told of, such as a certificate's that a transport has renewed.
	addrsEvery = time.Minute
	// interfacesAge is how old the list of this machine's addresses may be.
	interfacesAge = 5 * time.Second
)

// Config describes a Host. It must not be changed after New.
type Config struct {
	Identity   peer.PrivateKey // required: the host's ID is that of this key
	Transports []Transport     // none: the host can neither dial nor listen
	Resolver   Resolver        // for DNS names in addresses; nil: net.DefaultResolver
	Limits     Limits
	Migrate    Migrate      // how connections are replaced by better ones
	Gate       Gate         // who may connect; the zero value lets everybody
	Logger     *slog.Logger // nil: silent

	// Announce, when set, makes the addresses that are told to others, best first,
	// out of those that the host listens on. It must not block.
	Announce func(listening []multiaddr.Addr) []multiaddr.Addr

	// Move, when set, is called after a change of network: transports take their
	// connections along. What it returns is logged. See Host.NetworkChanged. elsewhere
	// tells where else a peer follows a connection that goes to the address at, which
	// packets cannot leave to any more: it can be called from several goroutines.
	Move func(ctx context.Context, elsewhere func(p peer.ID, at multiaddr.Addr) []multiaddr.Addr) error

	// Store, when set, keeps what must survive a restart: the address book. It must
	// stay open until the host is closed. Nil: nothing survives.
	Store Store

	// Trace, when set, is called for every event, also those that subscriptions do
	// not get, in the goroutine in which it happens, and by several at once. Host.Trace
	// does the same for a host that runs.
	//
	// Connections, streams and the host wait meanwhile, some with locks held. So it must
	// be quick, and call no method of the Host, of a Stream, or of a Conn but those that
	// tell what does not change (ID, RemotePeer, RemoteAddr, Direction, Opened and the
	// like): others wait for what this goroutine holds, for ever. What is to follow from
	// an event belongs into another goroutine: see Host.Subscribe and package trace. A
	// panic in it is not recovered and ends the program, unless it comes in a stream that
	// a handler opens: that handler ends then, as by a panic of its own.
	Trace func(Event)
}

// A Host has an identity, connections with other peers, and handlers for the
// streams that they open. All methods may be called from several goroutines.
type Host struct {
	id         peer.ID
	key        peer.PrivateKey
	transports []Transport
	announce   func([]multiaddr.Addr) []multiaddr.Addr
	move       func(context.Context, func(peer.ID, multiaddr.Addr) []multiaddr.Addr) error
	resolver   Resolver
	limits     Limits
	migrate    Migrate
	gate       Gate
	links      links
	log        *slog.Logger
	hub        hub
	book       *book
	budget     *budget

	halfOpen     waitroom[netip.Prefix]
	unnegotiated waitroom[peer.ID]
	answers      answers
	garbage      garbage
	offenders    offenders
	courtesy     courtesy
	refusals     refusalLog

	tendSoon chan struct{}                 // see tend.go
	done     chan struct{}                 // closed when Close begins
	watch    sync.Once                     // starts watchAddrs
	running  atomic.Int64                  // goroutines of this host
	pacing   atomic.Int32                  // connections whose remotes have to wait
	expected atomic.Int64                  // streams whose proposals are expected, and that have no ticket
	start    func(f func(context.Context)) // starts one, with the host's context
	cancel   context.CancelFunc

	net        atomic.Pointer[NetworkID] // nil: not looked at yet
	moving     sync.Mutex                // guards stopMoving, orphans
	stopMoving context.CancelFunc        // ends what the last change of network has set going
	orphans    map[peer.ID]bool          // are dialed anew after a change of network
	judging    atomic.Bool               // what peers say of our addresses is being gathered

	life   sync.RWMutex // guards closed; held for reading while a goroutine is added
	closed bool
	wg     sync.WaitGroup

	dialing         sync.Mutex // guards dialer
	dialer          *dialer
	backgroundDials chan struct{} // as many as run

	noting sync.Mutex // held by noteAddrs
	lining sync.Mutex // held by lineUp
	order  sync.Mutex // keeps the events of connections in order; taken before mu

	mu         sync.RWMutex
	handlers   map[ProtocolID]service
	listeners  []TransportListener
	conns      map[peer.ID][]*Conn
	all        []*Conn              // the same, in the order of their numbers
	perIP      map[netip.Prefix]int // inbound
	groups     crowds               // inbound, without those that leave
	leaving    int                  // connections that were given up for others; see trim.go
	trimmer    trimmer
	line       line      // who makes way when there is no room
	tending    bool      // a goroutine looks after connections; see tend.go
	tendAt     time.Time // when it does so next
	spares     map[*Conn]*spare
	migrations map[*Conn]*migration
	dials      map[peer.ID]*dial
	lastID     uint64
	lastDial   uint64
	lastAddrs  []multiaddr.Addr
	own        ownAddrs
	mapped     []Mapping
	relayed    []multiaddr.Addr

	connMemory, leavingMemory int // what the connections cost, in bytes, and those that are given up
}

// New makes a host. It opens nothing: see Listen and Connect.
func New(cfg Config) (*Host, error) {
	if cfg.Identity.IsZero() {
		return nil, errors.New("host: Config.Identity is missing: make one with peer.GenerateKey")
	}
	h := &Host{
		id:         cfg.Identity.ID(),
		key:        cfg.Identity,
		transports: slices.Clone(cfg.Transports),
		announce:   cfg.Announce,
		move:       cfg.Move,
		resolver:   cfg.Resolver,
		limits:     cfg.Limits.Resolve(MachineMemory()),
		gate:       cfg.Gate,
		log:        cfg.Logger,
		done:       make(chan struct{}),
		tendSoon:   make(chan struct{}, 1),
		migrate:    cfg.Migrate.filled(),
		handlers:   make(map[ProtocolID]service),
		conns:      make(map[peer.ID][]*Conn),
		orphans:    make(map[peer.ID]bool),
		perIP:      make(map[netip.Prefix]int),
		dials:      make(map[peer.ID]*dial),
	}
	h.dialer = newDialer(rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())), time.Now())
	h.backgroundDials = make(chan struct{}, maxBackgroundDials)
	if cfg.Trace != nil {
		h.hub.trace(cfg.Trace)
	}
	if err := h.limits.check(); err != nil {
		return nil, err
	}
	h.trimmer = trimmer{hard: h.limits.Conns, grace: h.limits.Grace}
	if h.resolver == nil {
		h.resolver = net.DefaultResolver
	}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	h.book = newBook(h.limits.BookMemory)
	h.refusals.log, h.refusals.spawn, h.refusals.emit = h.log, h.spawn, h.hub.emit
	h.budget = newBudget(h.limits, h.spawn, h.accounts, h.refusals.note, h.refusals.end)
	h.budget.garbage = &h.garbage
	h.garbage.memory = goMemory{}
	h.halfOpen = waitroom[netip.Prefix]{max: h.limits.HalfOpen, perGroup: h.limits.HalfOpenPerGroup, evictSelf: true, name: "HalfOpen", groupName: "HalfOpenPerGroup", refusals: &h.refusals}
	h.unnegotiated = waitroom[peer.ID]{max: h.limits.UnnegotiatedStreams, perGroup: h.limits.UnnegotiatedStreamsPerPeer, name: "UnnegotiatedStreams", groupName: "UnnegotiatedStreamsPerPeer", refusals: &h.refusals}
	ctx, cancel := context.WithCancel(context.Background())
	h.cancel = cancel
	h.start = func(f func(context.Context)) {
		h.count()
		go func() {
			defer h.release()
			f(ctx)
		}()
	}
	if cfg.Store != nil {
		if err := h.keepBook(cfg.Store); err != nil {
			cancel()
			return nil, err
		}
	}
	return h, nil
}

// ID is who this host is.
func (h *Host) ID() peer.ID { return h.id }

// Key is the host's identity; protocols sign with it.
func (h *Host) Key() peer.PrivateKey { return h.key }

// Logger is the host's logger, for protocols that run on it.
func (h *Host) Logger() *slog.Logger { return h.log }

// Go runs f in a goroutine that the host owns: ctx ends when the host is closed,
// and Close waits for f. It does nothing when the host is closed already.
func (h *Host) Go(f func(ctx context.Context)) { h.spawn(f) }

// spawn tells whether f was started.
func (h *Host) spawn(f func(context.Context)) bool {
	h.life.RLock()
	defer h.life.RUnlock()
	if h.closed {
		return false
	}
	h.start(f)
	return true
}

// hold is for who starts a goroutine without spawn: when it tells true, the
// goroutine is counted until it calls release.
func (h *Host) hold() bool {
	h.life.RLock()
	defer h.life.RUnlock()
	if !h.closed {
		h.count()
	}
	return !h.closed
}

func (h *Host) count() {
	h.running.Add(1)
	h.wg.Add(1)
}

func (h *Host) release() {
	h.running.Add(-1)
	h.wg.Done()
}

// Handle serves the streams that remotes open with proto. A handler that is there
// already is replaced.
func (h *Host) Handle(proto ProtocolID, handler Handler) {
	h.mu.Lock()
	h.handlers[proto] = service{proto, handler}
	h.mu.Unlock()
	h.hub.emit(ProtocolsChanged{Protocols: h.Protocols()})
}

// RemoveHandler undoes Handle. Streams that are being served go on.
func (h *Host) RemoveHandler(proto ProtocolID) {
	h.mu.Lock()
	_, ok := h.handlers[proto]
	delete(h.handlers, proto)
	h.mu.Unlock()
	if ok {
		h.hub.emit(ProtocolsChanged{Protocols: h.Protocols()})
	}
}

// A service is a protocol with its handler; it keeps the protocol's name so that
// a name on the wire need not become a string of its own.
type service struct {
	proto  ProtocolID
	handle Handler
}

func (h *Host) service(proto []byte) service {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if s, ok := h.handlers[ProtocolID(proto)]; ok || ProtocolID(proto) != supplantProtocol {
		return s
	}
	return service{supplantProtocol, answerSupplant}
}

// Protocols lists the protocols that the host serves, sorted.
func (h *Host) Protocols() []ProtocolID {
	h.mu.RLock()
	defer h.mu.RUnlock()
	protos := make([]ProtocolID, 0, len(h.handlers))
	for p := range h.handlers {
		protos = append(protos, p)
	}
	slices.Sort(protos)
	return protos
}

// Listen takes connections in on addr, which can have port 0 for any free one.
func (h *Host) Listen(addr multiaddr.Addr) error {
	i := slices.IndexFunc(h.transports, func(t Transport) bool { return t.CanListen(addr) })
	if i < 0 {
		return fmt.Errorf("host: listening on %s: %w", addr, ErrNoTransport)
	}
	l, err := h.transports[i].Listen(addr)
	if err != nil {
		return fmt.Errorf("host: listening on %s: %w", addr, err)
	}
	h.mu.Lock()
	h.listeners = append(h.listeners, l)
	h.mu.Unlock()
	h.watch.Do(func() { h.spawn(h.watchAddrs) })
	if !h.spawn(func(ctx context.Context) { h.acceptLoop(ctx, l) }) {
		l.Close()
		return ErrClosed
	}
	h.noteAddrs()
	return nil
}

func (h *Host) acceptLoop(ctx context.Context, l TransportListener) {
	for {
		in, err := l.Accept()
		if err != nil {
			h.mu.Lock()
			h.listeners = slices.DeleteFunc(h.listeners, func(k TransportListener) bool { return k == l })
			h.mu.Unlock()
			if ctx.Err() == nil {
				h.log.Error("listener ended", "addr", l.Addr().String(), "err", err)
				h.noteAddrs()
			}
			return
		}
		h.admit(in)
	}
}

// admit decides whether an accepted connection gets a chance.
func (h *Host) admit(in Incoming) {
	h.garbage.stir()
	addr := in.RemoteAddr()
	err := h.gate.accept(addr)
	if err == nil {
		err = h.room(addr)
	}
	if err != nil {
		in.Close()
		h.hub.emit(UpgradeFailed{Addr: addr, Err: err})
		return
	}
	ticket := h.halfOpen.enter(addrGroup(addr), addrOwner(addr), func() { in.Close() })
	if ticket == nil || !h.spawn(func(ctx context.Context) { h.upgrade(ctx, in, ticket) }) {
		in.Close()
		if ticket != nil {
			ticket.leave()
		}
	}
}

// room tells whether one more inbound connection from addr is within the limits, as far as
// that is known before its handshake. Some who are not are let in as far as register.
func (h *Host) room(addr multiaddr.Addr) error {
	owner := addrOwner(addr)
	now := time.Now()
	if wait := h.offenders.wait(owner, now); wait > 0 {
		return fmt.Errorf("host: %d connections from %s broke rules: no more for %v", maxOffences, owner, wait.Round(time.Millisecond))
	}
	h.mu.RLock()
	defer h.mu.RUnlock()
	full := h.full(connCost)
	if full != nil && h.groups.largest() > h.groups.of(addrGroup(addr)) {
		full = nil // a group that has more may make way for it
	}
	if n := h.perIP[owner]; distant(owner) && n >= h.limits.ConnsPerIP {
		full = &LimitError{Scope: "ConnsPerIP", Used: n, Limit: h.limits.ConnsPerIP}
	}
	if full == nil || h.courtesy.take(now) {
		return nil
	}
	h.refusals.note(full)
	return full
}

// refuse makes the error of a limit that keeps something out, and counts it.
func (h *Host) refuse(scope string, used, limit int) *LimitError {
	e := &LimitError{Scope: scope, Used: used, Limit: limit}
	h.refusals.note(e)
	return e
}

func (h *Host) upgrade(ctx context.Context, in Incoming, ticket *ticket[netip.Prefix]) {
	ctx, cancel := context.WithTimeout(ctx, upgradeTimeout)
	defer cancel()
	start := time.Now()
	var stage atomic.Uint32
	tc, err := in.Upgrade(ctx, func(s Stage) {
		stage.Store(uint32(s))
		ticket.advance(s)
	})
	if !ticket.leave() && err == nil {
		tc.Mux.CloseWithCode(ConnCodeResourceLimit)
		return
	}
	if err == nil {
		_, err = h.addConn(tc, DirInbound, false)
	}
	if err != nil {
		h.hub.emit(UpgradeFailed{Addr: in.RemoteAddr(), Stage: Stage(stage.Load()), Elapsed: time.Since(start), Err: err})
	}
}

// addConn takes over a connection that a transport made. On an error it is closed.
// standby: it is not used while there is another with the peer, until prefer or dismiss
// is called. It is called from a goroutine of the host.
func (h *Host) addConn(tc TransportConn, dir Direction, standby bool) (*Conn, error) {
	c := &Conn{
		host: h, mux: tc.Mux, remote: tc.RemoteKey.ID(), key: tc.RemoteKey, local: tc.LocalAddr, addr: tc.RemoteAddr,
		dir: dir, security: tc.Security, muxer: tc.Muxer, limited: tc.Limited, opened: time.Now(), done: make(chan struct{}),
		datagrams: tc.Datagrams, cost: cmp.Or(tc.Cost, connCost), streamCost: cmp.Or(tc.StreamCost, streamCost),
	}
	c.account.shed = tc.Shed
	// Before the lock, since it is a program's own function.
	if err := h.gate.secured(c.remote, dir, c.addr); err != nil {
		h.start(func(context.Context) { tc.Mux.CloseWithCode(ConnCodeGated) })
		return nil, err
	}
	h.order.Lock()
	defer h.order.Unlock()
	first, err := h.register(c, tc.Charge, standby)
	for err == errNoLine {
		h.order.Unlock()
		h.lineUp(c.opened)
		h.order.Lock()
		first, err = h.register(c, tc.Charge, standby)
	}
	if err != nil {
		code := ConnCodeResourceLimit
		if errors.Is(err, ErrClosed) {
			code = ConnCodeShutdown
		}
		// Not under the lock: it can take as long as the remote likes, up to a second.
		h.start(func(context.Context) { tc.Mux.CloseWithCode(code) })
		return nil, err
	}
	h.book.connect(c.remote, true)
	if first {
		h.hub.emit(PeerConnected{Peer: c.remote})
	}
	h.hub.emit(ConnOpened{Conn: c})
	h.suspectOthers(c)
	if !h.spawn(c.serve) {
		h.start(func(context.Context) {
			c.CloseWithCode(ConnCodeShutdown)
			close(c.done)
			h.removeConn(c, ErrClosed)
		})
		return nil, ErrClosed
	}
	return c, nil
}

func (h *Host) register(c *Conn, charge func(*Account), standby bool) (first bool, err error) {
	if c.remote == h.id {
		return false, ErrDialSelf
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	with := h.conns[c.remote]
	if len(with) >= h.limits.ConnsPerPeer {
		return false, h.refuse("ConnsPerPeer", len(with), h.limits.ConnsPerPeer)
	}
	owner, counted := countedOwner(c)
	if counted && h.perIP[owner] >= h.limits.ConnsPerIP {
		return false, h.refuse("ConnsPerIP", h.perIP[owner], h.limits.ConnsPerIP)
	}
	if err := h.makeRoom(c); err != nil {
		return false, err
	}
	if counted {
		h.perIP[owner]++
	}
	if c.dir == DirInbound {
		h.groups.add(c.group(), 1)
	}
	h.lastID++
	c.id = h.lastID
	h.all = append(h.all, c)
	h.connMemory += c.cost
	held := new(share)
	if len(with) > 0 {
		held = with[0].account.peer
	}
	c.account.open(h.budget, held, c.group())
	if charge != nil {
		charge(&c.account) // before anybody can find the connection and open streams
	}
	if best := h.bestOf(c.remote, nil); best != nil {
		c.judged = standby
		c.unproven.Store(c.dir == DirInbound && best.dir == DirInbound)
		c.replaced = c.judged || c.unproven.Load()
	}
	h.conns[c.remote] = append(with, c)
	h.leaveLine(c.opened)
	h.joinLine(c)
	h.notePair(c.remote)
	h.noteMigration(c, c.opened)
	h.tend()
	return len(with) == 0, nil
}

// countedOwner gives the address owner to which an inbound connection is charged.
func countedOwner(c *Conn) (netip.Prefix, bool) {
	owner := addrOwner(c.addr)
	return owner, c.dir == DirInbound && distant(owner)
}

func (h *Host) unregister(c *Conn) (last bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.migrations, c)
	with := slices.DeleteFunc(h.conns[c.remote], func(k *Conn) bool { return k == c })
	if i, ok := h.find(c.id); ok {
		h.all = slices.Delete(h.all, i, i+1)
	}
	h.leaveLine(time.Now())
	h.connMemory -= c.cost
	if c.leaving {
		h.leaving--
		h.leavingMemory -= c.cost
	} else if c.dir == DirInbound {
		h.groups.add(c.group(), -1)
	}
	if owner, ok := countedOwner(c); ok {
		if h.perIP[owner]--; h.perIP[owner] == 0 {
			delete(h.perIP, owner)
		}
	}
	if len(with) > 0 {
		h.conns[c.remote] = with
		h.forgetPair(c)
		return false
	}
	delete(h.conns, c.remote)
	delete(h.spares, c)
	return true
}

func (h *Host) removeConn(c *Conn, err error) {
	h.order.Lock()
	defer h.order.Unlock()
	last := h.unregister(c)
	c.account.close()
	h.hub.emit(ConnClosed{Conn: c, Err: err})
	if last {
		h.book.connect(c.remote, false)
		h.hub.emit(PeerDisconnected{Peer: c.remote})
	}
}

// Conns lists the open connections.
func (h *Host) Conns() []*Conn {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return slices.Clone(h.all)
}

// ConnsTo lists the open connections with p, the oldest first.
func (h *Host) ConnsTo(p peer.ID) []*Conn {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return slices.Clone(h.conns[p])
}

// Peers lists the peers that the host is connected to, sorted.
func (h *Host) Peers() []peer.ID {
	h.mu.RLock()
	defer h.mu.RUnlock()
	peers := make([]peer.ID, 0, len(h.conns))
	for p := range h.conns {
		peers = append(peers, p)
	}
	slices.SortFunc(peers, peer.ID.Compare)
	return peers
}

// PeerInfo tells what is known of p.
func (h *Host) PeerInfo(p peer.ID) PeerInfo { return h.book.info(p) }

// KnownAddrs lists the addresses that are known of p, with what is known of each in
// the network that this machine is in.
func (h *Host) KnownAddrs(p peer.ID) []KnownAddr { return h.book.known(p, h.network()) }

// AddAddrs notes addresses at which a peer can perhaps be dialed, for ttl, on the
// user's word (SourceUser). Those that name another peer, or none that a dial could
// use, are left out.
func (h *Host) AddAddrs(info peer.AddrInfo, ttl time.Duration) {
	h.book.addAddrs(info.ID, dialable(info), SourceUser, ttl)
}

// dialable strips the /p2p part from a peer's addresses and drops what names another peer.
func dialable(info peer.AddrInfo) []multiaddr.Addr {
	addrs := make([]multiaddr.Addr, 0, min(len(info.Addrs), maxAddrsPerPeer))
	for _, a := range info.Addrs {
		transport, id := peer.SplitAddr(a)
		if transport.IsZero() || (!id.IsZero() && id != info.ID) {
			continue
		}
		if len(addrs) == maxAddrsPerPeer {
			break
		}
		addrs = append(addrs, transport)
	}
	return addrs
}

// Discovered notes a peer that a discovery found, and tells subscribers. The name is
// the discovery's, such as "mdns"; source is SourceLocal or, when what it found was
// other peers' word, SourceStranger.
func (h *Host) Discovered(info peer.AddrInfo, name string, source Source) {
	if info.ID == h.id || info.ID.IsZero() {
		return
	}
	info.Addrs = dialable(info)
	h.book.addAddrs(info.ID, info.Addrs, source, TTLTold)
	h.hub.emit(PeerDiscovered{Info: info, Source: name})
}

// Identified notes what a peer said of itself on c; for the identify protocol.
// The connection has proved who the peer is, so info.ID is set from it.
func (h *Host) Identified(c *Conn, info PeerInfo, push bool) {
	info.ID = c.remote
	info.Protocols = info.Protocols[:min(len(info.Protocols), maxProtocolsPerPeer)]
	info.Addrs = dialable(peer.AddrInfo{ID: c.remote, Addrs: info.Addrs})
	kept := h.book.identified(info, c.addr)
	protos := slices.Clone(kept.Protocols)
	slices.Sort(protos)
	protos = slices.Compact(protos)
	for _, c := range h.ConnsTo(c.remote) { // they are the peer's, not the connection's
		if len(kept.Protocols) == len(info.Protocols) {
			c.protocols.Store(&protos)
		}
		c.endsEarly.Store(endsEarly(info.AgentVersion))
	}
	h.identifiedNow(c)
	h.observed(c, info.ObservedAddr)
	h.hub.emit(PeerIdentified{Conn: c, Info: info, Push: push})
}

// NewStream opens a stream to p and agrees on one of protos, of which the first
// that the peer speaks is taken. It connects if there is no connection. The error
// is a *DialError when that fails, and a *ProtocolError when the peer speaks none
// of protos.
//
// When the peer's protocols are known, or only one is given, the stream is ready
// without waiting for the remote: a refusal then shows at the first Read.
func (h *Host) NewStream(ctx context.Context, p peer.ID, protos ...ProtocolID) (*Stream, error) {
	for {
		c, err := h.connTo(ctx, p, nil, false)
		if err != nil {
			return nil, err
		}
		s, err := c.newStream(ctx, protos)
		if err == nil || !c.ended.Load() && err != errSupplanted {
			return s, err
		}
		// The connection ended in the meantime; perhaps there is another.
	}
}

// Close ends all connections and listeners and waits for the host's goroutines.
// It returns within a second, whatever remotes, handlers and the disk do; the error
// then tells how many goroutines still run, and of how many peers something is not saved.
func (h *Host) Close() error {
	h.life.Lock()
	if h.closed {
		h.life.Unlock()
		return nil
	}
	h.closed = true
	close(h.done)
	h.life.Unlock()
	h.cancel()
	h.answers.end()
	h.garbage.end()

	h.mu.Lock()
	listeners := h.listeners
	h.listeners = nil
	h.mu.Unlock()
	var errs []error
	for _, l := range listeners {
		errs = append(errs, l.Close())
	}
	conns := h.Conns()
	for _, c := range conns {
		go c.CloseWithCode(ConnCodeShutdown)
	}
	timer := time.NewTimer(closeTimeout)
	defer timer.Stop()
	for _, c := range conns {
		select {
		case <-c.done:
		case <-timer.C:
			timer.Reset(0)
		}
	}
	// Goroutines of ours may read events until there are no more.
	h.hub.close()
	ended := make(chan struct{})
	go func() {
		h.wg.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-timer.C:
		errs = append(errs, fmt.Errorf("host: closed, but %d of its goroutines still run: handlers must return when their context or stream ends", h.running.Load()))
	}
	if n, err := h.book.unsaved(); err != nil {
		errs = append(errs, fmt.Errorf("host: closed, but what was learned last of %d peers is not saved: %w", n, err))
	}
	return errors.Join(errs...)
}
