package hostile

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/wire"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/quic"
	"github.com/kith-p2p/kith/tcp"
	"github.com/kith-p2p/kith/upgrade"
)

var attackTable = flag.String("hostile.table", "", "write the table of TestAttacks to this file")

// networkEnv tells a process that it is in a network of its own.
const networkEnv = "KITH_HOSTILE_NETWORK"

// addresses are those of the network: all of 44.0.0.0/8 is this machine, and none of it
// is loopback, for which there are exemptions.
const victimAddress = "44.0.0.1"

// crowd are 64 addresses, each in a group of its own.
func crowd() (from []netip.Addr) {
	for i := range 64 {
		from = append(from, netip.AddrFrom4([4]byte{44, 1, byte(i), 1}))
	}
	return from
}

// An onslaught is a row of the table.
type onslaught struct {
	name  string
	order order
}

// onslaughts are what is done to the host over TCP and over QUIC alike.
func onslaughts() []onslaught {
	one := []netip.Addr{netip.MustParseAddr("44.1.0.1")}
	half := propose("/echo/1")[:23]
	push := framed(identity{protocols: []string{"/ipfs/id/1.0.0"}, agent: "pusher"}.bytes())
	claim := wire.AppendUvarint(nil, 4<<20)
	var endless []byte
	for i := range 200 {
		endless = append(endless, token(fmt.Sprintf("/nobody/%d", i))...)
	}
	return []onslaught{
		{name: "1 peer, streams that are never negotiated", order: order{Attack: "hold", N: 1, From: one, Bytes: half}},
		{name: "20 peers, streams that are never negotiated", order: order{Attack: "hold", N: 20, From: crowd(), Bytes: half}},
		{name: "half a hello from 64 addresses, and 200 more a second", order: order{Attack: "silence", Stage: "half a hello", N: 256, More: 200, From: crowd()}},
		{name: "a hello from 64 addresses, and 200 more a second", order: order{Attack: "silence", Stage: "hello", N: 256, More: 200, From: crowd()}},
		{name: "silent connections from 64 addresses, and 50 more a second", order: order{Attack: "silence", Stage: "muxed", N: 256, More: 50, From: crowd()}},
		{name: "a hello from one address, and 200 more a second", order: order{Attack: "silence", Stage: "hello", N: 256, More: 200, From: one}},
		{name: "connections that end at once, 100 a second", order: order{Attack: "churn", N: 100, From: crowd()}},
		{name: "1 peer opens and resets streams", order: order{Attack: "storm", N: 1, From: one, Bytes: propose("/echo/1"), Reset: true}},
		{name: "8 peers open and reset streams", order: order{Attack: "storm", N: 8, From: crowd(), Bytes: propose("/echo/1"), Reset: true}},
		{name: "proposals without end", order: order{Attack: "storm", N: 8, From: crowd(), Bytes: append(propose("/nobody"), endless...)}},
		{name: "8 peers push what they say of themselves", order: order{Attack: "storm", N: 8, From: crowd(), Bytes: append(propose(pushID), push...), Flags: fin}},
		{name: "500 streams claim 4 MiB each", order: order{Attack: "hold", N: 1, From: one, Bytes: append(append(propose("/framed/1"), claim...), 1, 2, 3), Rate: 500}},
		{name: "16 peers do not read 8 streams each", order: order{Attack: "unread", N: 16, From: crowd(), Rate: 8}},
	}
}

