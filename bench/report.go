package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A report is everything that was measured, as it is written to JSON.
type report struct {
	Date     time.Time
	Machine  machine
	Settings settings
	Runs     []run
}

// write writes base.md and base.json.
func (r report) write(base string) error {
	if err := os.MkdirAll(filepath.Dir(base), 0o755); err != nil {
		return err
	}
	raw, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	if err := os.WriteFile(base+".json", append(raw, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(base+".md", []byte(r.markdown(filepath.Base(base))), 0o644)
}

func (r report) markdown(name string) string {
	var out strings.Builder
	m, s := r.Machine, r.Settings
	fmt.Fprintf(&out, "# Kith beside go-libp2p, %s\n\n", r.Date.Format(time.DateOnly))
	fmt.Fprintf(&out, "Kith %s, go-libp2p %s, %s; %d cores of %s, %s, %s; loopback only.\n", m.Kith, m.Libp2p, m.Go, m.Cores, m.CPU, m.Memory, m.Kernel)
	fmt.Fprintf(&out, "Printed by `go run -C bench .`; what each line is, and why it can be compared: [bench/README.md](../../bench/README.md). All raw data: [%s.json](%s.json).\n\n", name, name)
	fmt.Fprintf(&out, "Median [least–greatest] of %d pairs, Kith and go-libp2p in turn, windows of %v. The ratio is the median of those of the pairs, Kith to go-libp2p.\n", s.Pairs, s.Window)
	if foreign := r.foreign(); foreign.N > 0 {
		fmt.Fprintf(&out, "Other processes used %.2f cores meanwhile, at most %.2f.\n", foreign.Median, foreign.Max)
	}
	results := collect(r.Runs)
	rows, missed := goalTable(results)
	fmt.Fprintf(&out, "\n## Goals: %d of %d reached\n\n%s", len(rows)-1-missed, len(rows)-1, markdown(rows))
	if order := r.limitFigures(); order != nil {
		fmt.Fprintf(&out, "\n## Limits of the machine\n\n%s.\n\n%s", limitsAbout, markdown(limitTable(results, order)))
	}
	out.WriteString("\n## All figures\n")
	for _, e := range experiments() {
		if order := r.figureNames(e.name); order != nil && !e.isLimit() {
			fmt.Fprintf(&out, "\n### %s\n\n%s.\n\n%s", e.name, upperFirst(e.about), markdown(experimentTable(results, e, order)))
		}
	}
	return out.String()
}

// limitsAbout tells what the limits are; each is an experiment as well.
const limitsAbout = "One stream, client to server, or 64 short ones at once: raw TCP, TLS 1.3 of Go's standard library, and full records of Noise, each with no muxer and one goroutine a side; raw quic-go on an ordinary UDP socket"

func (e experiment) isLimit() bool { return e.impls[0] == limits }

// text is what the terminal shows; the goals come last, where they are seen.
func (r report) text() string {
	results := collect(r.Runs)
	var out strings.Builder
	for _, e := range experiments() {
		if order := r.figureNames(e.name); order != nil && !e.isLimit() {
			fmt.Fprintf(&out, "%s: %s\n%s\n", e.name, e.about, markdown(experimentTable(results, e, order)))
		}
	}
	if order := r.limitFigures(); order != nil {
		fmt.Fprintf(&out, "limits of the machine: %s\n%s\n", limitsAbout, markdown(limitTable(results, order)))
	}
	if rows, missed := goalTable(results); len(rows) > 1 {
		fmt.Fprintf(&out, "%d of %d goals reached\n%s", len(rows)-1-missed, len(rows)-1, markdown(rows))
	}
	return out.String()
}

// figureNames lists the figures of an experiment in the order in which it gave them.
func (r report) figureNames(experiment string) (names []string) {
	for _, run := range r.Runs {
		if run.Experiment == experiment {
			for _, f := range run.Figures {
				names = append(names, f.Name)
			}
			return names
		}
	}
	return nil
}

// limitFigures lists the figures of all limits that were measured.
func (r report) limitFigures() (names []string) {
	for _, e := range experiments() {
		if !e.isLimit() {
			continue
		}
		for _, name := range r.figureNames(e.name) {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// foreign is what other processes used, in cores.
func (r report) foreign() spread {
	var all []float64
	for _, run := range r.Runs {
		for _, w := range run.Windows {
			all = append(all, w.Foreign)
		}
	}
	return spreadOf(all)
}

func upperFirst(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
