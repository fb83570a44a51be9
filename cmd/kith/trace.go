package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/kith-p2p/kith"
	"github.com/kith-p2p/kith/metrics"
	"github.com/kith-p2p/kith/trace"
)

// socketName is the Unix socket in a node's directory at which it tells, over HTTP,
// what it does.
const socketName = "node.sock"

// traceBuffer is how many events wait to be printed.
const traceBuffer = 8192

func newTrace(a *app) *cobra.Command {
	var only []string
	var span time.Duration
	cmd := &cobra.Command{
		Use:   "trace [DIR]",
		Short: "Print everything that a node does",
		Long: `Print everything that a node does: its connections, dials, streams and what becomes of them.

DIR is the directory of a node that runs on this machine, the --dir of its kith node. Without it
a node is started, as by kith node. Printing never slows the node down: when lines cannot be
written as fast as things happen, some are left out, and a line tells how many.

A running node's trace can be had without kith, too:
  curl --no-buffer --unix-socket DIR/` + socketName + ` http://kith/trace`,
		Example: `  kith trace
  kith trace --peer /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW… --only dial,conn
  kith trace ~/.config/kith --json
  kith trace ~/.config/kith --for 1m > trace.txt`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return &usageError{fmt.Errorf("%s takes one directory at most: see %s --help", cmd.CommandPath(), cmd.CommandPath())}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithCancel(cmd.Context())
			defer cancel()
			begun := func() {
				if span > 0 {
					time.AfterFunc(span, cancel)
				}
			}
			if len(args) == 1 {
				return a.followNode(ctx, args[0], only, begun)
			}
			return a.runTrace(ctx, only, begun)
		},
	}
	cmd.Flags().StringSliceVar(&only, "only", nil, "print only events whose names begin so, such as dial, conn, stream, peer")
	cmd.Flags().DurationVar(&span, "for", 0, "stop so long after the node has told of itself; when interrupted if 0")
	a.node.add(cmd.Flags(), true)
	return cmd
}

// runTrace runs a node and prints its trace. It calls begun when the node runs.
func (a *app) runTrace(ctx context.Context, only []string, begun func()) error {
	cfg, err := a.node.config(os.Stderr)
	if err != nil {
		return err
	}
	t := trace.New(traceBuffer)
	cfg.Trace = t.Add
	printed := make(chan struct{})
	go func() {
		defer close(printed)
		for r := range t.Records() {
			a.sayRecord(r, only)
		}
	}()
	n, err := kith.Start(ctx, cfg)
	if err == nil {
		addrs := addrStrings(n.P2PAddrs())
		a.say("listening", fields{"peer": n.ID(), "addrs": addrs}, "peer %s\n%s", n.ID(), strings.Join(addrs, "\n"))
		begun()
		<-ctx.Done()
		err = n.Close()
	}
	t.Close()
	<-printed
	return err
}

func (a *app) sayRecord(r trace.Record, only []string) {
	if !trace.Describe(r.Event).Is(only...) {
		return
	}
	if a.json {
		a.object(r)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	fmt.Fprintln(a.out, r)
}

// followNode prints the trace of the node that runs in dir. It calls begun after the
// first line, which is of the node.
func (a *app) followNode(ctx context.Context, dir string, only []string, begun func()) error {
	path := filepath.Join(dir, socketName)
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}
	query := url.Values{}
	if !a.json {
		query.Set("format", "text")
	}
	if len(only) > 0 {
		query.Set("only", strings.Join(only, ","))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://kith/trace?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no node runs in %s: start one with kith node --dir %s", dir, dir)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("the node in %s is another user's: %w", dir, err)
	case err != nil:
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
		return errors.New(strings.TrimSpace(string(text)))
	}
	lines := bufio.NewReader(resp.Body)
	for n := 0; ; n++ {
		line, err := lines.ReadBytes('\n')
		a.out.Write(line)
		switch {
		case err == nil && n == 0:
			begun()
		case err == nil:
		case ctx.Err() != nil:
			return nil
		default:
			return fmt.Errorf("the node in %s has ended", dir)
		}
	}
}

// serve answers those who ask what a node does: at the socket in its directory if it
// has one, and at the address of --metrics.
func (a *app) serve(n *kith.Node) (stop func(), err error) {
	var ends []func()
	stop = func() {
		for _, end := range ends {
			end()
		}
	}
	local := http.NewServeMux()
	local.Handle("/trace", trace.Handler(n.Host))
	if a.node.metrics != "" {
		l, err := net.Listen("tcp", a.node.metrics)
		if err != nil {
			return stop, fmt.Errorf("--metrics: %v", err) // not %w: run would take a taken port for that of --listen
		}
		m := metrics.New(n.Host)
		public := http.NewServeMux()
		public.Handle("/metrics", m.Handler())
		local.Handle("/metrics", m.Handler())
		server := newServer(public)
		go server.Serve(l)
		ends = append(ends, m.Close, func() { server.Close() })
		a.say("metrics", fields{"url": fmt.Sprintf("http://%s/metrics", l.Addr())}, "metrics http://%s/metrics", l.Addr())
	}
	if a.node.dir != "" {
		end, err := serveSocket(a.node.dir, local)
		if err != nil {
			// The node itself needs none of it.
			n.Logger().Warn("no trace of this node can be had", "err", err)
			return stop, nil
		}
		ends = append(ends, func() { end() })
	}
	return stop, nil
}

// serveSocket answers at the socket in dir until stop is called.
func serveSocket(dir string, handler http.Handler) (stop func() error, err error) {
	path := filepath.Join(dir, socketName)
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return nil, fmt.Errorf("another node runs in %s already", dir)
	}
	// In a directory of its own until only this user can use it.
	private, err := os.MkdirTemp(dir, ".sock")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(private)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(private, "s"), Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	err = os.Chmod(filepath.Join(private, "s"), 0o600)
	if err == nil {
		err = os.Rename(filepath.Join(private, "s"), path)
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	server := newServer(handler)
	go server.Serve(l)
	return func() error { return errors.Join(server.Close(), os.Remove(path)) }, nil
}

// newServer makes an HTTP server that waits for nobody.
func newServer(handler http.Handler) *http.Server {
	return &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
}
