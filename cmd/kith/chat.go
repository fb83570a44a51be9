package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/kith-p2p/kith"
	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/wire"
	"github.com/kith-p2p/kith/peer"
)

// chatProtocol carries messages of one sender: frames of protobuf with a name (1),
// a room (2) and a text (3). The first has no text; it says who is there.
const chatProtocol host.ProtocolID = "/kith/chat/1.0.0"

const (
	maxChatFrame = 16 << 10         // more than anybody types
	maxChatName  = 32               // runes
	chatQueue    = 64               // messages that wait for one slow peer before it is given up
	chatTimeout  = 10 * time.Second // for one message to leave
)

func newChat(a *app) *cobra.Command {
	var name, room string
	var peers, receive int
	var wait, linger time.Duration
	cmd := &cobra.Command{
		Use:   "chat",
		Short: "Talk with everyone on this network",
		Long: `Talk with everyone on this network who runs kith chat.

In a terminal, type a line and press Enter; Ctrl-D leaves. With input from a pipe, each line is sent once the
first peer is there, and the program ends when the input does, a little later so that answers can come. With
--receive it ends once that many messages have come.`,
		Example: `  kith chat --name ada
  kith chat --name ada --room kitchen
  echo "the build is green" | kith chat --name ci
  kith chat --name logger --json --receive 10 </dev/null`,
		Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := &chat{app: a, name: clipName(name), room: room, known: make(map[peer.ID]*chatPeer), here: make(map[peer.ID]int), changed: make(chan struct{}, 1), enough: make(chan struct{})}
			return c.run(cmd.Context(), pipeOptions{peers: peers, receive: receive, wait: wait, linger: linger})
		},
	}
	cmd.Flags().StringVar(&name, "name", defaultName(), "the name that others see")
	cmd.Flags().StringVar(&room, "room", "", "hear and be heard only by those who give the same room")
	cmd.Flags().IntVar(&peers, "peers", 1, "with input from a pipe: how many peers to wait for before anything is sent")
	cmd.Flags().IntVar(&receive, "receive", 0, "with input from a pipe: end after so many messages of others, instead of at the end of the input")
	cmd.Flags().DurationVar(&wait, "wait", 30*time.Second, "with input from a pipe: how long to wait for peers and messages")
	cmd.Flags().DurationVar(&linger, "linger", time.Second, "with input from a pipe: how long to stay after its end")
	a.node.add(cmd.Flags(), true)
	return cmd
}

func defaultName() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return "somebody"
}

func clipName(s string) string {
	r := []rune(printable(strings.TrimSpace(s)))
	return string(r[:min(len(r), maxChatName)])
}

// A chat is one program's part in the conversation.
type chat struct {
	app  *app
	name string
	room string
	node *kith.Node

	leaving atomic.Bool   // we go ourselves
	changed chan struct{} // a peer came or went
	enough  chan struct{} // closed when as many messages have come as were to be received

	mu    sync.Mutex
	known map[peer.ID]*chatPeer // those that we send to
	here  map[peer.ID]int       // streams on which somebody of our room speaks
	left  int                   // messages that are to come before enough; 0: no matter
}

// pipeOptions are the flags for input from a pipe.
type pipeOptions struct {
	peers, receive int
	wait, linger   time.Duration
}

type chatPeer struct {
	queue chan string
	ready bool // our first frame is on its way
}

// with tells whether a peer hears us and is in our room.
func (c *chat) with(id peer.ID) bool {
	p := c.known[id]
	return p != nil && p.ready && c.here[id] > 0
}

