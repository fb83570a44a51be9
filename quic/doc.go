// Package quic carries connections over QUIC: addresses of the form
// /ip4/…/udp/…/quic-v1 and /ip6/…/udp/…/quic-v1. It is a transport of libp2p on top of
// quic-go.
package quic
