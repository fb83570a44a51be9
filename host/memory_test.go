package host

import (
	"math"
	"testing"
)

// Numbers that an int cannot hold are the largest: GOARCH=386 go test ./host -run 'ByteCount|Marks' tries it with small ints.
func TestByteCount(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "7": 7 << 10, "max": 0, "": 0, "-1": 0,
		"16384000":             16384000 << 10, // 16 GiB, as of a machine of 32 bits with PAE
		"9223372036854771712":  math.MaxInt64,  // no limit, in control groups of version 1
		"99999999999999999999": math.MaxInt64,
	} {
		if got := byteCount(text, 1<<10); int64(got) != min(want, math.MaxInt) {
			t.Errorf("%s KiB are %d bytes", text, got)
		}
	}
}

func TestMarksNearTheLargestInt(t *testing.T) {
	for _, c := range []struct {
		conns, high int
		ok          bool
	}{
		{math.MaxInt, math.MaxInt / 6 * 5, true},
		{math.MaxInt, math.MaxInt - 1, false},
		{math.MaxInt / 2, math.MaxInt / 2, false},
		{math.MaxInt, math.MaxInt, true}, // no watermarks
	} {
		l := Limits{Memory: mib, Conns: c.conns, HighWater: c.high, LowWater: 1}
		if err := l.check(); (err == nil) != c.ok {
			t.Errorf("%d connections with a high watermark of %d: %v", c.conns, c.high, err)
		}
	}
	// What follows from all the memory that an int can count is not negative.
	for _, machine := range []int{0, 1 << 20, 1 << 30, math.MaxInt} {
		for _, memory := range []int{0, 1 << 20, math.MaxInt - 1, -1} {
			for _, row := range (Limits{Memory: memory}).Rows(machine) {
				if row.Value < -1 {
					t.Errorf("with %d of %d bytes %s is %d", memory, machine, row.Name, row.Value)
				}
			}
			if err := (Limits{Memory: memory}).Resolve(machine).check(); err != nil {
				t.Error(err)
			}
		}
	}
}
