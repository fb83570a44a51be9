package unified

import (
	"strings"
	"testing"
)

func TestSummary(t *testing.T) {
	for _, test := range []struct {
		name     string
		samples  []float64
		unit     string
		decimals int
		want     string
	}{
		{
			// quantiles fall between samples: index 0.25*3 = 0.75, 1.5, 2.25
			"interpolated", []float64{4, 1, 3, 2}, "Gbps", 2,
			"x:\n  iterations: 4\n  min: 1.00\n  q1: 1.75\n  median: 2.50\n  q3: 3.25\n  max: 4.00\n  outliers: []\n  samples: [1.00, 2.00, 3.00, 4.00]\n  unit: Gbps\n",
		},
		{
			// q1 = 10, q3 = 12: the fences are at 7 and 15, and 15 itself is inside
			"outliers on both sides", []float64{10, 15, 11, 6.9, 12, 10, 11, 12, 15.1}, "ms", 3,
			"x:\n  iterations: 9\n  min: 10.000\n  q1: 10.000\n  median: 11.000\n  q3: 12.000\n  max: 15.000\n  outliers: [6.900, 15.100]\n" +
				"  samples: [6.900, 10.000, 10.000, 11.000, 11.000, 12.000, 12.000, 15.000, 15.100]\n  unit: ms\n",
		},
		{
			"one sample", []float64{0.5}, "ms", 3,
			"x:\n  iterations: 1\n  min: 0.500\n  q1: 0.500\n  median: 0.500\n  q3: 0.500\n  max: 0.500\n  outliers: []\n  samples: [0.500]\n  unit: ms\n",
		},
		{
			"equal samples", []float64{2, 2, 2}, "Gbps", 2,
			"x:\n  iterations: 3\n  min: 2.00\n  q1: 2.00\n  median: 2.00\n  q3: 2.00\n  max: 2.00\n  outliers: []\n  samples: [2.00, 2.00, 2.00]\n  unit: Gbps\n",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got strings.Builder
			if err := summarize(test.samples, test.unit, test.decimals).print(&got, "x"); err != nil {
				t.Fatal(err)
			}
			if got.String() != test.want {
				t.Errorf("got\n%s\nwant\n%s", got.String(), test.want)
			}
		})
	}
}
