package mdns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kith-p2p/kith/internal/drive"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

const (
	// rescanInterval is how often interfaces and addresses are looked at anew.
	rescanInterval = 10 * time.Second
	// sendTimeout bounds a write, which for UDP waits at most for a queue.
	sendTimeout = 100 * time.Millisecond
	// readPause keeps a socket that does nothing but fail from using the CPU.
	readPause = 10 * time.Millisecond
)

// Config says who we are, and where to look for others. ID, Addrs and Found are
// required.
type Config struct {
	ID peer.ID
	// Addrs returns our addresses, best first, including those on the local
	// networks and, for other programs on this machine, loopback: each interface
	// announces those in its own networks. It is called often, and must not block.
	Addrs func() []multiaddr.Addr
	// Found is told of every peer that is new or has a new address, with all its
	// addresses, and again each minute in which it is still there. It must not
	// block. The answers are not authenticated: the peer may not be who it says,
	// or not be there at all.
	Found func(peer.AddrInfo)
	// Lost, if not nil, is told of a peer that said goodbye or has been silent
	// for four minutes. It must not block.
	Lost func(peer.ID)

	// Interfaces names the network interfaces to use, and no packet is sent on
	// any other. Nil: those that are up and capable of multicast, without
	// loopback and point-to-point ones (VPNs); where there is none, loopback.
	Interfaces []string
	// Service is the name that peers look for: "" for "_p2p._udp", which is
	// everybody's. A private network has its own, "_p2p-<fingerprint>._udp".
	Service string
	Logger  *slog.Logger // nil: silent
}

// A Service finds the peers on the local networks, and is found by them.
type Service struct {
	// config
	cfg Config
	log *slog.Logger

	// owned by the loop
	core  *Core
	links map[int]*sockets // by index of the interface

	loop *drive.Loop[Action]
}

// A transceiver is a socket that belongs to one interface and one IP version.
type transceiver interface {
	// read returns the length of the next packet, and the index of the interface
	// it came in on: zero where the system does not tell.
	read(buf []byte) (n, iface int, from netip.AddrPort, err error)
	// send sends to an address on the interface; zero: to the group.
	send(packet []byte, to netip.AddrPort) error
	is4() bool
	Close() error
}

// sockets are what one interface is served by. They do not change.
type sockets struct {
	Interface // as it was when they were opened
	open      []transceiver
}

// Listen opens the sockets, and sends a first query to see that it can. It fails
// if no interface can be used, or one of Config.Interfaces cannot. The caller
// must call Run, which also frees the sockets.
func Listen(cfg Config) (*Service, error) {
	if cfg.ID.IsZero() || cfg.Addrs == nil || cfg.Found == nil {
		return nil, errors.New("mdns: Config needs ID, Addrs and Found")
	}
	if cfg.Interfaces != nil && len(cfg.Interfaces) == 0 {
		return nil, errors.New("mdns: Config.Interfaces names none: use nil for all that are suitable, or do not use mDNS")
	}
	if cfg.Service == "" {
		cfg.Service = DefaultService
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	core, err := NewCore(cfg.ID, cfg.Service, rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())))
	if err != nil {
		return nil, err
	}
	s := &Service{cfg: cfg, log: cfg.Logger, core: core, links: make(map[int]*sockets)}
	s.loop = drive.New(core, 0, s.do)
	if err := s.rescan(time.Now(), nil); err != nil && (len(s.links) == 0 || cfg.Interfaces != nil) {
		s.close()
		return nil, fmt.Errorf("mdns: cannot look for peers on the local network: %w", err)
	}
	return s, nil
}

// Run serves until ctx ends, then says goodbye and frees the sockets. It is
// called once; its form suits host.Host.Go.
func (s *Service) Run(ctx context.Context) {
	var readers sync.WaitGroup
	start := func(link *sockets) {
		for _, t := range link.open {
			readers.Go(func() { s.receive(ctx, t, link.Index) })
		}
	}
	for _, link := range s.links {
		start(link)
	}
	readers.Go(func() {
		ticker := time.NewTicker(rescanInterval)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				s.loop.TryPost(func(now time.Time) {
					if err := s.rescan(now, start); err != nil {
						s.log.Debug("mdns: an interface cannot be used", "err", err)
					}
				})
			}
		}
	})
	s.loop.Run(ctx)

	s.core.Close()
	for a, ok := s.core.NextAction(); ok; a, ok = s.core.NextAction() {
		s.do(a)
	}
	s.close()
	readers.Wait()
}

// Refresh has the addresses looked at now, and announced if they have changed,
// not within ten seconds only.
func (s *Service) Refresh() {
	s.loop.TryPost(func(now time.Time) { s.core.SetAddrs(now, s.cfg.Addrs()) })
}

// do carries out what the core wants.
func (s *Service) do(a Action) {
	switch a := a.(type) {
	case Discovered:
		s.log.Debug("mdns: found a peer", "peer", a.Info.ID, "addr", a.Info.Addrs)
		s.cfg.Found(a.Info)
	case Expired:
		s.log.Debug("mdns: lost a peer", "peer", a.ID)
		if s.cfg.Lost != nil {
			s.cfg.Lost(a.ID)
		}
	case SendPacket:
		link := s.links[a.Interface]
		if link == nil {
			return
		}
		for _, t := range link.open {
			if a.To.IsValid() && a.To.Addr().Is4() != t.is4() {
				continue
			}
			if err := t.send(a.Packet, a.To); err != nil {
				s.log.Debug("mdns: cannot send", "interface", link.Name, "err", err)
			}
		}
	}
}

