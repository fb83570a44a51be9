// Package ping measures the round trip to a peer, and answers those who do.
//
//	ping.Serve(h)
//	for rtt, err := range ping.Ping(ctx, h, other) {
//		…
//	}
//
// Specification: https://github.com/libp2p/specs/blob/master/ping/ping.md
// (r0, 2022-11-04): 32 random bytes go out, the same 32 bytes come back.
//
// Everything is in ping.go.
//
// # Limits
//
// A peer may have two streams open to the responder, and 1000 pings a second on
// each, with a burst of 5000; what comes faster waits. A stream on which nothing
// comes for 30 s is ended. A ping that is not answered within 10 s has failed.
//
// Others end a stream 10 s or 30 s after it was opened, so Ping opens a new one
// when the last is older than 5 s. That costs no round trip.
//
// # Not implemented
//
// The specification allows a peer one outbound stream at a time. Each call of Ping
// or Once keeps to that, several at the same time do not know of each other.
package ping
