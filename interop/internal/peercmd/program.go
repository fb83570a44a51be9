package peercmd

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"
)

// A Program is one implementation behind the common command line.
type Program struct {
	// Capabilities but for Modes, which Main fills in.
	Capabilities Capabilities

	// Start makes a node that does not listen yet and reports to hooks.
	Start func(ctx context.Context, opt Options, hooks Hooks) (Node, error)

	// Modes that only this program has, by name.
	Modes map[string]Mode
}

// A Node is a libp2p host as the modes need it.
type Node interface {
	Peer() string
	Handle(protocol string, handler func(Stream) error) // the handler's nil closes the stream, its error resets it
	Listen(addrs []string) error
	Addrs() []string // with /p2p

	// Connect dials an address with /p2p. Dialed.Millis is the caller's to fill in.
	Connect(ctx context.Context, addr string) (Session, Dialed, error)
	// NewStream opens a stream to a connected peer.
	NewStream(ctx context.Context, peer, protocol string) (Stream, error)
	// Discover announces the node by mDNS and calls found for every peer it hears of, until ctx ends.
	Discover(ctx context.Context, service string, found func(Discovered)) error

	Connected(peer string) bool
	KnownAddrs(peer string) []string // without /p2p
	// Disconnect closes all connections with a peer and gives the code as the reason, 0 for none.
	Disconnect(peer string, code uint32) error
	// Refuse lets no connection with a peer stand from now on.
	Refuse(peer string) error
	// Value tells the node how useful a peer is, which decides whom it keeps.
	Value(peer string, value float64) error

	Close() error
}

// A Session is a connection that the node has dialed.
type Session interface {
	Identify(ctx context.Context) (Identify, error)
	Ping(ctx context.Context) (time.Duration, error)
	Perf(ctx context.Context, upload, download int64) (up, down time.Duration, err error)
	NewStream(ctx context.Context, protocol string) (Stream, error)
}

// Hooks are what a node reports. They may be called from any goroutine, and do not block.
type Hooks struct {
	Connected    func(Connected)
	Disconnected func(Disconnected)
	Identified   func(Identify)    // nil unless the mode is a server
	Pushed       func(peer string) // a peer announced PushedProtocol after its connection was identified
}

// NoHooks reports nothing.
var NoHooks = Hooks{
	Connected:    func(Connected) {},
	Disconnected: func(Disconnected) {},
	Pushed:       func(string) {},
}

// A Mode is what a program's first argument names.
type Mode struct {
	Server bool                // it runs until its timeout or SIGTERM, which then are success
	Flags  func(*flag.FlagSet) // adds to the common ones; may be nil
	Run    func(ctx context.Context, run *Run) error
}

// A Run is a mode under way.
type Run struct {
	Options Options
	Events  *Events
	Node    Node
}

// Main runs the mode that args name, and returns when it is over.
func (p Program) Main(args []string, stdout io.Writer) error {
	modes := map[string]Mode{
		"listen": {Server: true, Run: listen},
		"dial":   {Run: dial},
		"mdns":   {Run: discover},
	}
	maps.Copy(modes, p.Modes)
	p.Capabilities.Modes = append(slices.Sorted(maps.Keys(modes)), "capabilities")
	events := NewEvents(stdout)
	if len(args) > 0 && args[0] == "capabilities" {
		events.Emit(p.Capabilities)
		return nil
	}
	if len(args) == 0 {
		return fmt.Errorf("no mode: want one of %v", p.Capabilities.Modes)
	}
	mode, ok := modes[args[0]]
	if !ok {
		return fmt.Errorf("no mode %q: want one of %v", args[0], p.Capabilities.Modes)
	}
	opt, err := parseOptions(args[0], args[1:], mode.Flags)
	if err != nil {
		return err
	}
	terminated, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(terminated, opt.Timeout)
	defer cancel()
	if err := p.run(ctx, mode, opt, events); err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	return nil
}

func (p Program) run(ctx context.Context, mode Mode, opt Options, events *Events) (err error) {
	run := &Run{Options: opt, Events: events}
	hooks := Hooks{
		Connected:    func(c Connected) { events.Emit(c) },
		Disconnected: func(d Disconnected) { events.Emit(d) },
		Pushed:       func(peer string) { go run.greet(ctx, peer) },
	}
	if mode.Server {
		hooks.Identified = func(i Identify) { events.Emit(i) }
	}
	run.Node, err = p.Start(ctx, opt, hooks)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, run.Node.Close()) }()
	run.serve(ctx, EchoProtocol, serveEcho)
	run.serve(ctx, HalfCloseProtocol, serveHalfClose)
	run.serve(ctx, ResetProtocol, serveReset)
	if opt.Listen != nil {
		if err := run.Node.Listen(opt.Listen); err != nil {
			return err
		}
	}
	events.Emit(Listening{Peer: run.Node.Peer(), Addrs: run.Node.Addrs()})
	if err := mode.Run(ctx, run); err != nil {
		return err
	}
	if !mode.Server {
		events.Emit(Done{})
	}
	return nil
}

// serve registers a handler and tells of the streams that the remote resets.
func (r *Run) serve(ctx context.Context, protocol string, handler func(Stream) error) {
	r.Node.Handle(protocol, func(s Stream) error {
		defer bound(ctx, s)()
		err := handler(s)
		if code, otherErr := codeOf(err); err != nil && otherErr == nil {
			r.Events.Emit(Aborted{Protocol: protocol, Code: code})
		}
		return err
	})
}

