package hostile

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/identify"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/perf"
	"github.com/kith-p2p/kith/ping"
	"github.com/kith-p2p/kith/upgrade"
)

var full = flag.Bool("hostile.full", false, "attack with full force, for minutes, and judge by the clock too")

// A victim is a whole host with the protocols that every node serves, and an echo.
type victim struct {
	*host.Host
	port netip.AddrPort
	log  *diary
}

// victimConfig is what a test wants of its victim.
type victimConfig struct {
	limits host.Limits
	bare   bool // without identify, so that nothing is sent unasked
	trace  func(host.Event)
	key    peer.PrivateKey // zero: a new one
}

// Where they are in a network of the tests.
var (
	victimIP   = netip.MustParseAddr("192.0.2.1")
	honestIP   = netip.MustParseAddr("203.0.113.5")
	attackerIP = netip.MustParseAddr("198.51.100.7")
)

// newVictimOn makes a host in a network of the tests.
func newVictimOn(t testing.TB, n *network, cfg victimConfig) *victim {
	t.Helper()
	return start(t, cfg, "/ip4/192.0.2.1/tcp/0", func(u *upgrade.Upgrader) host.Transport { return over{n, u, victimIP} })
}

func start(t testing.TB, cfg victimConfig, listen string, transport func(*upgrade.Upgrader) host.Transport) *victim {
	t.Helper()
	key := cfg.key
	if key.IsZero() {
		key = newKey(t)
	}
	v := &victim{log: new(diary)}
	h, err := host.New(host.Config{
		Identity:   key,
		Transports: []host.Transport{transport(newUpgrader(t, key, upgrade.Noise, upgrade.TLS))},
		Limits:     cfg.limits,
		Trace: func(e host.Event) {
			v.log.note(e)
			if cfg.trace != nil {
				cfg.trace(e)
			}
		},
	})
	check(t, err)
	v.Host = h
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Errorf("closing the victim: %v", err)
		}
		if v.log.count("panic") > 0 {
			t.Errorf("a handler panicked: %s", v.log.last("panic"))
		}
	})
	h.Handle("/echo/1", echo)
	h.Handle("/firehose/1", firehose)
	ping.Serve(h)
	perf.Serve(h)
	if !cfg.bare {
		identify.Start(h, identify.Config{})
	}
	check(t, h.Listen(multiaddr.MustParse(listen)))
	v.port, _, _ = h.Addrs()[0].AddrPort()
	return v
}

func echo(_ context.Context, s *host.Stream) error {
	b := echoes.Get().(*[4096]byte)
	defer echoes.Put(b)
	_, err := io.CopyBuffer(s, struct{ io.Reader }{s}, b[:])
	return err
}

var echoes = sync.Pool{New: func() any { return new([4096]byte) }}

// firehose sends without end, and sets no deadline.
func firehose(_ context.Context, s *host.Stream) error {
	for b := make([]byte, 16<<10); ; {
		if _, err := s.Write(b); err != nil {
			return err
		}
	}
}

func newKey(t testing.TB) peer.PrivateKey {
	t.Helper()
	key, err := peer.GenerateKey(peer.Ed25519)
	check(t, err)
	return key
}

