// Package webtransport carries connections over WebTransport, which web pages
// can open: addresses of the form
// /ip4/…/udp/…/quic-v1/webtransport/certhash/…/certhash/….
//
// Specification: https://github.com/libp2p/specs/blob/master/webtransport/README.md
// (r0, 2022-10-12), on top of HTTP/3 (RFC 9114, RFC 9220, RFC 9297) and
// https://datatracker.ietf.org/doc/draft-ietf-webtrans-http3/, of which
// everything from draft 2 to draft 15 is understood that a single session needs.
//
// Read in this order: webtransport.go (the transport; dialing), listener.go,
// certs.go (certificates, derived from the host key), addr.go, session.go and
// stream.go (WebTransport inside of one HTTP/3 connection).
//
// # The handshake
//
//	client                                           server
//	QUIC                            ◀─────────▶      certificate
//	CONNECT …?type=noise            ──────────▶
//	first stream: Noise message 1   ──────────▶
//	                                ◀──────────      200
//	                                ◀──────────      Noise message 2, hashes of the certificates
//	Noise message 3                 ──────────▶
//	further streams                 ◀─────────▶
//
// A browser accepts a certificate that nobody has signed when it is told its
// hash in advance, which is what the certhash parts of an address are for. Such
// a certificate lives for at most two weeks. That it belongs to the peer is proved
// in the Noise handshake: the server names there the hashes of its certificates,
// and the client goes on, and shows who it is, only if the certificate that it
// has met is one of them. The client does not wait for the answer to its request
// before it begins with Noise, nor for the server's HTTP/3 settings: the address
// has told what the server understands. This saves two round trips.
//
// # Certificates
//
// Certificates follow from the host key and the time alone: after a restart they
// are the same, and nothing is stored. There are three at any time: the last, the
// current and the next. An address carries the hashes of the current and the next
// one, so it works for 13 days and 22 hours at least, and for twice as long
// when it is new.
//
// # Why there is no WebTransport library beneath
//
// The common one, webtransport-go, is made for any number of sessions on a
// connection. libp2p has exactly one, and then what remains of WebTransport is
// a prefix to each stream, a range of error codes and a message that ends the
// session. In return the handshake takes two round trips less, a stream has no
// goroutine and no place in a map, and releases of others that know only the
// earlier drafts can be dialed.
//
// # Limits
//
// A connection carries one session; before it there can be 4 other requests,
// with headers of up to 16 KiB. How many streams a remote may open and how much
// it may send ahead is up to the quic.Endpoint. Of datagrams, 32 wait to be received.
//
// Not implemented: listening with a certificate that an authority has signed
// (dialing such a server is: an address with /sni and without certhash), and the
// flow control for several sessions.
package webtransport
