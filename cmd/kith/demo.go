package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/kith-p2p/kith/multiaddr"
)

// sceneTimeout bounds one scene of the demo, also on a slow machine.
const sceneTimeout = time.Minute

var demoNames = []string{"ada", "bob", "cyn"}

func newDemo(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Watch peers on this machine find each other and talk",
		Long: `Start three peers as processes on this machine and watch them find each other, connect, agree on protocols and talk,
step by step with timings. Nothing leaves the machine: the peers listen on 127.0.0.1, and mDNS stays on the loopback interface.

The exit code is 0 if every step worked; otherwise the reason is told.`,
		Example: `  kith demo
  kith demo --json`,
		Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runDemo(cmd.Context()) },
	}
}

// A demo is one run: its peers, and what they told so far.
type demo struct {
	app   *app
	start time.Time
	peers []*demoPeer
}

// demoPeer is one process and the events that it printed.
type demoPeer struct {
	name  string
	cmd   *exec.Cmd
	stdin io.WriteCloser
	id    string
	addrs []string

	mu      sync.Mutex
	events  []demoEvent
	changed chan struct{} // closed and made anew with each event
	ended   error
}

// demoEvent is one line of a peer's output.
type demoEvent struct {
	Event    string   `json:"event"`
	Peer     string   `json:"peer"`
	Addr     string   `json:"addr"`
	Addrs    []string `json:"addrs"`
	OK       bool     `json:"ok"`
	Error    string   `json:"error"`
	Name     string   `json:"name"`
	Text     string   `json:"text"`
	Security string   `json:"security"`
	Muxer    string   `json:"muxer"`
	Agent    string   `json:"agent"`
	Dir      string   `json:"direction"`
	Protos   []string `json:"protocols"`
	MS       float64  `json:"ms"`
	Bytes    uint64   `json:"bytes"`
	RTT      float64  `json:"rtt_ms"`
	Rate     float64  `json:"mib_per_s"`

	at time.Duration // since the demo began
}

func (a *app) runDemo(ctx context.Context) (err error) {
	d := &demo{app: a, start: time.Now()}
	defer d.stop()
	loopback, err := loopbackInterface()
	if err != nil {
		return err
	}
	service := fmt.Sprintf("_kith-demo-%08x._udp", rand.Uint32())
	scenes := []scene{
		{"Three peers start, each a process of its own", func(ctx context.Context) error { return d.startPeers(ctx, loopback, service) }},
		{"They find each other by mDNS", d.find},
		{"They connect: an encrypted channel, in which each proves who it is", d.connected},
		{"They say what they are and which protocols they speak", d.identify},
		{"ada says hello to everyone, and everyone answers", d.talk},
		{"ada sends bob 64 MiB and gets as much back", d.perf},
	}
	for _, f := range families {
		scenes = append(scenes, scene{"A stranger reaches bob over " + f.name + ": " + f.about, func(ctx context.Context) error { return d.reach(ctx, f) }})
	}
	for i, s := range scenes {
		a.say("scene", fields{"n": i + 1, "title": s.title}, "\n%d. %s", i+1, s.title)
		began := time.Now()
		sceneCtx, cancel := context.WithTimeout(ctx, sceneTimeout)
		err := s.play(sceneCtx)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("demo: scene %d (%s): %w", i+1, s.title, err)
		}
		a.say("scene_done", fields{"n": i + 1, "ms": ms(time.Since(began))}, "   done in %v", time.Since(began).Round(time.Millisecond))
	}
	a.say("done", fields{"ok": true, "scenes": len(scenes), "ms": ms(time.Since(d.start))},
		"\nAll %d steps worked, in %v. Next: open two terminals and type  kith chat  in each.", len(scenes), time.Since(d.start).Round(time.Millisecond))
	return nil
}

type scene struct {
	title string
	play  func(context.Context) error
}

// A family of transports has a scene of its own. suffix is how its addresses go on
// behind the port; WebTransport's and WebRTC's have the hashes of certificates after that.
type family struct{ name, suffix, about string }

var families = []family{
	{"QUIC", "/quic-v1", "one round trip, and the connection survives a change of address"},
	{"TCP", "", "goes through nearly every firewall"},
	{"WebTransport", "/quic-v1/webtransport", "from a page in a browser, without a certificate authority"},
	{"WebRTC", "/webrtc-direct", "from a page in any browser, without a certificate authority"},
	{"WebSocket", "/ws", "from any browser, and through proxies that let nothing but HTTP pass"},
}

