package identify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// The two protocols: one asks, the other tells unasked.
// https://github.com/libp2p/specs/blob/master/identify/README.md#overview
const (
	ProtocolID     host.ProtocolID = "/ipfs/id/1.0.0"
	PushProtocolID host.ProtocolID = "/ipfs/id/push/1.0.0"
)

const (
	// timeout bounds one exchange, as with other implementations: a peer that
	// needs longer fails with them too.
	timeout = 5 * time.Second
	// eventBuffer is how many events of the host may wait. The state is read anew
	// when there are more.
	eventBuffer = 256
)

// Config describes a Service. The zero value is good. Of the two versions 256
// bytes are sent, and what is not printable is replaced.
type Config struct {
	AgentVersion    string        // the program and its version; default "kith"
	ProtocolVersion string        // the network that the program is for, such as "/my-network/0.1.0"; default: not said
	PushDelay       time.Duration // how long changes are gathered before peers are told; default 250 ms, negative: they are not told
}

// A Service identifies the peers of a host, and the host to its peers. It ends
// with the host.
type Service struct {
	host            *host.Host
	agentVersion    string
	protocolVersion string
	publicKey       []byte
	pushDelay       time.Duration
	changed         chan struct{} // has a place for one: something is to be pushed

	mu       sync.Mutex
	contacts map[*host.Conn]*contact
	budgets  ledger[peer.ID, budget, *budget]
	groups   ledger[netip.Prefix, bucket, *bucket]
	self     self
}

// A contact is a connection and what was exchanged on it. It is guarded by
// Service.mu.
type contact struct {
	begun    bool      // the remote was asked
	asking   *exchange // nil: not now
	told     uint64    // the version of ourselves that the remote has; 0: none
	pushable bool      // the remote reads pushes
	serving  int       // streams of the remote
}

// An exchange is one question to a remote. Who waits for done may read the rest.
type exchange struct {
	done chan struct{}
	info host.PeerInfo
	err  error
}

// Start answers those who ask who h is, asks the remote of each connection, those
// that are open already included, and tells them of changes, until h is closed.
func Start(h *host.Host, cfg Config) *Service {
	s := newService(h, cfg)
	events := h.Subscribe(eventBuffer)
	h.Handle(ProtocolID, s.answer)
	h.Handle(PushProtocolID, s.hear)
	h.Go(func(ctx context.Context) { s.follow(ctx, events) })
	if s.pushDelay > 0 {
		h.Go(s.push)
	}
	return s
}

func newService(h *host.Host, cfg Config) *Service {
	if cfg.AgentVersion == "" {
		cfg.AgentVersion = "kith"
	}
	if cfg.PushDelay == 0 {
		cfg.PushDelay = 250 * time.Millisecond
	}
	return &Service{
		host:            h,
		agentVersion:    printable([]byte(cfg.AgentVersion)),
		protocolVersion: printable([]byte(cfg.ProtocolVersion)),
		publicKey:       h.Key().Public().Marshal(),
		pushDelay:       cfg.PushDelay,
		changed:         make(chan struct{}, 1),
		contacts:        make(map[*host.Conn]*contact),
		budgets:         make(ledger[peer.ID, budget, *budget]),
		groups:          make(ledger[netip.Prefix, bucket, *bucket]),
		self:            self{stale: true},
	}
}

// Identify asks the remote of c who it is, and tells the host. If it is being
// asked already, as at the start of a connection, the answer is that one. The
// lists in the answer are shared and must not be changed.
//
// What a peer has said before is at hand in host.PeerInfo.
func (s *Service) Identify(ctx context.Context, c *host.Conn) (host.PeerInfo, error) {
	x := s.ask(c)
	if x == nil {
		return host.PeerInfo{}, fmt.Errorf("identify: the connection with %s has ended: %w", c.RemotePeer(), host.ErrClosed)
	}
	select {
	case <-x.done:
		return x.info, x.err
	case <-ctx.Done():
		return host.PeerInfo{}, fmt.Errorf("identify: asking %s: %w", c.RemotePeer(), context.Cause(ctx))
	case <-c.Done():
		select {
		case <-x.done: // it may have ended after the answer
			return x.info, x.err
		default:
			return host.PeerInfo{}, fmt.Errorf("identify: the connection with %s ended before it answered: %w", c.RemotePeer(), host.ErrClosed)
		}
	}
}

