package host_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/testkit"
	"github.com/kith-p2p/kith/memory"
)

// Memory for connections has watermarks below it as their number has.
func TestMemoryMarks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(memory.Network)
		const each = 14 << 10 // what one is reckoned with
		b := testkit.Host(t, network, host.Config{Limits: host.Limits{ConnMemory: 12 * each, Grace: -1}})
		for range 9 {
			testkit.Connect(t, testkit.Host(t, network, host.Config{}), b)
		}
		time.Sleep(time.Minute)
		if n := len(b.Conns()); n != 9 {
			t.Fatalf("%d connections at the high watermark of 9", n)
		}
		testkit.Connect(t, testkit.Host(t, network, host.Config{}), b)
		time.Sleep(time.Minute)
		if n := len(b.Conns()); n != 8 {
			t.Errorf("%d connections after the high watermark, want 8, the low one", n)
		}
	})
}
