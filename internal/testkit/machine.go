package testkit

import (
	"net"
	"testing"
	"time"
)

// HasIPv6 tells whether this machine has the loopback address of IPv6. Many containers
// do not; what a test then leaves out is in its log.
func HasIPv6(t testing.TB) bool {
	t.Helper()
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Logf("without IPv6, which this machine does not have: %v", err)
		return false
	}
	l.Close()
	return true
}

// Took is how long f takes, without the time in which this process did not get to
// run: it counts the beats of a clock that a process that waits hears, and one that the
// machine keeps waiting does not.
func Took(f func()) time.Duration {
	const beat = 10 * time.Millisecond
	beats := 0
	done, counted := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(counted)
		tick := time.NewTicker(beat)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				beats++
			case <-done:
				return
			}
		}
	}()
	func() {
		defer close(done) // f may end the test
		f()
	}()
	<-counted
	return time.Duration(beats) * beat
}