func (c *chat) run(ctx context.Context, o pipeOptions) error {
	c.left = o.receive
	cfg, err := c.app.node.config(os.Stderr)
	if err != nil {
		return err
	}
	n, err := kith.Start(ctx, cfg)
	if err != nil {
		return err
	}
	defer n.Close()
	defer c.leaving.Store(true)
	c.node = n
	events := n.Subscribe(256)
	n.Handle(chatProtocol, c.hear)
	n.Go(func(ctx context.Context) { c.greet(ctx, events) })

	in, isFile := c.app.in.(*os.File)
	if isFile && term.IsTerminal(int(in.Fd())) && !c.app.json {
		return c.terminal(ctx, in)
	}
	c.app.say("listening", fields{"peer": n.ID(), "addrs": addrStrings(n.P2PAddrs()), "name": c.name}, "* %s is here, as %s", c.name, n.ID())
	if n.MDNS == nil && len(cfg.Bootstrap) == 0 {
		return errors.New("nobody can be found: mDNS is off or not possible here; give the address of another with --peer")
	}
	return c.pipe(ctx, o)
}

// pipe sends the lines of the input.
func (c *chat) pipe(ctx context.Context, o pipeOptions) error {
	lines := make(chan string)
	go func() {
		defer close(lines)
		scan := bufio.NewScanner(c.app.in)
		scan.Buffer(nil, maxChatFrame)
		for scan.Scan() {
			select {
			case lines <- scan.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	first, open := "", true
	select {
	case first, open = <-lines:
	case <-ctx.Done():
		return nil
	}
	if open { // with nothing to send there is nobody to wait for
		timer := time.NewTimer(o.wait)
		defer timer.Stop()
		for c.count() < o.peers {
			select {
			case <-c.changed:
			case <-timer.C:
				return fmt.Errorf("after %v there are %d of the %d peers to wait for: are they on this network, and in the same room? Nothing was sent", o.wait, c.count(), o.peers)
			case <-ctx.Done():
				return nil
			}
		}
		c.send(first)
		for open {
			var line string
			select {
			case line, open = <-lines:
				if open {
					c.send(line)
				}
			case <-ctx.Done():
				return nil
			}
		}
	}
	if o.receive > 0 {
		select {
		case <-c.enough:
		case <-time.After(o.wait):
			return fmt.Errorf("after %v fewer than %d messages have come", o.wait, o.receive)
		case <-ctx.Done():
		}
		return nil
	}
	select {
	case <-time.After(o.linger):
	case <-ctx.Done():
	}
	return nil
}

// terminal lets a person type, with what others say above the line being typed.
func (c *chat) terminal(ctx context.Context, in *os.File) error {
	state, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return fmt.Errorf("the terminal cannot be used: %w", err)
	}
	defer term.Restore(int(in.Fd()), state)
	t := term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{in, c.app.out}, c.name+"> ")
	c.app.mu.Lock()
	c.app.out = t
	c.app.mu.Unlock()
	c.app.say("", nil, "* You are %s, as %s. Type a line and press Enter; Ctrl-D leaves.", c.name, c.node.ID())
	if err := c.node.MDNSErr; err != nil {
		c.app.say("", nil, "* others must be given with --peer: %v", err)
	}
	lines := make(chan error, 1)
	go func() {
		for {
			line, err := t.ReadLine()
			if err != nil {
				lines <- err
				return
			}
			if line = strings.TrimSpace(line); line != "" {
				if c.send(line) == 0 {
					c.app.say("", nil, "* nobody else is here yet")
				}
			}
		}
	}()
	select {
	case err := <-lines:
		if err != io.EOF {
			return err
		}
	case <-ctx.Done():
	}
	return nil
}

// count tells how many peers of our room hear us.
func (c *chat) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for id := range c.known {
		if c.with(id) {
			n++
		}
	}
	return n
}

// send queues a text for everyone and tells for how many.
func (c *chat) send(text string) int {
	c.mu.Lock()
	for id, p := range c.known {
		select {
		case p.queue <- text:
		default: // it does not read
			close(p.queue)
			delete(c.known, id)
		}
	}
	c.mu.Unlock()
	return c.count()
}

