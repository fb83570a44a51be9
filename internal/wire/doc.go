// Package wire holds the encodings that every libp2p protocol shares: unsigned
// varints, length-prefixed messages, and the protobuf wire format.
//
// Decoders are total (an error, never a panic), allocate no more than they
// were sent, and accept only what the limits given by the caller allow.
//
// Read in this order: varint.go, frame.go, proto.go.
//
// Sources: the multiformats unsigned-varint specification (at most nine bytes,
// minimal encoding) and the protobuf encoding guide.
package wire
