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
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kith-p2p/kith"
	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/identify"
	"github.com/kith-p2p/kith/internal/wire"
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
	return startServing(t, order{Over: over, Memory: memory}, alone)
}

// startNode starts a whole node that is attacked on one of its transports.
func startNode(t testing.TB, over string) *far {
	t.Helper()
	return startServing(t, order{Over: over, Whole: true}, false)
}

func startServing(t testing.TB, o order, alone bool) *far {
	t.Helper()
	o.Attack = "serve"
	text, err := json.Marshal(o)
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

// serveOrder is what the process of a far does.
func serveOrder(o order) error {
	// The book is full of honest visitors soon: what grows with them is not the attack's.
	limits := host.Limits{Memory: o.Memory << 20, BookMemory: 256 << 10}
	var panics atomic.Int64
	trace := func(e host.Event) {
		if _, ok := e.(host.HandlerPanicked); ok {
			panics.Add(1)
		}
	}
	serve := serveBare
	if o.Whole {
		serve = serveWhole
	}
	h, err := serve(o.Over, limits, trace)
	if err != nil {
		return err
	}
	h.Handle("/echo/1", echo)
	h.Handle("/task/1", work)
	h.Handle("/framed/1", func(_ context.Context, s *host.Stream) error {
		_, err := wire.ReadFrame(s, 4<<20)
		return err
	})
	for _, a := range h.Addrs() {
		if text := a.String(); strings.HasSuffix(text, "/quic-v1") && o.Over == "quic" || strings.Contains(text, "/tcp/") && !strings.Contains(text, "/ws") && o.Over == "tcp" {
			fmt.Printf("serves %s/p2p/%s\n", a, h.ID())
		}
	}
	v := &victim{Host: h}
	for what := range told {
		s := state{Memory: residentNow(), Goroutines: runtime.NumGoroutine(), Usage: h.Usage(), Panics: int(panics.Load())}
		if what == "level" {
			l := v.level()
			s.Goroutines, s.Heap, s.Usage = l.goroutines, l.heap, l.usage
		}
		text, err := json.Marshal(s)
		if err != nil {
			return err
		}
		fmt.Printf("state %s\n", text)
	}
	return nil
}

// serveWhole makes a node as users do, with all its transports.
func serveWhole(_ string, limits host.Limits, trace func(host.Event)) (*host.Host, error) {
	var listen []multiaddr.Addr
	for _, end := range []string{"/tcp/0", "/udp/0/quic-v1", "/udp/0/quic-v1/webtransport", "/udp/0/webrtc-direct", "/tcp/0/ws"} {
		listen = append(listen, multiaddr.MustParse("/ip4/"+victimAddress+end))
	}
	n, err := kith.Start(context.Background(), kith.Config{Listen: listen, MDNS: kith.MDNS{Off: true}, ServePerf: true, Limits: limits, Trace: trace})
	if err != nil {
		return nil, err
	}
	return n.Host, nil
}

// serveBare makes a host with one transport, wired as kith.Start does it.
func serveBare(over string, limits host.Limits, trace func(host.Event)) (*host.Host, error) {
	key, err := peer.GenerateKey(peer.Ed25519)
	if err != nil {
		return nil, err
	}
	transport, listen, err := wired(over, key, limits.Resolve(0))
	if err != nil {
		return nil, err
	}
	h, err := host.New(host.Config{Identity: key, Transports: []host.Transport{transport}, Limits: limits, Trace: trace})
	if err != nil {
		return nil, err
	}
	ping.Serve(h)
	perf.Serve(h)
	identify.Start(h, identify.Config{})
	return h, h.Listen(multiaddr.MustParse(listen))
}

// A state is what a far says of itself.
type state struct {
	Memory     uint64 // that the process has of the system, in bytes
	Goroutines int
	Usage      host.Usage
	Panics     int    // of handlers
	Heap       uint64 // bytes that live; of level alone
}

// residentNow is how much memory this process has of the system now, in bytes.
func residentNow() uint64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var size, resident uint64
	fmt.Sscan(string(text), &size, &resident)
	return resident * uint64(os.Getpagesize())
}

func (f *far) look() state { return f.ask("look") }

// level has garbage collected first.
func (f *far) level() state { return f.ask("level") }

func (f *far) ask(what string) (s state) {
	f.gang.t.Helper()
	fmt.Fprintln(f.gang.in, what)
	check(f.gang.t, json.Unmarshal([]byte(f.gang.report("state")), &s))
	return s
}

// recovers is what it is for a victim of this process.
func (f *far) recovers(t testing.TB, before state) {
	t.Helper()
	var s state
	defer func() {
		if t.Failed() {
			t.Logf("left behind: %+v; before it was %+v", s, before)
		}
	}()
	within(t, recovery, "the victim is as it was before", func() bool {
		s = f.look()
		if more(s.Usage, before.Usage) || s.Goroutines > before.Goroutines+teller {
			return false
		}
		s = f.level()
		return s.Heap <= before.Heap+heapSlack
	})
	if s.Panics > 0 {
		t.Errorf("%d handlers panicked", s.Panics)
	}
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
