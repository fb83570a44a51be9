package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kith-p2p/kith"
	"github.com/kith-p2p/kith/autotls"
	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/pnet"
	"github.com/kith-p2p/kith/store"
	"github.com/kith-p2p/kith/upgrade"
)

// nodeFlags describe the node that a command runs.
type nodeFlags struct {
	dir        string
	listen     []string
	peers      []string
	security   string
	psk        string
	tlsCert    string
	tlsKey     string
	autoTLS    bool
	noMDNS     bool
	interfaces []string
	service    string
	verbose    bool
	metrics    string // of kith node alone

	memory byteSize
	conns  int
}

func (f *nodeFlags) add(flags *pflag.FlagSet, listens bool) {
	flags.StringVar(&f.dir, "dir", "", "directory that keeps the identity; a new identity each time if empty")
	flags.StringVar(&f.security, "security", "", "the only secure channel to speak: noise or tls; both if empty")
	flags.StringVar(&f.psk, "psk", "", "file with the key of a private network, such as swarm.key; TCP, WebSocket and Unix sockets only")
	flags.BoolVar(&f.noMDNS, "no-mdns", false, "do not look for peers on the local network")
	flags.StringSliceVar(&f.interfaces, "interface", nil, "network interface for mDNS, such as eth0; all but loopback if not given")
	flags.StringVar(&f.service, "service", "", "mDNS service name; peers with another are not found (default _p2p._udp)")
	flags.Var(&f.memory, "memory", "all that peers may make the node use, such as 256MiB (default an eighth of the machine's, 64MiB to 1GiB)")
	flags.IntVar(&f.conns, "conns", 0, "most connections at a time (default one for each 64KiB of --memory)")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "log on stderr")
	if listens {
		flags.StringSliceVar(&f.listen, "listen", nil, "address to listen on, such as /ip4/0.0.0.0/tcp/4001 (default one free port for all transports on all interfaces)")
		flags.StringVar(&f.tlsCert, "tls-cert", "", "PEM file with the certificate for /tls/ws addresses")
		flags.StringVar(&f.tlsKey, "tls-key", "", "PEM file with the key of the certificate")
		flags.BoolVar(&f.autoTLS, "autotls", false, "get a certificate for /tls/ws addresses from libp2p.direct; the node must be reachable from the internet")
		flags.StringSliceVar(&f.peers, "peer", nil, "address of a peer to stay connected to, with /p2p/ID")
	}
}

func (f *nodeFlags) config(errOut *os.File) (kith.Config, error) {
	cfg := kith.Config{
		Dir:  f.dir,
		MDNS: kith.MDNS{Off: f.noMDNS, Interfaces: f.interfaces, Service: f.service},
	}
	if f.conns < 0 {
		return cfg, &usageError{fmt.Errorf("--conns is how many connections there may be: more than none, not %d", f.conns)}
	}
	level := slog.LevelWarn // limits that are reached, and what goes wrong
	if f.verbose {
		level = slog.LevelDebug
	}
	cfg.Logger = slog.New(slog.NewTextHandler(errOut, &slog.HandlerOptions{Level: level}))
	if f.psk != "" {
		key, err := pnet.LoadKey(f.psk)
		if err != nil {
			return cfg, &usageError{fmt.Errorf("--psk: %w", err)}
		}
		cfg.PSK = &key
	}
	cfg.Limits = host.Limits{Memory: int(f.memory), Conns: f.conns}
	cfg.WebSocket = kith.WebSocket{CertFile: f.tlsCert, KeyFile: f.tlsKey}
	if f.autoTLS {
		cfg.WebSocket.AutoTLS = new(autotls.Config)
	}
	for _, s := range f.listen {
		a, err := multiaddr.Parse(s)
		if err != nil {
			return cfg, &usageError{fmt.Errorf("--listen: %w", err)}
		}
		cfg.Listen = append(cfg.Listen, a)
	}
	for _, s := range f.peers {
		info, err := peer.ParseAddrInfo(s)
		if err != nil {
			return cfg, &usageError{fmt.Errorf("--peer: %w", err)}
		}
		cfg.Bootstrap = append(cfg.Bootstrap, info)
	}
	switch f.security {
	case "":
	case "noise":
		cfg.Security = []func(peer.PrivateKey) (upgrade.Security, error){upgrade.Noise}
	case "tls":
		cfg.Security = []func(peer.PrivateKey) (upgrade.Security, error){upgrade.TLS}
	default:
		return cfg, &usageError{fmt.Errorf("--security is noise or tls, not %q", f.security)}
	}
	return cfg, nil
}

