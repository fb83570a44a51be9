// Package rpc calls procedures of other peers over streams: one request and one
// answer, or many of both.
//
//	var add = rpc.Method[Numbers, Sum]{Protocol: "/calc/add/1"}
//
//	add.Serve(h, func(ctx context.Context, from peer.ID, n Numbers) (Sum, error) {
//		return Sum{n.A + n.B}, nil
//	})
//	sum, err := add.Call(ctx, h, other, Numbers{1, 2})
//
// A call takes one round trip on a connection that stands. The time that is left to
// the caller's context goes with the call, and the handler's context ends when it
// has passed, and as soon as the caller gives up or is gone. Whatever a handler
// returns as [*Error] reaches the caller with its code and text; of other errors it
// learns nothing but [Internal].
//
// How values become bytes is the program's choice: see [Codec].
//
// The wire format is described in docs/rpc.md, for those who implement it elsewhere.
//
// Read in this order: method.go, stream.go, serve.go, wire.go, memory.go, errors.go.
//
// # Limits
//
// A message has at most [DefaultMaxMessage] bytes unless the method says otherwise; memory
// grows with the bytes that arrive. A peer has at most [DefaultCallsPerPeer] calls of a
// method in work, all peers [DefaultCalls]; more are refused with [ResourceExhausted]. The
// server holds two messages that its handler has not asked for. What messages and calls
// take is taken from the host's memory for streams ([host.Stream.Take]); when there is none
// left, both sides get errors of which [CodeOf] tells [ResourceExhausted]. Every wait ends:
// see Method.Timeout and Method.Idle.
package rpc
