//go:build !unix && !js

package websocket

// attach does nothing: what asks the socket itself is for unix.
func (s *socket) attach() {}