// dial starts a node that asks others and does not listen, finds the peer that arg
// names, and connects to it; took is how long the latter two took. The caller
// closes the node.
func (a *app) dial(ctx context.Context, arg string, timeout time.Duration) (n *kith.Node, conn *host.Conn, took time.Duration, err error) {
	cfg, err := a.node.config(os.Stderr)
	if err != nil {
		return nil, nil, 0, err
	}
	if n, err = startDialer(ctx, cfg); err != nil {
		return nil, nil, 0, err
	}
	start := time.Now()
	if conn, err = connect(ctx, n, arg, timeout); err != nil {
		n.Close()
		return nil, nil, 0, err
	}
	return n, conn, time.Since(start), nil
}

// startDialer starts a node that asks others and does not listen.
func startDialer(ctx context.Context, cfg kith.Config) (*kith.Node, error) {
	cfg.Listen = []multiaddr.Addr{}
	cfg.MDNS.NoConnect = true
	n, err := kith.Start(ctx, cfg)
	if errors.Is(err, store.ErrInUse) { // by a node that runs: what it learns this one can do without
		cfg.Store = new(store.Memory)
		n, err = kith.Start(ctx, cfg)
	}
	return n, err
}

func connect(ctx context.Context, n *kith.Node, arg string, timeout time.Duration) (*host.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	info, err := parseTarget(arg)
	if err != nil {
		return nil, err
	}
	if err := find(ctx, n, info); err != nil {
		return nil, err
	}
	return n.Connect(ctx, info)
}

// parseTarget understands what names a peer on the command line: an address with
// /p2p/ID, or an ID alone for a peer on this network.
func parseTarget(arg string) (info peer.AddrInfo, err error) {
	if strings.HasPrefix(arg, "/") {
		info, err = peer.ParseAddrInfo(arg)
	} else if info.ID, err = peer.ParseID(arg); err != nil {
		err = fmt.Errorf("%q is neither an address such as /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW… nor a peer ID: %w", arg, err)
	}
	if err != nil {
		return info, &usageError{err}
	}
	return info, nil
}

// find waits for an address of the peer, if there is none.
func find(ctx context.Context, n *kith.Node, to peer.AddrInfo) error {
	if len(to.Addrs) > 0 || len(n.KnownAddrs(to.ID)) > 0 {
		return nil
	}
	if n.MDNS == nil {
		return errors.New("a peer ID alone can only be found with mDNS, which is off or not possible here: give an address with /p2p/ID")
	}
	found := n.Subscribe(16)
	defer found.Close()
	for {
		if len(n.KnownAddrs(to.ID)) > 0 {
			return nil
		}
		select {
		case <-found.Events():
		case <-ctx.Done():
			return fmt.Errorf("peer %s was not found on this network: is it running, and is this network interface the right one? An address with /p2p/ID works everywhere", to.ID)
		}
	}
}

func addrStrings(addrs []multiaddr.Addr) []string {
	s := make([]string, len(addrs))
	for i, a := range addrs {
		s[i] = a.String()
	}
	return s
}

// defaultDir is where the identity of this user is kept.
func defaultDir() string {
	dir, err := os.UserConfigDir()
	if err != nil {
		return ".kith"
	}
	return filepath.Join(dir, "kith")
}

