package worker

import (
	"context"
	"time"
)

// A dial load connects to the server, again and again from several nodes, each
// with a key of its own. On each connection a byte goes there and back on a
// stream; then it is closed.
type dial struct {
	Load
	newNode maker
	nodes   []Node
	bytes   [][1]byte
}

func (d *dial) prepare(ctx context.Context) error {
	d.bytes = make([][1]byte, d.Parallel)
	for range d.Parallel {
		node, err := d.newNode(d.Node)
		if err != nil {
			return err
		}
		d.nodes = append(d.nodes, node)
	}
	_, err := d.repeat(ctx, d.Window/8)
	return err
}

func (d *dial) run(ctx context.Context, _ int) (Result, error) { return d.repeat(ctx, d.Window) }

func (d *dial) repeat(ctx context.Context, window time.Duration) (Result, error) {
	return repeat(ctx, d.Parallel, window, func(ctx context.Context, i int) error {
		c, err := d.nodes[i].Connect(ctx, d.To)
		if err != nil {
			return err
		}
		if d.Identified {
			if err := c.Identified(ctx); err != nil {
				return err
			}
		}
		if err := echo(ctx, c, &d.bytes[i]); err != nil {
			return err
		}
		return c.Close()
	})
}
