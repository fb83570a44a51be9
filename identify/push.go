package identify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// roundLimit is how often the peers are told of changes. go-libp2p reads a push
// in 5 s from one address group, with a burst of 10; half of that leaves room for
// our neighbours.
var roundLimit = rate{every: 5 * time.Second, burst: 5}

// maxPushing is how many peers are told at the same time. Each takes a goroutine
// and some KiB for a round trip, and one that stalls for the timeout.
const maxPushing = 64

// self is what we say of ourselves. It is guarded by Service.mu.
type self struct {
	stale     bool   // the host has changed since
	version   uint64 // counts changes, from 1
	addrs     []multiaddr.Addr
	protocols []host.ProtocolID

	// For connections from other machines and within this one; made when needed.
	encodings [2]*encoding
	records   [2]signedRecord
	seq       uint64 // of the newest record
}

// A signedRecord is kept as long as the addresses in it are right.
type signedRecord struct {
	addrs    []multiaddr.Addr
	envelope []byte
}

// introduction gives the bytes that tell the remote of c who we are, and notes
// that it was told.
func (s *Service) introduction(c *host.Conn) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refresh()
	if t := s.contact(c); t != nil {
		t.told = s.self.version
	}
	e := s.encoding(c.RemoteAddr().Scope() == multiaddr.ScopeMachine)
	return e.messages(c.RemoteAddr())
}

// refresh looks at the host anew if it has changed. s.mu is held.
func (s *Service) refresh() {
	if !s.self.stale {
		return
	}
	s.self.stale = false
	addrs := s.host.Addrs()
	protocols := announced(s.host.Protocols())
	if s.self.version > 0 && slices.Equal(addrs, s.self.addrs) && slices.Equal(protocols, s.self.protocols) {
		return
	}
	s.self.version++
	s.self.addrs, s.self.protocols = addrs, protocols
	s.self.encodings = [2]*encoding{}
}

// encoding gives what is said on all connections from other machines, or on all
// within this one. s.mu is held.
func (s *Service) encoding(within bool) *encoding {
	addrs, kind := s.self.addrs, 0
	if within {
		kind = 1
	}
	if e := s.self.encodings[kind]; e != nil {
		return e
	}
	if !within {
		addrs = slices.DeleteFunc(slices.Clone(addrs), func(a multiaddr.Addr) bool { return a.Scope() == multiaddr.ScopeMachine })
	}
	e, addrs := encode(s.publicKey, s.protocolVersion, s.agentVersion, addrs, s.self.protocols)
	e.setRecord(s.sealed(kind, addrs))
	s.self.encodings[kind] = &e
	return &e
}

// sealed gives the signed record with addrs. s.mu is held.
func (s *Service) sealed(kind int, addrs []multiaddr.Addr) []byte {
	known := &s.self.records[kind]
	if known.envelope != nil && slices.Equal(known.addrs, addrs) {
		return known.envelope
	}
	// The time, so that a record is newer than those before a restart.
	s.self.seq = max(s.self.seq+1, uint64(time.Now().UnixNano()))
	envelope, err := peer.Record{ID: s.host.ID(), Seq: s.self.seq, Addrs: addrs}.Seal(s.host.Key())
	if err != nil {
		s.host.Logger().Error("the record of our addresses cannot be signed; they are sent without", "err", err)
		return nil
	}
	*known = signedRecord{addrs: addrs, envelope: envelope}
	return envelope
}

// outdated notes that the host's addresses or protocols are other ones.
func (s *Service) outdated() {
	s.mu.Lock()
	s.self.stale = true
	s.mu.Unlock()
	s.wake()
}

func (s *Service) wake() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// identified notes whether the remote of c reads pushes. While it was asked, it
// may have missed one.
func (s *Service) identified(c *host.Conn, pushable bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.contact(c)
	if t == nil {
		return
	}
	missed := pushable && !t.pushable && t.told < s.self.version && t.told > 0
	t.pushable = pushable
	if missed {
		s.wake()
	}
}

// push tells the peers of changes, some at a time, and not too often.
func (s *Service) push(ctx context.Context) {
	var rounds bucket
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	for {
		select {
		case <-s.changed:
		case <-ctx.Done():
			return
		}
		timer.Reset(max(s.pushDelay, rounds.wait(roundLimit, time.Now())))
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		// What has changed meanwhile is told too.
		select {
		case <-s.changed:
		default:
		}
		behind := s.behind()
		if len(behind) == 0 {
			continue
		}
		rounds.take(roundLimit, time.Now())
		s.pushTo(ctx, behind)
	}
}

// behind finds the peers that do not know us as we are now: for each of them the
// connection to use, the oldest connections first.
func (s *Service) behind() []*host.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refresh()
	best := make(map[peer.ID]*host.Conn)
	for c, t := range s.contacts {
		p := c.RemotePeer()
		b, seen := best[p]
		switch {
		case t.told == s.self.version:
			best[p] = nil // told on one connection is told
		case t.pushable && (!seen || b != nil && better(c, b)):
			best[p] = c
		}
	}
	behind := make([]*host.Conn, 0, len(best))
	for _, c := range best {
		if c != nil {
			behind = append(behind, c)
		}
	}
	slices.SortFunc(behind, func(a, b *host.Conn) int {
		if better(a, b) {
			return -1
		}
		return 1
	})
	return behind
}

// better tells whether a is to be used rather than b.
func better(a, b *host.Conn) bool {
	if a.Limited() != b.Limited() {
		return b.Limited()
	}
	return a.ID() < b.ID()
}

func (s *Service) pushTo(ctx context.Context, conns []*host.Conn) {
	var wg sync.WaitGroup
	defer wg.Wait()
	room := make(chan struct{}, maxPushing)
	for _, c := range conns {
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			return
		}
		wg.Go(func() {
			defer func() { <-room }()
			if err := s.pushOn(ctx, c); err != nil {
				s.host.Logger().Debug("not pushed", "peer", c.RemotePeer().String(), "conn", c.ID(), "err", err)
			}
		})
	}
}

// pushOn tells one peer. An error is not repaired: the next change tells
// everything again.
func (s *Service) pushOn(ctx context.Context, c *host.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	st, err := c.NewStream(ctx, PushProtocolID)
	if err != nil {
		return fmt.Errorf("identify: %w", err)
	}
	deadline, _ := ctx.Deadline()
	st.SetDeadline(deadline)
	err = s.tell(st)
	if err == nil {
		err = st.CloseWrite()
	}
	if err == nil {
		// Closing at once would on some transports end the stream before the remote
		// reads it. It has nothing to say, so it ends its side when it has read.
		_, err = st.Read(make([]byte, 1))
	}
	if err != nil && !errors.Is(err, io.EOF) {
		st.Reset(host.CodeNone)
		return fmt.Errorf("identify: pushing: %w", err)
	}
	return st.Close()
}
