// Package quic carries connections over QUIC: addresses of the form
// /ip4/…/udp/…/quic-v1 and /ip6/…/udp/…/quic-v1. Streams, encryption and the proof of
// who is who are QUIC's own; connections carry datagrams, too.
//
// An Endpoint has the sockets and the connections, Transport is libp2p's use of it;
// WebTransport is another. One UDP socket serves for listening and dialing and for all
// application protocols, which are told apart by the name that clients give (ALPN);
// what is not QUIC on it is package udp's business.
//
// When the machine's address changes, connections that were dialed move to the new
// one with their streams: see Transport.AddrsChanged. Those that were accepted follow
// when their dialer moves. Between two endpoints of this package that works between IPv4
// and IPv6, too.
//
// A connection costs three goroutines: one of the host, which waits for streams, and
// two of quic-go.
//
// Read in this order: quic.go (the transport), conn.go (connections and streams),
// errors.go, endpoint.go (listening, dialing, moving), family.go (between IPv4 and IPv6),
// gate.go (what strangers can begin).
//
// Specification: https://github.com/libp2p/specs/blob/master/quic/README.md, RFC 9000,
// RFC 9221 (datagrams).
//
// Limits: see docs/limits.md. quic-go writes one line to package log when the kernel
// does not give a socket 7 MiB of room; the environment variable
// QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING=true, and on Linux net.core.rmem_max and
// net.core.wmem_max, change that.
//
// Not implemented: hole punching; QUIC draft-29 (/quic), which libp2p has given up; moving to
// the address that a remote prefers; more than two moves of a connection whose remote
// runs quic-go, which has connection IDs for no more.
package quic
