package host

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// What becomes of a spare connection, a letter a second: a dot for waiting, A for
// asking, E for the end. In the input: a dot for silence, u for in use, s for a
// stream that came and went.
func TestSpare(t *testing.T) {
	for _, c := range []struct {
		name     string
		s        spare
		in, want string
	}{
		{"the dialer asks after two seconds", spare{dialed: true}, "....", "..AA"},
		{"again after 1, 2 and 4", spare{dialed: true}, "..........", "..AA.A...A"},
		{"who accepted asks after ten", spare{}, "............", "..........AA"},
		{"in use", spare{dialed: true}, "uuu....", ".....AA"},
		{"used shortly", spare{dialed: true}, ".s....", "...AA."},
		{"told at once, though in use", spare{dialed: true, tell: true}, "uu.....", "A...AA."},
		{"a foreign one is left alone for a minute", spare{dialed: true, foreign: true}, strings.Repeat(".", 62), strings.Repeat(".", 60) + "EE"},
		{"unless it is used", spare{foreign: true}, "..." + "u" + strings.Repeat(".", 62), strings.Repeat(".", 64) + "EE"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, streams := "", uint32(3)
			for i, in := range c.in {
				if in != '.' {
					streams++
				}
				switch step := c.s.step(epoch.Add(time.Duration(i)*time.Second), in == 'u', streams, spareIdleForeign); step {
				case spareWait:
					got += "."
				case spareAsk:
					got += "A"
				case spareEnd:
					got += "E"
				default:
					t.Fatal(fmt.Sprint(step))
				}
			}
			if got != c.want {
				t.Errorf("%s\n%s, want\n%s", c.in, got, c.want)
			}
		})
	}
}
