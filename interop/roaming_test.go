package interop

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kith-p2p/kith/interop/internal/peercmd"
)

// buildKith builds the command and tells where it is.
func buildKith(t *testing.T) string {
	t.Helper()
	kith := filepath.Join(t.TempDir(), "kith")
	if out, err := exec.Command("go", "build", "-C", "..", "-o", kith, "./cmd/kith").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return kith
}

// TestRoaming takes the dialer's address away in the middle of a ping, as a machine does that goes from one network to another.
// Over QUIC the connection and the ping's one stream go on, whoever the listener is.
func TestRoaming(t *testing.T) {
	kith := buildKith(t)
	for _, listener := range []struct {
		name  string
		argv  []string
		moves int
	}{
		{"kith", []string{kith, "node", "--json", "--no-mdns"}, 4},
		{"go", append(goPeer.argv, "listen"), 2}, // the quic-go that go-libp2p needs gives no connection IDs for a third
	} {
		t.Run(listener.name, func(t *testing.T) {
			t.Parallel()
			near, far := joinedNetworks(t)
			var server, client *process
			far.do(func() { server = run(t, append(listener.argv, "--listen=/ip4/10.78.0.1/udp/0/quic-v1")...) })
			listening := await[peercmd.Listening](t, server)

			const count = 60
			near.do(func() {
				client = run(t, kith, "ping", listening.Addrs[0], "--no-mdns", "--json", "--count", fmt.Sprint(count), "--interval", "100ms")
			})
			client.awaitText(t, `"event":"ping"`)
			for i := range listener.moves {
				near.ip(t, fmt.Sprintf("address delete 10.78.0.%d/24 dev near", 2+i))
				near.ip(t, fmt.Sprintf("address add 10.78.0.%d/24 dev near", 3+i))
				now := near.ip(t, "-o address show dev near scope global")
				if !strings.Contains(now, fmt.Sprintf(" 10.78.0.%d/", 3+i)) || strings.Count(now, " inet ") != 1 {
					t.Fatalf("the address did not change:\n%s", now)
				}
				seen := strings.Count(client.stdout.all(), `"event":"ping"`)
				client.awaitCount(t, `"event":"ping"`, seen+5)
			}
			client.succeed(t)
			if out := client.stdout.all(); strings.Count(out, `"event":"ping"`) != count {
				t.Errorf("fewer than %d answers:\n%s", count, out)
			}
			server.terminate(t)
			if out := server.stdout.all(); strings.Count(out, `"event":"connected"`) != 1 {
				t.Errorf("not one connection:\n%s", out)
			}
		})
	}
}

// TestRoamingFamilies takes IPv4 away from the dialer in the middle of a ping and gives it IPv6, and goes back. With Kith the ping's one stream
// goes on. With go-libp2p nothing is sent to where it knows nothing of the connection: it is dialed anew.
func TestRoamingFamilies(t *testing.T) {
	kith := buildKith(t)
	for _, listener := range []struct {
		name    string
		argv    []string
		follows bool
	}{
		{"kith", []string{kith, "node", "--json", "--no-mdns"}, true},
		{"go", append(goPeer.argv, "listen"), false},
	} {
		t.Run(listener.name, func(t *testing.T) {
			t.Parallel()
			near, far := joinedNetworks(t)
			far.ip(t, "address add fd78::1/64 dev far nodad")
			var server, client *process
			far.do(func() {
				server = run(t, append(listener.argv, "--listen=/ip4/10.78.0.1/udp/4001/quic-v1,/ip6/fd78::1/udp/4001/quic-v1")...)
			})
			listening := await[peercmd.Listening](t, server)
			over4 := slices.IndexFunc(listening.Addrs, func(a string) bool { return strings.HasPrefix(a, "/ip4/10.78.0.1/") })

			const count = 100
			near.do(func() {
				client = run(t, kith, "ping", listening.Addrs[over4], "--no-mdns", "--json", "--count", fmt.Sprint(count), "--interval", "100ms")
			})
			client.awaitText(t, `"event":"ping"`)
			server.awaitText(t, `"event":"connected"`)
			for range 2 {
				for _, change := range []string{
					"address delete 10.78.0.2/24 dev near", "address add fd78::2/64 dev near nodad",
					"address delete fd78::2/64 dev near", "address add 10.78.0.2/24 dev near",
				} {
					near.ip(t, change)
					if strings.Contains(change, " add ") {
						if !listener.follows {
							server.awaitCount(t, `"event":"connected"`, 2)
							if out := server.stdout.all(); !strings.Contains(out, "/ip6/fd78::2/") {
								t.Errorf("not from the new address:\n%s", out)
							}
							return
						}
						client.awaitCount(t, `"event":"ping"`, strings.Count(client.stdout.all(), `"event":"ping"`)+5)
					}
				}
			}
			client.succeed(t)
			if out := client.stdout.all(); strings.Count(out, `"event":"ping"`) != count {
				t.Errorf("fewer than %d answers:\n%s", count, out)
			}
			server.terminate(t)
			if out := server.stdout.all(); strings.Count(out, `"event":"connected"`) != 1 {
				t.Errorf("not one connection:\n%s", out)
			}
		})
	}
}

// joinedNetworks makes two networks, near and far, with a link between interfaces of the same names; near is 10.78.0.2, far 10.78.0.1.
func joinedNetworks(t *testing.T) (near, far *network) {
	t.Helper()
	near, far = newNetwork(t), newNetwork(t)
	far.ip(t, "link add far type veth peer name near")
	far.ip(t, fmt.Sprintf("link set near netns %d", near.thread))
	far.ip(t, "address add 10.78.0.1/24 dev far")
	far.ip(t, "link set far up")
	near.ip(t, "address add 10.78.0.2/24 dev near")
	near.ip(t, "link set near up")
	return near, far
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
