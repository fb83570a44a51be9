package acl

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/rogpeppe/go-internal/lockedfile"
)

const (
	// lookEvery is how often a running node looks whether the file has changed: it
	// costs a system call.
	lookEvery = 2 * time.Second
	// maxFile is how large a file may be: MaxEntries lines with a note of usual length.
	maxFile = 16 << 20
)

// Open reads the list in a file, and keeps it there. There need not be one: it is made
// by the first change. A file that cannot be understood is an error, and left alone.
//
// Several programs may change one file at the same time; each gets to see what the
// others did.
func Open(path string) (*List, error) {
	l := New()
	l.path = path
	if err := l.reload(); err != nil {
		return nil, err
	}
	return l, nil
}

// stamp tells one state of the file from the next.
type stamp struct {
	info fs.FileInfo // nil: there is none
}

func (s stamp) same(other stamp) bool {
	if s.info == nil || other.info == nil {
		return s.info == other.info
	}
	return os.SameFile(s.info, other.info) && s.info.Size() == other.info.Size() && s.info.ModTime().Equal(other.info.ModTime())
}

// reload reads the file if it has changed. After an error it is not tried again until
// the file has changed once more.
func (l *List) reload() error {
	if l.path == "" {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var now stamp
	if info, err := os.Stat(l.path); err == nil {
		now.info = info
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("acl: %w", err)
	}
	if now.same(l.seen) {
		return nil
	}
	t, seen, err := readFile(l.path)
	if err != nil {
		l.seen = now
		return err
	}
	l.seen = seen
	l.table.Store(t)
	return nil
}

// change makes a new list of what is in the file now, and keeps it.
func (l *List) change(edit func([]Entry) []Entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.table.Load()
	if l.path != "" {
		if err := os.MkdirAll(filepath.Dir(l.path), 0o700); err != nil {
			return fmt.Errorf("acl: %w", err)
		}
		unlock, err := lockedfile.MutexAt(l.path + ".lock").Lock()
		if err != nil {
			return fmt.Errorf("acl: %w", err)
		}
		defer unlock()
		if t, _, err = readFile(l.path); err != nil {
			return err
		}
	}
	entries := edit(t.entries(l.now()))
	if len(entries) > MaxEntries {
		return fmt.Errorf("acl: %w", errFull)
	}
	t = newTable(entries, t.comments)
	if l.path != "" {
		info, err := writeFile(l.path, t.format())
		if err != nil {
			return fmt.Errorf("acl: %w", err)
		}
		l.seen = stamp{info}
	}
	l.table.Store(t)
	select {
	case l.changed <- struct{}{}:
	default:
	}
	return nil
}

// prune forgets entries of t that have ended; the file keeps them until its next change.
func (l *List) prune(t *table) *table {
	if !t.expired(l.now()) {
		return t
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	t = l.table.Load()
	t = newTable(t.entries(l.now()), t.comments)
	l.table.Store(t)
	return t
}

// readFile reads a file, which need not be there.
func readFile(path string) (*table, stamp, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return newTable(nil, header), stamp{}, nil
	}
	if err != nil {
		return nil, stamp{}, fmt.Errorf("acl: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, stamp{}, fmt.Errorf("acl: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, stamp{}, fmt.Errorf("acl: %w", err)
	}
	if len(data) > maxFile {
		return nil, stamp{}, fmt.Errorf("acl: %s is larger than %d bytes", path, maxFile)
	}
	t, err := parseTable(data)
	if err != nil {
		return nil, stamp{}, fmt.Errorf("acl: %s: %w: mend the file, or move it away to begin anew", path, err)
	}
	return t, stamp{info}, nil
}

// writeFile puts a file in the place of another, so that after a crash either is there.
func writeFile(path string, data []byte) (fs.FileInfo, error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name()) // in vain when it was renamed
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return nil, err
	}
	return os.Stat(path)
}