// TestAttacks has every onslaught come over TCP and over QUIC, and looks at how honest
// peers fare: their new connections, and new streams on a connection that stands.
func TestAttacks(t *testing.T) {
	if os.Getenv(networkEnv) == "" {
		inNetwork(t)
		return
	}
	openNetwork(t)
	visits, streams := 20, 100
	if *full {
		visits, streams = 300, 3000
	}
	var table strings.Builder
	fmt.Fprintln(&table, "| | | new connections, p99 idle / attacked | served | new streams, p99 idle / attacked | served | serves again after | memory before / at most / 15 s later |\n|---|---|---|---|---|---|---|---|")
	for _, a := range onslaughts() {
		for _, over := range []string{"tcp", "quic"} {
			t.Run(a.name+", "+over, func(t *testing.T) {
				f, visitor := startNode(t, over), visitor(over)
				h := visitor.host(t)
				if _, err := h.Connect(t.Context(), f.info); err != nil {
					t.Fatal(err)
				}
				newStreams := func() (ts times) {
					for range streams {
						ctx, cancel := context.WithTimeout(t.Context(), patience)
						ts.add(timed(func() error { return echoOnce(ctx, h, f.info.ID) }))
						cancel()
					}
					return ts
				}
				newConns := func() times { return visitor.visits(t, f, visits) }
				newConns() // the first ones pay for what is made once
				idleConns, idleStreams := newConns(), newStreams()
				// What the process has goes up and down with the collections: it is the median of
				// some seconds in which life goes on, before the attack as after it.
				resident := func() uint64 {
					var levels []uint64
					for begin := time.Now(); time.Since(begin) < 5*time.Second; {
						visitor.visits(t, f, 1)
						levels = append(levels, f.look().Memory)
						<-time.After(100 * time.Millisecond)
					}
					slices.Sort(levels)
					return levels[len(levels)/2]
				}
				held := uint64(0)
				if *full {
					held = resident()
				}
				before := f.level()

				o := a.order
				o.Over = over
				g := hireFor(t, f, o)
				g.begin()
				g.report("begun")
				conns, opened := newConns(), newStreams()
				conns.served(t, 0.99)
				opened.served(t, 0.99)
				most := f.resident()
				g.leave()

				left := time.Now()
				for served := 0; served < 3; {
					if ts := visitor.visits(t, f, 1); len(ts.failed) == 0 {
						served++
					} else {
						served = 0
					}
				}
				again := time.Since(left)
				if again > 2*time.Second {
					t.Errorf("three newcomers were served %v after the attack, want within 2 s", again)
				}
				after := uint64(0)
				if *full {
					for time.Since(left) < 15*time.Second {
						after = resident() // the last time it is that of the seconds 10 to 15
					}
					if after > held+held/5 {
						t.Errorf("15 s after the attack the process has %d bytes, before it had %d", after, held)
					}
				}
				f.recovers(t, before)
				if *full {
					const floor = 25 * time.Millisecond
					if limit := max(2*idleConns.at(0.99), floor); conns.at(0.99) > limit {
						t.Errorf("the p99 of new connections is %v, want at most %v", conns.at(0.99), limit)
					}
					if limit := max(2*idleStreams.at(0.99), floor); opened.at(0.99) > limit {
						t.Errorf("the p99 of new streams is %v, want at most %v", opened.at(0.99), limit)
					}
				}
				share := func(ts times) string {
					return fmt.Sprintf("%.1f %%", 100*float64(len(ts.ok))/float64(len(ts.ok)+len(ts.failed)))
				}
				ms := func(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d.Microseconds())/1000) }
				mib := func(bytes uint64) float64 { return float64(bytes) / (1 << 20) }
				row := fmt.Sprintf("| %s | %s | %s / %s ms | %s | %s / %s ms | %s | %s ms | %.1f / %.1f / %.1f MiB |", a.name, over,
					ms(idleConns.at(0.99)), ms(conns.at(0.99)), share(conns), ms(idleStreams.at(0.99)), ms(opened.at(0.99)), share(opened), ms(again), mib(held), most, mib(after))
				t.Log(row)
				fmt.Fprintln(&table, row)
			})
		}
	}
	if *attackTable != "" {
		check(t, os.WriteFile(*attackTable, []byte(table.String()), 0o644))
	}
}

// A visitor makes honest hosts that speak one transport.
type visitor string

func (over visitor) host(t testing.TB) *host.Host {
	t.Helper()
	h, end, err := over.open()
	check(t, err)
	t.Cleanup(end)
	return h
}

