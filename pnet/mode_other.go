//go:build !unix

package pnet

import "io/fs"

// open is not told by the mode bits of this system.
func open(fs.FileMode) bool { return false }
