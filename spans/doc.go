// Package spans makes OpenTelemetry spans of what a host does to connect: one for a
// dial, and below it one for each of its steps.
//
//	s := spans.Start(h, otel.GetTracerProvider())
//	defer s.Close()
//
//	libp2p.dial
//	├── libp2p.resolve              names to addresses
//	├── libp2p.rank                 which are tried, in which order
//	├── libp2p.dial.addr            one for each address that was tried
//	│   ├── libp2p.connect          the transport's own connection
//	│   ├── libp2p.secure           the peer proves who it is
//	│   └── libp2p.mux              streams can be opened
//	└── libp2p.identify             the peer says what it speaks
//
// A dial is shared by all who want the peer, so it belongs to nobody's request; with
// [Spans.Within] it becomes a part of the trace of those who wait for it.
//
// Read spans.go.
//
// # Limits
//
// Spans are made by one goroutine from a queue of 1024 dials and their steps. The host
// never waits for it, nor for an exporter: what there is no room for is left out.
//
// # Not implemented
//
// Spans for streams: packages above the host know what a stream is for. No context
// of a trace goes to the remote.
package spans