// greet opens a stream to every peer that speaks our protocol.
func (c *chat) greet(ctx context.Context, events *host.Subscription) {
	for e := range events.Events() {
		switch e := e.(type) {
		case host.PeerIdentified:
			if slices.Contains(e.Info.Protocols, chatProtocol) {
				c.talk(ctx, e.Info.ID)
			}
		case host.EventsLost:
			for _, p := range c.node.Peers() {
				if slices.Contains(c.node.PeerInfo(p).Protocols, chatProtocol) {
					c.talk(ctx, p)
				}
			}
		}
	}
}

// talk sends to one peer what is queued for it, until it goes.
func (c *chat) talk(ctx context.Context, to peer.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known[to] != nil {
		return
	}
	p := &chatPeer{queue: make(chan string, chatQueue)}
	c.known[to] = p
	c.node.Go(func(context.Context) {
		err := c.feed(ctx, to, p)
		c.mu.Lock()
		if c.known[to] == p {
			delete(c.known, to)
		}
		c.mu.Unlock()
		c.note()
		if err != nil && ctx.Err() == nil {
			c.node.Logger().Info("chat peer lost", "peer", to.String(), "err", err)
		}
	})
}

func (c *chat) feed(ctx context.Context, to peer.ID, p *chatPeer) error {
	s, err := c.node.NewStream(ctx, to, chatProtocol)
	if err != nil {
		return err
	}
	defer s.Close()
	write := func(text string) error {
		s.SetWriteDeadline(time.Now().Add(chatTimeout))
		msg := wire.AppendStringField(nil, 1, c.name)
		msg = wire.AppendStringField(msg, 2, c.room)
		if text != "" {
			msg = wire.AppendStringField(msg, 3, text)
		}
		return wire.WriteFrame(s, msg)
	}
	if err := write(""); err != nil {
		return err
	}
	// The remote never writes; a read ends when it goes.
	gone := make(chan struct{})
	c.node.Go(func(context.Context) {
		defer close(gone)
		io.Copy(io.Discard, s)
	})
	c.mu.Lock()
	p.ready = true
	c.mu.Unlock()
	c.note()
	for {
		select {
		case text, ok := <-p.queue:
			if !ok {
				return errors.New("it does not read what is sent")
			}
			if err := write(text); err != nil {
				return err
			}
		case <-gone:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

func (c *chat) note() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// hear prints what one peer says.
func (c *chat) hear(_ context.Context, s *host.Stream) error {
	from := s.Conn().RemotePeer()
	first, err := readChat(s)
	if err != nil || first.room != c.room {
		return err
	}
	name := first.name
	c.app.say("joined", fields{"peer": from, "name": name}, "* %s is here", name)
	c.present(from, 1)
	defer func() {
		c.present(from, -1)
		if c.leaving.Load() {
			return
		}
		c.app.say("left", fields{"peer": from, "name": name}, "* %s has left", name)
	}()
	for {
		m, err := readChat(s)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		c.app.say("message", fields{"peer": from, "name": name, "text": m.text}, "%s: %s", name, m.text)
		c.mu.Lock()
		if c.left--; c.left == 0 {
			close(c.enough)
		}
		c.mu.Unlock()
	}
}

func (c *chat) present(id peer.ID, d int) {
	c.mu.Lock()
	if c.here[id] += d; c.here[id] == 0 {
		delete(c.here, id)
	}
	c.mu.Unlock()
	c.note()
}

type chatMessage struct{ name, room, text string }

func readChat(r io.Reader) (m chatMessage, err error) {
	frame, err := wire.ReadFrame(r, maxChatFrame)
	if err != nil {
		return m, err
	}
	err = wire.Fields(frame, func(f wire.Field) error {
		switch f.Num {
		case 1:
			m.name = clipName(string(f.Bytes))
		case 2:
			m.room = string(f.Bytes)
		case 3:
			m.text = printable(string(f.Bytes))
		}
		return nil
	})
	return m, err
}
