package worker

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestHistogramBuckets(t *testing.T) {
	last := 0
	for _, d := range []time.Duration{0, 1, 127, 128, 255, 256, 257, 511, 512, 1000, 183_000, 1e6, 1e9, 60e9} {
		b := bucketOf(d)
		if b < last {
			t.Errorf("%v is in bucket %d, after bucket %d", d, b, last)
		}
		last = b
		if got := middle(b); got < d-d/128-1 || got > d+d/128+1 {
			t.Errorf("%v is counted as %v", d, got)
		}
	}
	for _, d := range []time.Duration{-1, 1 << 60} {
		new(histogram).add(d) // within the array
	}
}

func TestHistogramQuantile(t *testing.T) {
	var h histogram
	if got := h.quantile(0.5); got != 0 {
		t.Errorf("the median of nothing is %v", got)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	var all []time.Duration
	for range 10_001 {
		d := time.Duration(rng.ExpFloat64() * float64(time.Millisecond))
		all = append(all, d)
		h.add(d)
	}
	slices.Sort(all)
	if h.count() != 10_001 {
		t.Errorf("counted %d", h.count())
	}
	for _, q := range []float64{0.01, 0.5, 0.99, 1} {
		want := all[int(q*10_000)]
		if got := h.quantile(q); got < want-want/64 || got > want+want/64 {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
}
