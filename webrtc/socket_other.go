//go:build !linux

package webrtc

import "net"

func enableSegments(*net.UDPConn) bool { return false }
func segmentSize(_ []byte, n int) int  { return n }
func segmentControl(int) []byte        { return nil }
