package worker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/pprof"
	"sync/atomic"
	"time"
)

// Main is the main function of a worker whose nodes newNode makes.
func Main(newNode func(NodeConfig) (Node, error)) {
	w := worker{newNode: newNode}
	commands, replies := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var cmd Command
		if err := commands.Decode(&cmd); err != nil {
			if err != io.EOF {
				fmt.Fprintln(os.Stderr, "worker: reading a command:", err)
				os.Exit(1)
			}
			return
		}
		reply, err := w.do(cmd)
		if err != nil {
			reply.Error = err.Error()
		}
		if err := replies.Encode(reply); err != nil {
			fmt.Fprintln(os.Stderr, "worker:", err)
			os.Exit(1)
		}
	}
}

// A maker makes nodes of the implementation that is measured.
type maker func(NodeConfig) (Node, error)

type worker struct {
	newNode maker
	node    Node // of a server
	load    load // of a client

	before  Usage // at the begin of the window
	profile *os.File
}

// A load is something that a client does. Nothing in it has a deadline of its own:
// whoever started the worker ends it when it takes too long.
type load interface {
	// prepare does what is not to be measured.
	prepare(ctx context.Context) error
	run(ctx context.Context, count int) (Result, error)
}

func (w *worker) do(cmd Command) (Reply, error) {
	ctx := context.Background()
	switch cmd.Do {
	case Start:
		var err error
		if w.node, err = w.newNode(*cmd.Node); err != nil {
			return Reply{}, err
		}
		handleAll(w.node)
		return Reply{Addr: w.node.Addr()}, nil

	case Prepare:
		var err error
		if w.load, err = w.newLoad(*cmd.Load); err != nil {
			return Reply{}, err
		}
		return Reply{}, w.load.prepare(ctx)

	case Run:
		if err := w.begin(cmd); err != nil {
			return Reply{}, err
		}
		result, err := w.load.run(ctx, cmd.Count)
		usage, endErr := w.end(cmd)
		return Reply{Result: &result, Usage: &usage}, errors.Join(err, endErr)

	case Begin:
		return Reply{}, w.begin(cmd)

	case End:
		usage, err := w.end(cmd)
		return Reply{Usage: &usage}, err

	case Memory:
		h, err := held()
		return Reply{Held: &h}, err
	}
	return Reply{}, fmt.Errorf("unknown command %q", cmd.Do)
}

func (w *worker) newLoad(l Load) (load, error) {
	switch l.Kind {
	case Bulk:
		return &bulk{Load: l, newNode: w.newNode}, nil
	case Streams:
		return &streams{Load: l, newNode: w.newNode}, nil
	case Parallel:
		return &parallel{Load: l, newNode: w.newNode}, nil
	case Dial:
		return &dial{Load: l, newNode: w.newNode}, nil
	case Dead:
		return &dead{Load: l, newNode: w.newNode}, nil
	case First:
		return &first{Load: l, newNode: w.newNode}, nil
	case Crowd:
		return &crowd{Load: l, newNode: w.newNode}, nil
	case Hold:
		return &hold{Load: l, newNode: w.newNode}, nil
	}
	return nil, fmt.Errorf("unknown load %q", l.Kind)
}

// connect makes the client's node and connects it.
func connect(ctx context.Context, l Load, newNode maker) (Conn, error) {
	node, err := newNode(l.Node)
	if err != nil {
		return nil, err
	}
	c, err := node.Connect(ctx, l.To)
	if err != nil {
		return nil, err
	}
	// Or it would fall into the window.
	return c, c.Identified(ctx)
}

// begin begins a window.
func (w *worker) begin(cmd Command) (err error) {
	if cmd.MemProfile != "" {
		// go tool pprof -base subtracts what came before the window.
		if err := writeAllocs(cmd.MemProfile + ".base"); err != nil {
			return err
		}
	}
	if cmd.CPUProfile != "" {
		if w.profile, err = os.Create(cmd.CPUProfile); err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(w.profile); err != nil {
			return err
		}
	}
	w.before, err = begin()
	return err
}

// end ends it.
func (w *worker) end(cmd Command) (Usage, error) {
	after, err := end()
	if err != nil {
		return Usage{}, err
	}
	if w.profile != nil {
		pprof.StopCPUProfile()
		if err := w.profile.Close(); err != nil {
			return Usage{}, err
		}
		w.profile = nil
	}
	if cmd.MemProfile != "" {
		if err := writeAllocs(cmd.MemProfile); err != nil {
			return Usage{}, err
		}
	}
	return after.sub(w.before), nil
}

func writeAllocs(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(pprof.Lookup("allocs").WriteTo(f, 0), f.Close())
}

// errEnough ends a repetition early.
var errEnough = errors.New("enough")

// repeat runs op in n goroutines, again and again until the time is over or one
// fails or has enough. It tells how often, how long it took, and how long each op took. The
// context of op is the caller's, as one that can be cancelled would cost those who
// derive others from it.
func repeat(ctx context.Context, n int, window time.Duration, op func(ctx context.Context, i int) error) (Result, error) {
	var times histogram
	var ended atomic.Bool
	errs := make(chan error)
	start := time.Now()
	for i := range n {
		go func() {
			for begin := start; begin.Sub(start) < window && !ended.Load(); {
				if err := op(ctx, i); err != nil {
					ended.Store(true)
					errs <- err
					return
				}
				now := time.Now()
				times.add(now.Sub(begin))
				begin = now
			}
			errs <- nil
		}()
	}
	var err error
	for range n {
		if e := <-errs; e != errEnough {
			err = cmp.Or(err, e)
		}
	}
	r := Result{Work: float64(times.count()), Elapsed: time.Since(start)}
	r.P50, r.P99 = times.quantile(0.50), times.quantile(0.99)
	return r, err
}
