// Package multistream agrees on one protocol: multistream-select 1.0.0, which
// libp2p speaks on a raw connection (for its security protocol), on a secured
// one (for its muxer) and at the start of every stream.
//
// Specification:
// https://github.com/libp2p/specs/blob/master/connections/README.md#multistream-select
// (r1, 2022-12-07). A message is its length with the newline as an unsigned
// varint, the text, and a newline. Both sides begin with the header
// "/multistream/1.0.0"; the initiator proposes a protocol; the responder echoes
// it to accept, or answers "na".
//
// Read in this order: multistream.go (both roles), exchange.go (reading one
// message, errors).
//
// # Who sends what, when
//
//	initiator                            responder
//	header, proposal  ───────────────▶   Accept, Respond
//	Select            ◀───────────────   header, echo or na
//	next proposal     ───────────────▶
//	                  ◀───────────────   echo or na, …
//
// Nothing is read beyond the messages of the negotiation, so what follows them
// on the connection is left for the protocol agreed on, and no buffer has to be
// handed over. It costs two Reads a message, and one where only one answer can
// follow (see exchange.token).
//
// A negotiation of one round trip costs its users none: the initiator sends
// AppendProposal together with its first data and calls ReadAnswer when it
// first reads; the responder calls Accept, and sends AppendAccept together with
// its first data.
//
// The responder answers with header and echo in one Write, unless the proposal
// did not arrive with the initiator's header: then the initiator may be one
// that waits for our header before it proposes, and it gets it at once. An
// initiator that sends nothing at all before it has our header gets none.
//
// # Limits
//
// A message has at most MaxTokenLen bytes; a negotiation at most 64 proposals
// and 4 KiB in each direction. Deadlines are the caller's: every function here
// returns when the connection's Read or Write does.
//
// # Defined where the specification is silent
//
//   - A proposal that does not begin with "/", that holds a newline, or that is
//     the header again is answered "na" without asking the caller. So is "ls",
//     which deployed implementations answer in three different ways.
//   - A header in place of an answer is a protocol error.
//   - A length of zero, a length that is not in its shortest form, a message
//     over the limit or without its newline ends the negotiation with an error.
//
// Not implemented: "ls", the simultaneous open extension (deprecated), and
// multistream-select 2 (never deployed).
package multistream
