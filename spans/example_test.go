package spans_test

import (
	"context"

	sdk "go.opentelemetry.io/otel/sdk/trace"

	"github.com/kith-p2p/kith"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/spans"
)

// The provider is yours, with the exporter of your choice.
func ExampleStart() {
	n, err := kith.Start(context.Background(), kith.Config{})
	if err != nil {
		panic(err)
	}
	defer n.Close()
	s := spans.Start(n.Host, sdk.NewTracerProvider())
	defer s.Close()
}

// A dial becomes a part of the trace of the request that needs it.
func ExampleSpans_Within() {
	var (
		n      *kith.Node
		s      *spans.Spans
		friend peer.ID
	)
	request := func(ctx context.Context) error {
		defer s.Within(ctx, friend)()
		stream, err := n.NewStream(ctx, friend, "/my/1")
		if err != nil {
			return err
		}
		return stream.Close()
	}
	_ = request
}
