package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kith-p2p/kith/bench/internal/worker"
)

// The implementations, by the name of their worker in peers/.
const (
	kith     = "kith"
	golibp2p = "golibp2p"
	limits   = "limits"
)

// An experiment is one thing that is measured, for each implementation alike.
type experiment struct {
	name  string
	row   string   // what -rows calls it
	about string   // for the report
	impls []string // in this order in each pair; nil: Kith, then go-libp2p
	once  bool     // one pair is enough, and long enough
	run   func(b *bench, impl string) (figures, error)
}

// A figure is a number with its name, which holds the unit.
type figure struct {
	Name  string
	Value float64
}

type figures []figure

// A run is one experiment with one implementation, once.
type run struct {
	Experiment string
	Impl       string
	Pair       int
	Figures    figures
	Windows    []window `json:",omitempty"`
}

// A window is what was measured while one load ran.
type window struct {
	Result  worker.Result
	Client  worker.Usage
	Server  worker.Usage
	Foreign float64 // cores that other processes used meanwhile
}

// Settings are what the command line can choose.
type settings struct {
	Pairs   int
	Window  time.Duration // of a load
	Settle  time.Duration // from the last connection or stream to the measurement of memory
	Retries int           // of a window that other processes have disturbed

	Conns, Streams           int           // for memory
	ScaleConns, ScaleStreams int           // for scale
	Idle                     time.Duration // how long the CPU of an idle node is watched

	Only                   string // the one implementation to run, if not ""
	CPUProfile, MemProfile string `json:"-"` // directories
}

var (
	full = settings{
		Pairs: 5, Window: 3 * time.Second, Settle: 10 * time.Second, Retries: 2,
		Conns: 2000, Streams: 10_000, ScaleConns: 10_000, ScaleStreams: 100_000, Idle: 130 * time.Second, // longer than the longest silence between keepalives
	}
	quick = settings{
		Pairs: 1, Window: 500 * time.Millisecond, Settle: time.Second,
		Conns: 200, Streams: 2000, ScaleConns: 500, ScaleStreams: 5000, Idle: time.Second,
	}
)

// A bench runs experiments.
type bench struct {
	settings
	dir  string // of the programs that it runs
	root string // of the module that is measured
	log  io.Writer

	label   string   // what runs now, for profiles
	windows []window // of what runs now
}

func (b *bench) binary(name string) string { return filepath.Join(b.dir, name) }

// disturbed is how many cores others may use before a window is measured again.
const disturbed = 0.1

// runAll runs the experiments of the rows, one row after the other: for each pair
// all experiments of the row, and in each of them one implementation after the other.
func (b *bench) runAll(all []experiment) ([]run, error) {
	var rows []string
	for _, e := range all {
		if !slices.Contains(rows, e.row) {
			rows = append(rows, e.row)
		}
	}
	var runs []run
	for _, row := range rows {
		for pair := range b.Pairs {
			for _, e := range all {
				if e.row != row || e.once && pair > 0 {
					continue
				}
				for _, impl := range e.impls {
					r, err := b.runOne(e, impl, pair)
					if err != nil {
						return runs, fmt.Errorf("%s with %s: %w", e.name, impl, err)
					}
					runs = append(runs, r)
				}
			}
		}
	}
	return runs, nil
}

func (b *bench) runOne(e experiment, impl string, pair int) (run, error) {
	b.label, b.windows = e.name+"-"+impl, nil
	got, err := e.run(b, impl)
	if err != nil {
		return run{}, err
	}
	var words []string
	for _, f := range got[:min(len(got), 3)] {
		words = append(words, number(f.Value)+" "+f.Name)
	}
	fmt.Fprintf(b.log, "%-10s pair %d  %-16s %-9s %s\n", e.row, pair+1, e.name, impl, strings.Join(words, ", "))
	return run{e.name, impl, pair, got, b.windows}, nil
}

