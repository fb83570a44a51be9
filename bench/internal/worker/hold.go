package worker

import (
	"context"
	"time"
)

// A hold load opens streams on one connection, on each of which a byte has gone
// there and back, and keeps them open. Each run adds some.
type hold struct {
	Load
	newNode maker
	conn    Conn
	streams []Stream
}

func (h *hold) prepare(ctx context.Context) (err error) {
	h.conn, err = connect(ctx, h.Load, h.newNode)
	return err
}

func (h *hold) run(ctx context.Context, count int) (Result, error) {
	start := time.Now()
	streams, err := gather(ctx, h.Parallel, count, func(ctx context.Context) (Stream, error) {
		return ask(ctx, h.conn, new([1]byte))
	})
	h.streams = append(h.streams, streams...)
	return Result{Work: float64(len(streams)), Elapsed: time.Since(start)}, err
}