// familyOf tells which family an address is of.
func familyOf(addr string) (found family) {
	a, err := multiaddr.Parse(addr)
	if err != nil {
		return found
	}
	rest := ""
	ports := 0
	for c := range a.Components() {
		switch c.Code() {
		case multiaddr.TCP, multiaddr.UDP:
			ports++
		case multiaddr.CertHash, multiaddr.P2P:
		default:
			if ports > 0 {
				rest += c.Addr().String()
			}
		}
	}
	i := slices.IndexFunc(families, func(f family) bool { return f.suffix == rest })
	if i < 0 {
		return family{name: addr}
	}
	return families[i]
}

func loopbackInterface() (string, error) {
	all, err := net.Interfaces()
	if err != nil {
		return "", fmt.Errorf("demo: the network interfaces cannot be listed: %w", err)
	}
	for _, i := range all {
		if i.Flags&net.FlagLoopback != 0 && i.Flags&net.FlagUp != 0 {
			return i.Name, nil
		}
	}
	return "", errors.New("demo: this machine has no loopback interface that is up")
}

func (d *demo) startPeers(ctx context.Context, iface, service string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("the program does not know its own file: %w", err)
	}
	for _, name := range demoNames {
		p := &demoPeer{name: name, changed: make(chan struct{})}
		p.cmd = exec.Command(self, "demo-peer", "--name", name, "--interface", iface, "--service", service)
		p.cmd.Stderr = os.Stderr
		if p.stdin, err = p.cmd.StdinPipe(); err != nil {
			return err
		}
		stdout, err := p.cmd.StdoutPipe()
		if err != nil {
			return err
		}
		if err := p.cmd.Start(); err != nil {
			return fmt.Errorf("starting %s: %w", name, err)
		}
		d.peers = append(d.peers, p)
		go p.read(d.start, stdout)
	}
	for _, p := range d.peers {
		e, err := p.wait(ctx, "listening", func(e demoEvent) bool { return true })
		if err != nil {
			return err
		}
		p.id, p.addrs = e.Peer, e.Addrs
		for i, addr := range p.addrs {
			if i == 0 {
				d.line(e.at, "%s is %s", p.name, p.id)
			}
			addr, _, _ = strings.Cut(addr, "/certhash/")
			d.line(e.at, "    at %s", strings.TrimSuffix(addr, "/p2p/"+p.id))
		}
	}
	return nil
}

