package unified

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// summary is what the perf contract reports of a series of measurements.
type summary struct {
	samples        []float64 // sorted
	min, max       float64   // of the samples that are no outliers
	q1, median, q3 float64
	outliers       []float64
	unit           string
	decimals       int // of each value that is printed
}

// summarize computes a summary of at least one sample.
func summarize(samples []float64, unit string, decimals int) summary {
	s := summary{samples: slices.Sorted(slices.Values(samples)), unit: unit, decimals: decimals}
	s.q1, s.median, s.q3 = quantile(s.samples, 0.25), quantile(s.samples, 0.5), quantile(s.samples, 0.75)
	fence := 1.5 * (s.q3 - s.q1)
	// At least the samples next to the median are inside the fences, so inside is never empty.
	var inside []float64
	for _, v := range s.samples {
		if v < s.q1-fence || v > s.q3+fence {
			s.outliers = append(s.outliers, v)
		} else {
			inside = append(inside, v)
		}
	}
	s.min, s.max = inside[0], inside[len(inside)-1]
	return s
}

// quantile interpolates linearly at index p*(n-1) of the sorted samples.
func quantile(sorted []float64, p float64) float64 {
	at := p * float64(len(sorted)-1)
	below := int(at)
	if below+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[below] + (at-float64(below))*(sorted[below+1]-sorted[below])
}

// print writes the section that the suite's runner picks out by its line beginnings.
func (s summary) print(w io.Writer, section string) error {
	value := func(v float64) string { return fmt.Sprintf("%.*f", s.decimals, v) }
	list := func(values []float64) string {
		var texts []string
		for _, v := range values {
			texts = append(texts, value(v))
		}
		return "[" + strings.Join(texts, ", ") + "]"
	}
	_, err := fmt.Fprintf(w, "%s:\n  iterations: %d\n  min: %s\n  q1: %s\n  median: %s\n  q3: %s\n  max: %s\n  outliers: %s\n  samples: %s\n  unit: %s\n",
		section, len(s.samples), value(s.min), value(s.q1), value(s.median), value(s.q3), value(s.max),
		list(s.outliers), list(s.samples), s.unit)
	return err
}
