// Package webrtc carries connections over WebRTC data channels, which browsers
// open without a certificate that anyone trusts: addresses of the form
// /ip4/…/udp/…/webrtc-direct/certhash/… and the same with ip6.
//
// A connection is a stack of four protocols on one UDP address:
//
//	STUN   the dialer asks, the listener answers: the path works (ICE lite)
//	DTLS   encrypts; the listener's certificate is the one in its address
//	SCTP   orders and repeats; one pair of its streams is one data channel
//	Noise  on channel 0, with both certificates in its prologue: who is there
//
// The handshake of DTLS is pion's. The rest is here, because it can then share
// one buffer and one lock: a packet that arrives is decrypted, taken apart and put
// into the queues of its streams where it was read, and a connection has no
// goroutine. The listener's part of ICE keeps nothing: what an answer needs stands
// in the request. State begins with the first message of a DTLS handshake.
//
// A libp2p stream is a data channel, which has neither half-close nor reset: its
// messages carry those as flags. SCTP has one window for a whole connection; so
// that a stream nobody reads does not stop the others, two Kith nodes give each
// other a window for each stream in a field that other implementations skip.
//
// Read in this order: webrtc.go, listener.go, stun.go, dtls.go, conn.go, send.go,
// receive.go, chunk.go, stream.go, message.go, socket.go, cert.go.
//
// Specification: https://github.com/libp2p/specs/blob/master/webrtc/webrtc-direct.md,
// and README.md beside it; RFC 8445 and 8489 (ICE, STUN), RFC 6347 (DTLS 1.2),
// RFC 9260 and 6525 (SCTP), RFC 8831 and 8832 (data channels).
//
// Limits: the constants at the heads of the files; docs/limits.md has them all.
//
// Not implemented: addresses of the form …/p2p-circuit/webrtc, between two peers
// neither of which can be dialed: they wait for the relay. DTLS 1.3, other
// certificate hashes than SHA-256, unordered channels.
package webrtc
