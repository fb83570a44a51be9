// Package yamux carries many streams over one connection.
//
// It speaks /yamux/1.0.0 as libp2p deploys it:
// https://github.com/libp2p/specs/blob/master/yamux/README.md (r0, 2023-02-17),
// with the error codes in RST and GOAWAY frames that go-libp2p added.
//
// Read in this order: frame.go (what is on the wire), session.go (who runs
// what), recv.go (the read loop), send.go (how writers combine), stream.go,
// read.go, write.go, window.go (flow control), ping.go, limits.go.
//
// # Who runs what
//
// A session owns one goroutine, the caller of Serve. It reads records, parses
// frames and hands payload to streams; it never waits for a write. Whoever has
// something to send puts it in the session's queue; if nobody is writing at
// that moment it also takes the writing role and writes what everybody has
// queued, in as few Conn.Write calls as possible. There is no writer goroutine:
// when a role holder leaves work behind, a goroutine finishes it and is gone.
// An idle session or stream holds no buffer, and one timer (the keepalive).
//
// A record that is mostly payload of one stream is decrypted into a buffer that
// becomes part of the stream's queue. A Read that waits is woken when all records
// are handled that came with the same system call, or when one is for another stream.
//
// Before it writes little, the role holder yields to goroutines that are about
// to add to it: with many streams, many frames leave in one system call. When
// the connection takes less than there is, writers wait in line, which serves
// streams alike by bytes.
//
// Locks: Stream.mu, then Session.mu; neither is held during a Conn.Write.
//
// # A stream's life
//
//	          first frame we send (SYN)          the peer's SYN
//	unopened ───────────────────────────▶ open ◀───────────────
//	                                       │
//	 CloseWrite, Close: FIN sent ──────────┼─────── FIN received: Read ends in io.EOF
//	                                       ▼
//	              both ends finished, or RST sent or received
//	                                       │
//	                                       ▼
//	                                   forgotten
//
// Close ends both directions at once. Until the peer finishes too, what it
// still sends is discarded, and beyond 256 KiB answered with RST.
//
// # Limits
//
// All that a peer can make grow is bounded by Config (streams, windows, bytes
// waiting for readers) and by the constants in limits.go; every violation ends
// the session with GOAWAY and a SessionError that says what happened.
//
// # Not implemented
//
// Sending GOAWAY to drain a session: as in the other implementations of
// libp2p, GOAWAY ends the session at once.
package yamux
