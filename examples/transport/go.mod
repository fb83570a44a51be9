module github.com/kith-p2p/kith/examples/transport

go 1.26.0

require (
	github.com/kith-p2p/kith v0.0.0
	golang.org/x/net v0.59.0
)

require (
	github.com/decred/dcrd/dcrec/secp256k1/v4 v4.4.1 // indirect
	golang.org/x/crypto v0.57.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace github.com/kith-p2p/kith => ../..
