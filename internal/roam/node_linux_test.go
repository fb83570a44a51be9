package roam

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kith-p2p/kith"
	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

const (
	roleVariable = "KITH_ROAM_ROLE" // makes a process one of the two nodes
	echoProtocol = host.ProtocolID("/roam/echo/1")

	pingEvery = 10 * time.Millisecond
	sayEvery  = 50 * time.Millisecond
	// pingTimeout is when the application gives a ping up: late, so that figures show
	// whatever hangs.
	pingTimeout = 20 * time.Second
)

// A report is what a node tells the test, one a line. Times are those of the
// machine's clock, which both nodes and the test have.
type report struct {
	At     time.Time
	Pong   bool     `json:",omitempty"` // a ping over a new stream was answered
	Lost   string   `json:",omitempty"` // the stream that was open all the time ended, and why
	Addrs  []string `json:",omitempty"` // the server's own, or those that it learned of the client by push
	Failed string   `json:",omitempty"`
}

// runNode is the body of a process that is a node.
func runNode(role string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	out := json.NewEncoder(os.Stdout)
	var mu sync.Mutex
	tell := func(r report) {
		mu.Lock()
		defer mu.Unlock()
		r.At = time.Now()
		out.Encode(r)
	}
	var cfg kith.Config
	cfg.MDNS.Off = true
	for text := range strings.FieldsSeq(os.Args[2]) {
		cfg.Listen = append(cfg.Listen, multiaddr.MustParse(text))
	}
	n, err := kith.Start(ctx, cfg)
	if err != nil {
		return err
	}
	defer n.Close()
	if role == "server" {
		n.Handle(echoProtocol, func(_ context.Context, s *host.Stream) error {
			_, err := io.Copy(struct{ io.Writer }{s}, struct{ io.Reader }{s})
			return err
		})
		events := n.Subscribe(64)
		tell(report{Addrs: texts(n.P2PAddrs())})
		for {
			select {
			case e := <-events.Events():
				if e, ok := e.(host.PeerIdentified); ok {
					tell(report{Addrs: texts(e.Info.Addrs)})
				}
			case <-ctx.Done():
				return nil
			}
		}
	}
	var server peer.AddrInfo
	for text := range strings.FieldsSeq(os.Args[3]) {
		addr, id := peer.SplitAddr(multiaddr.MustParse(text))
		server.ID = id
		server.Addrs = append(server.Addrs, addr)
	}
	n.AddAddrs(server, host.TTLForever)
	go func() {
		for ctx.Err() == nil {
			err := talk(ctx, n.Host, server.ID)
			tell(report{Lost: fmt.Sprint(err)})
			pause(ctx, sayEvery)
		}
	}()
	for ctx.Err() == nil {
		if err := pingOnce(ctx, n.Host, server.ID); err != nil {
			tell(report{Failed: err.Error()})
		} else {
			tell(report{Pong: true})
		}
		pause(ctx, pingEvery)
	}
	return nil
}

func texts(addrs []multiaddr.Addr) []string {
	all := make([]string, len(addrs))
	for i, a := range addrs {
		all[i] = a.String()
	}
	return all
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// pingOnce is an application's short exchange on a stream of its own.
func pingOnce(ctx context.Context, h *host.Host, p peer.ID) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	s, err := h.NewStream(ctx, p, echoProtocol)
	if err != nil {
		return err
	}
	defer s.Reset(host.CodeNone)
	s.SetDeadline(time.Now().Add(pingTimeout))
	if _, err := s.Write([]byte("ping")); err != nil {
		return err
	}
	if _, err := io.ReadFull(s, make([]byte, 4)); err != nil {
		return err
	}
	return s.Close()
}

// talk keeps one stream open and counts on it, until it ends.
func talk(ctx context.Context, h *host.Host, p peer.ID) error {
	s, err := h.NewStream(ctx, p, echoProtocol)
	if err != nil {
		return err
	}
	defer s.Reset(host.CodeNone)
	heard := make(chan error, 1)
	go func() {
		for next := uint64(0); ; next++ {
			var b [8]byte
			if _, err := io.ReadFull(s, b[:]); err != nil {
				heard <- err
				return
			}
			if n := binary.BigEndian.Uint64(b[:]); n != next {
				heard <- fmt.Errorf("heard %d instead of %d", n, next)
				return
			}
		}
	}()
	for n := uint64(0); ; n++ {
		if _, err := s.Write(binary.BigEndian.AppendUint64(nil, n)); err != nil {
			return err
		}
		select {
		case err := <-heard:
			return err
		case <-time.After(sayEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// A node is a process of the test.
type node struct {
	cmd  *exec.Cmd
	done chan struct{}

	mu      sync.Mutex
	reports []report
	more    chan struct{} // closed and renewed with each report
}

// start runs a node in a network.
func start(t *testing.T, in *network, role string, args ...string) *node {
	t.Helper()
	n := &node{cmd: exec.Command("/proc/self/exe", append([]string{"-"}, args...)...), done: make(chan struct{}), more: make(chan struct{})}
	n.cmd.Env = append(os.Environ(), roleVariable+"="+role)
	n.cmd.Stderr = os.Stderr
	out, err := n.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	// Not with Pdeathsig: that would be the death of the network's thread.
	in.do(func() { err = n.cmd.Start() })
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(n.done)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var r report
			if json.Unmarshal(lines.Bytes(), &r) == nil {
				n.mu.Lock()
				n.reports = append(n.reports, r)
				close(n.more)
				n.more = make(chan struct{})
				n.mu.Unlock()
			}
		}
	}()
	t.Cleanup(func() {
		n.cmd.Process.Signal(syscall.SIGCONT)
		n.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-n.done:
		case <-time.After(5 * time.Second):
			t.Errorf("the %s does not end", role)
			n.cmd.Process.Kill()
		}
		n.cmd.Wait()
	})
	return n
}

var errNothing = errors.New("no such report in time")

// await finds the first report since then that is wanted.
func (n *node) await(since time.Time, limit time.Duration, wanted func(report) bool) (report, error) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		n.mu.Lock()
		from, _ := slices.BinarySearchFunc(n.reports, since, func(r report, t time.Time) int { return r.At.Compare(t) })
		for _, r := range n.reports[from:] {
			if wanted(r) {
				n.mu.Unlock()
				return r, nil
			}
		}
		more := n.more
		n.mu.Unlock()
		select {
		case <-more:
		case <-timer.C:
			return report{}, errNothing
		}
	}
}

// since lists the reports since then.
func (n *node) since(then time.Time) []report {
	n.mu.Lock()
	defer n.mu.Unlock()
	from, _ := slices.BinarySearchFunc(n.reports, then, func(r report, t time.Time) int { return r.At.Compare(t) })
	return slices.Clone(n.reports[from:])
}
