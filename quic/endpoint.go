package quic

import (
	"cmp"
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	quicgo "github.com/quic-go/quic-go"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/udp"
)

const (
	// handshakeTimeout is how long a handshake may go without a packet of the remote.
	// Ten round trips around the world fit.
	handshakeTimeout = 5 * time.Second

	// defaultIdleTimeout is how long a connection lives without a packet of the
	// remote, if the remote does not say less, as go-libp2p's 30 s. Half a minute without
	// a network, and the time to come back, is not the end of its streams.
	defaultIdleTimeout = 45 * time.Second

	// keepAlive is how often an idle connection sends a packet. rust-libp2p gives
	// connections up after 10 s, and NATs forget UDP mappings after 30 s.
	keepAlive = 5 * time.Second

	// unmovedTimeout is how long a connection that stays on its socket waits for the
	// remote's answer. quic-go gives none if the address that it sees has not changed.
	unmovedTimeout = time.Second

	// maxElsewhere is how many addresses of the other family are tried for a connection, in
	// turn: the remote has three connection IDs to spare, and each takes one for a while.
	maxElsewhere = 2

	// Windows are what the remote may send before we have read it, in bytes. A stream
	// starts with what one round trip of 100 ms at 20 Mbit/s carries, as in yamux, and
	// grows with what the reader takes, up to go-libp2p's. A connection starts with room
	// for five streams that nobody reads, so that they hold up no others. When there are
	// many connections new ones start with less, and with room for two: a MiB then takes
	// one round trip more. go-libp2p gives room for one and a half.
	wideStreamWindow   = 256 << 10
	wideConnWindow     = 1280 << 10
	narrowStreamWindow = 128 << 10
	narrowConnWindow   = 256 << 10
	maxStreamWindow    = 10 << 20
	maxConnWindow      = 15 << 20

	// defaultWide is how many connections there may be until new ones start with narrow
	// windows.
	defaultWide = 128

	// defaultIncomingStreams is how many streams the remote may have open: as many as
	// host.Limits lets a peer have. An idle one takes about 3 KiB, and one that was not
	// accepted yet, for which nobody is charged, 4 KiB.
	defaultIncomingStreams = 1024

	// incomingUniStreams are those in one direction. libp2p has none; HTTP/3 has three
	// and may have one that means nothing, and WebTransport as many as a user opens.
	incomingUniStreams = 16

	// acceptQueue is how many connections wait for Accept. The host takes each at
	// once; the queue bridges the time for which it is not scheduled.
	acceptQueue = 128
)

// EndpointConfig describes an Endpoint. The zero value works.
type EndpointConfig struct {
	// Sockets are shared with what is not QUIC. Nil: the endpoint's own.
	Sockets *udp.Sockets

	// Key makes that peers notice at once when this host was restarted and has
	// forgotten their connections: what tells them is derived from it. Zero: they
	// notice after their idle timeout.
	Key peer.PrivateKey

	// MaxIncomingStreams is how many streams the remote of one connection may have
	// open; who opens more waits. Default 1024; kith.Start wants fewer.
	MaxIncomingStreams int

	// MaxOpening is how many connections may have begun of which the first flight is not
	// complete. Default 1024.
	MaxOpening int

	// MaxWide is how many connections there may be until new ones start with narrow
	// windows: 256 KiB, and 128 KiB for each stream, instead of 1280 and 256 KiB. What
	// comes within these is charged when it has come. Default 128.
	MaxWide int

	// IdleTimeout is how long a connection lives without a packet of the remote; the
	// remote may want less. Default 45 s, at least 6 s: an idle connection sends a
	// packet every 5 s.
	IdleTimeout time.Duration
}

// An Endpoint has the QUIC connections of a host, those dialed and those accepted,
// over as few UDP sockets as possible: a dial leaves from a socket that is listened
// on, so that a NAT maps both to one public port. QUIC of libp2p and of HTTP/3 share
// a socket and are told apart by the application protocol (ALPN) that clients name.
type Endpoint struct {
	sockets *udp.Sockets
	wide    *quicgo.Config
	narrow  *quicgo.Config
	maxWide int
	reset   *quicgo.StatelessResetKey // nil: none
	gate    gate
	meters  meters
	homes   homes

	numConns atomic.Int64 // that were accepted or dialed

	moving sync.Mutex // held while connections move

	mu     sync.Mutex
	open   map[netip.AddrPort]*socket
	away   map[bool]*socket // of IPv4 (true) and IPv6: for connections of the other family
	dialed map[*quicgo.Conn]*route
	closed bool
}

