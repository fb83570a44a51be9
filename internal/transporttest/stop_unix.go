//go:build unix

package transporttest

import (
	"syscall"
	"testing"
)

// stop makes the process do nothing any more, with all that it has open.
func (p *child) stop(t *testing.T) {
	t.Helper()
	check(t, p.cmd.Process.Signal(syscall.SIGSTOP))
}