// measure runs a load of one client against one server, both new, and again if
// other processes disturbed it; then the quietest counts.
func (b *bench) measure(impl string, load worker.Load) (window, error) {
	var best window
	for try := 0; ; try++ {
		w, err := b.tryMeasure(impl, load)
		if err != nil {
			return window{}, err
		}
		if try == 0 || w.Foreign < best.Foreign {
			best = w
		}
		if best.Foreign <= disturbed || try >= b.Retries {
			break
		}
		fmt.Fprintf(b.log, "%s: other processes used %.2f cores; once more\n", b.label, w.Foreign)
	}
	b.windows = append(b.windows, best)
	return best, nil
}

func (b *bench) tryMeasure(impl string, load worker.Load) (w window, err error) {
	server, addr, err := b.server(impl, load.Node)
	if err != nil {
		return w, err
	}
	defer server.stop()
	if load.To, err = b.target(load, addr); err != nil {
		return w, err
	}
	if load.Kind == worker.Dead {
		parts := strings.SplitN(load.To, "/", 4) // /ip4/IP/…
		for i := range deadAddrs + 1 {
			load.Live = append(load.Live, "/ip4/"+liveIP(i)+"/"+parts[3])
			if i < deadAddrs {
				load.Dead = append(load.Dead, "/ip4/"+deadIP(i)+"/"+parts[3])
			}
		}
	}
	load.Window = b.Window
	client, err := b.client(impl, load)
	if err != nil {
		return w, err
	}
	defer client.stop()

	before, err := busy()
	if err != nil {
		return w, err
	}
	start := time.Now()
	if _, err := server.call(b.profiled(worker.Command{Do: worker.Begin}, "server")); err != nil {
		return w, err
	}
	ran, err := client.call(b.profiled(worker.Command{Do: worker.Run}, "client"))
	if err != nil {
		return w, err
	}
	served, err := server.call(b.profiled(worker.Command{Do: worker.End}, "server"))
	if err != nil {
		return w, err
	}
	after, err := busy()
	if err != nil {
		return w, err
	}
	w = window{Result: *ran.Result, Client: *ran.Usage, Server: *served.Usage}
	w.Foreign = max(0, (after-before-w.Client.CPU-w.Server.CPU).Seconds()/time.Since(start).Seconds())
	return w, nil
}

// profiled adds the files for profiles, if any are wanted.
func (b *bench) profiled(cmd worker.Command, side string) worker.Command {
	if b.CPUProfile != "" {
		cmd.CPUProfile = filepath.Join(b.CPUProfile, b.label+"-"+side+".cpu")
	}
	if b.MemProfile != "" {
		cmd.MemProfile = filepath.Join(b.MemProfile, b.label+"-"+side+".allocs")
	}
	return cmd
}

// measured is an experiment of one load.
func measured(load worker.Load, figuresOf func(window, worker.Load) figures) func(*bench, string) (figures, error) {
	return func(b *bench, impl string) (figures, error) {
		w, err := b.measure(impl, load)
		if err != nil {
			return nil, err
		}
		return figuresOf(w, load), nil
	}
}

// build makes the programs that the experiments run.
func (b *bench) build(rows []string) error {
	here, err := output("go", "list", "-m", "-f", "{{.Dir}}", "github.com/kith-p2p/kith/bench")
	if err != nil {
		return err
	}
	workers := slices.ContainsFunc(rows, func(r string) bool { return r != "size" && r != "start" })
	programs := slices.Contains(rows, "size") || slices.Contains(rows, "start")
	out := b.dir + string(os.PathSeparator)
	if workers {
		fmt.Fprintln(b.log, "building the workers")
		if _, err := output("go", "build", "-C", here, "-o", out, "./peers/..."); err != nil {
			return err
		}
	}
	if programs {
		fmt.Fprintln(b.log, "building the programs whose size and start are measured")
		if _, err := output("go", "build", "-C", here, "-trimpath", "-ldflags=-s -w", "-o", out, "./programs/..."); err != nil {
			return err
		}
		if _, err := output("go", "build", "-C", b.root, "-trimpath", "-ldflags=-s -w", "-o", b.binary("minimal-kith"), "./examples/minimal"); err != nil {
			return err
		}
	}
	return nil
}
