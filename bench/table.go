package main

import (
	"fmt"
	"math"
	"strings"
	"unicode/utf8"
)

// A goal is what a figure of Kith's must reach.
type goal struct {
	ratio   bool // to the figure of go-libp2p, not by itself
	atLeast bool // not at most
	value   float64
}

func (g goal) String() string {
	if g == (goal{}) {
		return ""
	}
	sign, unit := "≤", ""
	if g.atLeast {
		sign = "≥"
	}
	if g.ratio {
		unit = " ×"
	}
	return fmt.Sprintf("%s %s%s", sign, strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.2f", g.value), "0"), "."), unit)
}

// reached judges medians.
func (g goal) reached(kith, ratio spread) bool {
	v := kith.Median
	if g.ratio {
		v = ratio.Median
	}
	if g.atLeast {
		return v >= g.value
	}
	return v <= g.value
}

func ratioAtMost(v float64) goal  { return goal{ratio: true, value: v} }
func ratioAtLeast(v float64) goal { return goal{ratio: true, atLeast: true, value: v} }
func atMost(v float64) goal       { return goal{value: v} }
func atLeast(v float64) goal      { return goal{atLeast: true, value: v} }

// A line of the table of goals.
type line struct {
	label, experiment, figure string
	goal                      goal
}

// goals is the table; the order is that of what matters most.
var goals = []line{
	{"bulk, one stream, Noise, up: CPU s/GiB", "noise-up", "CPU s/GiB, both ends", ratioAtMost(0.65)},
	{"the same down", "noise-down", "CPU s/GiB, both ends", ratioAtMost(0.65)},
	{"bulk, one stream, Noise, up: MiB/s", "noise-up", "MiB/s", ratioAtLeast(1.35)},
	{"the same down", "noise-down", "MiB/s", ratioAtLeast(1.35)},
	{"bulk, one stream, TLS, up: MiB/s", "tls-up", "MiB/s", ratioAtLeast(1.35)},
	{"the same down", "tls-down", "MiB/s", ratioAtLeast(1.35)},
	{"system calls per 64 KiB sent, Noise", "noise-up", "write calls per 64 KiB, sender", atMost(1.1)},
	{"system calls per 64 KiB received, Noise", "noise-up", "read calls per 64 KiB, receiver", atMost(1.1)},
	{"streams, 64 at once: per second", "streams-64", "per second", ratioAtLeast(2)},
	{"the same: CPU µs, both ends", "streams-64", "CPU µs, both ends", ratioAtMost(0.5)},
	{"streams, one at a time: ms, median", "streams-1", "ms, median", ratioAtMost(0.7)},
	{"allocations per stream, client", "streams-64", "allocations, client", atMost(15)},
	{"allocations per stream, server", "streams-64", "allocations, server", atMost(15)},
	{"dials, 16 at once: per second", "dial", "per second", ratioAtLeast(2)},
	{"the same: CPU µs, both ends", "dial", "CPU µs, both ends", ratioAtMost(0.5)},
	{"dials that wait for identify: per second", "dial-identified", "per second", ratioAtLeast(2)},
	{"the same: CPU µs, both ends", "dial-identified", "CPU µs, both ends", ratioAtMost(0.5)},
	{"dial of ten addresses, nine dead: ms beyond one handshake", "dial-dead", "ms, cold, beyond one handshake", atMost(350)},
	{"the same again: against the live one alone", "dial-dead", "known against the live one alone", atMost(1.2)},
	{"dial of ten addresses over QUIC, nine dead: ms beyond one handshake", "quic-dial-dead", "ms, cold, beyond one handshake", atMost(350)},
	{"the same again: against the live one alone", "quic-dial-dead", "known against the live one alone", atMost(1.2)},
	{"cold dial to the first answer: round trips", "rtt", "round trips to the first answer", atMost(3.1)},
	{"idle connection: bytes resident", "memory-conn", "bytes resident", atMost(13_000)},
	{"idle connection: goroutines", "memory-conn", "goroutines", atMost(1)},
	{"idle stream, opener: bytes resident", "memory-stream", "bytes resident, opener", atMost(500)},
	{"idle stream, acceptor: bytes resident", "memory-stream", "bytes resident, acceptor", atMost(4500)},
	{"stripped binary with host, TCP, Noise, yamux: MB", "size", "MB", atMost(8)},
	{"modules linked", "size", "modules linked besides its own", atMost(15)},
	{"start to listening: ms", "start", "ms to listening", atMost(5)},
	{"resident memory when idle: MiB", "start", "MiB resident when idle", atMost(12)},
	{"one of many idle connections against one of few", "scale-conn", "of many against of few", atMost(1.1)},
	{"one of many idle streams against one of few, opener", "scale-stream", "of many against of few, opener", atMost(1.1)},
	{"the same, acceptor", "scale-stream", "of many against of few, acceptor", atMost(1.1)},
	{"many idle connections: % of a core", "scale-conn", "% of a core when idle, all connections", atMost(1)},
	{"64 streams of one connection against one: MiB/s", "parallel", "64 streams against one", atLeast(0.9)},
	{"least share of the 64 against the mean", "parallel", "least share of 64 against the mean", atLeast(0.8)},
	{"greatest share of the 64 against the mean", "parallel", "greatest share of 64 against the mean", atMost(1.2)},
	{"one stream beside one that is not read, against alone", "parallel", "one beside one that is not read, against alone", atLeast(0.9)},
	{"QUIC, bulk, one stream, up: MiB/s", "quic-up", "MiB/s", ratioAtLeast(1.2)},
	{"the same down", "quic-down", "MiB/s", ratioAtLeast(1.2)},
	{"QUIC, bulk, one stream, up: CPU s/GiB", "quic-up", "CPU s/GiB, both ends", ratioAtMost(0.8)},
	{"the same down", "quic-down", "CPU s/GiB, both ends", ratioAtMost(0.8)},
	{"QUIC, streams, 64 at once: per second", "quic-streams-64", "per second", ratioAtLeast(1.2)},
	{"QUIC, allocations per stream, client", "quic-streams-64", "allocations, client", atMost(40)},
	{"QUIC, allocations per stream, server", "quic-streams-64", "allocations, server", atMost(30)},
	{"QUIC, cold dial to the first answer: round trips", "quic-rtt", "round trips to the first answer", atMost(2.1)},
	{"QUIC, idle connection: bytes resident", "quic-memory-conn", "bytes resident", ratioAtMost(0.75)},
	{"QUIC, incoming streams of one connection", "quic-stream-limit", "streams open at once", atLeast(10_000)},
	{"WebSocket, bulk, one stream, up: MiB/s", "ws-up", "MiB/s", ratioAtLeast(1.5)},
	{"the same down", "ws-down", "MiB/s", ratioAtLeast(1.2)},
	{"WebTransport, bulk, one stream, up: MiB/s", "webtransport-up", "MiB/s", ratioAtLeast(1.15)},
	{"the same down", "webtransport-down", "MiB/s", ratioAtLeast(1.15)},
	{"WebRTC-direct, bulk, one stream, up: MiB/s", "webrtc-up", "MiB/s", ratioAtLeast(2)},
	{"the same down", "webrtc-down", "MiB/s", ratioAtLeast(2)},
}

// results holds what was measured: experiment, implementation, figure, pair.
type results map[string]map[string]map[string]map[int]float64

func collect(runs []run) results {
	all := make(results)
	for _, r := range runs {
		for _, f := range r.Figures {
			if all[r.Experiment] == nil {
				all[r.Experiment] = make(map[string]map[string]map[int]float64)
			}
			if all[r.Experiment][r.Impl] == nil {
				all[r.Experiment][r.Impl] = make(map[string]map[int]float64)
			}
			if all[r.Experiment][r.Impl][f.Name] == nil {
				all[r.Experiment][r.Impl][f.Name] = make(map[int]float64)
			}
			all[r.Experiment][r.Impl][f.Name][r.Pair] = f.Value
		}
	}
	return all
}

// compare gives a figure of both and the ratio between them.
func (r results) compare(experiment, figure string) (kithSpread, otherSpread, ratio spread) {
	own, others := r[experiment][kith][figure], r[experiment][golibp2p][figure]
	return r.spread(experiment, kith, figure), r.spread(experiment, golibp2p, figure), ratiosOf(own, others)
}

func (r results) spread(experiment, impl, figure string) spread {
	var values []float64
	for _, v := range r[experiment][impl][figure] {
		values = append(values, v)
	}
	return spreadOf(values)
}

// goalTable is the table of what was measured of the goals.
func goalTable(r results) (rows [][]string, missed int) {
	rows = [][]string{{"", "go-libp2p", "Kith", "ratio", "goal", "reached"}}
	for _, l := range goals {
		own, other, ratio := r.compare(l.experiment, l.figure)
		if own.N == 0 {
			continue
		}
		verdict := "yes"
		switch {
		case l.goal.ratio && ratio.N == 0:
			verdict = ""
		case !l.goal.reached(own, ratio):
			verdict = "**no**"
			missed++
		}
		rows = append(rows, []string{l.label, other.String(), own.String(), ratio.String(), l.goal.String(), verdict})
	}
	return rows, missed
}

// experimentTable shows all figures of an experiment.
func experimentTable(r results, e experiment, order []string) [][]string {
	rows := [][]string{{"", "go-libp2p", "Kith", "ratio"}}
	for _, name := range order {
		own, other, ratio := r.compare(e.name, name)
		rows = append(rows, []string{name, other.String(), own.String(), ratio.String()})
	}
	return rows
}

// limitColumns are the limits of the machine, and what of Kith's comes up against them.
var limitColumns = []struct{ label, experiment, impl string }{
	{"raw TCP", "limit-tcp", limits},
	{"TLS", "limit-tls", limits},
	{"Kith, TLS", "tls-up", kith},
	{"Noise records", "limit-noise", limits},
	{"Kith, Noise", "noise-up", kith},
	{"raw QUIC", "limit-quic", limits},
	{"Kith, QUIC", "quic-up", kith},
	{"raw QUIC, streams", "limit-quic-streams-64", limits},
	{"Kith, QUIC, streams", "quic-streams-64", kith},
}

// limitTable shows how far from the limits of the machine Kith is, in the figures of
// order, for those that were measured.
func limitTable(r results, order []string) [][]string {
	rows := [][]string{{""}}
	for _, name := range order {
		rows = append(rows, []string{name})
	}
	for _, c := range limitColumns {
		if r[c.experiment][c.impl] == nil {
			continue
		}
		rows[0] = append(rows[0], c.label)
		for i, name := range order {
			rows[i+1] = append(rows[i+1], r.spread(c.experiment, c.impl, name).String())
		}
	}
	return rows
}

// String gives the median, and the range where there is one.
func (s spread) String() string {
	switch {
	case s.N == 0:
		return ""
	case s.N == 1:
		return number(s.Median)
	}
	return fmt.Sprintf("%s [%s–%s]", number(s.Median), number(s.Min), number(s.Max))
}

// number writes three digits or more, with commas between thousands.
func number(v float64) string {
	abs := math.Abs(v)
	switch {
	case abs >= 999.5:
		digits := fmt.Sprintf("%.0f", abs)
		var groups []string
		for len(digits) > 3 {
			groups = append([]string{digits[len(digits)-3:]}, groups...)
			digits = digits[:len(digits)-3]
		}
		s := strings.Join(append([]string{digits}, groups...), ",")
		if v < 0 {
			s = "-" + s
		}
		return s
	case abs >= 99.95:
		return fmt.Sprintf("%.0f", v)
	case abs >= 9.995:
		return fmt.Sprintf("%.1f", v)
	case abs >= 0.9995 || v == 0:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

// markdown writes a table whose columns are aligned, to be read as it is too.
func markdown(rows [][]string) string {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell), 3)
		}
	}
	var out strings.Builder
	for i, row := range rows {
		for j, cell := range row {
			pad := strings.Repeat(" ", widths[j]-utf8.RuneCountInString(cell))
			if j == 0 {
				fmt.Fprintf(&out, "| %s%s |", cell, pad)
			} else {
				fmt.Fprintf(&out, " %s%s |", pad, cell)
			}
		}
		out.WriteByte('\n')
		if i == 0 {
			for j, w := range widths {
				if j == 0 {
					fmt.Fprintf(&out, "|%s|", strings.Repeat("-", w+2))
				} else {
					fmt.Fprintf(&out, "%s:|", strings.Repeat("-", w+1))
				}
			}
			out.WriteByte('\n')
		}
	}
	return out.String()
}
