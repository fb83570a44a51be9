package worker

import (
	"context"
	"time"
)

// A first load connects once, from a node that has never done so, and notes the
// moments of the first answers.
type first struct {
	Load
	newNode maker
	node    Node
}

func (f *first) prepare(context.Context) (err error) {
	f.node, err = f.newNode(f.Node)
	return err
}

func (f *first) run(ctx context.Context, _ int) (r Result, err error) {
	last := time.Now()
	note := func() {
		now := time.Now()
		r.Moments = append(r.Moments, now.Sub(last))
		r.Elapsed += now.Sub(last)
		last = now
	}
	c, err := f.node.Connect(ctx, f.To)
	if err != nil {
		return r, err
	}
	note()
	for range 2 {
		if _, err := ask(ctx, c, new([1]byte)); err != nil {
			return r, err
		}
		note()
	}
	r.Work = 1
	return r, nil
}
