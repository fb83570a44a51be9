// Package host is the kernel of Kith: a [Host] has an identity, connections with
// other peers, and handlers for the streams that they open. Whoever writes a
// protocol needs this package alone.
//
//	h.Handle("/echo/1", func(ctx context.Context, s *host.Stream) error {
//		_, err := io.Copy(s, s)
//		return err
//	})
//	s, err := h.NewStream(ctx, other, "/echo/1")
//
// Read in this order: host.go (the host and its inbound connections), dial.go
// with its pure parts rank.go, race.go and dialcore.go, and resolve.go (outbound
// ones), safe.go and gate.go (who may be dialed and connect), conn.go and stream.go
// (what connections carry), pairs.go with spare.go and migrate.go (which of several
// connections with a peer is used), tend.go with trim.go (which end when there are too
// many), refusals.go (what limits keep out), own.go with addrs.go (our addresses),
// network.go and roam.go (from one network to another), transport.go (what transports
// provide), events.go and hub.go, derive.go (all limits), budget.go (the memory for streams), limits.go, book.go with bookstore.go.
//
// # The life of a connection
//
//	inbound:  Accept → admit (limits, half-open room) → Upgrade (10 s in all) ┐
//	outbound: addresses → rank → race of Dials (names join it) ────────┴→ addConn → serve → removeConn
//
// Each connection has one goroutine, which reads it; each stream that a remote
// opens has one, which agrees on a protocol and runs the handler.
//
// # Limits
//
// Everything a remote can grow is bounded by [Limits], which follow from one number of
// bytes (derive.go). Streams and what they hold unread are taken from an [Account] of the
// connection before they are made, and who holds the most gives some back when there
// is too little for others (budget.go). What is begun and not
// finished (connections that are not authenticated, streams without a protocol)
// waits in a room that is shared fairly: when it is full, the address group or the
// peer that holds the most gives up a place. Of connections that are too many, the
// least useful ones end (trim.go), and a protected peer keeps its last.
// An address whose connections end again and again because they broke rules has to
// wait (offenders.go).
//
// # Not implemented
//
// To have addresses confirmed from outside (AutoNAT), mapped by routers and served by
// relays: SetMapped and SetRelayed take what others find out.
//
// Specifications: https://github.com/libp2p/specs/blob/master/connections/README.md,
// https://github.com/libp2p/specs/blob/master/error-codes/README.md.
package host
