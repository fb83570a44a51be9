//kith:pure

package host

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// Limits bounds what remotes can make a host hold. Zero means the default, which
// follows from Memory; negative means no limit. `kith node --limits` prints all of
// them, with how each follows.
type Limits struct {
	// Memory is how many bytes all that remotes cause may take together. Default: an
	// eighth of the memory that this process may use, at least 64 MiB and at most
	// 1 GiB; less than 1 MiB is refused. Negative: no limit; the other limits are then those of 1 GiB.
	Memory int

	// Conns is the number of connections, both directions. When it is reached, the
	// least useful one makes way for a newcomer, if there is one that has to; see
	// trim.go. Default: one for each 64 KiB of Memory, 1024 with 64 MiB.
	Conns int
	// HighWater and LowWater are the connection manager's watermarks: when more than
	// HighWater connections are older than Grace, the least useful of them are closed
	// until LowWater are left. Conns must be at least 1.2 × HighWater. Defaults: four
	// fifths of Conns, and five sixths of HighWater. ConnMemory has marks, too: five
	// sixths of it, and five sixths of those. With a negative HighWater none are closed
	// before Conns is reached.
	HighWater, LowWater int
	// Grace is how long a connection has to show that it is useful. Default 20 s;
	// negative: no time at all.
	Grace time.Duration
	// ConnsPerPeer is the number of connections with one peer. Default 8: one a
	// transport and some for races.
	ConnsPerPeer int
	// ConnsPerIP is the number of inbound connections from one IPv4 address or one
	// IPv6 /56; loopback is exempt. Default 64: an office or a carrier's NAT gets
	// in, a single machine cannot take all places.
	ConnsPerIP int
	// HalfOpen is the number of inbound connections that have not yet proved who
	// they are. When it is reached, the address group with the most of them loses
	// one, and in it the address with the most. Default 256, fewer below 64 MiB of
	// Memory: more handshakes at once would wait for the processor anyway.
	HalfOpen int
	// HalfOpenPerGroup bounds those of one IPv4 /24 or IPv6 /48. Default: half of HalfOpen.
	HalfOpenPerGroup int
	// InboundStreamsPerPeer is the number of streams that one peer may have open
	// to us. Default: as many as half of StreamMemory holds, 1024 with 64 MiB. Muxers
	// have a limit of their own for each connection, which kith.Start sets to this.
	InboundStreamsPerPeer int
	// UnnegotiatedStreamsPerPeer bounds those of one peer that have waited a tenth of a
	// second for a protocol to be proposed. Default 64: an honest opener does it at once.
	UnnegotiatedStreamsPerPeer int
	// UnnegotiatedStreams bounds those of all peers; when it is reached, the peer
	// with the most of them loses its oldest. Default 1024, fewer below 64 MiB of Memory.
	UnnegotiatedStreams int

	// Parts of Memory, in bytes. Each has its own bound, so that none can use up
	// another's.

	// StreamMemory is for streams and for what they have received and nobody has read.
	// One peer gets at most half of it, one address group at most three quarters; who
	// holds the most gives some back when there is too little for others. Default: a
	// quarter of Memory.
	StreamMemory int
	// BookMemory is for what is known of peers without a connection. Default: a
	// sixteenth of Memory.
	BookMemory int
	// ConnMemory is for connections, each at what its transport says that it takes
	// while it is idle. When it is reached, the same happens as with Conns. Default:
	// what the others leave of Memory.
	ConnMemory int
}

const (
	mib = 1 << 20

	leastMemory = mib      // sixteen connections
	minMemory   = 64 * mib // a few hundred connections
	maxMemory   = 1 << 30  // ten thousand; nobody wants more without having said so

	// What things take, in bytes, as measured; see TestAccounting.
	connCost        = 14 << 10 // over TCP with Noise and yamux, idle
	connSlot        = 64 << 10 // of one over QUIC: what Conns reckons with
	halfOpenCost    = 24 << 10 // during the handshake
	quicOpeningCost = 30 << 10 // before that, in quic-go
	streamCost      = 6 << 10  // one that is served: a goroutine, and what host and muxer keep
)

