// Package autotls tests Kith's certificates with real parts: Let's Encrypt's test
// authority Pebble, a name server, go-libp2p's authentication in the registration
// service, and go-libp2p's host, which dials the node as the real service does.
// Everything stays on loopback.
package autotls
