package worker

import (
	"context"
	"time"
)

// dialsOfNode is how often one node dials. Nodes answer a peer's questions only so
// often, in Kith twenty times and then once a second, so one that dialed for ever
// would soon measure refusals.
const dialsOfNode = 15

// A dial load connects to the server, again and again from many nodes, each with a
// key of its own. On each connection a byte goes there and back on a stream; then
// it is closed.
type dial struct {
	Load
	newNode maker
	dialers []dialer
}

// A dialer has its share of the nodes, and uses them in turn.
type dialer struct {
	nodes []Node
	dials int
	b     [1]byte
}

func (d *dial) prepare(ctx context.Context) error {
	nodes, err := gather(ctx, 2, d.Nodes, func(context.Context) (Node, error) { return d.newNode(d.Node) })
	if err != nil {
		return err
	}
	d.dialers = make([]dialer, d.Parallel)
	for i, node := range nodes {
		own := &d.dialers[i%d.Parallel]
		own.nodes = append(own.nodes, node)
	}
	_, err = d.repeat(ctx, d.Window/8)
	return err
}

// run ends early when the nodes have dialed enough.
func (d *dial) run(ctx context.Context, _ int) (Result, error) { return d.repeat(ctx, d.Window) }

func (d *dial) repeat(ctx context.Context, window time.Duration) (Result, error) {
	return repeat(ctx, d.Parallel, window, func(ctx context.Context, i int) error {
		own := &d.dialers[i]
		if own.dials == len(own.nodes)*dialsOfNode {
			return errEnough
		}
		node := own.nodes[own.dials%len(own.nodes)]
		own.dials++
		c, err := node.Connect(ctx, d.To)
		if err != nil {
			return err
		}
		if d.Identified {
			if err := c.Identified(ctx); err != nil {
				return err
			}
		}
		if err := echo(ctx, c, &own.b); err != nil {
			return err
		}
		return c.Close()
	})
}