// Resolve gives the limits that a host with these goes by: all that is zero is
// replaced by its default, of a process that may use machine bytes of memory, 0 if that
// is not known, and all that is negative by the largest int.
func (l Limits) Resolve(machine int) Limits {
	set := func(v *int, def int) {
		switch {
		case *v == 0:
			*v = def
		case *v < 0:
			*v = math.MaxInt
		}
	}
	set(&l.Memory, min(max(machine/8, minMemory), maxMemory))
	m := l.Memory
	if m == math.MaxInt {
		m = maxMemory
	}
	part := func(v *int, def int) {
		if *v == 0 && l.Memory == math.MaxInt {
			def = math.MaxInt
		}
		set(v, def)
	}
	small := min(m, minMemory)
	set(&l.Conns, m/connSlot)
	less := func(v, part int) int { // of no limit it is none
		if v == math.MaxInt {
			return v
		}
		return v - v/part
	}
	set(&l.HighWater, less(l.Conns, 5))
	set(&l.LowWater, less(l.HighWater, 6))
	if l.Grace == 0 {
		l.Grace = 20 * time.Second
	}
	l.Grace = max(l.Grace, 0)
	set(&l.ConnsPerPeer, 8)
	set(&l.ConnsPerIP, 64)
	set(&l.HalfOpen, max(small/(256<<10), 8))
	set(&l.HalfOpenPerGroup, max(less(l.HalfOpen, 2), 1))
	part(&l.StreamMemory, m/4)
	part(&l.BookMemory, m/16)
	set(&l.InboundStreamsPerPeer, max(min(l.StreamMemory, m)/2/(8<<10), 16))
	set(&l.UnnegotiatedStreamsPerPeer, 64)
	set(&l.UnnegotiatedStreams, max(small/(128<<10), 64))
	opening := l.HalfOpening()
	part(&l.ConnMemory, max(m-min(l.StreamMemory, m)-min(l.BookMemory, m)-min(l.HalfOpen, m/halfOpenCost)*halfOpenCost-opening*quicOpeningCost, m/8))
	return l
}

// check tells of limits with which a host could not work: too little memory, and
// watermarks that the hard limit does not leave room for.
func (l Limits) check() error {
	if l.Memory < leastMemory {
		return fmt.Errorf("host: Limits.Memory is %d bytes: that is not enough for a handful of connections; the least is 1 MiB, the default at least 64 MiB", l.Memory)
	}
	if l.LowWater > l.HighWater {
		return fmt.Errorf("host: Limits.LowWater is %d and Limits.HighWater %d: the low watermark must not be above the high one", l.LowWater, l.HighWater)
	}
	// Above the high watermark newcomers live until their grace has passed.
	if least := int64(l.HighWater) + int64(l.HighWater/5); l.HighWater < math.MaxInt && (least < 0 || int64(l.Conns) < least) {
		return fmt.Errorf("host: Limits.Conns is %d and Limits.HighWater %d: the hard limit must be at least a fifth above the high watermark, here %d", l.Conns, l.HighWater, uint64(least))
	}
	return nil
}

// HalfOpening is how many connections over QUIC may be at the very beginning, when
// nothing is known of them but an address: one for each 512 KiB of Memory, 8 to 1024.
func (l Limits) HalfOpening() int { return max(min(l.Memory/(512<<10), 1024), 8) }

// PeerStreamMemory is how much of StreamMemory one peer can get, in bytes.
func (l Limits) PeerStreamMemory() int {
	if l.StreamMemory == math.MaxInt {
		return l.StreamMemory
	}
	return l.StreamMemory / 2
}

