package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/trace"
)

// errNotConnected tells that the table above it says why.
var errNotConnected = errors.New("no connection")

func newDial(a *app) *cobra.Command {
	var explain bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "dial PEER...",
		Short: "Connect to a peer, and tell how that went",
		Long: `Connect to a peer, and tell how that went.

PEER is an address that ends in /p2p/ID, or the ID alone of a peer on this network. Several
addresses of one peer are tried as any node would: the likeliest first, the next soon after.

With --explain there is a table of every address: when it was begun, how long each step took,
what became of it, why, and what to do about it. The steps are to open the transport's own
connection, to secure it (the peer proves who it is), and to agree on a muxer.`,
		Example: `  kith dial /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…
  kith dial --explain /dnsaddr/bootstrap.libp2p.io/p2p/QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN
  kith dial --explain 12D3KooW… --json`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return &usageError{fmt.Errorf("%s needs the address of a peer: see %s --help", cmd.CommandPath(), cmd.CommandPath())}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runDial(cmd.Context(), args, timeout, explain)
		},
	}
	cmd.Flags().BoolVar(&explain, "explain", false, "print a table of every address, step, time and reason, and what to do")
	cmd.Flags().DurationVar(&timeout, "timeout", 15*time.Second, "how long to try")
	a.node.add(cmd.Flags(), false)
	return cmd
}

func (a *app) runDial(ctx context.Context, args []string, timeout time.Duration, explain bool) error {
	to, err := parseTargets(args)
	if err != nil {
		return err
	}
	cfg, err := a.node.config(os.Stderr)
	if err != nil {
		return err
	}
	t := trace.New(traceBuffer)
	cfg.Trace = t.Add
	var records []trace.Record
	collected := make(chan struct{})
	go func() {
		defer close(collected)
		for r := range t.Records() {
			records = append(records, r)
		}
	}()
	n, err := startDialer(ctx, cfg)
	if err != nil {
		t.Close()
		return err
	}
	defer n.Close()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := find(ctx, n, to); err != nil {
		t.Close()
		return err
	}
	start := time.Now()
	conn, err := n.Connect(ctx, to)
	took := time.Since(start)
	if err == nil { // a peer that does not let us in says so after the dial
		_, idErr := n.Identify.Identify(ctx, conn)
		if errors.Is(idErr, net.ErrClosed) {
			select {
			case <-conn.Done():
			case <-ctx.Done():
			}
		}
		if explain && idErr != nil && !ended(conn) {
			fmt.Fprintf(a.err, "kith: it did not say who it is: %v\n", idErr)
		}
	}
	// A dial that was given up ends with the node.
	n.Close()
	t.Close()
	<-collected
	dials := trace.Explain(records)
	if !explain {
		if n := len(dials); n > 0 && dials[n-1].Ended != nil {
			return errors.New(dials[n-1].Summary() + ": " + dials[n-1].Remedy())
		}
		if err == nil {
			a.sayConnected(conn, took)
		}
		return err
	}
	if len(dials) == 0 { // it was not even begun, or there is a connection from before
		if err == nil {
			a.sayConnected(conn, took)
			return nil
		}
		dials = []*trace.Explanation{{Peer: to.ID, Elapsed: took, Err: err}}
	}
	for _, x := range dials {
		if a.json {
			a.object(x)
		} else {
			a.say("", nil, "%s", x)
		}
	}
	if err != nil || dials[len(dials)-1].Ended != nil {
		return errNotConnected
	}
	return nil
}

func ended(c *host.Conn) bool {
	select {
	case <-c.Done():
		return true
	default:
		return false
	}
}

// parseTargets understands several addresses of one peer.
func parseTargets(args []string) (to peer.AddrInfo, err error) {
	for _, arg := range args {
		info, err := parseTarget(arg)
		if err != nil {
			return to, err
		}
		if !to.ID.IsZero() && info.ID != to.ID {
			return to, &usageError{fmt.Errorf("the addresses are of two peers, %s and %s", to.ID, info.ID)}
		}
		to = peer.AddrInfo{ID: info.ID, Addrs: append(to.Addrs, info.Addrs...)}
	}
	return to, nil
}