// NewEndpoint makes an endpoint. It opens nothing.
func NewEndpoint(cfg EndpointConfig) *Endpoint {
	if cfg.Sockets == nil {
		cfg.Sockets = new(udp.Sockets)
	}
	streams := int64(cfg.MaxIncomingStreams)
	if streams == 0 {
		streams = defaultIncomingStreams
	}
	idle := cfg.IdleTimeout
	if idle <= 0 {
		idle = defaultIdleTimeout
	}
	e := &Endpoint{
		sockets: cfg.Sockets,
		homes:   homes{seed: maphash.MakeSeed()},
		open:    make(map[netip.AddrPort]*socket),
		away:    make(map[bool]*socket),
		dialed:  make(map[*quicgo.Conn]*route),
		maxWide: cmp.Or(cfg.MaxWide, defaultWide),
		wide: &quicgo.Config{
			Versions:                       []quicgo.Version{quicgo.Version1},
			HandshakeIdleTimeout:           handshakeTimeout,
			MaxIdleTimeout:                 idle,
			KeepAlivePeriod:                keepAlive,
			InitialStreamReceiveWindow:     wideStreamWindow,
			MaxStreamReceiveWindow:         maxStreamWindow,
			InitialConnectionReceiveWindow: wideConnWindow,
			MaxConnectionReceiveWindow:     maxConnWindow,
			MaxIncomingStreams:             streams,
			MaxIncomingUniStreams:          incomingUniStreams,
			EnableDatagrams:                true,
			// WebTransport needs it; it changes nothing where it is not used.
			EnableStreamResetPartialDelivery: true,
		},
	}
	e.wide.AllowConnectionWindowIncrease = e.meters.allow
	e.narrow = e.wide.Clone()
	e.narrow.InitialStreamReceiveWindow = narrowStreamWindow
	e.narrow.InitialConnectionReceiveWindow = narrowConnWindow
	e.wide.GetConfigForClient = func(*quicgo.ClientInfo) (*quicgo.Config, error) { return e.config(), nil }
	if cfg.MaxOpening > 0 {
		e.gate.max = cfg.MaxOpening
	}
	if !cfg.Key.IsZero() {
		e.reset = resetKey(cfg.Key)
	}
	return e
}

// config is that of a new connection.
func (e *Endpoint) config() *quicgo.Config {
	if int(e.numConns.Load())+e.gate.len() < e.maxWide {
		return e.wide
	}
	return e.narrow
}

// resetKey derives the key from which stateless resets are made.
// https://www.rfc-editor.org/rfc/rfc9000.html#section-10.3.2
func resetKey(key peer.PrivateKey) *quicgo.StatelessResetKey {
	b, err := hkdf.Key(sha256.New, key.Marshal(), nil, "kith quic stateless reset", len(quicgo.StatelessResetKey{}))
	if err != nil {
		return nil // not with this hash and this length
	}
	return (*quicgo.StatelessResetKey)(b)
}

// A socket is a UDP socket and quic-go's work on it. It lives as long as it has a
// listener or a connection.
type socket struct {
	endpoint *Endpoint
	conn     *udp.QUICConn
	local    netip.AddrPort
	tr       *quicgo.Transport
	place    int                    // in homes
	sibling  atomic.Pointer[socket] // of the other family; nil: none
	away     bool                   // it is in Endpoint.away, not in Endpoint.open
	aliases  aliases                // where packets go if it is

	// guarded by Endpoint.mu
	server    *quicgo.EarlyListener // nil: nobody listens
	listeners map[string]*Listener  // by ALPN
	conns     map[*quicgo.Conn]bool // that use the socket, or have used it
	dials     int                   // that are running
	gone      bool                  // its address is not ours any more
}

// A route is where a dialed connection goes. (The connection knows, but it may not
// be asked while it moves.)
type route struct {
	dialed netip.AddrPort // the address as quic-go knows it
	to     netip.AddrPort // where packets go; of the other family, or the same
	from   *socket
	path   *quicgo.Path // nil: the one of the handshake
	peer   peer.ID      // zero: not known, or not over libp2p's protocol
}

