//go:build unix

package peer

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// ownerOnly reports whether only the owner of a file can open it.
func ownerOnly(mode fs.FileMode) bool { return mode.Perm()&0o077 == 0 }

// syncDir brings a directory's new names to the disk, where the file system can.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		err = nil
	}
	return errors.Join(err, d.Close())
}
