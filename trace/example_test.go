package trace_test

import (
	"context"
	"fmt"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/trace"
)

func ExampleStart() {
	key, err := peer.GenerateKey(peer.Ed25519)
	if err != nil {
		panic(err)
	}
	h, err := host.New(host.Config{Identity: key})
	if err != nil {
		panic(err)
	}
	defer h.Close()
	t := trace.Start(h, 1024)
	defer t.Close()
	h.Handle("/hello/1", func(context.Context, *host.Stream) error { return nil })
	fmt.Println(trace.Describe((<-t.Records()).Event))
	// Output: protocols_changed protocols=[/hello/1]
}