// receive hands the packets of one socket to the core until the socket closes.
// While the core is busy, packets wait in the socket, and are lost there.
func (s *Service) receive(ctx context.Context, t transceiver, iface int) {
	buf := make([]byte, MaxPacket+1)
	for {
		n, at, from, err := t.read(buf)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // such as an ICMP error, or a packet longer than buf
			select {
			case <-ctx.Done():
			case <-time.After(readPause):
			}
			continue
		case at != 0 && at != iface:
			continue // Linux hands every socket what any socket asked for
		}
		packet := slices.Clone(buf[:n])
		if s.loop.Post(ctx, func(now time.Time) { s.core.HandlePacket(now, packet, from, iface) }) != nil {
			<-s.loop.Done()
		}
	}
}

// rescan opens sockets on the interfaces wanted that have none, closes the others
// and tells the core. It returns an error if one wanted cannot be used.
func (s *Service) rescan(now time.Time, opened func(*sockets)) error {
	wanted, err := wantedInterfaces(s.cfg.Interfaces)
	for _, link := range s.links {
		if !slices.ContainsFunc(wanted, link.serve) {
			link.close()
			delete(s.links, link.Index)
		}
	}
	var usable []Interface
	for _, i := range wanted {
		link := s.links[i.Index]
		if link == nil {
			open, openErr := listen(i, s.core.Query())
			if len(open) == 0 {
				err = also(err, openErr)
				continue
			}
			link = &sockets{i, open}
			s.links[i.Index] = link
			if opened != nil {
				opened(link)
			}
		}
		usable = append(usable, i)
	}
	s.core.SetInterfaces(now, usable)
	s.core.SetAddrs(now, s.cfg.Addrs())
	return err
}

func (s *Service) close() {
	for _, link := range s.links {
		link.close()
	}
	clear(s.links)
}

// serve reports whether the sockets are those that i needs.
func (l *sockets) serve(i Interface) bool {
	return i.Index == l.Index && i.has(netip.Addr.Is4) == l.has(netip.Addr.Is4) && i.has(netip.Addr.Is6) == l.has(netip.Addr.Is6)
}

func (l *sockets) close() {
	for _, t := range l.open {
		t.Close()
	}
}

// wantedInterfaces returns the interfaces that names stand for, in a fixed order.
// With the error there may be some that are fine.
func wantedInterfaces(names []string) (wanted []Interface, err error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list the network interfaces: %w", err)
	}
	var there []string
	for _, i := range all {
		there = append(there, i.Name)
	}
	if names != nil {
		for _, name := range names[:min(len(names), MaxInterfaces)] {
			at := slices.Index(there, name)
			switch {
			case at < 0:
				err = also(err, fmt.Errorf("no network interface is called %q: this machine has %s", name, strings.Join(there, ", ")))
			case all[at].Flags&net.FlagUp == 0:
				err = also(err, fmt.Errorf("network interface %s is down: bring it up, or name another of %s", name, strings.Join(there, ", ")))
			case slices.IndexFunc(wanted, func(i Interface) bool { return i.Index == all[at].Index }) < 0:
				wanted = append(wanted, describe(all[at]))
			}
		}
		return wanted, err
	}
	for _, loopback := range []bool{false, true} {
		for _, i := range all {
			if i.Flags&net.FlagUp == 0 || (i.Flags&net.FlagLoopback != 0) != loopback ||
				!loopback && (i.Flags&net.FlagMulticast == 0 || i.Flags&net.FlagPointToPoint != 0) {
				continue
			}
			if d := describe(i); len(d.Prefixes) > 0 {
				wanted = append(wanted, d)
			}
		}
		if len(wanted) > 0 {
			break
		}
	}
	if len(wanted) == 0 {
		return nil, fmt.Errorf("no network interface is up: this machine has [%s]; connect it to a network, or turn mDNS off", strings.Join(there, ", "))
	}
	// Where there are too many, those with an IPv4 address are real most often.
	slices.SortStableFunc(wanted, func(a, b Interface) int {
		switch has4 := a.has(netip.Addr.Is4); {
		case has4 == b.has(netip.Addr.Is4):
			return 0
		case has4:
			return -1
		}
		return 1
	})
	return wanted[:min(len(wanted), MaxInterfaces)], nil
}

func describe(i net.Interface) Interface {
	d := Interface{Index: i.Index, Name: i.Name, Loopback: i.Flags&net.FlagLoopback != 0}
	addrs, _ := i.Addrs() // an interface that has just gone has none
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			d.Prefixes = append(d.Prefixes, p)
		}
	}
	return d
}

// has reports whether the interface has an address of a kind.
func (i *Interface) has(kind func(netip.Addr) bool) bool {
	return slices.ContainsFunc(i.Prefixes, func(p netip.Prefix) bool { return kind(p.Addr()) })
}

// also joins errors into one line.
func also(err, next error) error {
	if err == nil {
		return next
	}
	return fmt.Errorf("%w; %w", err, next)
}
