package host

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// judgeDelay is how long what peers say of our addresses is gathered.
const judgeDelay = time.Second

// Addrs lists the addresses at which others can reach this host, best first: public
// ones of this machine, those that a router maps to it, those that enough peers see it
// at, relays, those of private networks, those within this machine; or what
// Config.Announce makes of them. They have no /p2p part; see P2PAddrs.
func (h *Host) Addrs() []multiaddr.Addr {
	listening := h.listening()
	h.mu.RLock()
	addrs := h.own.announced(listening, h.mapped, h.relayed)
	h.mu.RUnlock()
	if h.announce != nil {
		addrs = h.announce(addrs)
	}
	return addrs
}

// listening lists what is listened on, with the addresses of this machine.
func (h *Host) listening() (addrs []multiaddr.Addr) {
	local := h.localIPs()
	h.mu.RLock()
	listeners := slices.Clone(h.listeners)
	h.mu.RUnlock()
	for _, l := range listeners {
		addrs = append(addrs, specific(l.Addr(), local)...)
	}
	return addrs
}

// SetMapped tells which addresses a router forwards to this host, in place of those
// told before; for what asks routers for that.
func (h *Host) SetMapped(mapped []Mapping) {
	h.mu.Lock()
	h.mapped = slices.Clone(mapped)
	h.mu.Unlock()
	h.noteAddrs()
}

// SetRelayed tells at which addresses of relays this host can be reached, in place of
// those told before; for what has places at relays.
func (h *Host) SetRelayed(addrs []multiaddr.Addr) {
	h.mu.Lock()
	h.relayed = slices.Clone(addrs)
	h.mu.Unlock()
	h.noteAddrs()
}

// observed notes at which address the remote of c sees us.
func (h *Host) observed(c *Conn, at multiaddr.Addr) {
	if ip, ok := at.IP(); !ok || c.limited || !isPublic(ip.Unmap()) {
		return
	}
	c.observed.Store(&at)
	if h.judging.CompareAndSwap(false, true) {
		h.spawn(func(ctx context.Context) {
			timer := time.NewTimer(judgeDelay)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
			h.judging.Store(false)
			h.noteAddrs()
		})
	}
}

// judge has the addresses judged at which peers see us.
func (h *Host) judge() {
	listening := h.listening()
	h.mu.Lock()
	defer h.mu.Unlock()
	var seen []observation
	for _, c := range h.all {
		if at := c.observed.Load(); at != nil {
			seen = append(seen, observation{local: c.local, observed: *at, observer: c.addr, dialed: c.dir == DirOutbound})
		}
	}
	h.own.observe(time.Now(), listening, seen)
}

// forgetObserved is for another network.
func (h *Host) forgetObserved() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.own.forget()
	for _, c := range h.all {
		c.observed.Store(nil)
	}
}

// P2PAddrs is Addrs with this host's ID at the end of each: what to give to others.
func (h *Host) P2PAddrs() []multiaddr.Addr {
	return peer.AddrInfo{ID: h.id, Addrs: h.Addrs()}.P2PAddrs()
}

// noteAddrs tells subscribers if the host's addresses have changed.
func (h *Host) noteAddrs() {
	h.noting.Lock() // so that what was found last is told last
	defer h.noting.Unlock()
	h.judge()
	addrs := h.Addrs()
	h.mu.Lock()
	same := slices.Equal(addrs, h.lastAddrs)
	h.lastAddrs = addrs
	h.mu.Unlock()
	if !same {
		h.hub.emit(AddrsChanged{Addrs: addrs})
	}
}

func (h *Host) watchAddrs(ctx context.Context) {
	tick := time.NewTicker(addrsEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			h.noteAddrs()
		case <-ctx.Done():
			return
		}
	}
}

// localIPs lists the addresses of this machine's interfaces, but not those of one link.
func (h *Host) localIPs() (ips []netip.Addr) {
	for _, p := range h.links.get(time.Now()) {
		if ip := p.Addr(); !ip.IsLinkLocalUnicast() {
			ips = append(ips, ip)
		}
	}
	return ips
}
