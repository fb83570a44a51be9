package unix

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/kith-p2p/kith/multiaddr"
)

// probeTimeout bounds the dial that finds out whether somebody listens: it is within
// the machine, and waits only where a queue is full, which is an answer too.
const probeTimeout = time.Second

// lockTimeout bounds how long others may be about to listen in the same directory:
// for each it takes a probe at most.
const lockTimeout = 5 * time.Second

// lockRetry is how often one who waits for the lock looks again.
const lockRetry = time.Millisecond

// path gives the name of the file that addr means.
func path(addr multiaddr.Addr) (string, error) {
	c, rest := addr.SplitFirst()
	if c.Code() != multiaddr.Unix || !rest.IsZero() {
		return "", fmt.Errorf("unix: %s is not of the form /unix/PATH", addr)
	}
	name := c.Value()
	if runtime.GOOS == "windows" && len(name) > 2 && name[2] == ':' {
		name = name[1:] // /C:/…
	}
	return filepath.FromSlash(name), nil
}

// checkLen refuses what does not fit into the system's struct sockaddr_un, of which
// the system says only that it is invalid.
func checkLen(name string) error {
	most := 107
	switch runtime.GOOS {
	case "darwin", "ios", "dragonfly", "freebsd", "netbsd", "openbsd":
		most = 103
	}
	if len(name) > most {
		return fmt.Errorf("unix: the path %s has %d bytes, and this system allows %d: choose a shorter one, perhaps in /run or /tmp", name, len(name), most)
	}
	return nil
}

// listen opens a socket, if need be in place of one that nobody listens to. Whoever
// does so holds the directory's lock: a socket that another has just made refuses
// until it listens, and would be taken for one that was left behind.
func listen(name string) (*net.UnixListener, error) {
	unlock, err := lock(filepath.Dir(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("unix: the directory of %s is not there: make it: %w", name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("unix: %s cannot be listened on: %w", name, err)
	}
	defer unlock()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if taken(err) {
		if err := removeStale(name); err != nil {
			return nil, err
		}
		ln, err = net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	}
	switch {
	case err == nil:
		ln.SetUnlinkOnClose(false) // it would remove whatever has the name then
		return ln, nil
	case taken(err):
		return nil, errTaken(name, err)
	}
	return nil, fmt.Errorf("unix: %w", err)
}

func taken(err error) bool {
	const wsaeAddrInUse = syscall.Errno(10048) // Windows has a number of its own
	return errors.Is(err, syscall.EADDRINUSE) || runtime.GOOS == "windows" && errors.Is(err, wsaeAddrInUse)
}

func errTaken(name string, err error) error {
	return fmt.Errorf("unix: /unix%s is taken by another process: choose another path, or end that process: %w", name, err)
}

// removeStale removes the socket of a process that is no more.
func removeStale(name string) error {
	file, err := os.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("unix: %w", err)
	}
	// Windows tells of a socket as an irregular file.
	if file.Mode()&(fs.ModeSocket|fs.ModeIrregular) == 0 {
		return fmt.Errorf("unix: %s is there and no socket: choose another path, or remove it", name)
	}
	conn, err := net.DialTimeout("unix", name, probeTimeout)
	if err == nil {
		conn.Close()
		return errTaken(name, syscall.EADDRINUSE)
	}
	if !refused(err) {
		return errTaken(name, errors.Join(syscall.EADDRINUSE, err))
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("unix: a socket that nobody listens to is in the way: %w", err)
	}
	return nil
}

func refused(err error) bool {
	const wsaeConnRefused = syscall.Errno(10061)
	return errors.Is(err, syscall.ECONNREFUSED) || runtime.GOOS == "windows" && errors.Is(err, wsaeConnRefused)
}

// same tells whether both are the same file. Numbers of files are given out anew,
// so their times count too.
func same(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime())
}
