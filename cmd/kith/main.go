// The command kith runs a libp2p peer, and looks at others.
//
// Read in this order: main.go, node.go (how each command gets a node), then the
// file of a command; demo.go last.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/kith-p2p/kith"
)

// Exit codes.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130 // as a shell reports SIGINT
)

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	// Else quic-go logs, past our logger, that the kernel's buffers could be larger.
	os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr}
	root := newRoot(a)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var usage *usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		fmt.Fprintf(a.err, "kith: %v\n", err)
		return exitUsage
	case ctx.Err() != nil:
		return exitInterrupted
	}
	if a.json {
		a.event("error", fields{"error": err.Error()})
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		err = fmt.Errorf("%w; on the command line: --listen", err)
	}
	fmt.Fprintf(a.err, "kith: %s\n", strings.TrimPrefix(err.Error(), "kith: "))
	return exitFailed
}

// app is what all commands share.
type app struct {
	in   io.Reader
	out  io.Writer
	err  io.Writer
	json bool
	node nodeFlags

	mu sync.Mutex // one line at a time
}

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "kith",
		Short: "Peers that talk to each other with no server between them",
		Long: `kith runs a libp2p peer, and looks at others.

It works with every peer that speaks libp2p (go-libp2p, js-libp2p, rust-libp2p, browsers), over
QUIC, TCP, WebTransport, WebRTC-direct and WebSocket.

Exit codes: 0 success, 1 what was asked for failed, 2 wrong usage, 130 interrupted.`,
		Example: `  kith demo                      watch peers find each other and talk
  kith chat --name ada           talk with everyone on this network
  kith node                      run a peer until interrupted
  kith ping /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…`,
		Version:       kith.Version,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return &usageError{fmt.Errorf("there is no command %q: see kith --help", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &usageError{fmt.Errorf("%w: see %s --help", err, cmd.CommandPath())}
	})
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print one JSON object a line, for programs")
	root.AddCommand(
		newDemo(a), newDemoPeer(a), newChat(a), newNode(a), newID(a), newPing(a), newPerf(a), newIdentify(a), newACL(a), newDial(a), newTrace(a),
	)
	return root
}

// A usageError tells of a command line that cannot be right.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// exactArgs is cobra.ExactArgs with our exit code and a hint.
func exactArgs(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return &usageError{fmt.Errorf("%s needs %s: see %s --help", cmd.CommandPath(), what, cmd.CommandPath())}
		}
		return nil
	}
}

type fields map[string]any

// event prints one JSON object with the name of the event.
func (a *app) event(name string, f fields) {
	all := fields{"event": name}
	for k, v := range f {
		all[k] = v
	}
	a.object(all)
}

// object prints v as one line of JSON.
func (a *app) object(v any) {
	line, err := json.Marshal(v)
	if err != nil {
		line = fmt.Appendf(nil, `{"event":"error","error":%q}`, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.out.Write(append(line, '\n'))
}

// say prints an event for programs, or a line for people.
func (a *app) say(name string, f fields, format string, args ...any) {
	if a.json {
		a.event(name, f)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	fmt.Fprintf(a.out, format+"\n", args...)
}
