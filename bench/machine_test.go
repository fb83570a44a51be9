package main

import (
	"testing"
	"time"
)

func TestParseBusy(t *testing.T) {
	got, err := parseBusy("cpu  100 20 30 99999 8888 4 5 6 0 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n")
	if want := 1650 * time.Millisecond; got != want || err != nil {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	for _, bad := range []string{"", "cpu 1 2 3", "cpu0 1 2 3 4 5 6 7 8", "cpu 1 2 3 4 5 6 7 x"} {
		if _, err := parseBusy(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}
