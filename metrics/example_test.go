package metrics_test

import (
	"context"
	"net/http"

	"github.com/kith-p2p/kith"
	"github.com/kith-p2p/kith/metrics"
)

func ExampleNew() {
	n, err := kith.Start(context.Background(), kith.Config{})
	if err != nil {
		panic(err)
	}
	defer n.Close()
	m := metrics.New(n.Host)
	defer m.Close()
	http.Handle("/metrics", m.Handler())
}
