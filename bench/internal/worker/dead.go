package worker

import (
	"context"
	"slices"
	"time"
)

// aloneDials is how often the live address is dialed alone.
const aloneDials = 25

// A dead load dials a peer most of whose addresses swallow what is sent to them. Each
// dial but those of the live address alone is done once for every place that the live
// one can have among the others, in the list as in the order of the numbers. The moments are times to a connection with a peer
// that has told who it is: the median at the live address alone; the median and the
// longest from new nodes; and the median and the longest from a node that has dialed the peer before.
type dead struct {
	Load
	newNode maker
}

func (d *dead) prepare(ctx context.Context) error {
	_, err := d.times(aloneDials/5, d.fresh(ctx, func(int) []string { return d.Live[:1] }))
	return err
}

func (d *dead) run(ctx context.Context, _ int) (r Result, err error) {
	known, err := d.newNode(d.Node)
	if err != nil {
		return r, err
	}
	// It stays with one address, wherever that is in the list.
	same := func(i int) []string { return slices.Insert(slices.Clone(d.Dead), i, d.Live[len(d.Live)/2]) }
	if _, err := d.dial(ctx, known, same(0)); err != nil {
		return r, err
	}
	start := time.Now()
	alone, err := d.times(aloneDials, d.fresh(ctx, func(int) []string { return d.Live[:1] }))
	if err != nil {
		return r, err
	}
	places := len(d.Dead) + 1
	cold, err := d.times(places, d.fresh(ctx, d.all))
	if err != nil {
		return r, err
	}
	again, err := d.times(places, func(i int) (time.Duration, error) { return d.dial(ctx, known, same(i)) })
	if err != nil {
		return r, err
	}
	last := places - 1
	r.Moments = []time.Duration{alone[aloneDials/2], cold[places/2], cold[last], again[places/2], again[last]}
	r.Work = aloneDials + 2*float64(places)
	r.Elapsed = time.Since(start)
	return r, nil
}

// all are the dead addresses, with a live one at place i.
func (d *dead) all(i int) []string { return slices.Insert(slices.Clone(d.Dead), i, d.Live[i]) }

// times tells how long n dials took, in order.
func (d *dead) times(n int, dial func(i int) (time.Duration, error)) ([]time.Duration, error) {
	all := make([]time.Duration, n)
	for i := range all {
		var err error
		if all[i], err = dial(i); err != nil {
			return nil, err
		}
	}
	slices.Sort(all)
	return all, nil
}

// fresh dials from a new node each time.
func (d *dead) fresh(ctx context.Context, addrs func(i int) []string) func(i int) (time.Duration, error) {
	return func(i int) (time.Duration, error) {
		node, err := d.newNode(d.Node)
		if err != nil {
			return 0, err
		}
		return d.dial(ctx, node, addrs(i))
	}
}

func (d *dead) dial(ctx context.Context, node Node, addrs []string) (time.Duration, error) {
	start := time.Now()
	c, err := node.Connect(ctx, addrs...)
	if err != nil {
		return 0, err
	}
	if err := c.Identified(ctx); err != nil {
		return 0, err
	}
	took := time.Since(start)
	return took, c.Close()
}
