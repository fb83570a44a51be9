package acl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

const (
	// MaxEntries is how many entries a list has at most: as many as large public lists
	// of networks have, at about 200 bytes each 13 MiB.
	MaxEntries = 1 << 16
	// MaxNote is how many bytes of a note are kept: a sentence.
	MaxNote = 256
)

// A Verdict is what an entry says of its subject.
type Verdict uint8

// The verdicts.
const (
	Block Verdict = iota + 1 // it may not connect
	Allow                    // it may, although a larger network, or everyone, may not
)

func (v Verdict) String() string {
	switch v {
	case Block:
		return "block"
	case Allow:
		return "allow"
	}
	return "none"
}

// MarshalText writes "block" or "allow".
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// A Subject is what an entry is about: a peer, a network, which can be a single
// address, or every peer. It is comparable; the zero Subject is none.
type Subject struct {
	peer     peer.ID
	network  netip.Prefix
	everyone bool
}

// Everyone stands for all peers that have no entry of their own.
var Everyone = Subject{everyone: true}

// Peer is the subject of one peer.
func Peer(p peer.ID) Subject { return Subject{peer: p} }

// Network is the subject of a network, or of one address with all its bits.
func Network(p netip.Prefix) Subject {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return Subject{network: p.Masked()}
}

// ParseSubject reads a peer ID, an IP address, a network such as 192.0.2.0/24, or
// "everyone".
func ParseSubject(s string) (Subject, error) {
	if s == "everyone" {
		return Everyone, nil
	}
	if ip, err := netip.ParseAddr(s); err == nil {
		if ip.Zone() != "" {
			return Subject{}, fmt.Errorf("acl: %q has a zone: give the address without it", s)
		}
		ip = ip.Unmap()
		return Subject{network: netip.PrefixFrom(ip, ip.BitLen())}, nil
	}
	if p, err := netip.ParsePrefix(s); err == nil {
		return Network(p), nil
	}
	id, err := peer.ParseID(s)
	if err != nil {
		return Subject{}, fmt.Errorf("acl: %q is neither a peer ID, nor an IP address or a network such as 192.0.2.0/24, nor the word everyone", s)
	}
	return Peer(id), nil
}

// String gives what ParseSubject reads.
func (s Subject) String() string {
	switch {
	case s.everyone:
		return "everyone"
	case s.network.IsValid() && s.network.IsSingleIP():
		return s.network.Addr().String()
	case s.network.IsValid():
		return s.network.String()
	case !s.peer.IsZero():
		return s.peer.String()
	}
	return "nobody"
}

// MarshalText is String.
func (s Subject) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// IsZero tells whether s is about nobody.
func (s Subject) IsZero() bool { return s == Subject{} }

func (s Subject) compare(other Subject) int {
	rank := func(s Subject) int {
		switch {
		case s.everyone:
			return 0
		case s.network.IsValid():
			return 1
		}
		return 2
	}
	return cmp.Or(cmp.Compare(rank(s), rank(other)), s.network.Compare(other.network), s.peer.Compare(other.peer))
}

// An Entry is one line of a list.
type Entry struct {
	Subject Subject
	Verdict Verdict
	Until   time.Time // when it ends, in whole seconds; zero: never
	Note    string    // why, for people; at most MaxNote bytes on one line
}

func (e Entry) ended(now time.Time) bool { return !e.Until.IsZero() && !now.Before(e.Until) }

// A BlockedError tells which entry of a list refused a peer or an address.
type BlockedError struct {
	Entry Entry
}

func (e *BlockedError) Error() string {
	text := "acl: " + e.Entry.Subject.String() + " is blocked"
	if !e.Entry.Until.IsZero() {
		text += " until " + e.Entry.Until.UTC().Format(time.RFC3339)
	}
	if e.Entry.Note != "" {
		text += " (" + e.Entry.Note + ")"
	}
	return text
}

// A List says who may connect with a node. All methods may be called from several
// goroutines.
type List struct {
	path    string // empty: in memory
	now     func() time.Time
	changed chan struct{} // has a place for one: Run is to look
	table   atomic.Pointer[table]

	mu   sync.Mutex // one change at a time
	seen stamp      // of the file that table was read from
}

// New makes an empty list that is kept in memory alone.
func New() *List {
	l := &List{now: time.Now, changed: make(chan struct{}, 1)}
	l.table.Store(newTable(nil, nil))
	return l
}

