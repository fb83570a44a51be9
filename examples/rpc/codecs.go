// Package codecs shows how package rpc speaks encodings that Kith does not import.
package codecs

import (
	"fmt"

	"github.com/fxamacker/cbor/v2"
	"google.golang.org/protobuf/proto"

	"github.com/kith-p2p/kith/rpc"
)

// CBOR fits as it is.
var CBOR = rpc.Codec{Marshal: cbor.Marshal, Unmarshal: cbor.Unmarshal}

// Protobuf is for methods whose Req and Resp are pointers to generated messages.
var Protobuf = rpc.Codec{
	Marshal: func(v any) ([]byte, error) {
		m, ok := v.(proto.Message)
		if !ok {
			return nil, fmt.Errorf("%T is no protobuf message", v)
		}
		return proto.Marshal(m)
	},
	Unmarshal: func(data []byte, v any) error {
		m, ok := v.(proto.Message)
		if !ok {
			return fmt.Errorf("%T is no protobuf message", v)
		}
		return proto.Unmarshal(data, m)
	},
}
