// Package tcp carries connections over TCP: addresses of the form /ip4/…/tcp/…
// and /ip6/…/tcp/….
//
// Dials leave from the port that the host listens on, where the system lets
// several sockets share one (Linux, macOS, the BSDs): a NAT then maps both to the
// same public port, which hole punching needs. When that port cannot be used for
// a dial, any free one is.
//
// A port can be shared with WebSocket: see Ports.
//
// Read in this order: tcp.go, ports.go, peek_unix.go, reuse_unix.go.
//
// Specification: https://github.com/libp2p/specs/blob/master/addressing/README.md.
//
// Not implemented: simultaneous open.
package tcp