// Set makes entries part of the list, in place of those with the same subjects. When
// it returns nil they are kept in the list's file.
func (l *List) Set(entries ...Entry) error {
	entries = slices.Clone(entries)
	for i := range entries {
		e := &entries[i]
		if e.Subject.IsZero() || e.Verdict != Block && e.Verdict != Allow {
			return errors.New("acl: an entry needs a subject and a verdict")
		}
		if !e.Until.IsZero() {
			e.Until = time.Unix(e.Until.Unix(), 0).UTC()
		}
		e.Note = oneLine(e.Note)
	}
	return l.change(func(old []Entry) []Entry {
		all := make(map[Subject]Entry, len(old)+len(entries))
		for _, e := range slices.Concat(old, entries) {
			all[e.Subject] = e
		}
		return slices.Collect(maps.Values(all)) // newTable sorts
	})
}

// Remove takes the entries of subjects out of the list and tells how many there were.
func (l *List) Remove(subjects ...Subject) (removed int, err error) {
	err = l.change(func(old []Entry) []Entry {
		left := slices.DeleteFunc(slices.Clone(old), func(e Entry) bool { return slices.Contains(subjects, e.Subject) })
		removed = len(old) - len(left)
		return left
	})
	if err != nil {
		return 0, err
	}
	return removed, nil
}

// Entries gives what the list says now, networks before peers.
func (l *List) Entries() []Entry { return l.table.Load().entries(l.now()) }

// CheckPeer returns a *BlockedError if p is blocked.
func (l *List) CheckPeer(p peer.ID) error {
	if e, ok := l.table.Load().ofPeer(p, l.now); ok && e.Verdict == Block {
		return &BlockedError{e}
	}
	return nil
}

// CheckAddr returns a *BlockedError if the IP address of addr is blocked, or an IPv4
// address that it stands for: see host.EmbeddedIPv4. An address that begins with a name
// or anything else is not.
func (l *List) CheckAddr(addr multiaddr.Addr) error {
	t := l.table.Load()
	if t.noNetworks() {
		return nil
	}
	ip, ok := addr.IP()
	if !ok {
		return nil
	}
	for _, ip := range append(host.EmbeddedIPv4(ip), ip) {
		if e, ok := t.ofIP(ip, l.now); ok && e.Verdict == Block {
			return &BlockedError{e}
		}
	}
	return nil
}

// allowsIP tells whether an entry of the list allows ip, in this very form.
func (l *List) allowsIP(ip netip.Addr) bool {
	e, ok := l.table.Load().ofIP(ip, l.now)
	return ok && e.Verdict == Allow
}

// Gate makes a host keep to the list, whatever becomes of it.
func (l *List) Gate() host.Gate {
	return host.Gate{
		DialPeer: l.CheckPeer,
		DialAddr: func(_ peer.ID, addr multiaddr.Addr) error { return l.CheckAddr(addr) },
		Accept:   l.CheckAddr,
		Secured: func(p peer.ID, _ host.Direction, remote multiaddr.Addr) error {
			return cmp.Or(l.CheckPeer(p), l.CheckAddr(remote))
		},
		AllowPrivate: l.allowsIP,
	}
}

// Run follows the list until ctx ends: it reads the file again when another program
// has changed it, and ends connections of h that the list does not allow any more.
func (l *List) Run(ctx context.Context, h *host.Host) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	enforced := l.table.Load()
	for {
		select {
		case <-l.changed:
		case <-tick.C:
			if err := l.reload(); err != nil {
				// It stays as it was, and is complained of once for each change.
				h.Logger().Error("the list of who may connect was not read", "err", err)
			}
		case <-ctx.Done():
			return
		}
		if t := l.table.Load(); t != enforced || t.expired(l.now()) {
			enforced = l.prune(t)
			l.enforce(h)
		}
	}
}

// enforce ends the connections of h that the list does not allow.
func (l *List) enforce(h *host.Host) {
	for _, c := range h.Conns() {
		if err := cmp.Or(l.CheckPeer(c.RemotePeer()), l.CheckAddr(c.RemoteAddr())); err != nil {
			h.Logger().Info("connection ended", "peer", c.RemotePeer().String(), "addr", c.RemoteAddr().String(), "err", err)
			h.Go(func(context.Context) { c.CloseWithCode(host.ConnCodeGated) })
		}
	}
}

// oneLine makes a note fit into a line of a file and of a terminal.
func oneLine(note string) string {
	note = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(note, "?"))
	note = strings.Join(strings.Fields(note), " ")
	if len(note) > MaxNote {
		note = strings.ToValidUTF8(note[:MaxNote], "")
	}
	return note
}
