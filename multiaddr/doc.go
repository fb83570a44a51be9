// Package multiaddr holds network addresses that describe themselves, such as
// /ip4/192.0.2.1/udp/4001/quic-v1/p2p/12D3KooW….
//
// An [Addr] is a value: small, comparable, usable as a map key, and always
// valid. It keeps the canonical binary form, so equal addresses are equal
// values whatever text they were read from. One table (protocol.go) drives
// parsing, printing, encoding and decoding.
//
// Read in this order: addr.go, component.go, protocol.go, value.go, netip.go.
//
// # Specification
//
//   - https://github.com/multiformats/multiaddr, protocols.csv and
//     protocols/http-path.md at 9b7b3fab
//   - https://github.com/libp2p/specs, addressing and peer-ids at 7740c076
//   - https://github.com/multiformats/unsigned-varint (at most nine bytes,
//     shortest form only)
//
// Where the specification is silent, go-multiaddr v0.16 is followed; the
// differences, each with its reason, are a table in interop/multiaddr_test.go.
//
// # Limits
//
// An address has at most [MaxLen] bytes and one value at most [MaxValueLen].
// The values of dns, dns4, dns6, dnsaddr, sni, ip6zone and unix are UTF-8
// without control characters, so the text of an address that a stranger sent
// can be logged and shown as it is.
//
// # Not implemented
//
// Protocols outside protocols.csv, but for plaintextv2 (which go-libp2p has).
// The memory protocol has a value of eight bytes, as in go-libp2p and
// rust-libp2p; js-libp2p writes free text there. For multibase text (certhash,
// and peer IDs written as CIDs) the bases 16, 32, 36, 58 and 64 are read.
package multiaddr