// follow keeps contacts in step with the host's connections.
func (s *Service) follow(ctx context.Context, events *host.Subscription) {
	defer events.Close()
	s.catchUp()
	for {
		select {
		case e, ok := <-events.Events():
			if !ok {
				return
			}
			switch e := e.(type) {
			case host.ConnOpened:
				s.begin(e.Conn)
			case host.ConnClosed:
				s.forget(e.Conn)
			case host.AddrsChanged, host.ProtocolsChanged:
				s.outdated()
			case host.EventsLost:
				s.catchUp()
				s.outdated()
			}
		case <-ctx.Done():
			return
		}
	}
}

// catchUp begins with the connections that are new, and forgets those that are gone.
func (s *Service) catchUp() {
	s.mu.Lock()
	gone := slices.DeleteFunc(slices.Collect(maps.Keys(s.contacts)), func(c *host.Conn) bool { return !ended(c) })
	s.mu.Unlock()
	for _, c := range gone {
		s.forget(c)
	}
	for _, c := range s.host.Conns() {
		s.begin(c)
	}
}

// forget drops what is kept of a connection that has ended. What the peer has used
// of its budget stays.
func (s *Service) forget(c *host.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.contacts, c)
	if b := s.budgets[c.RemotePeer()]; b != nil && b.full(time.Now()) {
		delete(s.budgets, c.RemotePeer())
	}
}

func ended(c *host.Conn) bool {
	select {
	case <-c.Done():
		return true
	default:
		return false
	}
}

// contact finds or makes the contact of c; there is none when c has ended, as
// nobody would forget it. s.mu is held.
func (s *Service) contact(c *host.Conn) *contact {
	t := s.contacts[c]
	if t == nil && !ended(c) {
		t = new(contact)
		s.contacts[c] = t
	}
	return t
}

// begin asks the remote of a new connection.
func (s *Service) begin(c *host.Conn) {
	s.mu.Lock()
	t := s.contact(c)
	first := t != nil && !t.begun
	s.mu.Unlock()
	if first {
		s.ask(c)
	}
}

// ask asks the remote of c, unless it is being asked. It returns nil when c has ended.
func (s *Service) ask(c *host.Conn) *exchange {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.contact(c)
	if t == nil || t.asking != nil {
		if t == nil {
			return nil
		}
		return t.asking
	}
	x := &exchange{done: make(chan struct{})}
	t.begun, t.asking = true, x
	s.host.Go(func(ctx context.Context) {
		x.info, x.err = s.request(ctx, c)
		if x.err != nil {
			s.host.Logger().Debug("not identified", "peer", c.RemotePeer().String(), "conn", c.ID(), "err", x.err)
		}
		s.mu.Lock()
		t.asking = nil
		s.mu.Unlock()
		close(x.done)
	})
	return x
}

// request asks and reads the answer.
func (s *Service) request(ctx context.Context, c *host.Conn) (host.PeerInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	st, err := c.NewStream(ctx, ProtocolID)
	if err != nil {
		return host.PeerInfo{}, fmt.Errorf("identify: %w", err)
	}
	deadline, _ := ctx.Deadline()
	st.SetDeadline(deadline)
	info, err := s.receive(st, false)
	if err != nil {
		st.Reset(codeOf(err))
		return host.PeerInfo{}, err
	}
	st.Close()
	return info, nil
}

// codeOf is the code with which a stream ends because of err.
func codeOf(err error) uint32 {
	var coded *host.StreamError
	if errors.As(err, &coded) && !coded.Remote {
		return coded.Code
	}
	return host.CodeNone
}

// answer tells a remote that asks who we are.
func (s *Service) answer(_ context.Context, st *host.Stream) error {
	if !s.enter(st.Conn(), false, time.Now()) {
		return errRefused
	}
	defer s.leave(st.Conn())
	st.SetDeadline(time.Now().Add(timeout))
	return s.tell(st)
}

// tell says who we are.
func (s *Service) tell(st *host.Stream) error {
	if _, err := st.Write(s.introduction(st.Conn())); err != nil {
		return fmt.Errorf("identify: %w", err)
	}
	return nil
}

// hear takes in what a remote says of itself unasked.
func (s *Service) hear(_ context.Context, st *host.Stream) error {
	if !s.enter(st.Conn(), true, time.Now()) {
		return errRefused
	}
	defer s.leave(st.Conn())
	st.SetDeadline(time.Now().Add(timeout))
	_, err := s.receive(st, true)
	return err
}

