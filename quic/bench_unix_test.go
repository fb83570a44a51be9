//go:build unix

package quic

import (
	"syscall"
	"time"
)

// cpuTime is what the process has used, in user and in kernel mode.
func cpuTime() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
