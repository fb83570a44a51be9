// Package pnet keeps a network private: whoever has not the pre-shared key, 32
// random bytes, can neither connect to its peers nor tell what they speak.
//
// Specification: https://github.com/libp2p/specs/blob/master/pnet/Private-Networks-PSK-V1.md
// (r0, 2017-02-17). The fingerprint is not specified; it is that of rust-libp2p and go-ipfs.
//
// Read in this order: key.go (keys and their files), conn.go (connections).
//
// # The protocol
//
//	24 random bytes, the nonce │ everything else under XSalsa20 with key and nonce
//
// Each side sends this, below multistream-select and the secure channel. There is
// no handshake, no message for a refusal and no authentication of bytes: that is
// for the secure channel. Peers with different keys read noise of each other, which
// multistream-select then is the first to notice; package upgrade says so in its error.
//
// go-libp2p sends its nonce with its first bytes, rust-libp2p sends it at once and
// waits for ours before it sends anything else. So ours leaves with our first
// bytes, or before we wait for the remote's, whichever is first.
//
// # What it gives
//
// A stranger cannot speak with a peer: not learn its ID, nor reach what is behind
// the handshake. A stranger who records does see that both sides send a nonce,
// how much they send and when. One who gets the key later can read the recording
// down to the secure channel, and no deeper. All peers have the same key, so whoever
// leaves the network can come back until the others have changed theirs.
//
// QUIC, WebTransport and WebRTC have encryption of their own below everything
// that is ours, so they cannot honour a key: a node with a key must not use them.
//
// # Limits
//
// A key file has at most 1 KiB. A connection holds 200 bytes for its two directions,
// and 64 KiB while a Write runs. The remote can make it hold nothing.
//
// Not implemented, since the specification has none: changing the key of a network
// that runs, and several keys at once.
package pnet
