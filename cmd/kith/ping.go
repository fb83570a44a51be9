package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/kith-p2p/kith/ping"
)

func newPing(a *app) *cobra.Command {
	var count int
	var interval, timeout time.Duration
	cmd := &cobra.Command{
		Use:   "ping ADDR",
		Short: "Measure the round trip to a peer",
		Long: `Measure the round trip to a peer over one stream of one connection.

ADDR is an address that ends in /p2p/ID, or the ID alone of a peer on this network.`,
		Example: `  kith ping /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…
  kith ping 12D3KooW… --count 100 --interval 10ms --json`,
		Args: exactArgs(1, "the address of a peer"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if count < 1 || interval < 0 {
				return &usageError{errors.New("--count must be 1 or more and --interval not negative")}
			}
			return a.runPing(cmd.Context(), args[0], count, interval, timeout)
		},
	}
	cmd.Flags().IntVarP(&count, "count", "c", 5, "how many pings to send")
	cmd.Flags().DurationVarP(&interval, "interval", "i", 200*time.Millisecond, "time between two pings")
	cmd.Flags().DurationVar(&timeout, "timeout", 15*time.Second, "how long to try to connect, and to wait for one answer")
	a.node.add(cmd.Flags(), false)
	return cmd
}

func (a *app) runPing(ctx context.Context, arg string, count int, interval, timeout time.Duration) error {
	n, conn, took, err := a.dial(ctx, arg, timeout)
	if err != nil {
		return err
	}
	defer n.Close()
	a.sayConnected(conn, took)
	var rtts []time.Duration
	for rtt, err := range ping.Ping(ctx, n.Host, conn.RemotePeer()) {
		if err != nil {
			return fmt.Errorf("after %d answers: %w", len(rtts), err)
		}
		rtts = append(rtts, rtt)
		a.say("ping", fields{"rtt_ms": ms(rtt), "n": len(rtts)}, "ping %d: %v", len(rtts), rtt.Round(time.Microsecond))
		if len(rtts) == count {
			break
		}
		select {
		case <-time.After(interval):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	slices.Sort(rtts)
	a.say("done", fields{"count": len(rtts), "min_ms": ms(rtts[0]), "median_ms": ms(rtts[len(rtts)/2]), "max_ms": ms(rtts[len(rtts)-1])},
		"%d answers: min %v, median %v, max %v", len(rtts),
		rtts[0].Round(time.Microsecond), rtts[len(rtts)/2].Round(time.Microsecond), rtts[len(rtts)-1].Round(time.Microsecond))
	return nil
}
