package quic

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	quicgo "github.com/quic-go/quic-go"
)

const (
	// maxOpening is how many connections may be begun and have not come so far that
	// the host can judge them: their first flight is not complete. At about 30 KiB
	// each, 30 MiB. An honest one takes a millisecond, unless a packet is lost.
	maxOpening = 1024

	// maxOpeningPerGroup is how many of them one IPv4 /24 or IPv6 /48 may have, so
	// that one network cannot take all places.
	maxOpeningPerGroup = 128

	// maxUnverified is how many may be opening before strangers have to show with a
	// round trip (Retry) that they are where they say. It is below maxOpeningPerGroup, so that
	// nobody can use up the places of a network with its addresses alone.
	maxUnverified = 64

	// retryRate is how many handshakes of strangers are begun in a second before they
	// have to show the same. A handshake takes about a millisecond of CPU time: half a core.
	retryRate = 500
)

var errTooMany = errors.New("quic: too many connections are being opened")

// A gate bounds the connections that were begun and that nobody has accepted yet.
// The host bounds the later ones.
type gate struct {
	max int // of opening; 0: maxOpening

	mu      sync.Mutex
	opening int
	groups  map[netip.Prefix]int
	tokens  float64   // handshakes of strangers that may begin now
	filled  time.Time // when tokens was right
}

// place is the key of a connection's place in its context.
type place struct{}

// enter gives a new connection a place, or refuses it. The place travels in the
// connection's context, which is all that quic-go keeps of what this returns.
func (g *gate) enter(ctx context.Context, info *quicgo.ClientInfo) (context.Context, error) {
	group := groupOf(info.RemoteAddr)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opening >= cmp.Or(g.max, maxOpening) || g.groups[group] >= maxOpeningPerGroup {
		return nil, errTooMany
	}
	if g.groups == nil {
		g.groups = make(map[netip.Prefix]int)
	}
	g.opening++
	g.groups[group]++
	var once sync.Once
	leave := func() {
		once.Do(func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.opening--
			if g.groups[group]--; g.groups[group] == 0 {
				delete(g.groups, group)
			}
		})
	}
	stop := context.AfterFunc(ctx, leave) // the connection failed before anybody accepted it
	return context.WithValue(ctx, place{}, func() { stop(); leave() }), nil
}

func (g *gate) len() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.opening
}

// leave gives back the place of a connection that was accepted.
func (g *gate) leave(ctx context.Context) {
	if leave, ok := ctx.Value(place{}).(func()); ok {
		leave()
	}
}

// wantsRetry decides whether a stranger has to show that it is where it says.
func (g *gate) wantsRetry(addr net.Addr) bool {
	ip := ipOf(addr)
	if ip.IsLoopback() {
		return false // no router lets such a packet in: it is from this machine
	}
	return g.busy(time.Now())
}

// busy takes one token.
func (g *gate) busy(now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.filled.IsZero() {
		g.tokens = retryRate
	} else {
		g.tokens = min(g.tokens+now.Sub(g.filled).Seconds()*retryRate, retryRate)
	}
	g.filled = now
	if g.opening >= maxUnverified || g.tokens < 1 {
		return true
	}
	g.tokens--
	return false
}

func ipOf(addr net.Addr) netip.Addr {
	if a, ok := addr.(*net.UDPAddr); ok {
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

func groupOf(addr net.Addr) netip.Prefix {
	ip := ipOf(addr).WithZone("")
	bits := 48
	if ip.Is4() {
		bits = 24
	}
	group, _ := ip.Prefix(bits)
	return group
}
