package worker

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"
)

// Usage is what a process has spent.
type Usage struct {
	CPU        time.Duration // user and system
	Mallocs    uint64        // objects allocated
	AllocBytes uint64
	// Reads and Writes are system calls that read or wrote, on whatever file, and
	// whether or not they could: what the kernel counts in /proc/self/io.
	Reads, Writes uint64
}

func (u Usage) sub(v Usage) Usage {
	return Usage{u.CPU - v.CPU, u.Mallocs - v.Mallocs, u.AllocBytes - v.AllocBytes, u.Reads - v.Reads, u.Writes - v.Writes}
}

// begin reads the counters, the cheapest last, so that a window does not hold the
// cost of its own begin; end reads them in the other order.
func begin() (u Usage, err error) {
	if err := u.readMallocs(); err != nil {
		return u, err
	}
	if err := u.readCalls(); err != nil {
		return u, err
	}
	return u, u.readCPU()
}

func end() (u Usage, err error) {
	if err := u.readCPU(); err != nil {
		return u, err
	}
	if err := u.readCalls(); err != nil {
		return u, err
	}
	return u, u.readMallocs()
}

func (u *Usage) readMallocs() error {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	u.Mallocs, u.AllocBytes = m.Mallocs, m.TotalAlloc
	return nil
}

func (u *Usage) readCPU() error {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return fmt.Errorf("getrusage: %w", err)
	}
	u.CPU = time.Duration(r.Utime.Nano() + r.Stime.Nano())
	return nil
}

func (u *Usage) readCalls() (err error) {
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return err
	}
	if u.Reads, err = field(text, "syscr:"); err != nil {
		return fmt.Errorf("/proc/self/io: %w", err)
	}
	if u.Writes, err = field(text, "syscw:"); err != nil {
		return fmt.Errorf("/proc/self/io: %w", err)
	}
	return nil
}

// Held is what a process holds after a garbage collection, in bytes.
type Held struct {
	RSS        uint64 // resident memory, all of it
	HeapInuse  uint64 // spans of the heap in use
	HeapLive   uint64 // objects
	Stacks     uint64
	Goroutines int
}

// held collects garbage twice, as what finalizers and pools keep goes with the second.
func held() (h Held, err error) {
	runtime.GC()
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	h.HeapInuse, h.HeapLive, h.Stacks = m.HeapInuse, m.HeapAlloc, m.StackInuse
	h.Goroutines = runtime.NumGoroutine()
	h.RSS, err = RSS(os.Getpid())
	return h, err
}

// RSS is the resident memory of a process, in bytes. What /proc/PID/status says can be
// off by some hundred KiB; smaps_rollup counts.
func RSS(pid int) (uint64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	kib, err := field(text, "Rss:")
	return kib << 10, err
}

// field finds the line that begins with name and gives its first number.
func field(text []byte, name string) (uint64, error) {
	for line := range bytes.Lines(text) {
		if fields := bytes.Fields(line); len(fields) > 1 && string(fields[0]) == name {
			return strconv.ParseUint(string(fields[1]), 10, 64)
		}
	}
	return 0, errors.New("no line " + name)
}
