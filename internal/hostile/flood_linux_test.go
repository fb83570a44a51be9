package hostile

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
)

// A flood of connections that stop half way takes places from each other, not
// from honest newcomers, wherever it stops; also when it comes from the address of the newcomers.
func TestFloodAtEachStage(t *testing.T) {
	all, err := stages()
	check(t, err)
	// In the short run, these stand for all stages where the newcomers' own address floods.
	short := []string{"accepted", "noise message 1", "secured, no muxer"}
	for _, s := range all {
		for _, from := range []string{"127.0.0.2", "127.0.0.1"} {
			n, rate, visits := 400, 1000, 20
			same := from == "127.0.0.1"
			if same {
				n, rate = 300, 500
			}
			if s.proven {
				rate /= 2 // half of the processors is the gang's
			}
			if *full {
				n, visits = 10_000, 500
			}
			if same && (s.known || !*full && !slices.Contains(short, s.name)) {
				continue // what one address may have of connections is all taken
			}
			t.Run(s.name+" from "+from, func(t *testing.T) {
				v := newVictim(t, victimConfig{})
				g := hire(t, v, order{Attack: "stages", Stage: s.name, N: n, Rate: rate, From: []netip.Addr{netip.MustParseAddr(from)}})
				any := func() bool { return true }
				idle := v.visits(t, new(peak), visits, any)
				idle.served(t, 1)
				before, calm := v.level(), calm()
				var p peak
				g.begin()
				var reached string
				during := v.visits(t, &p, visits, func() bool {
					if reached == "" {
						reached, _ = g.heard("reached")
					}
					return reached != ""
				})
				during.served(t, 0.99)
				if grown := int64(p.memory) - int64(calm); grown > maxGrowth {
					t.Errorf("memory grew by %d bytes, want at most %d", grown, maxGrowth)
				}
				if more, limit := p.goroutines-before.goroutines, 2*256; more > limit {
					t.Errorf("%d goroutines more, want at most %d", more, limit)
				}
				var gone time.Duration
				if *full {
					_, err := fmt.Sscanf(g.report("gone"), "%d", &gone)
					check(t, err)
					gone *= time.Millisecond
				}
				g.leave()
				v.recovers(t, before)
				after := v.visits(t, new(peak), visits, any)
				idle.ok = append(idle.ok, after.ok...)
				t.Logf("idle: %v; attacked: %v; reached %s; memory %+.1f MiB, %d goroutines more; gone after %v",
					idle, during, reached, mib(p.memory, calm), p.goroutines-before.goroutines, gone)
				if *full && during.at(0.99) > 2*idle.at(0.99) {
					t.Errorf("the p99 of newcomers is %v, want at most twice %v", during.at(0.99), idle.at(0.99))
				}
				if *full && !s.known && gone > 15*time.Second {
					t.Errorf("the last half-open connection was there for %v, want at most 15 s", gone)
				}
			})
		}
	}
}

// spent is how much CPU this process has used.
func spent() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Streams that are opened and reset at once cost little, and end the session.
func TestRapidReset(t *testing.T) {
	peers := 20
	if *full {
		peers = 100
	}
	for name, o := range map[string]order{
		"without a proposal": {Reset: true},
		"with a proposal":    {Reset: true, Bytes: propose("/echo/1")},
		"for nobody":         {Bytes: propose("/nobody/1"), Flags: fin},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVictim(t, victimConfig{bare: true, limits: host.Limits{Conns: -1, ConnsPerIP: -1}})
			h := v.honest(t)
			check(t, echoOnce(t.Context(), h, v.ID()))
			o.Attack, o.N, o.Wait = "streams", peers, true
			for i := range peers {
				o.From = append(o.From, netip.AddrFrom4([4]byte{127, 2, byte(i >> 8), byte(i)}))
			}
			g := hire(t, v, o)
			before := v.level()
			// The runtime keeps half a KiB of each goroutine that there was at once.
			before.heap += uint64(peers * 1024 * 512)
			g.begin()
			g.report("ready")
			until(t, "all are let in", func() bool { return v.log.count("opened") == peers+1 })
			cpu, begin := spent(), time.Now()
			g.begin()
			said := g.report("sent")
			until(t, "all were sent away", func() bool { return v.log.count("closed") == peers })
			used, took := spent()-cpu, time.Since(begin)
			// What else they had sent when their sessions ended is not looked at.
			looked := max(1, v.log.count("stream refused")+v.log.count("stream failed"))
			each := used / time.Duration(looked)
			t.Logf("sent %s, looked at %d; %v of CPU in %v, %v each", said, looked, used.Round(time.Millisecond), took.Round(time.Millisecond), each)
			if err := echoOnce(t.Context(), h, v.ID()); err != nil {
				t.Error(err)
			}
			g.leave()
			v.recovers(t, before)
			limit := 10 * time.Microsecond
			if !o.Reset {
				limit *= 2 // it is answered
			}
			if *full && each > limit {
				t.Errorf("each takes %v of CPU, want at most %v", each, limit)
			}
		})
	}
}