// A LimitRow is one limit as `kith node --limits` prints it.
type LimitRow struct {
	Name  string `json:"name"`  // the field of Limits
	Value int    `json:"value"` // -1: no limit
	Unit  string `json:"unit"`
	From  string `json:"from"` // "set", or how it follows from others
	What  string `json:"what"`
}

// Rows tells what the limits l come to in a process that may use machine bytes, and why.
func (l Limits) Rows(machine int) []LimitRow {
	r := l.Resolve(machine)
	var rows []LimitRow
	add := func(name string, given, value int, unit, from, what string) {
		if given != 0 {
			from = "set"
		}
		if value == math.MaxInt {
			value = -1
		}
		rows = append(rows, LimitRow{name, value, unit, from, what})
	}
	memory := fmt.Sprintf("an eighth of %d MiB, at least 64 MiB, at most 1 GiB", machine/mib)
	if machine == 0 {
		memory = "the machine's memory is not known: 64 MiB"
	}
	add("Memory", l.Memory, r.Memory, "bytes", memory, "all that remotes cause")
	add("ConnMemory", l.ConnMemory, r.ConnMemory, "bytes", "Memory less StreamMemory, BookMemory, 24 KiB for each of HalfOpen and 30 KiB for each of HalfOpening; at least an eighth", "connections, at what each takes while idle")
	add("StreamMemory", l.StreamMemory, r.StreamMemory, "bytes", "a quarter of Memory", "streams, and what they received and nobody has read")
	add("BookMemory", l.BookMemory, r.BookMemory, "bytes", "a sixteenth of Memory", "what is known of peers without a connection")
	add("Conns", l.Conns, r.Conns, "", "Memory / 64 KiB", "connections, both directions")
	add("HighWater", l.HighWater, r.HighWater, "", "four fifths of Conns", "connections older than Grace; with more the least useful end")
	add("LowWater", l.LowWater, r.LowWater, "", "five sixths of HighWater", "those that are left then")
	add("Grace", cmp.Compare(l.Grace, 0), int(r.Grace/time.Second), "s", "identify and the first streams take a few round trips", "the time that a connection has to show its use")
	add("ConnsPerPeer", l.ConnsPerPeer, r.ConnsPerPeer, "", "one a transport, some for races", "connections with one peer")
	add("ConnsPerIP", l.ConnsPerIP, r.ConnsPerIP, "", "an office gets in, one machine cannot take all", "inbound connections of one IPv4 address or IPv6 /56, but not loopback")
	add("HalfOpen", l.HalfOpen, r.HalfOpen, "", "Memory / 256 KiB, 8 to 256", "inbound connections that have not proved who they are")
	add("HalfOpenPerGroup", l.HalfOpenPerGroup, r.HalfOpenPerGroup, "", "half of HalfOpen", "those of one IPv4 /24 or IPv6 /48")
	add("HalfOpening", 0, r.HalfOpening(), "", "Memory / 512 KiB, 8 to 1024", "connections over QUIC whose first flight is not complete")
	add("InboundStreamsPerPeer", l.InboundStreamsPerPeer, r.InboundStreamsPerPeer, "", "half of StreamMemory / 8 KiB, at least 16", "streams of one peer")
	add("PeerStreamMemory", 0, r.PeerStreamMemory(), "bytes", "half of StreamMemory", "what one peer can get of it")
	add("UnnegotiatedStreams", l.UnnegotiatedStreams, r.UnnegotiatedStreams, "", "Memory / 128 KiB, 64 to 512", "streams for which no protocol was proposed within 100 ms")
	add("UnnegotiatedStreamsPerPeer", l.UnnegotiatedStreamsPerPeer, r.UnnegotiatedStreamsPerPeer, "", "an honest opener proposes at once", "those of one peer")
	if room := r.ConnMemory / connCost; r.Conns > room {
		i := slices.IndexFunc(rows, func(r LimitRow) bool { return r.Name == "Conns" })
		rows[i].From += fmt.Sprintf("; but ConnMemory has room for %d, over TCP", room)
	}
	return rows
}
