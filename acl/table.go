//kith:pure

package acl

import (
	"bytes"
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/kith-p2p/kith/peer"
)

// A table is a list made ready to be asked. It does not change.
type table struct {
	list     []Entry  // sorted by subject
	comments []string // the lines of the file that are for people

	peers    map[peer.ID]Entry
	everyone Entry // its Verdict is 0 when there is none
	networks map[netip.Prefix]Entry
	bits     [2][]int  // the lengths of networks, of IPv4 and IPv6, the longest first
	next     time.Time // when the first entry ends; zero: none does
}

func newTable(entries []Entry, comments []string) *table {
	t := &table{list: slices.Clone(entries), comments: comments, peers: make(map[peer.ID]Entry), networks: make(map[netip.Prefix]Entry)}
	slices.SortFunc(t.list, func(a, b Entry) int { return a.Subject.compare(b.Subject) })
	for _, e := range t.list {
		switch s := e.Subject; {
		case s.everyone:
			t.everyone = e
		case s.network.IsValid():
			t.networks[s.network] = e
			bits := &t.bits[family(s.network.Addr())]
			if !slices.Contains(*bits, s.network.Bits()) {
				*bits = append(*bits, s.network.Bits())
			}
		default:
			t.peers[s.peer] = e
		}
		if !e.Until.IsZero() && (t.next.IsZero() || e.Until.Before(t.next)) {
			t.next = e.Until
		}
	}
	for _, bits := range t.bits {
		slices.SortFunc(bits, func(a, b int) int { return cmp.Compare(b, a) })
	}
	return t
}

func family(ip netip.Addr) int {
	if ip.Is4() {
		return 0
	}
	return 1
}

// ofPeer finds the entry that decides on p: its own, or else that of everyone.
func (t *table) ofPeer(p peer.ID, now func() time.Time) (Entry, bool) {
	if len(t.peers) > 0 {
		if e, ok := t.peers[p]; ok && !e.over(now) {
			return e, true
		}
	}
	return t.everyone, t.everyone.Verdict != 0 && !t.everyone.over(now)
}

// ofIP finds the entry that decides on ip: that of the smallest network with it.
func (t *table) ofIP(ip netip.Addr, now func() time.Time) (Entry, bool) {
	if t.noNetworks() {
		return Entry{}, false
	}
	ip = ip.WithZone("").Unmap()
	for _, bits := range t.bits[family(ip)] {
		p, err := ip.Prefix(bits)
		if err != nil {
			continue
		}
		if e, ok := t.networks[p]; ok && !e.over(now) {
			return e, true
		}
	}
	return Entry{}, false
}

// over is ended, for which the clock is read only when it matters.
func (e Entry) over(now func() time.Time) bool { return !e.Until.IsZero() && e.ended(now()) }

func (t *table) noNetworks() bool { return len(t.networks) == 0 }

// expired tells whether an entry has ended since the table was made.
func (t *table) expired(now time.Time) bool { return !t.next.IsZero() && !now.Before(t.next) }

// entries gives those that have not ended.
func (t *table) entries(now time.Time) []Entry {
	return slices.DeleteFunc(slices.Clone(t.list), func(e Entry) bool { return e.ended(now) })
}

// parseTable reads a file: on each line
//
//	(block | allow) SUBJECT [until TIME] [# NOTE]
//
// or nothing, or a comment that begins with #.
func parseTable(data []byte) (*table, error) {
	var entries []Entry
	var comments []string
	line := make(map[Subject]int)
	n := 0
	for raw := range bytes.Lines(data) {
		n++
		text := strings.TrimSpace(string(raw))
		if text == "" {
			continue
		}
		if strings.HasPrefix(text, "#") {
			comments = append(comments, text)
			continue
		}
		e, err := parseEntry(text)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if first, ok := line[e.Subject]; ok {
			return nil, fmt.Errorf("line %d: %s is in line %d already: which of the two is meant?", n, e.Subject, first)
		}
		line[e.Subject] = n
		if entries = append(entries, e); len(entries) > MaxEntries {
			return nil, errFull
		}
	}
	return newTable(entries, comments), nil
}

var errFull = fmt.Errorf("more than %d entries: networks that are neighbours can share one", MaxEntries)

func parseEntry(text string) (Entry, error) {
	var e Entry
	text, note, _ := strings.Cut(text, "#")
	e.Note = oneLine(note)
	fields := strings.Fields(text)
	if len(fields) != 2 && !(len(fields) == 4 && fields[2] == "until") {
		return e, fmt.Errorf("%q is not of the form: block|allow SUBJECT [until TIME] [# NOTE]", strings.TrimSpace(text))
	}
	switch fields[0] {
	case "block":
		e.Verdict = Block
	case "allow":
		e.Verdict = Allow
	default:
		return e, fmt.Errorf("%q is neither block nor allow", fields[0])
	}
	var err error
	if e.Subject, err = ParseSubject(fields[1]); err != nil {
		return e, err
	}
	if len(fields) == 4 {
		if e.Until, err = time.Parse(time.RFC3339, fields[3]); err != nil {
			return e, fmt.Errorf("%q is no time such as 2030-12-31T23:59:59Z", fields[3])
		}
		e.Until = time.Unix(e.Until.Unix(), 0).UTC()
	}
	return e, nil
}

// header is what a new file tells people.
var header = []string{
	"# Who may connect with this node: see kith acl --help. A running node reads changes.",
	"# (block | allow) (PEER | ADDRESS | NETWORK | everyone) [until TIME] [# NOTE]",
}

// format writes what parseTable reads.
func (t *table) format() []byte {
	var b bytes.Buffer
	for _, c := range t.comments {
		b.WriteString(c + "\n")
	}
	for _, e := range t.list {
		fmt.Fprintf(&b, "%s %s", e.Verdict, e.Subject)
		if !e.Until.IsZero() {
			b.WriteString(" until " + e.Until.UTC().Format(time.RFC3339))
		}
		if e.Note != "" {
			b.WriteString(" # " + e.Note)
		}
		b.WriteByte('\n')
	}
	return b.Bytes()
}
