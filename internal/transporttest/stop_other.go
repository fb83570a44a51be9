//go:build !unix

package transporttest

import "testing"

// stop is kill where processes cannot be stopped.
func (p *child) stop(t *testing.T) {
	t.Helper()
	p.kill(t)
}
