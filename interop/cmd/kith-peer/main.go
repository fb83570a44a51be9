// Command kith-peer is Kith behind the command line of its interoperability suite, and in the roles of libp2p's public suites:
// see interop/README.md.
package main

import (
	"fmt"
	"os"

	"github.com/kith-p2p/kith/interop/internal/peercmd"
	"github.com/kith-p2p/kith/interop/internal/unified"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "kith-peer:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		args = []string{"transport"}
	}
	switch args[0] {
	case "transport", "perf":
		return unified.Main(args[0], start, os.Getenv, os.Stdout)
	}
	program := peercmd.Program{
		Capabilities: peercmd.Capabilities{
			Transports: []string{"tcp", "ws", "wss", "quic-v1", "webtransport", "webrtc-direct"},
			Security:   []string{"noise", "tls"},
			Muxers:     []string{"yamux"},
			KeyTypes:   peercmd.KeyTypes,
		},
		Start: start,
	}
	return program.Main(args, os.Stdout)
}
