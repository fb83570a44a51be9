//go:build !linux

package quic

// otherFamily makes of control messages for packets to one family those for the other:
// there is none that a packet needs.
func otherFamily([]byte) []byte { return nil }
