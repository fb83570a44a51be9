package main

import (
	"math"
	"testing"
)

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   spread
	}{
		{[]float64{3}, spread{3, 3, 3, 1}},
		{[]float64{5, 1, 3}, spread{3, 1, 5, 3}},
		{[]float64{4, 1, 3, 2}, spread{2.5, 1, 4, 4}},
	} {
		if got := spreadOf(c.values); got != c.want {
			t.Errorf("%v gave %+v, want %+v", c.values, got, c.want)
		}
	}
	if got := spreadOf(nil); !math.IsNaN(got.Median) || got.N != 0 {
		t.Errorf("nothing gave %+v", got)
	}
}

// The ratio is that of the pairs, not of the medians.
func TestRatios(t *testing.T) {
	kith := map[int]float64{0: 10, 1: 40, 2: 90, 3: 5}
	other := map[int]float64{0: 10, 1: 20, 2: 30, 4: 7, 3: 0}
	if got, want := ratiosOf(kith, other), (spread{2, 1, 3, 3}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
