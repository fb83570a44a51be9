package worker

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"time"
)

// A parallel load writes to several streams of one connection as fast as they
// take it. Other streams, which the server does not read, can stand full beside them.
type parallel struct {
	Load
	newNode maker
	conn    Conn
}

// fillTime is how long a stream that is not read gets to become full.
const fillTime = 200 * time.Millisecond

func (p *parallel) prepare(ctx context.Context) (err error) {
	if p.conn, err = connect(ctx, p.Load, p.newNode); err != nil {
		return err
	}
	for range p.Stalled {
		s, err := p.conn.Open(ctx, stallProtocol)
		if err != nil {
			return err
		}
		go send(s, 1<<40, chunk) // until the process ends
	}
	time.Sleep(fillTime)
	_, err = p.fill(ctx, p.Window/8)
	return err
}

func (p *parallel) run(ctx context.Context, _ int) (Result, error) { return p.fill(ctx, p.Window) }

func (p *parallel) fill(ctx context.Context, window time.Duration) (Result, error) {
	r := Result{Shares: make([]float64, p.Parallel)}
	errs := make(chan error)
	start := time.Now()
	for i := range p.Parallel {
		go func() {
			var err error
			r.Shares[i], err = p.fillOne(ctx, start.Add(window))
			errs <- err
		}()
	}
	var err error
	for range p.Parallel {
		if e := <-errs; e != nil {
			err = e
		}
	}
	r.Elapsed = time.Since(start)
	for _, n := range r.Shares {
		r.Work += n
	}
	return r, err
}

// fillOne writes until the deadline and returns when the server has read it all.
func (p *parallel) fillOne(ctx context.Context, deadline time.Time) (written float64, err error) {
	s, err := p.conn.Open(ctx, sinkProtocol)
	if err != nil {
		return 0, err
	}
	for time.Now().Before(deadline) {
		if _, err := s.Write(zeros[:]); err != nil {
			return 0, err
		}
		written += chunk
	}
	if err := s.CloseWrite(); err != nil {
		return 0, err
	}
	var count [8]byte
	if _, err := io.ReadFull(s, count[:]); err != nil {
		return 0, err
	}
	if got := binary.BigEndian.Uint64(count[:]); float64(got) != written {
		return 0, fmt.Errorf("%.0f bytes were sent and %d arrived", written, got)
	}
	return written, s.Close()
}
