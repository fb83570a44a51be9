// Package metrics gives the figures of a host to Prometheus, and to whatever else
// reads its format or OpenMetrics.
//
//	m := metrics.New(h)
//	defer m.Close()
//	http.Handle("/metrics", m.Handler())
//
// On the command line: kith node --metrics 127.0.0.1:9100. Dashboards for Grafana
// are in docs/grafana.
//
// Read metrics.go.
//
// # Limits
//
// The number of series is bounded whatever remotes do: labels are this program's own
// words, but for protocols and discoveries, of which the first 64 have a name and the
// others are "other". No label names a peer or an address.
//
// # Not implemented
//
// Bytes that streams carry: no event tells of them.
package metrics
