// Package perf measures how fast bytes go to a peer and come back.
//
//	result, err := perf.Run(ctx, h, other, perf.Config{Upload: 1 << 30})
//
// Specification: https://github.com/libp2p/specs/blob/master/perf/perf.md
// (r0, 2022-11-16, a working draft). The client says how many bytes it wants, as
// eight bytes, then uploads as many as it likes and ends its side; the server
// then sends what was asked for and ends its own. All bytes are zero.
//
// A server works hard for whoever asks. The specification advises against serving
// on nodes that strangers can reach, so a program decides on it with [Serve].
//
// Read in this order: perf.go (the client), server.go.
//
// # Limits
//
// A server serves 64 streams at a time and 16 of one peer. Both sides give up when
// nothing moves for 30 s. The numbers are not limited, nor is the time.
//
// # Not implemented
//
// Several streams at once for one measurement: call Run several times. The
// handshakes per second of the specification's second benchmark.
package perf
