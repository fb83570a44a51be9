package main

import (
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
)

// inDeadNetwork runs f, and the processes that it starts, in a network namespace of
// their own, where packets to deadIP go into a cable whose other end throws them away.
func inDeadNetwork(f func() error) error {
	ended := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with this goroutine
		ended <- func() error {
			if err := syscall.Unshare(syscall.CLONE_NEWNET); err != nil {
				return fmt.Errorf("a network namespace needs root: %w", err)
			}
			commands := []string{
				"link set lo up", "link add dead type veth peer name drain", "link set dead up", "link set drain up",
				"addr add 11.0.0.254/24 dev dead", "addr add " + liveIP(deadAddrs) + "/32 dev lo",
			}
			for i := range deadAddrs {
				commands = append(commands, "addr add "+liveIP(i)+"/32 dev lo")
				commands = append(commands, "neigh add "+deadIP(i)+" lladdr 02:00:00:00:00:01 dev dead nud permanent")
			}
			for _, c := range commands {
				if out, err := exec.Command("ip", strings.Fields(c)...).CombinedOutput(); err != nil {
					return fmt.Errorf("ip %s: %w: %s", c, err, out)
				}
			}
			return f()
		}()
	}()
	return <-ended
}
