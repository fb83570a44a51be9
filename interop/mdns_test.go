package interop

import (
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kith-p2p/kith/interop/internal/peercmd"
)

// TestMDNS lets two peers find each other in a network namespace of their own, whose only interface is loopback: neither
// go-libp2p nor js-libp2p lets one choose the interface, and a test announces nothing to a real network.
func TestMDNS(t *testing.T) {
	for _, pair := range []struct {
		a, b   program
		bFinds bool // a always does
	}{
		{kithPeer, kithPeer, true},
		{kithPeer, goPeer, true},
		{kithPeer, jsPeer, true},
		{goPeer, goPeer, true},
		{jsPeer, goPeer, false}, // js-libp2p sends no A or AAAA records, without which go-libp2p's zeroconf drops an answer
	} {
		t.Run(fmt.Sprintf("%s-and-%s", pair.a.name, pair.b.name), func(t *testing.T) {
			t.Parallel()
			var a, b *process
			inOwnNetwork(t, loopbackOnly, func() {
				a = pair.a.run(t, "mdns", "--linger=30")
				b = pair.b.run(t, "mdns", "--linger=30")
			})
			aListening, bListening := await[peercmd.Listening](t, a), await[peercmd.Listening](t, b)
			checkDiscovered(t, await[peercmd.Discovered](t, a), bListening)
			if pair.bFinds {
				checkDiscovered(t, await[peercmd.Discovered](t, b), aListening)
			}
		})
	}
}

func checkDiscovered(t *testing.T, got peercmd.Discovered, want peercmd.Listening) {
	t.Helper()
	var addrs []string
	for _, a := range want.Addrs {
		addrs = append(addrs, withoutPeer(a))
	}
	if got.Peer != want.Peer || !slices.Equal(got.Addrs, addrs) {
		t.Errorf("discovered %s at %v, want %s at %v", got.Peer, got.Addrs, want.Peer, addrs)
	}
}

// What ip makes of a new network namespace.
var (
	// loopbackOnly lets multicast through loopback.
	loopbackOnly = [][]string{
		{"link", "set", "lo", "up", "multicast", "on"},
		{"route", "add", "224.0.0.0/4", "dev", "lo"},
	}
	// lan has a network, with 10.77.0.1 in it, for those that do not use loopback.
	lan = [][]string{
		{"link", "set", "lo", "up"},
		{"link", "add", "lan0", "type", "veth", "peer", "name", "lan1"},
		{"address", "add", "10.77.0.1/24", "dev", "lan0"},
		{"link", "set", "lan0", "up"},
		{"link", "set", "lan1", "up"},
		{"route", "add", "224.0.0.0/4", "dev", "lan0"},
	}
)

// inOwnNetwork runs start on a thread that has a network namespace of its own, made with these arguments of ip. The processes that start starts are in it; with the last of them it is gone.
func inOwnNetwork(t *testing.T, setup [][]string, start func()) {
	t.Helper()
	ended := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with this goroutine, and nobody else runs in its namespace
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err != nil {
			err = fmt.Errorf("a network namespace needs root: %w", err)
		}
		for _, args := range setup {
			if err == nil {
				var out []byte
				if out, err = exec.Command("ip", args...).CombinedOutput(); err != nil {
					err = fmt.Errorf("ip %v: %w: %s", args, err, out)
				}
			}
		}
		if err == nil {
			defer close(ended)
			start()
			return
		}
		ended <- err
	}()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if t.Failed() {
		t.FailNow() // start could end only its own goroutine
	}
}
