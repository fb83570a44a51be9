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
// The first three are pion's. What is here is what libp2p adds: who may have a
// connection, the streams on the channels, and every bound. The listener's part of
// ICE keeps nothing: what an answer needs stands in the request. State begins with
// the first message of a DTLS handshake. Packets go to and from the socket in
// batches, where the system can.
//
// A libp2p stream is a data channel, which has neither half-close nor reset: its
// messages carry those as flags. SCTP has one window for a whole connection. Each
// channel is read as soon as something comes, into memory with a bound for all of
// them; a sender keeps a quarter of the remote's window for streams other than those
// that nobody reads. So these hold up no others between Kith nodes. Another
// implementation may fill the window with what is not read: then the connection
// stands still, and after 10 s the stream that nobody has read meanwhile is reset.
//
// Read in this order: webrtc.go, listener.go, stun.go, link.go, dtls.go, conn.go,
// stream.go, message.go, socket.go, cert.go.
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
