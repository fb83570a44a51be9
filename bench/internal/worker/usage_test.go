package worker

import (
	"os"
	"testing"
)

func TestField(t *testing.T) {
	text := []byte("rchar: 12\nsyscr: 34\nsyscw: x\nRss:\t  56 kB\nsyscr")
	for _, c := range []struct {
		name string
		want uint64
		ok   bool
	}{{"rchar:", 12, true}, {"syscr:", 34, true}, {"Rss:", 56, true}, {"syscw:", 0, false}, {"wchar:", 0, false}} {
		got, err := field(text, c.name)
		if got != c.want || (err == nil) != c.ok {
			t.Errorf("%s gave %d, %v", c.name, got, err)
		}
	}
}

// What a window holds is what was done in it.
func TestUsage(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	before, err := begin()
	if err != nil {
		t.Fatal(err)
	}
	var keep [][]byte
	for range 1000 {
		null.Write([]byte{1})
		keep = append(keep, make([]byte, 1000))
	}
	after, err := end()
	if err != nil {
		t.Fatal(err)
	}
	u := after.sub(before)
	if u.Writes < 1000 || u.Writes > 1020 || u.Reads > 20 {
		t.Errorf("1000 writes were counted as %d writes and %d reads", u.Writes, u.Reads)
	}
	if u.Mallocs < uint64(len(keep)) || u.Mallocs > 2500 || u.AllocBytes < 1000*1000 {
		t.Errorf("%d allocations were counted as %d, %d bytes", len(keep), u.Mallocs, u.AllocBytes)
	}
}
