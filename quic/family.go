package quic

import (
	"crypto/rand"
	"errors"
	"fmt"
	"hash/maphash"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	quicgo "github.com/quic-go/quic-go"

	"github.com/kith-p2p/kith/udp"
)

// A connection can move between IPv4 and IPv6, although QUIC lets a client change its own
// address alone: quic-go is made to believe that the server's stays. docs/adr/0006 tells
// why that is allowed, and docs/roaming.md what it is good for.
//
// The client's new path has a socket of the other family, which nobody dials from. What
// quic-go sends there to the address that was dialed goes to the server's other address,
// its alias. Where packets come from, a client does not look at.
//
// At the server they arrive at another socket than the connection's, with another
// quic-go Transport, which knows nothing of the connection. Connection IDs name their
// home, so the packet is handed over to that, together with its real source. What
// quic-go then sends to an address of the other family leaves from the socket that is
// its home's sibling. So to the server's quic-go this is an ordinary migration.

const (
	// connIDLen is the length of our connection IDs in bytes: one that names the home, if
	// one knows how to read it, and random ones. quic-go has four random ones.
	connIDLen = 6

	// maxHomes is how many sockets can have connections that move between families.
	maxHomes = 255

	// shortHeader is where a packet with a short header has its connection ID.
	shortHeader = 1
)

// homes are the sockets that connection IDs name.
type homes struct {
	seed   maphash.Seed
	places [maxHomes]atomic.Pointer[socket]
}

// enter gives a socket the place that its connection IDs name; maxHomes: there is none.
func (h *homes) enter(s *socket) int {
	for i := range h.places {
		if h.places[i].CompareAndSwap(nil, s) {
			return i
		}
	}
	return maxHomes
}

func (h *homes) leave(s *socket) {
	if s.place < maxHomes {
		h.places[s.place].CompareAndSwap(s, nil)
	}
}

// mask hides the place: who does not know the seed learns nothing of what two
// connection IDs have in common.
func (h *homes) mask(random []byte) byte { return byte(maphash.Bytes(h.seed, random)) }

// of finds the socket that a connection ID names, nil: none.
func (h *homes) of(id []byte) *socket {
	place := id[0] ^ h.mask(id[1:])
	if place >= maxHomes {
		return nil
	}
	return h.places[place].Load()
}

// connIDs makes the connection IDs of a socket.
type connIDs struct {
	homes *homes
	place byte
}

func (c connIDs) ConnectionIDLen() int { return connIDLen }

func (c connIDs) GenerateConnectionID() (quicgo.ConnectionID, error) {
	var id [connIDLen]byte
	rand.Read(id[1:]) // never fails
	id[0] = c.place ^ c.homes.mask(id[1:])
	return quicgo.ConnectionIDFromBytes(id[:]), nil
}

// home tells whose a packet is that has arrived here.
func (s *socket) home(p []byte) (to *udp.QUICConn, ours bool) {
	if len(p) < shortHeader+connIDLen {
		return nil, true
	}
	h := s.endpoint.homes.of(p[shortHeader:][:connIDLen])
	if h == nil || h == s || h.is4() == s.is4() {
		return nil, true // or it tries a new path within its family
	}
	if h.sibling.Load() != s {
		return nil, false // an answer would leave from elsewhere; and ours would be that there is no such connection
	}
	return h.conn, false
}

func (s *socket) is4() bool { return s.local.Addr().Is4() }

// pair finds for each socket the one of the other family that serves its connections
// too: in the same part of the world, if possible with the same port. Endpoint.mu is held.
func (e *Endpoint) pair() {
	for _, s := range e.open {
		var best *socket
		for _, o := range e.open {
			if o.is4() != s.is4() && o.local.Addr().IsLoopback() == s.local.Addr().IsLoopback() && (best == nil || s.closer(o, best)) {
				best = o
			}
		}
		s.sibling.Store(best)
	}
}

// closer tells whether a is a better sibling than b.
func (s *socket) closer(a, b *socket) bool {
	if port := s.local.Port(); (a.local.Port() == port) != (b.local.Port() == port) {
		return a.local.Port() == port
	}
	if a.bound() != b.bound() {
		return a.bound() == s.bound()
	}
	return a.local.Compare(b.local) < 0
}

// aliases are where packets go that quic-go sends to addresses of the other family. The
// zero value is empty and ready.
type aliases struct {
	mu sync.RWMutex
	to map[netip.AddrPort]*alias
}

type alias struct {
	addr  *net.UDPAddr
	users int
}

// add makes to the alias of dialed, for one connection more.
func (a *aliases) add(dialed, to netip.AddrPort) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.to == nil {
		a.to = make(map[netip.AddrPort]*alias)
	}
	known := a.to[dialed]
	if known == nil {
		known = &alias{addr: net.UDPAddrFromAddrPort(to)}
		a.to[dialed] = known
	} else if known.addr.AddrPort() != to {
		return fmt.Errorf("quic: another connection with %s goes to %s", dialed, known.addr)
	}
	known.users++
	return nil
}

// remove undoes add.
func (a *aliases) remove(dialed netip.AddrPort) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if known := a.to[dialed]; known != nil {
		if known.users--; known.users == 0 {
			delete(a.to, dialed)
		}
	}
}

func (a *aliases) get(dialed *net.UDPAddr) *net.UDPAddr {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if known := a.to[dialed.AddrPort()]; known != nil {
		return known.addr
	}
	return nil
}

// WriteMsgUDP sends one packet, or several of one size, also to the other family.
func (c wire) WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	s := c.socket
	if (addr.IP.To4() != nil) == s.is4() {
		return c.QUICConn.WriteMsgUDP(b, oob, addr)
	}
	if s.away {
		if to := s.aliases.get(addr); to != nil {
			_, _, err = c.QUICConn.WriteMsgUDP(b, otherFamily(oob), to)
		}
	} else if sibling := s.sibling.Load(); sibling != nil {
		_, _, err = sibling.conn.WriteMsgUDP(b, oob, addr)
	}
	if errors.Is(err, net.ErrClosed) {
		err = nil // it is not this socket that is closed
	}
	return len(b), len(oob), err // a packet that has no way is lost
}

// WriteTo sends one packet, also to the other family.
func (c wire) WriteTo(b []byte, addr net.Addr) (int, error) {
	n, _, err := c.WriteMsgUDP(b, nil, addr.(*net.UDPAddr))
	return n, err
}
