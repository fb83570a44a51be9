// Package multibase turns bytes into text and back, in the bases in which peer
// IDs and the values of addresses are written.
//
// [AppendDecode] reads text whose first character names its base. An [Encoding]
// is one base with a power of two as its number of digits; base58 has its own
// two functions, since there all digits together are one number.
//
// Decoders are total (an error, never a panic). They accept no line breaks, no
// digit that stands for nothing, and padding only where it is due. The same bytes
// still have several texts (another case, other bits in a last digit): compare
// bytes. Everything appends to a slice of the caller, and allocates only when that
// has no room.
//
// Read in this order: multibase.go, encoding.go, number.go.
//
// # Specification
//
// https://github.com/multiformats/multibase, multibase.csv; RFC 4648 for the
// bases 16, 32 and 64, draft-msporny-base58-03 for base58.
//
// # Limits
//
// Conversion of base36 and base58 takes quadratic time: more than
// [MaxNumberText] digits are refused. The other bases take linear time, and the
// caller bounds the text.
//
// # Not implemented
//
// The bases 2, 8, 10 and 45, Flickr's base58, z-base-32, emoji, and the identity
// base, which is not text: no libp2p implementation writes them.
package multibase