func newNode(a *app) *cobra.Command {
	var noPerf, limits bool
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Run a peer until interrupted",
		Long: `Run a peer until interrupted. It prints its addresses, and then whoever comes and goes.

With --json each line is one event: listening, discovered, connected, disconnected, identified.`,
		Example: `  kith node
  kith node --dir ~/.config/kith --listen /ip4/0.0.0.0/tcp/4001
  kith node --peer /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW… --json
  kith node --memory 256MiB --conns 500       all that peers may cause
  kith node --memory 256MiB --limits          what follows from that
  kith node --metrics 127.0.0.1:9100          figures for Prometheus at http://127.0.0.1:9100/metrics`,
		Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limits {
				cfg, err := a.node.config(os.Stderr)
				if err != nil {
					return err
				}
				return a.printLimits(cfg.Limits)
			}
			return a.runNode(cmd.Context(), noPerf)
		},
	}
	cmd.Flags().StringVar(&a.node.metrics, "metrics", "", "host:port at which to serve figures for Prometheus, over HTTP to whoever asks: 127.0.0.1:9100")
	cmd.Flags().BoolVar(&noPerf, "no-perf", false, "do not let others measure throughput with kith perf")
	cmd.Flags().BoolVar(&limits, "limits", false, "print what bounds the node and how each number follows, and do not run it")
	a.node.add(cmd.Flags(), true)
	return cmd
}

func (a *app) runNode(ctx context.Context, noPerf bool) error {
	cfg, err := a.node.config(os.Stderr)
	if err != nil {
		return err
	}
	cfg.ServePerf = !noPerf
	n, err := kith.Start(ctx, cfg)
	if err != nil {
		return err
	}
	defer n.Close()
	stop, err := a.serve(n)
	if err != nil {
		return errors.Join(err, n.Close())
	}
	defer stop()
	events := n.Subscribe(256)
	defer events.Close()
	addrs := addrStrings(n.P2PAddrs())
	a.say("listening", fields{"peer": n.ID(), "addrs": addrs}, "peer %s\n%s", n.ID(), strings.Join(addrs, "\n"))
	if n.MDNSErr != nil {
		a.say("mdns", fields{"ok": false, "error": n.MDNSErr.Error()}, "neighbours are not found: %v", n.MDNSErr)
	}
	for _, c := range n.Conns() {
		a.sayEvent(host.ConnOpened{Conn: c})
	}
	for {
		select {
		case e := <-events.Events():
			a.sayEvent(e)
		case <-ctx.Done():
			return n.Close()
		}
	}
}

// sayEvent prints a state event of a host.
func (a *app) sayEvent(e host.Event) {
	switch e := e.(type) {
	case host.PeerDiscovered:
		a.say("discovered", fields{"peer": e.Info.ID, "addrs": addrStrings(e.Info.Addrs), "source": e.Source},
			"discovered   %s by %s at %s", e.Info.ID, e.Source, strings.Join(addrStrings(e.Info.Addrs), " "))
	case host.ConnOpened:
		a.say("connected", connFields(e.Conn),
			"connected    %s %s %s%s", e.Conn.RemotePeer(), e.Conn.Direction(), e.Conn.RemoteAddr(), agreed(e.Conn))
	case host.ConnClosed:
		a.say("disconnected", fields{"peer": e.Conn.RemotePeer(), "addr": e.Conn.RemoteAddr(), "reason": e.Err.Error()},
			"disconnected %s %s: %v", e.Conn.RemotePeer(), e.Conn.RemoteAddr(), e.Err)
	case host.PeerIdentified:
		a.say("identified", identifyFields(e.Conn, e.Info), "identified   %s %s", e.Info.ID, printable(e.Info.AgentVersion))
	case host.AddrsChanged:
		a.say("addresses", fields{"addrs": addrStrings(e.Addrs)}, "addresses    %s", strings.Join(addrStrings(e.Addrs), " "))
	}
}

func (a *app) sayConnected(c *host.Conn, took time.Duration) {
	a.say("connected", connFields(c), "connected to %s at %s in %v%s",
		c.RemotePeer(), c.RemoteAddr(), took.Round(10*time.Microsecond), agreed(c))
}

// agreed tells what the two ends have agreed on; nothing where the transport has it all,
// as QUIC.
func agreed(c *host.Conn) string {
	if c.Security() == "" && c.Muxer() == "" {
		return ""
	}
	return fmt.Sprintf(" (%s, %s)", c.Security(), c.Muxer())
}

func connFields(c *host.Conn) fields {
	return fields{"peer": c.RemotePeer(), "addr": c.RemoteAddr(), "direction": c.Direction().String(), "limited": c.Limited(), "security": c.Security(), "muxer": c.Muxer()}
}