// greet answers an identify push: it proves that we learned the protocol, and that we can open streams on a connection that
// the remote dialed. Whether it worked shows at the remote.
func (r *Run) greet(ctx context.Context, peer string) {
	s, err := r.Node.NewStream(ctx, peer, PushedProtocol)
	if err != nil {
		fmt.Fprintf(os.Stderr, "greet %s: %v\n", peer, err)
		return
	}
	defer bound(ctx, s)()
	defer s.Close()
	if _, err := io.WriteString(s, PushedGreeting); err != nil {
		fmt.Fprintf(os.Stderr, "greet %s: %v\n", peer, err)
		return
	}
	io.Copy(io.Discard, s) // the remote ends the stream
}

func listen(ctx context.Context, run *Run) error {
	go run.obey(ctx, os.Stdin)
	<-ctx.Done()
	return nil
}

func dial(ctx context.Context, run *Run) error {
	if len(run.Options.Peers) != 1 {
		return fmt.Errorf("--peer: want one address with /p2p, got %d", len(run.Options.Peers))
	}
	start := time.Now()
	session, dialed, err := run.Node.Connect(ctx, run.Options.Peers[0])
	if err != nil {
		return err
	}
	dialed.Millis = millis(time.Since(start))
	run.Events.Emit(dialed)
	for _, name := range run.Options.Do {
		event, err := run.exchange(ctx, session, name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		run.Events.Emit(event)
	}
	return nil
}

// exchange does one of Exchanges and returns its event.
func (r *Run) exchange(ctx context.Context, session Session, name string) (Event, error) {
	opt := r.Options
	start := time.Now()
	switch name {
	case "identify":
		return session.Identify(ctx)
	case "ping":
		rtt, err := session.Ping(ctx)
		return Ping{millis(rtt)}, err
	case "perf":
		up, down, err := session.Perf(ctx, opt.Bytes, opt.Download)
		return Perf{opt.Bytes, opt.Download, millis(up), millis(down)}, err
	case "echo":
		err := withStream(ctx, session, EchoProtocol, func(s Stream) error { return echo(s, opt.Bytes) })
		return Echo{opt.Bytes, millis(time.Since(start))}, err
	case "streams":
		err := echoMany(ctx, session, opt.Streams, opt.Bytes)
		return Streams{opt.Streams, opt.Bytes, millis(time.Since(start))}, err
	case "halfclose":
		err := withStream(ctx, session, HalfCloseProtocol, func(s Stream) error { return halfClose(s, opt.Bytes) })
		return HalfClose{opt.Bytes, millis(time.Since(start))}, err
	case "reset":
		var code *uint32
		err := withStream(ctx, session, ResetProtocol, func(s Stream) (err error) {
			code, err = beReset(s)
			return err
		})
		return Reset{code}, err
	case "abort":
		return Abort{new(uint32(AbortCode))}, withStream(ctx, session, EchoProtocol, abort)
	case "push":
		err := r.awaitGreeting(ctx)
		return Push{PushedProtocol, millis(time.Since(start))}, err
	}
	return nil, fmt.Errorf("not one of %v", Exchanges)
}

// awaitGreeting handles a new protocol, which the node then pushes to its peers, and waits for the remote to use it.
func (r *Run) awaitGreeting(ctx context.Context) error {
	greeted := make(chan error, 1)
	r.Node.Handle(PushedProtocol, func(s Stream) error {
		text := make([]byte, len(PushedGreeting))
		_, err := io.ReadFull(s, text)
		if err == nil && string(text) != PushedGreeting {
			err = fmt.Errorf("greeting is %q, want %q", text, PushedGreeting)
		}
		select {
		case greeted <- err:
		default: // the remote greets once; more would not matter
		}
		return err
	})
	select {
	case err := <-greeted:
		return err
	case <-ctx.Done():
		return fmt.Errorf("the remote did not open %s: %w", PushedProtocol, context.Cause(ctx))
	}
}

func discover(ctx context.Context, run *Run) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	found := make(chan Discovered)
	ended := make(chan error, 1)
	go func() {
		ended <- run.Node.Discover(ctx, run.Options.Service, func(d Discovered) {
			select {
			case found <- d:
			case <-ctx.Done():
			}
		})
	}()
	seen := make(map[string]bool)
	for len(seen) < run.Options.Expect {
		select {
		case d := <-found:
			if !seen[d.Peer] {
				seen[d.Peer] = true
				run.Events.Emit(d)
			}
		case err := <-ended:
			return fmt.Errorf("found %d of %d peers: %w", len(seen), run.Options.Expect, err)
		case <-ctx.Done():
			return fmt.Errorf("found %d of %d peers: %w", len(seen), run.Options.Expect, context.Cause(ctx))
		}
	}
	select {
	case <-time.After(run.Options.Linger):
	case <-ctx.Done():
	}
	cancel()
	return <-ended
}

type opener interface {
	NewStream(ctx context.Context, protocol string) (Stream, error)
}

// withStream opens a stream for one exchange and closes it, or resets it after an error.
func withStream(ctx context.Context, session opener, protocol string, exchange func(Stream) error) error {
	s, err := session.NewStream(ctx, protocol)
	if err != nil {
		return err
	}
	defer bound(ctx, s)()
	defer s.Close() // says nothing: both ends have finished, or one has reset the stream
	if err := exchange(s); err != nil {
		s.Reset(0)
		return errors.Join(err, context.Cause(ctx))
	}
	return nil
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