// Peers who push what they say of themselves, as fast as they can, are sent away,
// and cost little, also when they come again and again.
func TestPushFlood(t *testing.T) {
	const peers = 8
	public := multiaddr.MustParse("/ip4/192.88.99.1/tcp/4001")
	honest := identity{addrs: []multiaddr.Addr{public}, protocols: []string{"/ipfs/id/1.0.0", "/ipfs/ping/1.0.0"}, agent: "pusher"}.bytes()
	long := append(propose(pushID), framed(bytes.Repeat(honest, 8000/len(honest)))...)
	for name, o := range map[string]order{
		"honest":     {Bytes: append(propose(pushID), framed(honest)...), Flags: fin},
		"long":       {Bytes: long, Flags: fin},
		"nonsense":   {Bytes: append(propose(pushID), framed(random(200))...), Flags: fin},
		"unfinished": {Bytes: long[:100]},
	} {
		for _, again := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, again: %v", name, again), func(t *testing.T) {
				v := newVictim(t, victimConfig{})
				o.Attack, o.N, o.Again, o.Rate = "streams", peers, again, 1
				if *full {
					o.Rate = 10
				}
				g := hire(t, v, o)
				before, cpu, begin := v.level(), spent(), time.Now()
				g.begin()
				said := g.report("sent")
				used, took := spent()-cpu, time.Since(begin)
				t.Logf("sent %s, looked at %d; %v of CPU in %v", said, v.log.count("stream refused")+v.log.count("stream failed"), used.Round(time.Millisecond), took.Round(time.Millisecond))
				if *full && again && used > took/20 {
					t.Errorf("%v of CPU in %v, want at most 5 %%", used, took)
				}
				g.leave()
				v.recovers(t, before)
			})
		}
	}
}

// Silent connections from many addresses, at any stage, do not keep newcomers out.
func TestSilenceOfManyAddresses(t *testing.T) {
	visits := 25
	if *full {
		visits = 300
	}
	all, err := stages()
	check(t, err)
	var from []netip.Addr
	for i := range 64 {
		from = append(from, netip.AddrFrom4([4]byte{127, 1, byte(i), 1}))
	}
	for _, s := range all {
		for _, n := range []int{79, 256, 4096} {
			if !*full && n != 256 {
				continue
			}
			from := from
			if n == 4096 { // each from an address of its own
				for i := range n - len(from) {
					from = append(from, netip.AddrFrom4([4]byte{127, 1, byte(i % 64), byte(2 + i/64)}))
				}
			}
			t.Run(fmt.Sprint(s.name, ", ", n), func(t *testing.T) {
				v := newVictim(t, victimConfig{})
				g := hire(t, v, order{Attack: "stages", Stage: s.name, N: n, More: 200, From: from})
				idle := v.visits(t, new(peak), visits, func() bool { return true })
				before, calm := v.level(), calm()
				var p peak
				g.begin()
				reached := g.report("reached")
				during := v.visits(t, &p, visits, func() bool { return true })
				during.served(t, 0.99)
				t.Logf("idle: %v; attacked: %v; reached %s, and 200 more a second; memory %+.1f MiB, %d half-open at most", idle, during, reached, mib(p.memory, calm), p.halfOpen)
				g.leave()
				v.recovers(t, before)
			})
		}
	}
}

// When connections have run out, those who have many of them pay for newcomers,
// and those who were there before them stay.
func TestCrowdedConnections(t *testing.T) {
	limits, n, visits := host.Limits{Conns: 100}, 150, 25
	if *full {
		limits, n, visits = host.Limits{ConnsPerIP: -1}, 1500, 300
	}
	v := newVictim(t, victimConfig{limits: limits})
	h := v.honest(t)
	check(t, echoOnce(t.Context(), h, v.ID()))
	var from []netip.Addr
	for i := range 12 {
		from = append(from, netip.AddrFrom4([4]byte{127, 1, byte(i), 1}))
	}
	g := hire(t, v, order{Attack: "stages", Stage: "muxed", N: n, More: 50, From: from})
	idle := v.visits(t, new(peak), visits, func() bool { return true })
	before := v.level()
	g.begin()
	reached := g.report("reached")
	var p peak
	during := v.visits(t, &p, visits, func() bool { return true })
	during.served(t, 1)
	t.Logf("idle: %v; attacked: %v; reached %s; %d connections", idle, during, reached, len(v.Conns()))
	check(t, echoOnce(t.Context(), h, v.ID()))
	if len(h.Conns()) != 1 {
		t.Error("the peer that was there before lost its connection")
	}
	g.leave()
	v.recovers(t, before)
}
