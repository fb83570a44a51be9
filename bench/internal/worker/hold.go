package worker

import (
	"context"
	"errors"
	"time"
)

// A hold load opens streams on one connection, on each of which a byte has gone
// there and back, and keeps them open. Each run adds some, or with Patience as many of
// them as the server allows.
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
		if h.Patience > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, h.Patience)
			defer cancel()
		}
		return ask(ctx, h.conn, new([1]byte))
	})
	h.streams = append(h.streams, streams...)
	if h.Patience > 0 && errors.Is(err, context.DeadlineExceeded) {
		err = nil
	}
	return Result{Work: float64(len(streams)), Elapsed: time.Since(start)}, err
}
