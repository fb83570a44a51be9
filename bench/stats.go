package main

import (
	"math"
	"slices"
)

// A spread is the median of several values, with the least and the greatest.
type spread struct {
	Median, Min, Max float64
	N                int
}

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{Median: math.NaN(), Min: math.NaN(), Max: math.NaN()}
	}
	sorted := slices.Sorted(slices.Values(values))
	mid := len(sorted) / 2
	median := sorted[mid]
	if len(sorted)%2 == 0 {
		median = (sorted[mid-1] + sorted[mid]) / 2
	}
	return spread{median, sorted[0], sorted[len(sorted)-1], len(sorted)}
}

// ratiosOf divides pair by pair: what drifted between pairs cancels out. A pair of
// which one half is missing is left out.
func ratiosOf(a, b map[int]float64) spread {
	var ratios []float64
	for pair, v := range a {
		if w, ok := b[pair]; ok && w != 0 {
			ratios = append(ratios, v/w)
		}
	}
	return spreadOf(ratios)
}
