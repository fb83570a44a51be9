package hostile

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/identify"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/perf"
	"github.com/kith-p2p/kith/ping"
	"github.com/kith-p2p/kith/quic"
	"github.com/kith-p2p/kith/tcp"
	"github.com/kith-p2p/kith/upgrade"
	"github.com/kith-p2p/kith/yamux"
)

// A far is a victim in a process of its own, so that its memory and its processor are
// nobody else's.
type far struct {
	gang *gang
	info peer.AddrInfo
}

// startFar starts one on a transport with a budget in MiB. If it is to be alone on its
// processor, the test and whoever attacks get the others, if there are others.
func startFar(t testing.TB, over string, memory int, alone bool) *far {
	t.Helper()
	text, err := json.Marshal(order{Attack: "serve", Over: over, Memory: memory})
	check(t, err)
	g := &gang{t: t, cmd: exec.Command(os.Args[0]), lines: make(chan string, 64)}
	g.cmd.Env = append(os.Environ(), orderEnv+"="+string(text))
	if alone {
		runtime.LockOSThread() // a process starts on the processors of the thread that starts it
		defer runtime.UnlockOSThread()
		all := allot(t)
		defer unix.SchedSetaffinity(0, &all)
	}
	g.start()
	g.begin()
	addr := multiaddr.MustParse(g.report("serves"))
	info, err := peer.AddrInfoFromAddr(addr)
	check(t, err)
	return &far{g, info}
}

// allot leaves the first processor to what this thread starts, and gives the others to all
// threads that there are. It returns those others.
func allot(t testing.TB) unix.CPUSet {
	t.Helper()
	var all, first unix.CPUSet
	check(t, unix.SchedGetaffinity(0, &all))
	if all.Count() == 1 {
		return all
	}
	for cpu := range 1024 {
		if all.IsSet(cpu) {
			first.Set(cpu)
			all.Clear(cpu)
			break
		}
	}
	tasks, err := os.ReadDir("/proc/self/task")
	check(t, err)
	for _, task := range tasks {
		id, err := strconv.Atoi(task.Name())
		check(t, err)
		unix.SchedSetaffinity(id, &all) // it may have ended
	}
	check(t, unix.SchedSetaffinity(0, &first))
	return all
}

// resident is the most memory that the victim has ever had, in MiB.
func (f *far) resident() float64 {
	f.gang.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", f.gang.cmd.Process.Pid))
	check(f.gang.t, err)
	m := regexp.MustCompile(`VmHWM:\s*(\d+) kB`).FindSubmatch(status)
	kib, err := strconv.Atoi(string(m[1]))
	check(f.gang.t, err)
	return float64(kib) / 1024
}

// busy is how long a process has had a processor.
func busy(t testing.TB, pid int) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	check(t, err)
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	var ticks int
	for _, f := range fields[11:13] { // in the program, and in the system for it
		n, err := strconv.Atoi(f)
		check(t, err)
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// serveOrder is what the process of a far does. It is wired as kith.Start does it.
func serveOrder(o order) error {
	key, err := peer.GenerateKey(peer.Ed25519)
	if err != nil {
		return err
	}
	limits := host.Limits{Memory: o.Memory << 20}
	transport, listen, err := wired(o.Over, key, limits.Resolve(0))
	if err != nil {
		return err
	}
	h, err := host.New(host.Config{Identity: key, Transports: []host.Transport{transport}, Limits: limits})
	if err != nil {
		return err
	}
	h.Handle("/echo/1", echo)
	h.Handle("/task/1", work)
	ping.Serve(h)
	perf.Serve(h)
	identify.Start(h, identify.Config{})
	if err := h.Listen(multiaddr.MustParse(listen)); err != nil {
		return err
	}
	fmt.Printf("serves %s/p2p/%s\n", h.Addrs()[0], h.ID())
	return nil
}

func wired(over string, key peer.PrivateKey, l host.Limits) (t host.Transport, listen string, err error) {
	streams := min(l.InboundStreamsPerPeer, math.MaxInt32)
	if over == "quic" {
		endpoint := quic.NewEndpoint(quic.EndpointConfig{Key: key, MaxIncomingStreams: max(1, streams/4), MaxOpening: l.HalfOpening(), MaxWide: max(l.Memory/(8<<20), 1)})
		t, err = quic.New(quic.Config{Key: key, Endpoint: endpoint})
		return t, "/ip4/" + victimAddress + "/udp/0/quic-v1", err
	}
	var security []upgrade.Security
	for _, channel := range []func(peer.PrivateKey) (upgrade.Security, error){upgrade.Noise, upgrade.TLS} {
		s, err := channel(key)
		if err != nil {
			return nil, "", err
		}
		security = append(security, s)
	}
	u, err := upgrade.New(upgrade.Config{Security: security, Yamux: yamux.Config{MaxIncomingStreams: streams, Budget: l.PeerStreamMemory()}})
	if err != nil {
		return nil, "", err
	}
	t, err = tcp.New(tcp.Config{Upgrader: u})
	return t, "/ip4/" + victimAddress + "/tcp/0", err
}

// request and answer of "/task/1", in bytes.
const workSize = 8

// work takes the processor for a few hundred microseconds.
func work(_ context.Context, s *host.Stream) error {
	var b [workSize]byte
	if _, err := io.ReadFull(s, b[:]); err != nil {
		return err
	}
	var block [16 << 10]byte
	copy(block[:], b[:])
	for range 32 {
		sum := sha256.Sum256(block[:])
		copy(block[:], sum[:])
	}
	_, err := s.Write(block[:workSize])
	return err
}
