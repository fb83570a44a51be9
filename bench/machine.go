package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// A machine is what figures depend on besides the code.
type machine struct {
	CPU    string
	Cores  int
	Memory string
	Kernel string
	Go     string
	Kith   string // the commit, and "+" if there were changes
	Libp2p string // the version of go-libp2p
}

// describe never fails: what cannot be told stays empty.
func describe(root string) machine {
	m := machine{Cores: runtime.NumCPU(), Go: runtime.Version()}
	m.CPU = procLine("/proc/cpuinfo", "model name")
	m.Memory = procLine("/proc/meminfo", "MemTotal")
	if kib, err := strconv.ParseFloat(strings.TrimSuffix(m.Memory, " kB"), 64); err == nil {
		m.Memory = fmt.Sprintf("%.0f GiB", kib/(1<<20))
	}
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	version, _, _ := strings.Cut(strings.TrimSpace(string(release)), "-") // builders add names of their own
	m.Kernel = "Linux " + version
	m.Libp2p, _ = output("go", "list", "-m", "-f", "{{.Version}}", "github.com/libp2p/go-libp2p")
	m.Kith, _ = output("git", "-C", root, "rev-parse", "--short", "HEAD")
	if changes, err := output("git", "-C", root, "status", "--porcelain", "-uno"); err == nil && changes != "" {
		m.Kith += "+"
	}
	return m
}

// procLine gives what follows "name:" in a file of /proc.
func procLine(path, name string) string {
	text, _ := os.ReadFile(path)
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func output(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w\n%s", err, exit.Stderr)
		}
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return string(bytes.TrimSpace(out)), nil
}

// clockTick is the unit of /proc/stat: USER_HZ, which is 100 on every architecture that Go runs on.
const clockTick = 10 * time.Millisecond

// busy is the CPU time that the whole machine has spent, and that was stolen from it.
func busy() (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	return parseBusy(string(text))
}

func parseBusy(stat string) (time.Duration, error) {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0, fmt.Errorf("/proc/stat begins with %q", line)
	}
	var ticks int64
	for i, f := range fields[1:9] { // user nice system idle iowait irq softirq steal
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		if i != 3 && i != 4 {
			ticks += n
		}
	}
	return time.Duration(ticks) * clockTick, nil
}
