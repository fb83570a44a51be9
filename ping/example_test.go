package ping_test

import (
	"context"
	"fmt"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/ping"
)

// Once a second, until the peer does not answer.
func ExamplePing() {
	var (
		ctx   context.Context
		h     *host.Host
		other peer.ID
	)
	for rtt, err := range ping.Ping(ctx, h, other) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(rtt)
		time.Sleep(time.Second)
	}
}
