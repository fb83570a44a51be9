// Package noise authenticates and encrypts a connection: libp2p's Noise
// handshake, /noise.
//
// Specification: https://github.com/libp2p/specs/blob/master/noise/README.md
// (r5, 2022-12-07), https://noiseprotocol.org/noise.html (revision 34), and
// https://github.com/libp2p/specs/blob/master/connections/inlined-muxer-negotiation.md
// (r1, 2022-12-07) for the choice of a muxer inside of the handshake.
//
// Read in this order: noise.go (what a caller uses), handshake.go (who says
// what, and who is believed), symmetric.go (the cryptography of the handshake),
// conn.go (records), inbox.go (read buffers).
//
// # The handshake
//
//	initiator                                    responder
//	e                              ──────────▶
//	                               ◀──────────   e, ee, s, es, payload
//	s, se, payload                 ──────────▶
//
// A payload holds the identity key, its signature of the static key s, and
// extensions: the muxers that the sender has, and hashes of WebTransport
// certificates. The initiator sends its identity only after it has checked the
// responder's. The muxer is the first of the initiator's list that the
// responder has; a side that sends no list leaves the choice to a later
// negotiation.
//
// The Noise framework is written here, on the standard library's X25519,
// SHA-256 and HKDF and on x/crypto's ChaCha20-Poly1305: one pattern and one
// cipher suite take some 250 lines. The usual library, flynn/noise, computes
// each public key anew for every exchange: ten scalar multiplications a side,
// which are most of a handshake's cost. Here it is four, since the static key
// and the identity's signature of it are made once for each Transport.
//
// # Records
//
// After the handshake all is sent in records of up to 65519 bytes, each behind
// its length. Write sends as many as fit into 256 KiB with one system call. The
// reader takes as many with one call, and decrypts them where they lie:
// ReadRecord returns them without a copy, or decrypts them to where the caller
// wants to keep them.
//
// A connection on which nothing arrives holds no buffer but 320 bytes of its
// own. On a TCP socket of a Unix system, memory is taken only when the socket
// has become readable. Elsewhere it grows with what has arrived and not yet
// been read.
//
// # Limits
//
// A handshake message has at most 4 KiB, which leaves room for an RSA key of
// 8192 bits; a payload at most 100 muxers and 32 certificate hashes. Memory is
// allocated as bytes arrive. A record that fails to decrypt ends the connection
// for good, and so do 2^48 records in one direction. Noise has no message for
// the end: whether a connection was cut at the end of a record cannot be told,
// inside of one it is io.ErrUnexpectedEOF.
//
// Not implemented, on purpose: early data (the first message must be empty, as
// other implementations require), rekeying, and other patterns.
package noise
