package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/perf"
)

func newPerf(a *app) *cobra.Command {
	var upload, download string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "perf ADDR",
		Short: "Measure how fast bytes go to a peer and come back",
		Long: `Measure how fast bytes go to a peer and come back, with the protocol /perf/1.0.0.

ADDR is an address that ends in /p2p/ID, or the ID alone of a peer on this network.
Sizes are bytes, or have a unit: KiB, MiB, GiB (1024) or kB, MB, GB (1000).`,
		Example: `  kith perf /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…
  kith perf 12D3KooW… --upload 1GiB --download 0 --json`,
		Args: exactArgs(1, "the address of a peer"),
		RunE: func(cmd *cobra.Command, args []string) error {
			up, err := parseSize(upload)
			if err != nil {
				return &usageError{fmt.Errorf("--upload: %w", err)}
			}
			down, err := parseSize(download)
			if err != nil {
				return &usageError{fmt.Errorf("--download: %w", err)}
			}
			return a.runPerf(cmd.Context(), args[0], up, down, timeout)
		},
	}
	cmd.Flags().StringVar(&upload, "upload", "64MiB", "how much to send")
	cmd.Flags().StringVar(&download, "download", "64MiB", "how much to ask for")
	cmd.Flags().DurationVar(&timeout, "timeout", 15*time.Second, "how long to try to connect")
	a.node.add(cmd.Flags(), false)
	return cmd
}

func (a *app) runPerf(ctx context.Context, arg string, upload, download uint64, timeout time.Duration) error {
	n, conn, took, err := a.dial(ctx, arg, timeout)
	if err != nil {
		return err
	}
	defer n.Close()
	a.sayConnected(conn, took)
	for _, part := range []struct {
		name     string
		up, down uint64
	}{{"upload", upload, 0}, {"download", 0, download}} {
		total := part.up + part.down
		if total == 0 {
			continue
		}
		took, err := a.measure(ctx, n.Host, conn.RemotePeer(), part.name, part.up, part.down)
		if err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
		rate := float64(total) / took.Seconds()
		a.say(part.name, fields{"bytes": total, "seconds": took.Seconds(), "mib_per_second": rate / (1 << 20), "gbps": rate * 8 / 1e9},
			"%-8s %s in %v: %.1f MiB/s (%.2f Gbit/s)", part.name, formatSize(total), took.Round(time.Millisecond), rate/(1<<20), rate*8/1e9)
	}
	return nil
}

// measure runs one direction, with a bar for people while it lasts.
func (a *app) measure(ctx context.Context, h *host.Host, to peer.ID, name string, upload, download uint64) (time.Duration, error) {
	cfg := perf.Config{Upload: upload, Download: download}
	if !a.json && term.IsTerminal(int(os.Stderr.Fd())) {
		bars := mpb.NewWithContext(ctx, mpb.WithOutput(os.Stderr), mpb.WithWidth(40))
		bar := bars.AddBar(int64(upload+download), mpb.BarRemoveOnComplete(),
			mpb.PrependDecorators(decor.Name(name+" ")),
			mpb.AppendDecorators(decor.CountersKibiByte("% .0f / % .0f "), decor.AverageSpeed(decor.SizeB1024(0), "% .1f")))
		cfg.Progress = func(p perf.Progress) { bar.SetCurrent(int64(p.Uploaded + p.Downloaded)) }
		defer func() {
			bar.SetTotal(-1, true)
			bars.Wait()
		}()
	}
	result, err := perf.Run(ctx, h, to, cfg)
	return result.UploadTime + result.DownloadTime, err
}

var units = []struct {
	name string
	size uint64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"B", 1}}

func parseSize(s string) (uint64, error) {
	number, factor := strings.TrimSpace(s), uint64(1)
	for _, u := range units {
		if rest, ok := strings.CutSuffix(number, u.name); ok {
			number, factor = strings.TrimSpace(rest), u.size
			break
		}
	}
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a size such as 65536, 64MiB or 1GB", s)
	}
	if n > math.MaxInt64/factor {
		return 0, errors.New("the size is too large")
	}
	return n * factor, nil
}

func formatSize(n uint64) string {
	for _, u := range units[:3] {
		if v := n / u.size; v >= 1 && v < 1024 {
			return fmt.Sprintf("%.4g %s", float64(n)/float64(u.size), u.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}
