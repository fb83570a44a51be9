module github.com/kith-p2p/kith/examples/rpc

go 1.26.0

require (
	github.com/fxamacker/cbor/v2 v2.10.0
	github.com/kith-p2p/kith v0.0.0
	google.golang.org/protobuf v1.36.12
)

require (
	github.com/decred/dcrd/dcrec/secp256k1/v4 v4.4.1 // indirect
	github.com/x448/float16 v0.8.4 // indirect
	golang.org/x/crypto v0.57.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace github.com/kith-p2p/kith => ../..
