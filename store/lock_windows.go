package store

import (
	"errors"
	"fmt"
	"math"
	"os"

	"golang.org/x/sys/windows"
)

// lockRange is the byte that bbolt locks, far behind the end.
var lockRange = windows.Overlapped{Offset: math.MaxUint32, OffsetHigh: math.MaxUint32}

// lock locks a file as bbolt does, or fails with ErrInUse.
func lock(file *os.File) error {
	at := lockRange
	err := windows.LockFileEx(windows.Handle(file.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &at)
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return ErrInUse
	}
	if err != nil {
		return fmt.Errorf("store: locking: %w", err)
	}
	return nil
}

func unlock(file *os.File) error {
	at := lockRange
	return windows.UnlockFileEx(windows.Handle(file.Fd()), 0, 1, 0, &at)
}
