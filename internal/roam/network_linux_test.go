package roam

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// missing tells what of what the tests need this system does not give.
func missing() error {
	if _, err := exec.LookPath("ip"); err != nil {
		return fmt.Errorf("the program ip of iproute2: %w", err)
	}
	if _, err := os.Stat("/proc/net/if_inet6"); err != nil {
		return fmt.Errorf("IPv6: %w", err)
	}
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with this goroutine
		failed <- syscall.Unshare(syscall.CLONE_NEWNET)
	}()
	if err := <-failed; err != nil {
		return fmt.Errorf("network namespaces: %w", err)
	}
	return nil
}

// asRoot runs the tests again in a user namespace, where everybody is root; started is
// false where there are none.
func asRoot() (code int, started bool) {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	if err := cmd.Start(); err != nil {
		return 0, false
	}
	cmd.Wait()
	return cmd.ProcessState.ExitCode(), true
}

// A network is a network namespace with a thread in it. It is gone with its last process.
type network struct {
	thread int
	jobs   chan func()
}

func newNetwork(t *testing.T) *network {
	t.Helper()
	n := &network{jobs: make(chan func())}
	began := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with this goroutine
		n.thread = syscall.Gettid()
		err := syscall.Unshare(syscall.CLONE_NEWNET)
		began <- err
		if err != nil {
			return
		}
		for job := range n.jobs {
			job()
		}
	}()
	if err := <-began; err != nil {
		t.Fatalf("a network namespace: %v", err)
	}
	t.Cleanup(func() { close(n.jobs) })
	return n
}

// do runs job in the network.
func (n *network) do(job func()) {
	done := make(chan struct{})
	n.jobs <- func() {
		defer close(done)
		job()
	}
	<-done
}

// ip runs commands of the program ip, one a line.
func (n *network) ip(t *testing.T, commands string) {
	t.Helper()
	n.do(func() {
		cmd := exec.Command("ip", "-batch", "-")
		cmd.Stdin = strings.NewReader(commands + "\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("ip: %v: %s\n%s", err, out, commands)
		}
	})
}
