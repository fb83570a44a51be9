package interop

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRoaming takes the dialer's address away in the middle of a ping, as a machine does that goes from one network to another.
// Over QUIC the connection and the ping's one stream go on.
func TestRoaming(t *testing.T) {
	kith := filepath.Join(t.TempDir(), "kith")
	if out, err := exec.Command("go", "build", "-C", "..", "-o", kith, "./cmd/kith").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var server, client *process
	near, far := newNetwork(t), newNetwork(t)
	far.ip(t, "link add far type veth peer name near")
	far.ip(t, fmt.Sprintf("link set near netns %d", near.thread))
	far.ip(t, "address add 10.78.0.1/24 dev far")
	far.ip(t, "link set far up")
	near.ip(t, "address add 10.78.0.2/24 dev near")
	near.ip(t, "link set near up")
	far.do(func() {
		server = run(t, kith, "node", "--json", "--no-mdns", "--listen", "/ip4/10.78.0.1/udp/0/quic-v1")
	})
	var listening struct{ Addrs []string }
	server.event(t, "listening", &listening)

	const count = 60
	near.do(func() {
		client = run(t, kith, "ping", listening.Addrs[0], "--no-mdns", "--json", "--count", fmt.Sprint(count), "--interval", "100ms")
	})
	client.event(t, "ping", new(struct{}))
	near.ip(t, "address delete 10.78.0.2/24 dev near")
	near.ip(t, "address add 10.78.0.3/24 dev near")
	if out := near.ip(t, "-o address show dev near scope global"); !strings.Contains(out, "10.78.0.3") || strings.Contains(out, "10.78.0.2/") {
		t.Fatalf("the address did not change:\n%s", out)
	}
	client.succeed(t)
	if out := client.stdout.all(); strings.Count(out, `"event":"ping"`) != count {
		t.Errorf("fewer than %d answers:\n%s", count, out)
	}
	server.terminate(t)
	if out := server.stdout.all(); strings.Count(out, `"event":"connected"`) != 1 {
		t.Errorf("not one connection:\n%s", out)
	}
}

// event waits for an event of a program that has events of its own.
func (p *process) event(t *testing.T, name string, into any) {
	t.Helper()
	p.awaitText(t, fmt.Sprintf(`"event":%q`, name))
	for line := range strings.Lines(p.stdout.all()) {
		if strings.Contains(line, fmt.Sprintf(`"event":%q`, name)) {
			if err := json.Unmarshal([]byte(line), into); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
}

// A network is a network namespace with a thread in it. It is gone with its last process.
type network struct {
	thread int
	jobs   chan func()
}

func newNetwork(t *testing.T) *network {
	t.Helper()
	n := &network{jobs: make(chan func())}
	began := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with this goroutine
		n.thread = unix.Gettid()
		err := unix.Unshare(unix.CLONE_NEWNET)
		began <- err
		if err != nil {
			return
		}
		for job := range n.jobs {
			job()
		}
	}()
	if err := <-began; err != nil {
		t.Fatalf("a network namespace needs root: %v", err)
	}
	t.Cleanup(func() { close(n.jobs) })
	return n
}

// do runs job in the network.
func (n *network) do(job func()) {
	done := make(chan struct{})
	n.jobs <- func() {
		defer close(done)
		job()
	}
	<-done
}

func (n *network) ip(t *testing.T, args string) (out string) {
	t.Helper()
	var err error
	n.do(func() {
		var text []byte
		text, err = exec.Command("ip", strings.Fields(args)...).CombinedOutput()
		out = string(text)
	})
	if err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
	return out
}
