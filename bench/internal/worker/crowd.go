package worker

import (
	"context"
	"time"
)

// A crowd is many nodes in one process that connect to the server and stay
// connected. Each run adds some.
type crowd struct {
	Load
	newNode maker
	conns   []Conn
}

func (c *crowd) prepare(context.Context) error { return nil }

func (c *crowd) run(ctx context.Context, count int) (Result, error) {
	start := time.Now()
	conns, err := gather(ctx, c.Parallel, count, func(ctx context.Context) (Conn, error) {
		return connect(ctx, c.Load, c.newNode)
	})
	c.conns = append(c.conns, conns...)
	return Result{Work: float64(len(conns)), Elapsed: time.Since(start)}, err
}

// gather calls get count times, from n goroutines, until one fails.
func gather[T any](ctx context.Context, n, count int, get func(ctx context.Context) (T, error)) (all []T, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	work, got := make(chan struct{}), make(chan T)
	for range n {
		go func() {
			for range work {
				v, err := get(ctx)
				if err != nil {
					cancel(err)
					return
				}
				got <- v
			}
		}()
	}
	defer close(work)
	for sent := 0; len(all) < count; {
		next := work
		if sent == count {
			next = nil
		}
		select {
		case next <- struct{}{}:
			sent++
		case v := <-got:
			all = append(all, v)
		case <-ctx.Done():
			return all, context.Cause(ctx)
		}
	}
	return all, nil
}
