package host

import (
	"bufio"
	"bytes"
	"os"
	"path"
	"strings"
)

// systemMemory tells how much memory the machine has, and how much the control
// groups of this process grant, whichever is less.
func systemMemory() int {
	least := 0
	note := func(n int) {
		if n > 0 && (least == 0 || n < least) {
			least = n
		}
	}
	if b, err := os.ReadFile("/proc/meminfo"); err == nil {
		note(memTotal(b))
	}
	groups, _ := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(groups)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		root, file := "/sys/fs/cgroup", "memory.max"
		if f[1] != "" { // version 1
			if f[1] != "memory" {
				continue
			}
			root, file = "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
		}
		// Every group above bounds, too. In a container the path can be that of the
		// host, which is not there; then the root is the container's group.
		for dir := path.Clean("/" + f[2]); ; dir = path.Dir(dir) {
			if b, err := os.ReadFile(root + dir + "/" + file); err == nil {
				note(byteCount(string(bytes.TrimSpace(b)), 1)) // "max" is none
			}
			if dir == "/" {
				break
			}
		}
	}
	return least
}

func memTotal(meminfo []byte) int {
	lines := bufio.NewScanner(bytes.NewReader(meminfo))
	for lines.Scan() {
		if f := strings.Fields(lines.Text()); len(f) == 3 && f[0] == "MemTotal:" {
			return byteCount(f[1], 1<<10)
		}
	}
	return 0
}
