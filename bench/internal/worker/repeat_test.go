package worker

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

// What is counted is what was done, and an error or enough ends it.
func TestRepeat(t *testing.T) {
	for _, end := range []error{errEnough, errors.New("broken")} {
		var calls atomic.Int64
		r, err := repeat(t.Context(), 4, time.Hour, func(context.Context, int) error {
			if calls.Add(1) > 1000 {
				return end
			}
			return nil
		})
		if end == errEnough && err != nil || end != errEnough && err != end {
			t.Errorf("ended with %v, want %v", err, end)
		}
		if r.Work != 1000 || r.Elapsed <= 0 {
			t.Errorf("%v operations in %v, want 1000", r.Work, r.Elapsed)
		}
	}
	r, err := repeat(t.Context(), 1, time.Nanosecond, func(context.Context, int) error { return nil })
	if r.Work < 1 || err != nil {
		t.Errorf("a short window: %v operations, %v", r.Work, err)
	}
}

func TestGather(t *testing.T) {
	var next atomic.Int64
	get := func(context.Context) (int64, error) { return next.Add(1), nil }
	all, err := gather(t.Context(), 3, 100, get)
	slices.Sort(all)
	if len(all) != 100 || all[0] != 1 || all[99] != 100 || err != nil {
		t.Errorf("got %v, %v", all, err)
	}
	broken := errors.New("broken")
	all, err = gather(t.Context(), 3, 100, func(ctx context.Context) (int64, error) {
		if v, _ := get(ctx); v <= 150 {
			return v, nil
		}
		return 0, broken
	})
	if err != broken || len(all) > 50 {
		t.Errorf("got %d, %v, want %v", len(all), err, broken)
	}
}
