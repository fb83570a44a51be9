package main

import (
	"slices"
	"strings"
	"testing"
)

func TestNumber(t *testing.T) {
	for _, c := range []struct {
		v    float64
		want string
	}{
		{0, "0.00"}, {0.1834, "0.183"}, {0.9996, "1.00"}, {1.005, "1.00"}, {9.996, "10.0"}, {12.34, "12.3"}, {99.96, "100"},
		{805.4, "805"}, {999.6, "1,000"}, {37_904, "37,904"}, {1_234_567.8, "1,234,568"}, {-0.5, "-0.500"}, {-1234, "-1,234"},
	} {
		if got := number(c.v); got != c.want {
			t.Errorf("%v is written %s, want %s", c.v, got, c.want)
		}
	}
}

func TestGoals(t *testing.T) {
	at := func(v float64) spread { return spread{v, v, v, 1} }
	for _, c := range []struct {
		goal        goal
		text        string
		kith, ratio float64
		want        bool
	}{
		{ratioAtMost(0.65), "≤ 0.65 ×", 9, 0.65, true},
		{ratioAtMost(0.65), "≤ 0.65 ×", 0.1, 0.66, false},
		{ratioAtLeast(2), "≥ 2 ×", 1, 2.1, true},
		{ratioAtLeast(1.35), "≥ 1.35 ×", 9, 1.3, false},
		{atMost(1.1), "≤ 1.1", 1.1, 9, true},
		{atMost(13_000), "≤ 13000", 13_001, 0.1, false},
		{atLeast(0.9), "≥ 0.9", 0.95, 0.1, true},
	} {
		if got := c.goal.String(); got != c.text {
			t.Errorf("the goal reads %s, want %s", got, c.text)
		}
		if got := c.goal.reached(at(c.kith), at(c.ratio)); got != c.want {
			t.Errorf("%s is reached with %v, ratio %v: %v", c.text, c.kith, c.ratio, got)
		}
	}
}

// A goal that names what nothing measures would never be seen.
func TestGoalsNameExperiments(t *testing.T) {
	var names []string
	for _, e := range experiments() {
		if slices.Contains(names, e.name) {
			t.Errorf("two experiments are called %s", e.name)
		}
		names = append(names, e.name)
	}
	for _, l := range goals {
		if !slices.Contains(names, l.experiment) {
			t.Errorf("%q is of %s, which is no experiment", l.label, l.experiment)
		}
	}
}

func TestTable(t *testing.T) {
	var runs []run
	for pair, v := range []float64{20, 30, 10} {
		runs = append(runs,
			run{Experiment: "streams-64", Impl: kith, Pair: pair, Figures: figures{{"per second", 3 * v}, {"allocations, client", 16}}},
			run{Experiment: "streams-64", Impl: golibp2p, Pair: pair, Figures: figures{{"per second", v}, {"allocations, client", 57}}})
	}
	rows, missed := goalTable(collect(runs))
	want := [][]string{
		{"", "go-libp2p", "Kith", "ratio", "goal", "reached"},
		{"streams, 64 at once: per second", "20.0 [10.0–30.0]", "60.0 [30.0–90.0]", "3.00 [3.00–3.00]", "≥ 2 ×", "yes"},
		{"allocations per stream, client", "57.0 [57.0–57.0]", "16.0 [16.0–16.0]", "0.281 [0.281–0.281]", "≤ 15", "**no**"},
	}
	if !slices.EqualFunc(rows, want, slices.Equal) || missed != 1 {
		t.Errorf("got %q, %d missed", rows, missed)
	}
	text := markdown(rows)
	var widths []int
	for l := range strings.Lines(text) {
		widths = append(widths, len([]rune(l)))
	}
	if len(slices.Compact(widths)) != 1 {
		t.Errorf("the columns are not aligned:\n%s", text)
	}
}