// socket finds or opens the socket at ap. e.mu is held.
func (e *Endpoint) socket(ap netip.AddrPort) (*socket, error) {
	if e.closed {
		return nil, fmt.Errorf("quic: the endpoint is closed: %w", net.ErrClosed)
	}
	if s := e.open[ap]; s != nil {
		return s, nil
	}
	s, err := e.newSocket(ap, false)
	if err != nil {
		return nil, err
	}
	e.open[s.local] = s
	e.pair()
	return s, nil
}

// elsewhere finds or opens the socket for connections of the other family. e.mu is held.
func (e *Endpoint) elsewhere(is4 bool) (*socket, error) {
	if e.closed {
		return nil, fmt.Errorf("quic: the endpoint is closed: %w", net.ErrClosed)
	}
	if s := e.away[is4]; s != nil {
		return s, nil
	}
	s, err := e.newSocket(netip.AddrPortFrom(unspecified(is4), 0), true)
	if err != nil {
		return nil, err
	}
	e.away[is4] = s
	return s, nil
}

func unspecified(is4 bool) netip.Addr {
	if is4 {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

func (e *Endpoint) newSocket(ap netip.AddrPort, away bool) (*socket, error) {
	conn, err := e.sockets.QUIC(ap)
	if err != nil {
		return nil, fmt.Errorf("quic: %w", err)
	}
	s := &socket{
		endpoint:  e,
		conn:      conn,
		local:     conn.LocalAddrPort(),
		place:     maxHomes,
		away:      away,
		listeners: make(map[string]*Listener),
		conns:     make(map[*quicgo.Conn]bool),
	}
	if !away { // what comes there is for connections whose home is elsewhere
		s.place = e.homes.enter(s)
		s.conn.Forward(s.home)
	}
	s.tr = &quicgo.Transport{
		Conn:                  wire{conn, s},
		ConnectionIDGenerator: connIDs{&e.homes, byte(s.place)},
		StatelessResetKey:     e.reset,
		VerifySourceAddress:   e.gate.wantsRetry,
		ConnContext:           e.gate.enter,
	}
	return s, nil
}

// release closes the socket if nobody needs it. e.mu is held; what is returned is
// called without it.
func (s *socket) release() func() {
	e := s.endpoint
	if len(s.listeners) > 0 || len(s.conns) > 0 || s.dials > 0 || e.open[s.local] != s && e.away[s.is4()] != s {
		return func() {}
	}
	if s.away {
		delete(e.away, s.is4())
	} else {
		delete(e.open, s.local)
		e.pair()
	}
	return s.close
}

func (s *socket) close() {
	s.endpoint.homes.leave(s)
	s.tr.Close()
	s.conn.Close()
}

// keep counts conn as a user of the socket until it ends. It tells whether the
// endpoint is still open.
func (s *socket) keep(conn *quicgo.Conn, dialed *route) bool {
	e := s.endpoint
	e.mu.Lock()
	closed, kept := e.closed, s.conns[conn]
	if !closed && !kept {
		s.conns[conn] = true
		if dialed != nil {
			e.dialed[conn] = dialed
		}
	}
	e.mu.Unlock()
	if closed || kept {
		return !closed
	}
	e.numConns.Add(1)
	context.AfterFunc(conn.Context(), func() {
		e.mu.Lock()
		delete(s.conns, conn)
		if route := e.dialed[conn]; route != nil {
			route.leave()
			delete(e.dialed, conn)
		}
		release := s.release()
		e.mu.Unlock()
		e.numConns.Add(-1)
		release()
	})
	return true
}

// Listen takes in connections at ap whose client names alpn. Others can listen at
// the same address with other names. The port can be 0 for any free one. conf gives
// the TLS configuration for a client, which must name alpn too.
func (e *Endpoint) Listen(ap netip.AddrPort, alpn string, conf func(*tls.ClientHelloInfo) (*tls.Config, error)) (*Listener, error) {
	ap = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	e.mu.Lock()
	defer e.mu.Unlock()
	s, err := e.socket(ap)
	if err != nil {
		return nil, err
	}
	if s.listeners[alpn] != nil {
		return nil, fmt.Errorf("quic: %s is listened on for %q already", s.local, alpn)
	}
	if s.server == nil {
		s.server, err = s.tr.ListenEarly(&tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: s.tlsConfig}, e.wide)
		if err != nil {
			go s.release()()
			return nil, fmt.Errorf("quic: %w", err)
		}
		go s.accept(s.server)
	}
	l := &Listener{socket: s, alpn: alpn, conf: conf, queue: make(chan *quicgo.Conn, acceptQueue), done: make(chan struct{})}
	s.listeners[alpn] = l
	return l, nil
}

// tlsConfig picks the listener whose name the client likes best.
func (s *socket) tlsConfig(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	s.endpoint.mu.Lock()
	var l *Listener
	for _, alpn := range hello.SupportedProtos {
		if l = s.listeners[alpn]; l != nil {
			break
		}
	}
	s.endpoint.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("quic: the client speaks %q, nobody here does", hello.SupportedProtos)
	}
	return l.conf(hello)
}

