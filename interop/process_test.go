package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kith-p2p/kith/interop/internal/peercmd"
)

// Limits of one process. A peer ends itself after peerTimeout; a test waits no longer than eventTimeout for an event.
const (
	peerTimeout  = 45 * time.Second
	eventTimeout = 30 * time.Second
	exitTimeout  = 10 * time.Second
)

// A process is one peer of a test. Its output is shown when the test fails; it never outlives its test.
type process struct {
	name   string
	cmd    *exec.Cmd
	orders io.Writer // its standard input
	stdout lines
	stderr bytes.Buffer // read only after exited
	exited chan struct{}
	err    error // set before exited is closed
}

// run starts a program. Started from a goroutine that is locked to a thread in another network namespace, it is in that
// namespace.
func run(t *testing.T, argv ...string) *process {
	t.Helper()
	return runCmd(t, exec.CommandContext(t.Context(), argv[0], argv[1:]...))
}

func runCmd(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{name: strings.Join(cmd.Args, " "), cmd: cmd, exited: make(chan struct{})}
	p.stdout.grown = make(chan struct{})
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	p.cmd.WaitDelay = exitTimeout
	var err error
	if p.orders, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
		p.stdout.end()
	}()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.exited
		if t.Failed() {
			t.Logf("%s: %v\nstdout:\n%s\nstderr:\n%s", p.name, p.err, p.stdout.all(), p.stderr.String())
		}
	})
	return p
}

// do gives a peer an order and waits until it is carried out.
func (p *process) do(t *testing.T, words ...string) {
	t.Helper()
	p.order(t, words...)
	p.answer(t)
}

// order gives a peer an order, whose answer is a peercmd.Did.
func (p *process) order(t *testing.T, words ...string) {
	t.Helper()
	if _, err := fmt.Fprintln(p.orders, strings.Join(words, " ")); err != nil {
		t.Fatalf("%s: %v", p.name, err)
	}
}

// answer wants the last order to have been carried out.
func (p *process) answer(t *testing.T) {
	t.Helper()
	if did := await[peercmd.Did](t, p); did.Error != "" {
		t.Fatalf("%s: %s: %s", p.name, did.Order, did.Error)
	}
}

// terminate asks the process to end, and wants it to do so without an error.
func (p *process) terminate(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("%s: %v", p.name, err)
	}
	p.succeed(t)
}

// succeed waits for the end of the process.
func (p *process) succeed(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), peerTimeout)
	defer cancel()
	select {
	case <-p.exited:
		if p.err != nil {
			t.Errorf("%s: %v", p.name, p.err)
		}
	case <-ctx.Done():
		t.Errorf("%s: did not exit", p.name)
	}
}

// await returns the next event of type E that no call has returned yet; events of other types do not matter.
func await[E peercmd.Event](t *testing.T, p *process) E {
	t.Helper()
	var event E
	ctx, cancel := context.WithTimeout(t.Context(), eventTimeout)
	defer cancel()
	if !p.stdout.next(ctx, event.EventName(), &event) {
		t.Fatalf("%s: no event %q", p.name, event.EventName())
	}
	return event
}

// awaitText waits for text in the standard output of a program that prints no events.
func (p *process) awaitText(t *testing.T, text string) {
	t.Helper()
	p.awaitCount(t, text, 1)
}

// awaitCount waits until text was printed so many times.
func (p *process) awaitCount(t *testing.T, text string, count int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), eventTimeout)
	defer cancel()
	found := p.stdout.wait(ctx, func() bool { return bytes.Count(p.stdout.text.Bytes(), []byte(text)) >= count })
	if !found {
		t.Fatalf("%s: did not print %q %d times", p.name, text, count)
	}
}

// awaitLine waits for a line that begins with prefix, and returns the rest of it.
func (p *process) awaitLine(t *testing.T, prefix string) (rest string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), eventTimeout)
	defer cancel()
	found := p.stdout.wait(ctx, func() bool {
		for line := range strings.Lines(p.stdout.text.String()) {
			if after, ok := strings.CutPrefix(line, prefix); ok && strings.HasSuffix(line, "\n") {
				rest = strings.TrimSpace(after)
				return true
			}
		}
		return false
	})
	if !found {
		t.Fatalf("%s: did not print a line that begins with %q", p.name, prefix)
	}
	return rest
}

// lines takes a process's standard output and hands out its events by name.
type lines struct {
	mu    sync.Mutex
	text  bytes.Buffer   // everything
	read  map[string]int // by event: how many of its lines have been handed out
	ended bool
	grown chan struct{} // closed and replaced when text grows or ends
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(b)
	close(l.grown)
	l.grown = make(chan struct{})
	return len(b), nil
}

func (l *lines) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	close(l.grown)
	l.grown = make(chan struct{})
}

func (l *lines) all() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// next waits for a line that is a JSON object with this event name and decodes it.
func (l *lines) next(ctx context.Context, name string, event any) bool {
	return l.wait(ctx, func() bool { return l.find(name, event) })
}

// wait waits until found, which is called with l.mu held, or until nothing more can come.
func (l *lines) wait(ctx context.Context, found func() bool) bool {
	for {
		l.mu.Lock()
		ok, grown, ended := found(), l.grown, l.ended
		l.mu.Unlock()
		if ok || ended {
			return ok
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return false
		}
	}
}

// find is called with l.mu held.
func (l *lines) find(name string, event any) bool {
	seen := 0
	whole := l.text.Bytes()[:bytes.LastIndexByte(l.text.Bytes(), '\n')+1]
	for line := range bytes.Lines(whole) {
		var head struct{ Event string }
		if json.Unmarshal(line, &head) != nil || head.Event != name {
			continue
		}
		if seen++; seen > l.read[name] && json.Unmarshal(line, event) == nil {
			if l.read == nil {
				l.read = make(map[string]int)
			}
			l.read[name] = seen
			return true
		}
	}
	return false
}
