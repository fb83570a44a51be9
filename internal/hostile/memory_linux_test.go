package hostile

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

var memory = flag.String("hostile.memory", "64", "the budgets of TestMemoryUnderAttack, in MiB, such as 32,64,128,512")

// TestMemoryUnderAttack does what takes the most memory to a host in a process of its
// own, and looks at the most that the process has had.
func TestMemoryUnderAttack(t *testing.T) {
	if !*full {
		t.Log("-hostile.full measures")
		return
	}
	if os.Getenv(networkEnv) == "" {
		inNetwork(t)
		return
	}
	openNetwork(t)
	const span = 3 * time.Second
	hungry := []string{"16 peers do not read 8 streams each", "20 peers, streams that are never negotiated", "a hello from 64 addresses, and 200 more a second"}
	for _, a := range onslaughts() {
		if !slices.Contains(hungry, a.name) {
			continue
		}
		for _, over := range []string{"tcp", "quic"} {
			for _, budget := range strings.Split(*memory, ",") {
				t.Run(fmt.Sprintf("%s/%s/%s MiB", a.name, over, budget), func(t *testing.T) {
					var mib int
					_, err := fmt.Sscan(budget, &mib)
					check(t, err)
					f := startFar(t, over, mib, false)
					calm := f.resident()
					o := a.order
					o.Over = over
					g := hireFor(t, f, o)
					g.begin()
					begun := g.report("begun")
					var ts times
					for end := time.Now().Add(span); len(ts.ok)+len(ts.failed) < 3 || time.Now().Before(end); {
						ctx, cancel := context.WithTimeout(t.Context(), patience)
						ts.add(visitor(over).visit(ctx, f))
						cancel()
					}
					most := f.resident()
					t.Logf("%s over %s, budget %d MiB: %.0f MiB at most, %.0f before; attackers %s; honest: %v", a.name, over, mib, most, calm, begun, ts)
					if limit := 1.25*float64(mib) + 32; most > limit {
						t.Errorf("the process had %.0f MiB, want at most %.0f", most, limit)
					}
					ts.served(t, 0.99)
				})
			}
		}
	}
}