// accept hands connections to their listeners.
func (s *socket) accept(server *quicgo.EarlyListener) {
	for {
		conn, err := server.Accept(context.Background())
		if err != nil {
			return
		}
		s.endpoint.gate.leave(conn.Context())
		s.endpoint.mu.Lock()
		l := s.listeners[conn.ConnectionState().TLS.NegotiatedProtocol]
		s.endpoint.mu.Unlock()
		if l == nil || !s.keep(conn, nil) {
			conn.CloseWithError(quicgo.ApplicationErrorCode(host.ConnCodeShutdown), "")
			continue
		}
		select {
		case l.queue <- conn:
		default:
			conn.CloseWithError(quicgo.ApplicationErrorCode(host.ConnCodeResourceLimit), "")
		}
	}
}

// A Listener takes in connections for one application protocol on one socket.
type Listener struct {
	socket *socket
	alpn   string
	conf   func(*tls.ClientHelloInfo) (*tls.Config, error)
	queue  chan *quicgo.Conn
	done   chan struct{}
	once   sync.Once
}

// Accept waits for the next connection. Its client has not proved who it is: that is
// known when its HandshakeComplete is closed.
func (l *Listener) Accept(ctx context.Context) (*quicgo.Conn, error) {
	select {
	case <-l.done:
		return nil, errListenerClosed
	default:
	}
	select {
	case conn := <-l.queue:
		return conn, nil
	case <-l.done:
		return nil, errListenerClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

var errListenerClosed = fmt.Errorf("quic: the listener is closed: %w", net.ErrClosed)

// Addr is the address listened on, with the real port.
func (l *Listener) Addr() netip.AddrPort { return l.socket.local }

// Close ends Accept. Connections accepted before stay, and keep the socket open.
func (l *Listener) Close() error {
	l.once.Do(func() {
		close(l.done)
		s := l.socket
		e := s.endpoint
		e.mu.Lock()
		delete(s.listeners, l.alpn)
		var server *quicgo.EarlyListener
		if len(s.listeners) == 0 {
			server, s.server = s.server, nil
		}
		release := s.release()
		e.mu.Unlock()
		if server != nil {
			server.Close()
		}
		for len(l.queue) > 0 {
			(<-l.queue).CloseWithError(quicgo.ApplicationErrorCode(host.ConnCodeShutdown), "")
		}
		release()
	})
	return nil
}

// Dial connects to the address to. It returns when ctx ends. The connection leaves
// from a socket that is listened on and can reach the address, else from one of its own kind.
func (e *Endpoint) Dial(ctx context.Context, to netip.AddrPort, conf *tls.Config) (*quicgo.Conn, error) {
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	e.mu.Lock()
	s, err := e.source(to.Addr())
	if err == nil {
		s.dials++
	}
	e.mu.Unlock()
	if err != nil {
		return nil, err
	}
	conn, err := s.tr.Dial(ctx, net.UDPAddrFromAddrPort(to), conf, e.config())
	if err == nil && !s.keep(conn, &route{dialed: to, to: to, from: s}) {
		conn.CloseWithError(quicgo.ApplicationErrorCode(host.ConnCodeShutdown), "")
		err = net.ErrClosed
	}
	e.mu.Lock()
	s.dials--
	release := s.release()
	e.mu.Unlock()
	release()
	if err != nil {
		return nil, handshakeError(err)
	}
	return conn, nil
}

// leadsTo notes whose a dialed connection is, so that it can move to another address of that peer.
func (e *Endpoint) leadsTo(conn *quicgo.Conn, p peer.ID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if route := e.dialed[conn]; route != nil {
		route.peer = p
	}
}

// source finds the socket from which to dial to: one that is listened on, on all
// addresses rather than on one, else any of the family. e.mu is held.
func (e *Endpoint) source(to netip.Addr) (*socket, error) {
	var best *socket
	for _, s := range e.open {
		if s.reaches(to) && (best == nil || s.rank() > best.rank() || s.rank() == best.rank() && s.local.Compare(best.local) < 0) {
			best = s
		}
	}
	if best != nil {
		return best, nil
	}
	return e.socket(netip.AddrPortFrom(unspecified(to.Is4()), 0))
}

// reaches tells whether packets from the socket can get to an IP address.
func (s *socket) reaches(to netip.Addr) bool {
	from := s.local.Addr()
	return from.Is4() == to.Is4() && !s.gone &&
		(from.IsUnspecified() || from.IsLoopback() == to.IsLoopback() && (s.server != nil || !s.bound()))
}

func (s *socket) bound() bool { return !s.local.Addr().IsUnspecified() }

func (s *socket) rank() int {
	rank := 0
	if s.server != nil {
		rank += 2
	}
	if !s.bound() {
		rank++
	}
	return rank
}

// Close ends all connections and listeners of the endpoint.
func (e *Endpoint) Close() error {
	e.mu.Lock()
	e.closed = true
	var listeners []*Listener
	var conns []*quicgo.Conn
	sockets := slices.AppendSeq(slices.Collect(maps.Values(e.open)), maps.Values(e.away))
	for _, s := range sockets {
		for _, l := range s.listeners {
			listeners = append(listeners, l)
		}
		for conn := range s.conns {
			conns = append(conns, conn)
		}
	}
	clear(e.open)
	clear(e.away)
	e.mu.Unlock()
	for _, l := range listeners {
		l.Close()
	}
	var all sync.WaitGroup
	for _, conn := range conns {
		all.Go(func() { closeConn(conn, host.ConnCodeShutdown) })
	}
	all.Wait()
	for _, s := range sockets {
		s.close()
	}
	return nil
}

// closeConn ends a connection and tells the remote why. It takes at most a second.
func closeConn(conn *quicgo.Conn, code uint32) {
	// quic-go first sends what it has packed, and waits for the kernel.
	go conn.CloseWithError(quicgo.ApplicationErrorCode(code), "")
	timeout := time.NewTimer(time.Second)
	defer timeout.Stop()
	select {
	case <-conn.Context().Done():
	case <-timeout.C:
	}
}

// Elsewhere tells where else a peer can be reached whose connection goes to at, if no
// packet can leave to there: at its addresses of the other of IPv4 and IPv6, the best
// first. It must give none of a peer that does not follow connections there: that could
// take the packets for those of a connection that it has forgotten, and say so.
type Elsewhere func(p peer.ID, at netip.AddrPort) []netip.AddrPort

// Rebind moves connections that were dialed to where dials leave from now, and
// returns when all have moved, or when ctx ends. A connection that cannot move
// stays where it is. Streams notice nothing but a delay. elsewhere can be nil: then
// connections stay with IPv4, or with IPv6.
//
// It is to be called when the machine's addresses have changed. A remote that runs
// quic-go before 0.65, as go-libp2p does, can follow a connection twice: it then has
// no connection IDs left. See https://github.com/quic-go/quic-go/issues/5814.
// https://www.rfc-editor.org/rfc/rfc9000.html#section-9
func (e *Endpoint) Rebind(ctx context.Context, elsewhere Elsewhere) error {
	e.moving.Lock()
	defer e.moving.Unlock()
	ours, err := net.InterfaceAddrs()
	if err != nil {
		return fmt.Errorf("quic: which addresses this machine has: %w", err)
	}
	e.mu.Lock()
	for _, s := range e.open {
		s.gone = s.bound() && !s.local.Addr().IsLoopback() && !slices.ContainsFunc(ours, func(a net.Addr) bool {
			prefix, err := netip.ParsePrefix(a.String())
			return err == nil && prefix.Addr().WithZone("") == s.local.Addr().WithZone("")
		})
	}
	conns := slices.Collect(maps.Keys(e.dialed))
	e.mu.Unlock()
	var all sync.WaitGroup
	errs := make([]error, len(conns))
	for i, conn := range conns {
		all.Go(func() { errs[i] = e.rebind(ctx, conn, elsewhere) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// rebind moves a connection.
func (e *Endpoint) rebind(ctx context.Context, conn *quicgo.Conn, elsewhere Elsewhere) error {
	e.mu.Lock()
	route := e.dialed[conn]
	if route == nil {
		e.mu.Unlock()
		return nil // it has ended
	}
	dialed, to, p := route.dialed, []netip.AddrPort{route.to}, route.peer
	e.mu.Unlock()
	if elsewhere != nil && !p.IsZero() {
		others := slices.DeleteFunc(elsewhere(p, to[0]), func(ap netip.AddrPort) bool {
			return ap.Addr().Is4() == dialed.Addr().Is4() && ap != dialed // quic-go knows no other
		})
		if len(others) > 0 {
			to = others[:min(len(others), maxElsewhere)]
		}
	}
	var err error
	for _, ap := range to {
		if err = e.moveTo(ctx, conn, dialed, ap, handshakeTimeout/time.Duration(len(to))); err == nil {
			return nil
		}
	}
	return err
}

// moveTo moves a connection that dialed the address dialed to one with to.
func (e *Endpoint) moveTo(ctx context.Context, conn *quicgo.Conn, dialed, to netip.AddrPort, timeout time.Duration) error {
	e.mu.Lock()
	var s *socket
	var err error
	if to == dialed {
		s, err = e.source(to.Addr())
	} else if s, err = e.elsewhere(to.Addr().Is4()); err == nil {
		if err = s.aliases.add(dialed, to); err == nil {
			defer s.aliases.remove(dialed) // the route has its own
		}
	}
	if err != nil {
		e.mu.Unlock()
		return err
	}
	s.dials++
	e.mu.Unlock()
	err = s.adopt(ctx, conn, to, timeout)
	e.mu.Lock()
	s.dials--
	release := s.release()
	e.mu.Unlock()
	release()
	return err
}

// leave gives up the alias of where the route goes. Endpoint.mu is held.
func (r *route) leave() {
	if r.from.away {
		r.from.aliases.remove(r.dialed)
	}
}

// adopt moves a connection to this socket, after the remote has answered there from
// the address to. If the connection is there already, the remote learns where that is now.
func (s *socket) adopt(ctx context.Context, conn *quicgo.Conn, to netip.AddrPort, timeout time.Duration) error {
	e := s.endpoint
	e.mu.Lock()
	route := e.dialed[conn]
	e.mu.Unlock()
	stays := route != nil && route.from == s
	if route == nil || stays && s.bound() {
		return nil // it has ended, or nothing has changed
	}
	path, err := conn.AddPath(s.tr)
	if err != nil {
		return fmt.Errorf("quic: moving the connection to %s: %w", to, err)
	}
	// Before the first packet: the socket has to outlive the connection from there on.
	if !s.keep(conn, nil) {
		return net.ErrClosed
	}
	if stays {
		timeout = unmovedTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	stop := context.AfterFunc(conn.Context(), cancel)
	defer stop()
	if err := path.Probe(ctx); err != nil {
		path.Close()
		if stays || conn.Context().Err() != nil {
			return nil // or it has ended meanwhile
		}
		return fmt.Errorf("quic: moving the connection to %s: no answer from there to %s: %w", to, s.local, err)
	}
	if err := path.Switch(); err != nil {
		return fmt.Errorf("quic: moving the connection to %s: %w", to, err)
	}
	e.mu.Lock()
	left := route.path
	if e.dialed[conn] == route { // else it has ended meanwhile
		if s.away {
			s.aliases.add(route.dialed, to) // as moveTo did: it cannot fail
		}
		route.leave()
		route.from, route.to, route.path = s, to, path
	}
	e.mu.Unlock()
	if left != nil {
		left.Close() // gives its connection ID back; the remote has few to give
	}
	return nil
}