func (over visitor) open() (h *host.Host, end func(), err error) {
	key, err := peer.GenerateKey(peer.Ed25519)
	if err != nil {
		return nil, nil, err
	}
	transport, release, err := over.transport(key)
	if err != nil {
		return nil, nil, err
	}
	if h, err = host.New(host.Config{Identity: key, Transports: []host.Transport{transport}}); err != nil {
		release()
		return nil, nil, err
	}
	return h, func() { h.Close(); release() }, nil
}

// transport makes one and tells how it is closed when its host is.
func (over visitor) transport(key peer.PrivateKey) (host.Transport, func(), error) {
	if over == "quic" {
		endpoint := quic.NewEndpoint(quic.EndpointConfig{Key: key, MaxIncomingStreams: 256}) // as kith.Start does
		t, err := quic.New(quic.Config{Key: key, Endpoint: endpoint})
		return t, func() { endpoint.Close() }, err
	}
	channel, err := upgrade.Noise(key)
	if err != nil {
		return nil, nil, err
	}
	u, err := upgrade.New(upgrade.Config{Security: []upgrade.Security{channel}})
	if err != nil {
		return nil, nil, err
	}
	t, err := tcp.New(tcp.Config{Upgrader: u})
	return t, func() {}, err
}

// visits lets newcomers visit, one after the other.
func (over visitor) visits(t testing.TB, f *far, n int) (ts times) {
	for range n {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		ts.add(over.visit(ctx, f))
		cancel()
	}
	return ts
}

func (over visitor) visit(ctx context.Context, f *far) (time.Duration, error) {
	h, end, err := over.open()
	if err != nil {
		return 0, err
	}
	defer end()
	return timed(func() error {
		if _, err := h.Connect(ctx, f.info); err != nil {
			return err
		}
		return echoOnce(ctx, h, f.info.ID)
	})
}

// inNetwork runs the test again in a process with a network namespace of its own.
func inNetwork(t *testing.T) {
	args := []string{"-test.run=^" + t.Name() + "$", "-test.v=true"}
	deadline, _ := t.Deadline()
	args = append(args, fmt.Sprintf("-test.timeout=%v", time.Until(deadline)))
	flag.Visit(func(f *flag.Flag) {
		if strings.HasPrefix(f.Name, "hostile.") {
			args = append(args, fmt.Sprintf("-%s=%s", f.Name, f.Value))
		}
		if f.Name == "test.run" {
			if _, sub, ok := strings.Cut(f.Value.String(), "/"); ok {
				args[0] += "/" + sub
			}
		}
	})
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), networkEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if cmd.Process == nil {
		t.Skipf("this system gives no network namespace, and the test never uses a real network: %v", err)
	}
	t.Log("\n" + string(out))
	if err != nil {
		t.Error(err)
	}
}

// openNetwork gives the loopback interface of the namespace all of 44.0.0.0/8.
func openNetwork(t testing.TB) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	check(t, err)
	defer unix.Close(fd)
	set := func(name string, request uint, fill func(*unix.Ifreq) error) {
		r, err := unix.NewIfreq(name)
		check(t, err)
		check(t, fill(r))
		check(t, unix.IoctlIfreq(fd, request, r))
	}
	up := func(r *unix.Ifreq) error {
		r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING | unix.IFF_LOOPBACK)
		return nil
	}
	set("lo", unix.SIOCSIFFLAGS, up)
	ip := netip.MustParseAddr(victimAddress).As4()
	set("lo:0", unix.SIOCSIFADDR, func(r *unix.Ifreq) error { return r.SetInet4Addr(ip[:]) })
	set("lo:0", unix.SIOCSIFNETMASK, func(r *unix.Ifreq) error { return r.SetInet4Addr([]byte{255, 0, 0, 0}) })
	// Somebody must be able to come from anywhere in it.
	l, err := net.Listen("tcp4", "44.1.2.3:0")
	check(t, err)
	l.Close()
}