func newUpgrader(t testing.TB, key peer.PrivateKey, channels ...func(peer.PrivateKey) (upgrade.Security, error)) *upgrade.Upgrader {
	t.Helper()
	var security []upgrade.Security
	for _, channel := range channels {
		s, err := channel(key)
		check(t, err)
		security = append(security, s)
	}
	u, err := upgrade.New(upgrade.Config{Security: security})
	check(t, err)
	return u
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// info is what one needs to dial the victim.
func (v *victim) info() peer.AddrInfo { return peer.AddrInfo{ID: v.ID(), Addrs: v.Addrs()} }

// A diary counts what happened to a host, and keeps the newest of each kind.
type diary struct {
	mu     sync.Mutex
	counts map[string]int
	newest map[string]string
}

func (d *diary) note(e host.Event) {
	var kind, text string
	switch e := e.(type) {
	case host.UpgradeFailed:
		kind, text = "upgrade failed", fmt.Sprintf("%s: %v", e.Stage, e.Err)
	case host.ConnOpened:
		kind, text = "opened", e.Conn.String()
	case host.ConnClosed:
		kind, text = "closed", e.Err.Error()
	case host.StreamRefused:
		kind, text = "stream refused", e.Err.Error()
	case host.StreamEnded:
		if e.Err == nil {
			return
		}
		kind, text = "stream failed", e.Err.Error()
	case host.HandlerPanicked:
		kind, text = "panic", fmt.Sprintf("%v\n%s", e.Value, e.Stack)
	default:
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.counts == nil {
		d.counts, d.newest = make(map[string]int), make(map[string]string)
	}
	d.counts[kind]++
	d.newest[kind] = text
}

func (d *diary) count(kind string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.counts[kind]
}

func (d *diary) last(kind string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.newest[kind]
}

// until waits for cond to hold.
func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	within(t, patience, what, cond)
}

func within(t testing.TB, limit time.Duration, what string, cond func() bool) {
	t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	look := time.NewTicker(2 * time.Millisecond)
	defer look.Stop()
	for !cond() {
		select {
		case <-look.C:
		case <-deadline.C:
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// A level is how much of everything there is.
type level struct {
	goroutines int
	heap       uint64 // bytes that live, without those of goroutines
	usage      host.Usage
}

func (v *victim) level() level {
	runtime.GC()
	runtime.GC() // the second one empties what pools still keep
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return level{runtime.NumGoroutine(), m.HeapAlloc - min(m.HeapAlloc, ofGoroutines()), v.Usage()}
}

// heapSlack is how much more heap than before there may be when an attack is
// over: the test keeps what it counts.
const heapSlack = 4 << 20

// profileRate is how many bytes of heap there are for each one that is looked at.
const profileRate = 32 << 10

// ofGoroutines is how much heap the runtime has for goroutines, also for those that
// have ended, in bytes: it keeps half a KiB of each that there was at the same time, for
// ever, and a busy machine comes to have tens of thousands whose streams wait to end.
func ofGoroutines() (bytes uint64) {
	var records []runtime.MemProfileRecord
	n, ok := runtime.MemProfile(nil, true)
	for !ok {
		records = make([]runtime.MemProfileRecord, n+50)
		n, ok = runtime.MemProfile(records, true)
	}
	for _, r := range records[:n] {
		if r.InUseObjects() == 0 {
			continue
		}
		frames := runtime.CallersFrames(r.Stack())
		for more := true; more; {
			var f runtime.Frame
			if f, more = frames.Next(); f.Function == "runtime.malg" {
				// Of things of this size so many are seen.
				seen := 1 - math.Exp(-float64(r.InUseBytes())/float64(r.InUseObjects())/profileRate)
				bytes += uint64(float64(r.InUseBytes()) / seen)
			}
		}
	}
	return bytes
}

// teller is the one goroutine that tells the operator what limits refuse, until they
// have refused nothing for a minute.
const teller = 1

// recovery is how long everything takes to be as it was before. A connection over QUIC lives
// for 45 s if a busy machine lost the packet in which the remote took its leave.
const recovery = patience + 45*time.Second

// recovers waits until everything is as it was before.
func (v *victim) recovers(t testing.TB, before level) {
	t.Helper()
	deadline := time.Now().Add(recovery)
	within(t, recovery, "the victim is as it was before", func() bool {
		over := more(v.Usage(), before.usage) || runtime.NumGoroutine() > before.goroutines+teller
		if !over {
			over = v.level().heap > before.heap+heapSlack
		}
		if over && time.Until(deadline) < time.Second {
			buf := make([]byte, 1<<16)
			t.Fatalf("left behind: %+v; before it was %+v\n%s", v.level(), before, buf[:runtime.Stack(buf, true)])
		}
		return !over
	})
}

func more(now, before host.Usage) bool {
	return now.Conns > before.Conns || now.HalfOpen > before.HalfOpen || now.UnnegotiatedStreams > before.UnnegotiatedStreams
}

// visit is what an honest newcomer does: it dials with an identity that is new,
// and has something echoed. It tells how long that took, without the closing.
func (v *victim) visit(ctx context.Context, transport func(*upgrade.Upgrader) host.Transport, key peer.PrivateKey) (time.Duration, error) {
	n, err := upgrade.Noise(key)
	if err != nil {
		return 0, err
	}
	u, err := upgrade.New(upgrade.Config{Security: []upgrade.Security{n}})
	if err != nil {
		return 0, err
	}
	h, err := host.New(host.Config{Identity: key, Transports: []host.Transport{transport(u)}})
	if err != nil {
		return 0, err
	}
	defer h.Close()
	start := time.Now()
	if _, err := h.Connect(ctx, v.info()); err != nil {
		return 0, err
	}
	if err := echoOnce(ctx, h, v.ID()); err != nil {
		return 0, err
	}
	return time.Since(start), nil
}

// echoOnce has five bytes echoed on a new stream.
func echoOnce(ctx context.Context, h *host.Host, p peer.ID) error {
	s, err := h.NewStream(ctx, p, "/echo/1")
	if err != nil {
		return err
	}
	defer s.Close()
	if deadline, ok := ctx.Deadline(); ok {
		s.SetDeadline(deadline)
	}
	if _, err := io.WriteString(s, "hello"); err != nil {
		return err
	}
	if err := s.CloseWrite(); err != nil {
		return err
	}
	got, err := io.ReadAll(s)
	if err == nil && string(got) != "hello" {
		err = fmt.Errorf("the echo of hello is %q", got)
	}
	return err
}

// times are how long honest peers waited.
type times struct {
	ok     []time.Duration
	failed []error
}

func (ts *times) add(d time.Duration, err error) {
	if err != nil {
		ts.failed = append(ts.failed, err)
		return
	}
	ts.ok = append(ts.ok, d)
}

// at gives a quantile.
func (ts times) at(q float64) time.Duration {
	if len(ts.ok) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(ts.ok))
	return sorted[int(q*float64(len(sorted)-1))]
}

func (ts times) String() string {
	return fmt.Sprintf("%d of %d honest, p50 %v, p99 %v", len(ts.ok), len(ts.ok)+len(ts.failed),
		ts.at(0.5).Round(10*time.Microsecond), ts.at(0.99).Round(10*time.Microsecond))
}

// served fails the test unless a share of all honest ones was served.
func (ts times) served(t testing.TB, share float64) {
	t.Helper()
	if all := len(ts.ok) + len(ts.failed); float64(len(ts.ok)) < share*float64(all) || all == 0 {
		t.Errorf("%d of %d honest ones were served; the others: %v", len(ts.ok), all, ts.failed[:min(2, len(ts.failed))])
	}
}

// dialOn makes the transport of an honest peer in a network of the tests.
func dialOn(n *network) func(*upgrade.Upgrader) host.Transport {
	return func(u *upgrade.Upgrader) host.Transport { return over{n, u, honestIP} }
}
