package main

import (
	"context"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/kith-p2p/kith/host"
)

func newIdentify(a *app) *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "identify ADDR",
		Short: "Ask a peer who it is and what it speaks",
		Long: `Ask a peer who it is and what it speaks.

ADDR is an address that ends in /p2p/ID, or the ID alone of a peer on this network.`,
		Example: `  kith identify /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…
  kith identify 12D3KooW… --json`,
		Args: exactArgs(1, "the address of a peer"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.runIdentify(cmd.Context(), args[0], timeout) },
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 15*time.Second, "how long to try")
	a.node.add(cmd.Flags(), false)
	return cmd
}

func (a *app) runIdentify(ctx context.Context, arg string, timeout time.Duration) error {
	n, conn, connected, err := a.dial(ctx, arg, timeout)
	if err != nil {
		return err
	}
	defer n.Close()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	info, err := n.Identify.Identify(ctx, conn)
	if err != nil {
		return err
	}
	f := identifyFields(conn, info)
	f["connect_ms"] = ms(connected)
	protos := make([]string, len(info.Protocols))
	for i, p := range info.Protocols {
		protos[i] = printable(string(p))
	}
	a.say("identify", f, `peer       %s
agent      %s
version    %s
key        %s
connected  %s in %v%s
sees us at %s
listens at %s%s
speaks     %s`,
		info.ID, printable(info.AgentVersion), printable(info.ProtocolVersion), conn.RemoteKey().Type(),
		conn.RemoteAddr(), connected.Round(10*time.Microsecond), agreed(conn),
		info.ObservedAddr, strings.Join(addrStrings(info.Addrs), "\n           "), signed(info), strings.Join(protos, "\n           "))
	return nil
}

func signed(info host.PeerInfo) string {
	if info.SignedRecord {
		return "\n           (signed by the peer)"
	}
	return ""
}

func identifyFields(c *host.Conn, info host.PeerInfo) fields {
	return fields{
		"peer": info.ID, "agent": info.AgentVersion, "protocol_version": info.ProtocolVersion, "protocols": info.Protocols,
		"listen_addrs": addrStrings(info.Addrs), "observed": info.ObservedAddr, "signed_record": info.SignedRecord,
		"key_type": strings.ToLower(c.RemoteKey().Type().String()), "security": c.Security(), "muxer": c.Muxer(),
	}
}

// printable makes a stranger's words safe for a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '�'
	}, s)
}

func ms(d time.Duration) float64 {
	return float64(d.Round(time.Microsecond)) / float64(time.Millisecond)
}
