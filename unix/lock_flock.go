//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package unix

import (
	"fmt"
	"os"
	"syscall"
	"time"
)

// lock waits until no other process holds dir's lock, and takes it. The lock is the
// system's, and goes with the process.
func lock(dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(lockTimeout)
	for {
		err = syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return func() { d.Close() }, nil
		case err == syscall.EINTR:
		case err == syscall.EWOULDBLOCK && time.Now().Before(deadline):
			time.Sleep(lockRetry)
		case err == syscall.EWOULDBLOCK:
			d.Close()
			return nil, fmt.Errorf("another process has held the lock of %s for %v: end it, or choose another directory", dir, lockTimeout)
		case err == syscall.ENOTSUP || err == syscall.ENOSYS || err == syscall.ENOLCK:
			return func() { d.Close() }, nil // a file system without locks
		default:
			d.Close()
			return nil, &os.PathError{Op: "lock", Path: dir, Err: err}
		}
	}
}
