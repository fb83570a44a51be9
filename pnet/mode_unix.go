//go:build unix

package pnet

import "io/fs"

// open tells whether everybody can read a file.
func open(mode fs.FileMode) bool { return mode.Perm()&0o004 != 0 }
