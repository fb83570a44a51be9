// Package interop runs Kith against go-libp2p, js-libp2p and rust-libp2p as real processes on real sockets.
package interop
