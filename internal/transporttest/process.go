package transporttest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// childEnv holds the order of a process that is the other side.
const childEnv = "KITH_TRANSPORTTEST_CHILD"

// sign begins the one line that a child says.
const sign = "transporttest: "

// An order is what a child is to do.
type order struct {
	Test string // whose Case it has
	Role string // "listen" or "dial"
	Addr multiaddr.Addr
	Peer peer.ID
}

// A hello is what a child says of itself.
type hello struct {
	Addr multiaddr.Addr
	Peer peer.ID
}

// A child is a process with a node of the same Case. It reads one byte of each
// stream, sends it back, and then does nothing with the stream.
type child struct {
	cmd  *exec.Cmd
	addr multiaddr.Addr
	id   peer.ID
}

// isChild tells whether this process is a child; then it has been one, until its
// parent has gone.
func isChild(t *testing.T, c Case) bool {
	text := os.Getenv(childEnv)
	if text == "" {
		return false
	}
	var o order
	check(t, json.Unmarshal([]byte(text), &o))
	if o.Test == t.Name() {
		go func() {
			io.Copy(io.Discard, os.Stdin)
			os.Exit(0)
		}()
		c.withDefaults().child(t, o)
	}
	return true
}

func (c Case) child(t *testing.T, o order) {
	n := c.node(t)
	if o.Role == "dial" {
		tc, err := n.Dial(context.Background(), c.Dial(o.Addr), o.Peer, func(host.Stage) {})
		check(t, err)
		say(t, hello{Peer: n.id})
		hold(tc)
		select {} // until it is killed, whatever becomes of the connection
	}
	l, err := n.Listen(c.Listen(t)[0])
	check(t, err)
	say(t, hello{l.Addr(), n.id})
	for {
		in, err := l.Accept()
		check(t, err)
		go func() {
			tc, err := in.Upgrade(context.Background(), func(host.Stage) {})
			if err == nil {
				hold(tc)
			}
		}()
	}
}

func hold(tc host.TransportConn) {
	tc.Mux.Serve(func(s host.MuxedStream) {
		go func() {
			b := make([]byte, 1)
			if _, err := io.ReadFull(s, b); err == nil {
				s.Write(b)
			}
		}()
	})
}

func say(t *testing.T, h hello) {
	text, err := json.Marshal(h)
	check(t, err)
	fmt.Printf("\n%s%s\n", sign, text)
}

// startChild starts this test binary as the other side. It ends with the test.
func startChild(t *testing.T, c Case, o order) *child {
	t.Helper()
	o.Test = t.Name()[:strings.LastIndexByte(t.Name(), '/')] // that which has called Run
	text, err := json.Marshal(o)
	check(t, err)
	var pattern []string
	for name := range strings.SplitSeq(o.Test, "/") {
		pattern = append(pattern, "^"+regexp.QuoteMeta(name)+"$")
	}
	p := &child{cmd: exec.Command(os.Args[0], "-test.run="+strings.Join(pattern, "/"), "-test.timeout=5m", "-test.count=1")}
	p.cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	p.cmd.Stderr = os.Stderr
	in, err := p.cmd.StdinPipe()
	check(t, err)
	out, err := p.cmd.StdoutPipe()
	check(t, err)
	check(t, p.cmd.Start())
	lines := make(chan string, 1)
	go func() {
		defer close(lines)
		var said strings.Builder
		for scan := bufio.NewScanner(out); scan.Scan(); {
			if text, ok := strings.CutPrefix(scan.Text(), sign); ok {
				lines <- text
				io.Copy(io.Discard, out)
				return
			}
			fmt.Fprintln(&said, scan.Text())
		}
		lines <- "the other process said:\n" + said.String()
	}()
	t.Cleanup(func() {
		in.Close()
		p.cmd.Process.Kill()
		for range lines {
		}
		p.cmd.Wait()
	})
	var h hello
	if text := await(t, "another process to begin", lines); json.Unmarshal([]byte(text), &h) != nil {
		t.Fatal(text)
	}
	p.addr, p.id = h.Addr, h.Peer
	return p
}

// kill ends the process as nothing can prevent.
func (p *child) kill(t *testing.T) {
	t.Helper()
	check(t, p.cmd.Process.Kill())
}
