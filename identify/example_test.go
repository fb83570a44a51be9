package identify_test

import (
	"context"
	"fmt"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/identify"
)

// A program that wants to know at once what a peer says of itself.
func ExampleService_Identify() {
	var (
		ctx  context.Context
		h    *host.Host
		conn *host.Conn
	)
	s := identify.Start(h, identify.Config{AgentVersion: "example/1.0"})
	info, err := s.Identify(ctx, conn)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(info.AgentVersion, info.Protocols, info.ObservedAddr)
}
