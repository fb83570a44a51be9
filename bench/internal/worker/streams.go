package worker

import (
	"context"
	"time"
)

// A streams load opens streams on one connection, one after the other in each of
// several goroutines; on each a byte goes there and back, and both ends are closed.
type streams struct {
	Load
	newNode maker
	conn    Conn
	bytes   [][1]byte // one for each goroutine
}

func (s *streams) prepare(ctx context.Context) (err error) {
	if s.conn, err = connect(ctx, s.Load, s.newNode); err != nil {
		return err
	}
	s.bytes = make([][1]byte, s.Parallel)
	_, err = s.repeat(ctx, s.Window/8)
	return err
}

func (s *streams) run(ctx context.Context, _ int) (Result, error) { return s.repeat(ctx, s.Window) }

func (s *streams) repeat(ctx context.Context, window time.Duration) (Result, error) {
	return repeat(ctx, s.Parallel, window, func(ctx context.Context, i int) error {
		return echo(ctx, s.conn, &s.bytes[i])
	})
}