// find waits until everybody knows everybody else. Where multicast is not
// possible the peers are told the address of the first.
func (d *demo) find(ctx context.Context) error {
	var broken string
	for _, p := range d.peers {
		e, err := p.wait(ctx, "mdns", func(demoEvent) bool { return true })
		if err != nil {
			return err
		}
		if !e.OK {
			broken = e.Error
		}
	}
	if broken != "" {
		d.app.say("mdns", fields{"ok": false, "error": broken}, "   multicast is not available here (%s); going on with bootstrap addresses", broken)
		for i, p := range d.peers {
			for _, q := range d.peers[:i] {
				if err := p.tell("connect", q.addrs[0]); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return d.each(ctx, "discovered", func(p, q *demoPeer, e demoEvent) {
		d.line(e.at, "%s has found %s", p.name, q.name)
	})
}

func (d *demo) connected(ctx context.Context) error {
	return d.each(ctx, "connected", func(p, q *demoPeer, e demoEvent) {
		if e.Dir == "outbound" {
			how := "over " + familyOf(e.Addr).name
			if e.Muxer != "" {
				how += fmt.Sprintf(" with %s and %s", e.Security, e.Muxer)
			}
			d.line(e.at, "%s → %s  %s, ready %.1f ms after dialing", p.name, q.name, how, e.MS)
		}
	})
}

func (d *demo) identify(ctx context.Context) error {
	told := make(map[string]bool)
	return d.each(ctx, "identified", func(_, q *demoPeer, e demoEvent) {
		if !told[q.id] {
			told[q.id] = true
			d.line(e.at, "%s is %s and speaks %s", q.name, e.Agent, strings.Join(e.Protos, ", "))
		}
	})
}

func (d *demo) talk(ctx context.Context) error {
	ada := d.peers[0]
	if err := ada.tell("say", "hello, everyone"); err != nil {
		return err
	}
	for _, q := range d.peers[1:] {
		e, err := q.wait(ctx, "message", func(e demoEvent) bool { return e.Peer == ada.id })
		if err != nil {
			return err
		}
		d.line(e.at, "%s reads  %q from %s", q.name, e.Text, ada.name)
	}
	for _, q := range d.peers[1:] {
		e, err := ada.wait(ctx, "answer", func(e demoEvent) bool { return e.Peer == q.id })
		if err != nil {
			return err
		}
		d.line(e.at, "ada reads  %q from %s, %.2f ms after asking", e.Text, q.name, e.MS)
	}
	return nil
}

func (d *demo) perf(ctx context.Context) error {
	ada, bob := d.peers[0], d.peers[1]
	if err := ada.tell("perf", bob.id); err != nil {
		return err
	}
	for _, direction := range []string{"upload", "download"} {
		e, err := ada.wait(ctx, direction, func(demoEvent) bool { return true })
		if err != nil {
			return err
		}
		d.line(e.at, "%-8s %s in %.0f ms: %.0f MiB/s", direction, formatSize(e.Bytes), e.MS, float64(e.Bytes)/(1<<20)/e.MS*1000)
	}
	return nil
}

// reach has a node that knows nobody, in ada's process, dial bob over one family.
func (d *demo) reach(ctx context.Context, f family) error {
	ada, bob := d.peers[0], d.peers[1]
	i := slices.IndexFunc(bob.addrs, func(addr string) bool { return familyOf(addr) == f })
	if i < 0 {
		return fmt.Errorf("bob has no such address among %v", bob.addrs)
	}
	if err := ada.tell("reach", bob.addrs[i]); err != nil {
		return err
	}
	e, err := ada.wait(ctx, "reached", func(e demoEvent) bool { return e.Addr == bob.addrs[i] })
	if err != nil {
		return err
	}
	d.line(e.at, "connected in %.1f ms, %q after %.2f ms more", e.MS, e.Text, e.RTT)
	d.line(e.at, "%s sent at %.0f MiB/s", formatSize(e.Bytes), e.Rate)
	return nil
}

// each waits until every peer has told an event about every other one, and then
// goes through them in the order of time.
func (d *demo) each(ctx context.Context, event string, told func(p, q *demoPeer, e demoEvent)) error {
	type fact struct {
		p, q *demoPeer
		e    demoEvent
	}
	var facts []fact
	for _, p := range d.peers {
		for _, q := range d.peers {
			if p == q {
				continue
			}
			e, err := p.wait(ctx, event, func(e demoEvent) bool { return e.Peer == q.id })
			if err != nil {
				return fmt.Errorf("%w (about %s)", err, q.name)
			}
			facts = append(facts, fact{p, q, e})
		}
	}
	slices.SortFunc(facts, func(a, b fact) int { return cmp.Compare(a.e.at, b.e.at) })
	for _, f := range facts {
		told(f.p, f.q, f.e)
	}
	return nil
}

// line prints one step with the time since the demo began.
func (d *demo) line(at time.Duration, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	d.app.say("step", fields{"at_ms": ms(at), "text": text}, "   %7.1f ms  %s", ms(at), text)
}

// stop ends the peers: at the end of their input they leave of themselves.
func (d *demo) stop() {
	for _, p := range d.peers {
		p.stdin.Close()
	}
	for _, p := range d.peers {
		timer := time.AfterFunc(2*time.Second, func() { p.cmd.Process.Kill() })
		p.cmd.Wait()
		timer.Stop()
	}
}

// read collects the events that the process prints.
func (p *demoPeer) read(start time.Time, r io.Reader) {
	scan := bufio.NewScanner(r)
	for scan.Scan() {
		var e demoEvent
		if err := json.Unmarshal(scan.Bytes(), &e); err != nil {
			e = demoEvent{Event: "error", Error: fmt.Sprintf("%s printed %q: %v", p.name, scan.Text(), err)}
		}
		e.at = time.Since(start)
		p.mu.Lock()
		p.events = append(p.events, e)
		close(p.changed)
		p.changed = make(chan struct{})
		p.mu.Unlock()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = fmt.Errorf("the process of %s has ended", p.name)
	close(p.changed)
	p.changed = make(chan struct{})
}

// wait gives the first event of a name that matches.
func (p *demoPeer) wait(ctx context.Context, event string, match func(demoEvent) bool) (demoEvent, error) {
	for {
		p.mu.Lock()
		changed, ended := p.changed, p.ended
		for _, e := range p.events {
			if e.Event == "error" {
				p.mu.Unlock()
				return e, fmt.Errorf("%s: %s", p.name, e.Error)
			}
			if e.Event == event && match(e) {
				p.mu.Unlock()
				return e, nil
			}
		}
		p.mu.Unlock()
		if ended != nil {
			return demoEvent{}, ended
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return demoEvent{}, fmt.Errorf("%s has not told of %q within %v", p.name, event, sceneTimeout)
		}
	}
}

// A demoCommand is one line of a peer's input.
type demoCommand struct {
	Do  string `json:"do"`
	Arg string `json:"arg"`
}

func (p *demoPeer) tell(do, arg string) error {
	line, err := json.Marshal(demoCommand{do, arg})
	if err != nil {
		return err
	}
	if _, err := p.stdin.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("%s does not listen: %w", p.name, err)
	}
	return nil
}
