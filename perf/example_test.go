package perf_test

import (
	"context"
	"fmt"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/perf"
)

// How many bytes go up in a second?
func ExampleRun() {
	var (
		ctx   context.Context
		h     *host.Host
		other peer.ID
	)
	r, err := perf.Run(ctx, h, other, perf.Config{
		Upload:   100 << 20,
		Progress: func(p perf.Progress) { fmt.Println(p.Uploaded, p.Elapsed) },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%.0f bytes a second\n", float64(r.Uploaded)/r.UploadTime.Seconds())
}
