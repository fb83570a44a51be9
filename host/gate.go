package host

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// A Gate lets a program decide whom the host connects with. Each function may be
// nil: then all are allowed. An error refuses, and says why to whoever reads the
// *GateError; the remote learns only that it was refused (ConnCodeGated), where a
// connection stands already.
//
// The functions are called from many goroutines at once, for every connection, and
// must not block. A change of mind does not end connections that stand: see
// Conn.CloseWithCode. Package acl makes a Gate of lists that a user edits.
type Gate struct {
	// DialPeer is asked before anything is done to reach a peer, even if a
	// connection with it stands.
	DialPeer func(p peer.ID) error

	// DialAddr is asked before an address is dialed, which is in its last form: names
	// have been resolved, but where a transport resolves them itself.
	DialAddr func(p peer.ID, addr multiaddr.Addr) error

	// Accept is asked of a connection that comes in, before anything is spent on it.
	// Who comes is not known yet.
	Accept func(remote multiaddr.Addr) error

	// Secured is asked when the remote of a new connection, in either direction, has
	// proved who it is.
	Secured func(p peer.ID, dir Direction, remote multiaddr.Addr) error

	// AllowPrivate tells of addresses in private networks (RFC 1918, RFC 6598, RFC
	// 4193) that may be dialed although strangers named them and this machine has no
	// interface in their network: one behind a router, for example. Nil: none.
	AllowPrivate func(ip netip.Addr) bool
}

// Gates makes one Gate of several: each must let through, and is asked in turn;
// one whose AllowPrivate says so is enough for that.
func Gates(gates ...Gate) Gate {
	var all Gate
	for _, g := range gates {
		all = all.and(g)
	}
	return all
}

func (g Gate) and(next Gate) Gate {
	both := g
	if both.DialPeer == nil {
		both.DialPeer = next.DialPeer
	} else if next.DialPeer != nil {
		both.DialPeer = func(p peer.ID) error {
			if err := g.DialPeer(p); err != nil {
				return err
			}
			return next.DialPeer(p)
		}
	}
	if both.DialAddr == nil {
		both.DialAddr = next.DialAddr
	} else if next.DialAddr != nil {
		both.DialAddr = func(p peer.ID, addr multiaddr.Addr) error {
			if err := g.DialAddr(p, addr); err != nil {
				return err
			}
			return next.DialAddr(p, addr)
		}
	}
	if both.Accept == nil {
		both.Accept = next.Accept
	} else if next.Accept != nil {
		both.Accept = func(remote multiaddr.Addr) error {
			if err := g.Accept(remote); err != nil {
				return err
			}
			return next.Accept(remote)
		}
	}
	if both.Secured == nil {
		both.Secured = next.Secured
	} else if next.Secured != nil {
		both.Secured = func(p peer.ID, dir Direction, remote multiaddr.Addr) error {
			if err := g.Secured(p, dir, remote); err != nil {
				return err
			}
			return next.Secured(p, dir, remote)
		}
	}
	if both.AllowPrivate == nil {
		both.AllowPrivate = next.AllowPrivate
	} else if next.AllowPrivate != nil {
		both.AllowPrivate = func(ip netip.Addr) bool { return g.AllowPrivate(ip) || next.AllowPrivate(ip) }
	}
	return both
}

// A GateError tells that a Gate refused.
type GateError struct {
	Hook string         // the field of Gate that refused
	Peer peer.ID        // zero: not known
	Addr multiaddr.Addr // zero: every address
	Err  error          // what the function returned
}

func (e *GateError) Error() string {
	whom := e.Peer.String()
	switch {
	case e.Peer.IsZero():
		whom = e.Addr.String()
	case !e.Addr.IsZero():
		whom += " at " + e.Addr.String()
	}
	return fmt.Sprintf("host: %s is not let through (Gate.%s): %v", whom, e.Hook, e.Err)
}

func (e *GateError) Unwrap() error { return e.Err }

func (g *Gate) dialPeer(p peer.ID) error {
	if g.DialPeer == nil {
		return nil
	}
	if err := g.DialPeer(p); err != nil {
		return &GateError{Hook: "DialPeer", Peer: p, Err: err}
	}
	return nil
}

func (g *Gate) dialAddr(p peer.ID, addr multiaddr.Addr) error {
	if g.DialAddr == nil {
		return nil
	}
	if err := g.DialAddr(p, addr); err != nil {
		return &GateError{Hook: "DialAddr", Peer: p, Addr: addr, Err: err}
	}
	return nil
}

func (g *Gate) accept(remote multiaddr.Addr) error {
	if g.Accept == nil {
		return nil
	}
	if err := g.Accept(remote); err != nil {
		return &GateError{Hook: "Accept", Addr: remote, Err: err}
	}
	return nil
}

func (g *Gate) secured(p peer.ID, dir Direction, remote multiaddr.Addr) error {
	if g.Secured == nil {
		return nil
	}
	if err := g.Secured(p, dir, remote); err != nil {
		return &GateError{Hook: "Secured", Peer: p, Addr: remote, Err: err}
	}
	return nil
}

// forbidden tells why addr, which has no name any more, must not be dialed for p on
// the word of source: because of where it leads, or because the gate refuses.
func (h *Host) forbidden(p peer.ID, addr multiaddr.Addr, source Source) error {
	if source != SourceUser {
		if err := safeDial(addr, source, h.surroundings()); err != nil {
			return err
		}
	}
	return h.gate.dialAddr(p, addr)
}

// surroundings gathers what the judgement of addresses depends on.
func (h *Host) surroundings() surroundings {
	near := surroundings{links: h.links.get(time.Now()), allowPrivate: h.gate.AllowPrivate}
	h.mu.RLock()
	defer h.mu.RUnlock()
	near.listens = h.lastAddrs
	return near
}

// links remembers this machine's addresses, each with the length of its network. The
// zero value is empty and ready.
type links struct {
	mu       sync.Mutex
	prefixes []netip.Prefix
	at       time.Time
}

// get gives them as they were at most interfacesAge ago.
func (l *links) get(now time.Time) []netip.Prefix {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.at.IsZero() && now.Sub(l.at) < interfacesAge {
		return l.prefixes
	}
	found, err := net.InterfaceAddrs()
	if err != nil {
		return l.prefixes
	}
	l.prefixes, l.at = nil, now
	for _, a := range found {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			l.prefixes = append(l.prefixes, p)
		}
	}
	return l.prefixes
}

// forget makes the next get look anew.
func (l *links) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at = time.Time{}
}
