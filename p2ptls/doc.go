// Package p2ptls authenticates and encrypts a net.Conn with TLS 1.3, and agrees on
// a muxer while it does so.
//
// Both sides send one self-signed certificate. An extension in it, the libp2p
// Public Key Extension, carries the host key and the host key's signature of the
// certificate's key. TLS itself is crypto/tls; this package makes and checks the
// certificates, and moves the records.
//
// Read in this order: p2ptls.go (the handshake), certificate.go (who is who),
// conn.go and socket.go (what follows the handshake), quic.go.
//
// # Specifications
//
// https://github.com/libp2p/specs/blob/master/tls/tls.md (r0, 2019-03-23) and, for
// the muxer, https://github.com/libp2p/specs/blob/master/connections/inlined-muxer-negotiation.md
// (r1, 2022-12-07). All of both is implemented. Where they leave a choice:
//
//   - The extension is not critical in our certificates, and may be in others'.
//     Other critical extensions are refused unless crypto/x509 knows them.
//   - Five minutes of difference between the clocks are forgiven when a
//     certificate is not valid yet, or no longer.
//   - A peer that uses no ALPN is let in, and gets no muxer. One that uses it and
//     shares no protocol with us is refused.
//   - A server that does not ask for a certificate is refused: it would not know us.
//   - A connection that ends without close_notify gives io.ErrUnexpectedEOF.
//
// There are no session tickets, no resumption, no early data, no renegotiation and
// no server name. The key exchange is the one that crypto/tls prefers, which
// withstands quantum computers.
//
// # Buffers
//
// crypto/tls writes a record of at most 16 KiB at a time, and reads about as much. A
// Write of 64 KiB here is one write to the network, and bulk data is read 128 KiB
// at a time. Between records a connection holds 2 KiB of ours to wait with; in the
// middle of one, a large buffer out of a pool. crypto/tls keeps a buffer of the
// largest record that the connection has received, 18 KiB for a full one, and
// that cannot be helped.
//
// # Limits
//
//   - 16 KiB sent by a peer before the handshake is over, and 4 KiB for its
//     certificate: an RSA host key of 8192 bits fits, also when the certificate
//     has an RSA key of its own. That may have 2048 to 4096 bits.
//   - Certificate keys: P-256, P-384, P-521, Ed25519, RSA. Host keys: what package
//     peer takes.
//   - After the handshake, crypto/tls (as of Go 1.26.8) ends a connection on which
//     more than 16 messages or records in a row carry no data: KeyUpdate, session
//     tickets, empty records. A message has at most 64 KiB, and a KeyUpdate must be
//     the last of its record. Before an answer to a KeyUpdate is sent nothing
//     further is read, so a peer that wants many has to read them.
//   - Close takes half a second at most. Everything else that waits is ended by
//     ctx, a deadline or Close.
//
// # Not implemented
//
// Certificates for WebTransport, whose rules are others, and any use of the server
// name, which the specification reserves for its successors.
package p2ptls