var errRefused = fmt.Errorf("identify: refused: too many streams: %w", &host.StreamError{Code: host.CodeRateLimited})

// enter tells whether a stream of a remote is served. It looks at nothing but counters,
// so that refusing is cheap; the host makes those wait whose streams are refused without end.
func (s *Service) enter(c *host.Conn, push bool, now time.Time) (ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.contact(c)
	if t == nil || t.serving >= maxServing {
		return false
	}
	budget := s.budgets.of(c.RemotePeer(), maxBudgets, now)
	if push {
		ok = budget.pushes.take(pushLimit, now)
		if g, counts := group(c.RemoteAddr()); ok && counts {
			ok = s.groups.of(g, maxGroups, now).take(groupLimit, now)
		}
	} else {
		ok = budget.requests.take(requestLimit, now)
	}
	if ok {
		t.serving++
	}
	return ok
}

func (s *Service) leave(c *host.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.contacts[c]; t != nil {
		t.serving--
	}
}

// receive reads what the remote says of itself, and tells the host what of it
// can be believed.
func (s *Service) receive(st *host.Stream, push bool) (host.PeerInfo, error) {
	data, err := readMessages(st)
	if err != nil {
		return host.PeerInfo{}, err
	}
	m, err := decode(data)
	if err != nil {
		return host.PeerInfo{}, fmt.Errorf("%w: %w", err, violation)
	}
	c := st.Conn()
	if !isKeyOf(m.publicKey, c) {
		return host.PeerInfo{}, fmt.Errorf("identify: %s says that it has the key of another peer: %w", c.RemotePeer(), violation)
	}
	info := m.believe(c.RemotePeer(), c.RemoteAddr())
	if push {
		info = update(s.saidBy(c.RemotePeer()), info, m)
	}
	s.host.Identified(c, info, push)
	s.identified(c, slices.Contains(info.Protocols, PushProtocolID))
	return info, nil
}

// saidBy is what p has said of itself so far.
func (s *Service) saidBy(p peer.ID) host.PeerInfo {
	info := s.host.PeerInfo(p)
	info.Addrs = nil
	for _, k := range s.host.KnownAddrs(p) {
		if k.Told {
			info.Addrs = append(info.Addrs, k.Addr)
		}
	}
	return info
}

var violation = &host.StreamError{Code: host.CodeProtocolViolation}

// isKeyOf tells whether key is that of the remote of c, or absent: the connection
// has proved who the remote is, so that it need not say.
func isKeyOf(key []byte, c *host.Conn) bool {
	if len(key) == 0 || bytes.Equal(key, c.RemoteKey().Marshal()) {
		return true
	}
	k, err := peer.UnmarshalPublicKey(key)
	return err == nil && k.ID() == c.RemotePeer()
}

// believe makes of a message what is known of the peer who sent it, from the
// address remote.
func (m message) believe(p peer.ID, remote multiaddr.Addr) host.PeerInfo {
	info := host.PeerInfo{
		ID:              p,
		Addrs:           m.listenAddrs,
		Protocols:       m.protocols,
		AgentVersion:    m.agentVersion,
		ProtocolVersion: m.protocolVersion,
		ObservedAddr:    m.observedAddr,
	}
	if len(m.signedRecord) > 0 {
		record, err := peer.OpenRecord(m.signedRecord)
		switch {
		case err != nil: // as if it were not there
		case record.ID != p:
			info.Addrs = nil
		default:
			info.Addrs = record.Addrs
			info.SignedRecord = true
		}
	}
	near := remote.Scope()
	info.Addrs = slices.DeleteFunc(info.Addrs, func(a multiaddr.Addr) bool { return a.Scope() < near })
	return info
}

// update makes of what was known and what a push says what is known now: what
// the push does not speak of stays.
// https://github.com/libp2p/specs/blob/master/identify/README.md#identifypush
func update(known, said host.PeerInfo, m message) host.PeerInfo {
	if len(m.listenAddrs) == 0 && len(m.signedRecord) == 0 {
		said.Addrs, said.SignedRecord = known.Addrs, known.SignedRecord
	}
	if len(said.Protocols) == 0 {
		said.Protocols = known.Protocols
	}
	if said.AgentVersion == "" {
		said.AgentVersion = known.AgentVersion
	}
	if said.ProtocolVersion == "" {
		said.ProtocolVersion = known.ProtocolVersion
	}
	if said.ObservedAddr.IsZero() {
		said.ObservedAddr = known.ObservedAddr
	}
	return said
}
