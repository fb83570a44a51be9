// Package peer says who someone is, and proves it: peer IDs, the keys behind
// them, and what a peer signs about itself.
//
// An [ID] is the hash of a [PublicKey], or that key itself where it is short. A
// [PrivateKey] signs. An [AddrInfo] adds where the peer may be reached; a
// [Record] is the same signed by the peer, in an envelope. There is one way into
// an envelope, [OpenEnvelope], and it never returns a payload that was signed by
// another than the peer that the payload is about.
//
// Read in this order: id.go, key.go, then a key type (ed25519.go first),
// envelope.go, record.go, addrinfo.go, keyfile.go.
//
// # Specifications
//
//   - peer-ids/peer-ids.md, revision r2 of 2021-04-30
//   - RFC/0002-signed-envelopes.md of 2019-10-21
//   - RFC/0003-routing-records.md of 2019-10-04; records are sealed with the
//     domain and payload type that go-libp2p and js-libp2p use instead of its
//     own, which rust-libp2p uses and which are read as well
//
// all in https://github.com/libp2p/specs at 7740c076.
//
// # One key, one encoding, one ID
//
// A public key that has a second encoding would have a second ID, and with it a
// second identity for whoever counts peers. So [UnmarshalPublicKey] accepts the
// canonical protobuf only, as go-libp2p, js-libp2p and rust-libp2p write it, and
// in it one form of each key: a compressed point for secp256k1, an uncompressed
// one for ECDSA, DER that encodes again to the same bytes for RSA. Those peers
// read more than they write. IDs that no key can have (other hashes, other inlined
// bytes) are refused.
//
// # Which keys and signatures
//
//   - Ed25519: the default. Points of small order and second forms of a point
//     are refused as keys.
//   - Secp256k1: signatures are strict DER, and of the two valid values of S the
//     lower is made and required. go-libp2p, js-libp2p and rust-libp2p all make
//     the lower, and the latter two refuse the other.
//   - ECDSA: the curve P-256 only, since rust-libp2p knows no other. Either S is
//     accepted, because Go and Rust make either.
//   - RSA: 2048 to 8192 bits with an odd exponent of at most 65537, so that no
//     signature takes longer than one or two milliseconds to verify.
//
// # Key files
//
// A key file holds the protobuf of the private key and nothing else: the form in
// which the specification lets implementations exchange keys, which go-libp2p
// marshals, "ipfs key export" writes, and js-libp2p and rust-libp2p read. It is
// not text, but it needs no tool of ours. Ed25519, ECDSA and RSA keys hold their
// public half too, so damage to them is noticed; a secp256k1 key is 32 bytes that
// may be any key, so of it only a wrong length or frame is.
//
// # Limits
//
// [MaxEnvelopeLen] for envelopes and records, [MaxRecordAddrs] for the addresses
// of a record; 1062 bytes of data for a public key, as an RSA key of 8192 bits
// has; 96 characters for the text of an ID.
//
// # Not implemented
//
// js-libp2p's ECDSA keys, which are not in PKIX and have no peer ID there either.
// ECDSA private keys that do not name their curve. Sealing records in the form of
// RFC 0003. Hashed IDs of short keys, as go-libp2p once made them. Passwords on
// key files, and the access control lists of Windows.
package peer
