package transporttest

import (
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/testkit"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// patienceEnv sets patience, for a machine on which the tests need more.
const patienceEnv = "KITH_TRANSPORTTEST_PATIENCE"

// patience is how long something may take that takes no time when all is well, on
// a machine that does much else.
var patience = func() time.Duration {
	if d, err := time.ParseDuration(os.Getenv(patienceEnv)); err == nil {
		return d
	}
	return 20 * time.Second
}()

// A Case is one transport in one configuration. What it leaves out is at its most
// demanding.
type Case struct {
	// New makes the transport of a node with this identity. Transports of one Case
	// reach each other. What a transport has open beside its listeners and
	// connections is closed by t.Cleanup. Required.
	New func(t testing.TB, key peer.PrivateKey) host.Transport

	// Listen gives addresses to listen on that nobody else has, such as those with
	// port 0. The short parts run on each, all others on the first. See Addrs. Required.
	Listen func(t testing.TB) []multiaddr.Addr

	// Dial turns the address of a listener into the one to dial, where they differ.
	Dial func(listening multiaddr.Addr) multiaddr.Addr

	NoCodes     bool // a reset carries no code
	NoConnCodes bool // the end of a connection carries no code
	Datagrams   bool // connections carry datagrams

	Bulk    int // bytes to send each way at the same time; default 64 MiB, with -short or -race 8 MiB
	Streams int // streams to open one after the other, and at once; default 1000
	Conns   int // connections to open at once; default 100

	// Unread is how many streams can be full, since nobody reads them, while others
	// go on; default 8. Windows of whole connections bound it.
	Unread int

	// InProcess leaves out the parts in which the other side is another process,
	// for a transport that does not leave its own.
	InProcess bool

	// Silence is how long it takes to notice that the other side's process was
	// killed. Zero: the system tells it at once, as with TCP on one machine.
	Silence time.Duration
}

// Addrs gives the same addresses each time, for Case.Listen; those of IPv6 where there
// is IPv6.
func Addrs(addrs ...string) func(testing.TB) []multiaddr.Addr {
	return func(t testing.TB) (parsed []multiaddr.Addr) {
		for _, text := range addrs {
			if a := multiaddr.MustParse(text); !a.Has(multiaddr.IP6) || testkit.HasIPv6(t) {
				parsed = append(parsed, a)
			}
		}
		return parsed
	}
}

// Run tests all that host.Transport promises, each part as a subtest.
func Run(t *testing.T, c Case) {
	t.Helper()
	if isChild(t, c) {
		return
	}
	c = c.withDefaults()
	for _, part := range []struct {
		name string
		run  func(*testing.T, Case)
	}{
		{"Connect", testConnect},
		{"Unspecified", testUnspecified},
		{"KeyTypes", testKeyTypes},
		{"Progress", testProgress},
		{"WrongPeer", testWrongPeer},
		{"AddressInUse", testAddressInUse},
		{"CloseListener", testCloseListener},
		{"CloseBusyListener", testCloseBusyListener},
		{"DialEnds", testDialEnds},
		{"UpgradeEnds", testUpgradeEnds},
		{"AcceptGoesOn", testAcceptGoesOn},
		{"ManyConnections", testManyConnections},

		{"NotServedYet", testNotServedYet},
		{"NeverServed", testNeverServed},

		{"EmptyReadsAndWrites", testEmpty},
		{"Sizes", testSizes},
		{"SequentialStreams", testSequentialStreams},
		{"StreamsAtOnce", testStreamsAtOnce},
		{"TooManyStreams", testTooManyStreams},
		{"Bulk", testBulk},
		{"HalfClose", testHalfClose},
		{"CloseRead", testCloseRead},
		{"CloseArrives", testCloseArrives},
		{"CloseWhileWriting", testCloseWhileWriting},
		{"WriteToClosed", testWriteToClosed},
		{"Reset", testReset},
		{"ResetWhileBlocked", testResetWhileBlocked},
		{"SlowReader", testSlowReader},
		{"SlowReaders", testSlowReaders},
		{"CreditReturns", testCreditReturns},
		{"AllAtOnce", testAllAtOnce},

		{"DeadlinePast", testDeadlinePast},
		{"DeadlineMoved", testDeadlineMoved},
		{"DeadlineOfWrites", testDeadlineOfWrites},

		{"CloseConnection", testCloseConnection},
		{"CloseWhileOpening", testCloseWhileOpening},
		{"Killed", testKilled},
		{"Stopped", testStopped},

		{"NothingKept", testNothingKept},

		{"Host", testHost},
		{"Datagrams", testDatagrams},
	} {
		if c.InProcess && (part.name == "Killed" || part.name == "Stopped") {
			continue
		}
		t.Run(part.name, func(t *testing.T) {
			nothingLeft(t)
			part.run(t, c)
		})
	}
}

func (c Case) withDefaults() Case {
	if c.Dial == nil {
		c.Dial = func(a multiaddr.Addr) multiaddr.Addr { return a }
	}
	if c.Bulk == 0 {
		c.Bulk = 64 << 20
		if testing.Short() || raceEnabled {
			c.Bulk = 8 << 20
		}
	}
	if c.Streams == 0 {
		c.Streams = 1000
	}
	if c.Conns == 0 {
		c.Conns = 100
	}
	if c.Unread == 0 {
		c.Unread = 8
	}
	return c
}

// nothingLeft fails the test if goroutines that it has started outlive it, and
// what was cleaned up after it.
func nothingLeft(t testing.TB) {
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		deadline := time.Now().Add(patience)
		look := time.NewTicker(2 * time.Millisecond)
		defer look.Stop()
		for runtime.NumGoroutine() > before {
			<-look.C
			if time.Now().After(deadline) {
				t.Errorf("%d goroutines are left, %d were there before:\n%s", runtime.NumGoroutine(), before, stacks())
				return
			}
		}
	})
}

// stacks is what all goroutines do.
func stacks() []byte {
	buf := make([]byte, 1<<20)
	return buf[:runtime.Stack(buf, true)]
}
