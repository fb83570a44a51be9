package worker

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"
)

// warmup is how many bytes go before a window, so that windows of flow control
// have grown and the rate is known.
const warmup = 64 << 20

// A bulk load moves bytes on one stream in one direction, by libp2p's perf
// protocol. It moves a fixed number, to end as the protocol does: as many as
// the window has room for at the rate of the warm-up.
type bulk struct {
	Load
	newNode maker
	conn    Conn
	bytes   uint64
}

func (b *bulk) prepare(ctx context.Context) (err error) {
	if b.Chunk == 0 {
		b.Chunk = chunk
	}
	if b.conn, err = connect(ctx, b.Load, b.newNode); err != nil {
		return err
	}
	if err := b.transfer(ctx, warmup); err != nil {
		return err
	}
	start := time.Now()
	if err := b.transfer(ctx, warmup); err != nil {
		return err
	}
	b.bytes = uint64(warmup * b.Window.Seconds() / time.Since(start).Seconds())
	b.bytes -= b.bytes % uint64(b.Chunk)
	return nil
}

func (b *bulk) run(ctx context.Context, _ int) (Result, error) {
	start := time.Now()
	err := b.transfer(ctx, b.bytes)
	return Result{Work: float64(b.bytes), Elapsed: time.Since(start)}, err
}

func (b *bulk) transfer(ctx context.Context, n uint64) error {
	up, down := n, uint64(0)
	if b.Download {
		up, down = down, up
	}
	s, err := b.conn.Open(ctx, perfProtocol)
	if err != nil {
		return err
	}
	if _, err := s.Write(binary.BigEndian.AppendUint64(nil, down)); err != nil {
		return err
	}
	if err := send(s, up, b.Chunk); err != nil {
		return err
	}
	if err := s.CloseWrite(); err != nil {
		return err
	}
	got, err := discard(s)
	if err == nil && got != down {
		err = fmt.Errorf("the server sent %d bytes instead of %d", got, down)
	}
	if err != nil {
		return err
	}
	return s.Close()
}
