package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/kith-p2p/kith"
	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/wire"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/perf"
)

// demoProtocol carries one question and its answer, each a frame.
const demoProtocol host.ProtocolID = "/kith/demo/1.0.0"

const (
	demoPerfBytes  = 64 << 20
	demoReachBytes = 8 << 20
)

// newDemoPeer is the part of one process in kith demo: it prints events and does
// what its input tells, until that ends.
func newDemoPeer(a *app) *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:    "demo-peer",
		Hidden: true,
		Args:   exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			a.json = true
			return (&demoActor{app: a, name: name}).run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "")
	a.node.add(cmd.Flags(), false)
	return cmd
}

type demoActor struct {
	app  *app
	name string
	node *kith.Node

	mu    sync.Mutex
	dials map[peer.ID]time.Duration // how long the dial that made it took
}

func (d *demoActor) run(ctx context.Context) error {
	cfg, err := d.app.node.config(os.Stderr)
	if err != nil {
		return err
	}
	d.dials = make(map[peer.ID]time.Duration)
	for _, f := range families {
		proto := "udp"
		if f.suffix == "" || f.suffix == "/ws" {
			proto = "tcp"
		}
		cfg.Listen = append(cfg.Listen, multiaddr.MustParse("/ip4/127.0.0.1/"+proto+"/0"+f.suffix))
	}
	cfg.Trace = d.trace
	cfg.ServePerf = true
	n, err := kith.Start(ctx, cfg)
	if err != nil {
		return err
	}
	defer n.Close()
	d.node = n
	n.Handle(demoProtocol, d.answer)
	d.app.event("listening", fields{"peer": n.ID(), "addrs": addrStrings(n.P2PAddrs())})
	status := fields{"ok": n.MDNS != nil}
	if n.MDNS == nil {
		status["error"] = n.MDNSErr.Error()
	}
	d.app.event("mdns", status)

	commands := bufio.NewScanner(d.app.in)
	for commands.Scan() {
		var c demoCommand
		if err := json.Unmarshal(commands.Bytes(), &c); err != nil {
			return fmt.Errorf("command %q: %w", commands.Text(), err)
		}
		if err := d.do(ctx, c); err != nil {
			return fmt.Errorf("%s: %w", c.Do, err)
		}
	}
	return nil
}

func (d *demoActor) trace(e host.Event) {
	switch e := e.(type) {
	case host.DialAttempted:
		if e.Attempt.Err == nil {
			d.mu.Lock()
			d.dials[e.Peer] = e.Attempt.Elapsed
			d.mu.Unlock()
		}
	case host.PeerDiscovered:
		d.app.event("discovered", fields{"peer": e.Info.ID, "addrs": addrStrings(e.Info.Addrs)})
	case host.ConnOpened:
		f := connFields(e.Conn)
		d.mu.Lock()
		f["ms"] = ms(d.dials[e.Conn.RemotePeer()])
		d.mu.Unlock()
		d.app.event("connected", f)
	case host.PeerIdentified:
		d.app.event("identified", fields{"peer": e.Info.ID, "agent": e.Info.AgentVersion, "protocols": e.Info.Protocols})
	}
}

func (d *demoActor) do(ctx context.Context, c demoCommand) error {
	ctx, cancel := context.WithTimeout(ctx, sceneTimeout)
	defer cancel()
	switch c.Do {
	case "connect":
		info, err := peer.ParseAddrInfo(c.Arg)
		if err != nil {
			return err
		}
		_, err = d.node.Connect(ctx, info)
		return err
	case "say":
		for _, p := range d.node.Peers() {
			if err := d.ask(ctx, p, c.Arg); err != nil {
				return err
			}
		}
		return nil
	case "perf":
		id, err := peer.ParseID(c.Arg)
		if err != nil {
			return err
		}
		return d.perf(ctx, id)
	case "reach":
		return d.reach(ctx, c.Arg)
	}
	return fmt.Errorf("no such command")
}

// ask sends one text and tells the answer.
func (d *demoActor) ask(ctx context.Context, to peer.ID, text string) error {
	start := time.Now()
	answer, err := exchange(ctx, d.node.Host, to, text)
	if err != nil {
		return err
	}
	d.app.event("answer", fields{"peer": to, "text": answer, "ms": ms(time.Since(start))})
	return nil
}

// exchange sends one text and reads the answer.
func exchange(ctx context.Context, h *host.Host, to peer.ID, text string) (string, error) {
	s, err := h.NewStream(ctx, to, demoProtocol)
	if err != nil {
		return "", err
	}
	defer s.Close()
	s.SetDeadline(time.Now().Add(sceneTimeout))
	if err := wire.WriteFrame(s, []byte(text)); err != nil {
		return "", err
	}
	answer, err := wire.ReadFrame(s, maxChatFrame)
	return string(answer), err
}

// reach connects to addr as a node that knows nobody.
func (d *demoActor) reach(ctx context.Context, addr string) error {
	info, err := peer.ParseAddrInfo(addr)
	if err != nil {
		return err
	}
	n, err := kith.Start(ctx, kith.Config{Listen: []multiaddr.Addr{}, MDNS: kith.MDNS{Off: true}})
	if err != nil {
		return err
	}
	defer n.Close()
	start := time.Now()
	if _, err := n.Connect(ctx, info); err != nil {
		return err
	}
	connected := time.Now()
	answer, err := exchange(ctx, n.Host, info.ID, "hello, stranger")
	if err != nil {
		return err
	}
	rtt := time.Since(connected)
	r, err := perf.Run(ctx, n.Host, info.ID, perf.Config{Upload: demoReachBytes})
	if err != nil {
		return err
	}
	d.app.event("reached", fields{
		"addr": addr, "ms": ms(connected.Sub(start)), "text": answer, "rtt_ms": ms(rtt),
		"bytes": demoReachBytes, "mib_per_s": demoReachBytes / (1 << 20) / r.UploadTime.Seconds(),
	})
	return nil
}

func (d *demoActor) answer(_ context.Context, s *host.Stream) error {
	s.SetDeadline(time.Now().Add(sceneTimeout))
	text, err := wire.ReadFrame(s, maxChatFrame)
	if err != nil {
		return err
	}
	d.app.event("message", fields{"peer": s.Conn().RemotePeer(), "text": string(text)})
	return wire.WriteFrame(s, fmt.Appendf(nil, "hello back, from %s", d.name))
}

func (d *demoActor) perf(ctx context.Context, to peer.ID) error {
	for _, part := range []struct {
		name string
		cfg  perf.Config
	}{{"upload", perf.Config{Upload: demoPerfBytes}}, {"download", perf.Config{Download: demoPerfBytes}}} {
		r, err := perf.Run(ctx, d.node.Host, to, part.cfg)
		if err != nil {
			return err
		}
		d.app.event(part.name, fields{"bytes": demoPerfBytes, "ms": ms(r.UploadTime + r.DownloadTime)})
	}
	return nil
}
