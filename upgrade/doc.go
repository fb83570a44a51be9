// Package upgrade turns a plain connection into one that is authenticated and
// carries many streams: multistream-select agrees on a secure channel (Noise or
// TLS), the channel's handshake proves who is there and picks the muxer, and
// yamux opens streams. Transports that give a net.Conn (tcp, memory) use it.
//
// The dialer sends its first choice of secure channel together with the first
// message of the handshake, which saves a round trip. A remote that refuses the
// choice has by then read bytes it cannot understand, so the dial is repeated, the
// slow way, and the peer remembered.
//
// In a private network (Config.PSK) all of this happens under the pre-shared key of
// package pnet, with the same round trips: the nonce leaves with the proposal.
//
// Read in this order: upgrade.go, security.go, private.go.
//
// Specifications: https://github.com/libp2p/specs/blob/master/connections/README.md,
// https://github.com/libp2p/specs/blob/master/connections/inlined-muxer-negotiation.md.
//
// Not implemented: muxers other than yamux, and roles for a simultaneous open.
package upgrade
