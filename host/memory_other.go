//go:build !linux

package host

// systemMemory does not know.
func systemMemory() int { return 0 }
