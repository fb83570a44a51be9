package unix

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// lock waits until no other process holds dir's lock, and takes it: a file that only
// one can have open, and that the system removes with it.
func lock(dir string) (unlock func(), err error) {
	const (
		fileFlagDeleteOnClose = 0x04000000
		sharingViolation      = syscall.Errno(32)
		deletePending         = syscall.Errno(303)
	)
	file := filepath.Join(dir, ".kith.lock")
	name, err := syscall.UTF16PtrFromString(file)
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(lockTimeout)
	for {
		h, err := syscall.CreateFile(name, syscall.GENERIC_WRITE, 0, nil, syscall.OPEN_ALWAYS, fileFlagDeleteOnClose, 0)
		if err == nil {
			return func() { syscall.CloseHandle(h) }, nil
		}
		if !errors.Is(err, sharingViolation) && !errors.Is(err, deletePending) && !errors.Is(err, syscall.ERROR_ACCESS_DENIED) {
			return nil, &os.PathError{Op: "lock", Path: file, Err: err}
		}
		if !time.Now().Before(deadline) {
			return nil, fmt.Errorf("another process has had %s open for %v, or this user may not make it: end that process, or choose another directory: %w", file, lockTimeout, err)
		}
		time.Sleep(lockRetry)
	}
}
