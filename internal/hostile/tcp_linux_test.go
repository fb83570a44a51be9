package hostile

import (
	"context"
	"net"
	"net/netip"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/tcp"
	"github.com/kith-p2p/kith/upgrade"
)

// newVictim makes a host that listens on TCP and sees its remotes masked.
func newVictim(t testing.TB, cfg victimConfig) *victim {
	t.Helper()
	return start(t, cfg, "/ip4/127.0.0.1/tcp/0", func(u *upgrade.Upgrader) host.Transport {
		transport, err := tcp.New(tcp.Config{Upgrader: u})
		check(t, err)
		return masked{transport}
	})
}

// overTCP is the transport of an honest peer.
func overTCP(u *upgrade.Upgrader) host.Transport {
	transport, err := tcp.New(tcp.Config{Upgrader: u})
	if err != nil {
		panic(err)
	}
	return transport
}

// visits lets newcomers visit, one after the other, at least n of them and until
// enough says so.
func (v *victim) visits(t testing.TB, p *peak, n int, enough func() bool) times {
	var ts times
	for i := 0; i < n || !enough(); i++ {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		ts.add(v.visit(ctx, overTCP, newKey(t)))
		cancel()
		p.look(v)
	}
	return ts
}

// honest makes a host that is connected to v.
func (v *victim) honest(t testing.TB) *host.Host {
	t.Helper()
	key := newKey(t)
	u := newUpgrader(t, key, upgrade.Noise)
	h, err := host.New(host.Config{Identity: key, Transports: []host.Transport{overTCP(u)}})
	check(t, err)
	t.Cleanup(func() { check(t, h.Close()) })
	_, err = h.Connect(t.Context(), v.info())
	check(t, err)
	return h
}

// attack gives an attacker a session with v, from an address of this machine.
func (v *victim) attack(t testing.TB, from string) *session {
	t.Helper()
	a, err := newAttacker()
	check(t, err)
	s, err := a.session(v.connect(t, from))
	check(t, err)
	return s
}

// connect opens a connection to v that nothing was said on.
func (v *victim) connect(t testing.TB, from string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0))}
	conn, err := d.Dial("tcp4", v.port.String())
	check(t, err)
	conn.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { conn.Close() })
	return conn
}

// mapped is how much memory the process has from the system, in bytes.
func mapped() uint64 {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64() - samples[1].Value.Uint64()
}

// A peak is the most of something while an attack goes on.
type peak struct {
	goroutines int
	memory     uint64
	halfOpen   int
}

func (p *peak) look(v *victim) {
	p.goroutines = max(p.goroutines, runtime.NumGoroutine())
	p.memory = max(p.memory, mapped())
	p.halfOpen = max(p.halfOpen, v.Usage().HalfOpen)
}

// maxGrowth is how much more memory an attack may make the host map, in bytes.
const maxGrowth = 64 << 20

func mib(now, before uint64) float64 { return (float64(now) - float64(before)) / (1 << 20) }

// calm is the level of memory before an attack.
func calm() uint64 {
	debug.FreeOSMemory()
	return mapped()
}

func timed(do func() error) (time.Duration, error) {
	start := time.Now()
	err := do()
	return time.Since(start), err
}
