// The command bench measures Kith and go-libp2p side by side and prints how the
// one compares with the other, line by line of what Kith is to reach.
//
//	go run -C bench .                       # everything: about forty minutes
//	go run -C bench . -quick                # everything, too briefly to mean much: a few minutes
//	go run -C bench . -rows streams,dial    # only these
//
// A full run writes docs/benchmarks/DATE.md, and .json with all raw data. See
// README.md for what the lines mean.
//
// Read in this order: main.go, experiments.go (what is measured), experiment.go (how a
// run goes), table.go (the goals), internal/worker (the processes that are measured).
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

func main() {
	if err := mainErr(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func mainErr() error {
	rows := flag.String("rows", "all", "what to measure, separated by commas, or single experiments: "+strings.Join(rowNames(), ", "))
	brief := flag.Bool("quick", false, "one pair, short windows, small numbers: to see that it works")
	pairs := flag.Int("pairs", 0, "how many pairs; 0: 5")
	window := flag.Duration("window", 0, "how long a load runs; 0: 3s")
	only := flag.String("only", "", "run kith, golibp2p or limits alone, as for a profile")
	out := flag.String("o", "", "write `FILE`.md and FILE.json; default docs/benchmarks/DATE for everything, nothing otherwise")
	cpuProfile := flag.String("cpuprofile", "", "write a CPU profile of each window and side into `DIR`")
	memProfile := flag.String("memprofile", "", "write allocation profiles of each window and side into `DIR`")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("%q is not understood: see -help", flag.Arg(0))
	}

	s := full
	if *brief {
		s = quick
	}
	if *pairs > 0 {
		s.Pairs = *pairs
	}
	if *window > 0 {
		s.Window = *window
	}
	s.Only, s.CPUProfile, s.MemProfile = *only, *cpuProfile, *memProfile
	selected, err := choose(*rows, *only)
	if err != nil {
		return err
	}
	for _, dir := range []*string{&s.CPUProfile, &s.MemProfile} {
		if *dir == "" {
			continue
		}
		if *dir, err = filepath.Abs(*dir); err != nil {
			return err
		}
		if err := os.MkdirAll(*dir, 0o755); err != nil {
			return err
		}
	}
	root, err := output("go", "list", "-m", "-f", "{{.Dir}}", "github.com/kith-p2p/kith")
	if err != nil {
		return err
	}
	base := *out
	complete := *rows == "all" && !*brief && *only == "" && *cpuProfile == "" && *memProfile == ""
	if base == "" && complete {
		base = filepath.Join(root, "docs", "benchmarks", time.Now().Format(time.DateOnly))
	}

	dir, err := os.MkdirTemp("", "kith-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt)
	go func() {
		<-interrupted // the workers end with us
		os.RemoveAll(dir)
		os.Exit(130)
	}()
	b := &bench{settings: s, dir: dir, root: root, log: os.Stderr}
	var needed []string
	for _, e := range selected {
		needed = append(needed, e.row)
	}
	if err := b.build(needed); err != nil {
		return err
	}
	r := report{Date: time.Now(), Machine: describe(root), Settings: s}
	if r.Runs, err = b.runAll(selected); err != nil {
		return err
	}
	if base != "" {
		if err := r.write(base); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "written: %s.md, %s.json\n", base, base)
	}
	fmt.Print(r.text())
	return nil
}

func rowNames() (names []string) {
	for _, e := range experiments() {
		if !slices.Contains(names, e.row) {
			names = append(names, e.row)
		}
	}
	return names
}

// choose gives the experiments named, and those of the rows named, with the one implementation if
// only is not "".
func choose(rows, only string) (selected []experiment, err error) {
	names := strings.Split(rows, ",")
	for _, name := range names {
		known := func(e experiment) bool { return name == e.row || name == e.name }
		if name != "all" && !slices.ContainsFunc(experiments(), known) {
			return nil, fmt.Errorf("-rows: there is no %q: choose of %s, of the experiments in them, or all", name, strings.Join(rowNames(), ", "))
		}
	}
	for _, e := range experiments() {
		if only != "" {
			if !slices.Contains(e.impls, only) {
				continue
			}
			e.impls = []string{only}
		}
		if names[0] == "all" || slices.Contains(names, e.row) || slices.Contains(names, e.name) {
			selected = append(selected, e)
		}
	}
	if len(selected) == 0 {
		return nil, fmt.Errorf("-only %s: nothing of %s is measured with it", only, rows)
	}
	return selected, nil
}
