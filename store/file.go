//go:build !js

package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"github.com/kith-p2p/kith/host"
)

const (
	// version is that of what is in the file; newer ones are refused. What the parts of
	// a program keep has versions of its own.
	version = 1
	// pageSize is that of the file, whatever the machine's: so a file can move to
	// another machine, and check knows where pages begin.
	pageSize = 4096

	// eachBytes is how much Each reads at a time.
	eachBytes = 64 << 10
	// lockWait is how long another process may take to close the file.
	lockWait = 400 * time.Millisecond
)

var (
	bucketName = []byte("kith")
	headerKey  = []byte{0} // of the file's own record, a header
)

// A File is a store in a file. Its methods are as host.Store says.
type File struct {
	path string
	db   *bbolt.DB

	closing sync.RWMutex // held for reading while the file is used
	closed  bool
	broken  atomic.Pointer[error] // set when the file changed under the program
}

var _ host.Store = (*File)(nil)

// Open opens the file kith.db in dir, and makes both if they are not there. When
// another process has it open it waits for half a second. Errors wrap ErrInUse,
// ErrDamaged or ErrNewer where that is the cause.
func Open(dir string) (*File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	path := filepath.Join(dir, FileName)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if err := create(dir, path); err != nil {
			return nil, fmt.Errorf("store: making %s: %w", path, err)
		}
	}
	f := &File{path: path}
	var err error
	if f.db, err = open(path, os.OpenFile); err != nil {
		return nil, err
	}
	// What is left of attempts to make a file that were broken off.
	left, _ := filepath.Glob(filepath.Join(dir, FileName+".new-*"))
	for _, name := range left {
		os.Remove(name)
	}
	return f, nil
}

// open opens a database that is there, after it has looked through it.
func open(path string, openFile func(string, int, os.FileMode) (*os.File, error)) (db *bbolt.DB, err error) {
	defer fault(debug.SetPanicOnFault(true), &err)
	var looked error
	db, err = bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout:        lockWait,
		PageSize:       pageSize,
		MaxSize:        MaxFile,
		NoFreelistSync: true, // what is not in the file cannot be damaged, and is soon found again
		FreelistType:   bbolt.FreelistMapType,
		NoStatistics:   true,
		OpenFile: func(path string, flag int, mode os.FileMode) (*os.File, error) {
			file, err := openFile(path, flag&^os.O_CREATE, mode)
			if err != nil {
				return nil, err
			}
			if looked = look(file); looked != nil {
				return nil, errors.Join(looked, file.Close())
			}
			return file, nil
		},
	})
	switch {
	case err == nil:
		return db, nil
	case errors.Is(err, bbolterrors.ErrTimeout) || errors.Is(err, ErrInUse):
		return nil, fmt.Errorf("%w: %s is open in another process: stop that, or give each a directory of its own", ErrInUse, path)
	case errors.Is(looked, ErrNewer):
		return nil, fmt.Errorf("%w: %s: use the newer version, or move the file away and lose what it keeps", looked, path)
	case errors.Is(looked, ErrDamaged):
		return nil, fmt.Errorf("%w: %s: %s: restore a copy of it, or move it away and a new one is made; it keeps known addresses and lists, not the identity", ErrDamaged, path, strings.TrimPrefix(looked.Error(), ErrDamaged.Error()+": "))
	}
	return nil, fmt.Errorf("store: opening %s: %w", path, err)
}

// look looks through a file before bbolt does, which trusts it. Nobody writes to it
// meanwhile: it is locked as bbolt locks it. Between the two locks another process may
// change it, but only one that has found it sound.
func look(file *os.File) error {
	for start := time.Now(); ; {
		err := lock(file)
		if err == nil {
			break
		}
		if !errors.Is(err, ErrInUse) || time.Since(start) > lockWait {
			return err
		}
		time.Sleep(lockWait / 10)
	}
	info, err := file.Stat()
	if err == nil {
		err = sound(file, info.Size())
	}
	return errors.Join(err, unlock(file))
}

// create makes an empty database. It appears at path when it is whole, so that there
// is no moment at which an end of the process leaves half of one.
func create(dir, path string) error {
	file, err := os.CreateTemp(dir, FileName+".new-*")
	if err != nil {
		return err
	}
	temporary := file.Name()
	defer os.Remove(temporary)
	if err := file.Close(); err != nil {
		return err
	}
	db, err := bbolt.Open(temporary, 0o600, &bbolt.Options{PageSize: pageSize, NoFreelistSync: true, Timeout: lockWait})
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket(bucketName)
		if err != nil {
			return err
		}
		return b.Put(headerKey, header{version: version}.encode())
	})
	// The second transaction is for the second meta page, so that bbolt's own, with a
	// list of free pages, is in neither.
	err = errors.Join(err, db.Update(func(*bbolt.Tx) error { return nil }), db.Close())
	if err != nil {
		return err
	}
	if err := os.Link(temporary, path); err != nil {
		if _, there := os.Stat(path); there != nil {
			return err
		} // another was faster
	}
	return syncDir(dir)
}

// syncDir makes the names in a directory survive a loss of power, where that takes
// something.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, fs.ErrInvalid) {
		return err
	}
	return nil
}

// Path is where the file is.
func (f *File) Path() string { return f.path }

// Get returns the value of key, or nil.
func (f *File) Get(key string) (value []byte, err error) {
	err = f.use(func() error {
		return f.db.View(func(tx *bbolt.Tx) error {
			value = slices.Clone(tx.Bucket(bucketName).Get([]byte(key)))
			return nil
		})
	})
	return value, err
}

// Write makes all of the changes and waits until they are on disk, which takes
// milliseconds: what belongs together goes into one call.
func (f *File) Write(changes ...host.Change) error {
	if err := check(changes); err != nil {
		return err
	}
	if len(changes) == 0 {
		return nil
	}
	return f.use(func() error {
		return f.db.Update(func(tx *bbolt.Tx) error { return write(tx.Bucket(bucketName), changes) })
	})
}

// write makes the changes and keeps the header right.
func write(b *bbolt.Bucket, changes []host.Change) error {
	h, err := decodeHeader(b.Get(headerKey))
	if err != nil {
		return err
	}
	for _, c := range changes {
		key := []byte(c.Key)
		if old := b.Get(key); old != nil {
			h.remove(key, old)
		}
		if c.Value == nil {
			err = b.Delete(key)
		} else {
			h.add(key, c.Value)
			err = b.Put(key, c.Value)
		}
		if err != nil {
			return err
		}
	}
	return b.Put(headerKey, h.encode())
}

// Each calls f for every key with the prefix, in order. It holds nothing while it does.
func (f *File) Each(prefix string, do func(key string, value []byte) error) error {
	var batch []host.Change
	for from := prefix; ; from = batch[len(batch)-1].Key + "\x00" {
		batch = batch[:0]
		err := f.use(func() error {
			return f.db.View(func(tx *bbolt.Tx) error {
				c, size := tx.Bucket(bucketName).Cursor(), 0
				for k, v := c.Seek([]byte(from)); k != nil && strings.HasPrefix(string(k), prefix) && size < eachBytes; k, v = c.Next() {
					if k[0] != headerKey[0] {
						batch = append(batch, host.Change{Key: string(k), Value: append([]byte{}, v...)})
						size += len(k) + len(v)
					}
				}
				return nil
			})
		})
		if err != nil || len(batch) == 0 {
			return err
		}
		for _, r := range batch {
			if err := do(r.Key, r.Value); err != nil {
				return err
			}
		}
	}
}

// Close closes the file, after all that is being written is on disk.
func (f *File) Close() error {
	f.closing.Lock()
	defer f.closing.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	if f.broken.Load() != nil {
		return nil // its locks may be held; the end of the process closes it
	}
	if err := f.db.Close(); err != nil {
		return fmt.Errorf("store: closing %s: %w", f.path, err)
	}
	return nil
}

// use does something with the database while it is open.
func (f *File) use(do func() error) error {
	f.closing.RLock()
	defer f.closing.RUnlock()
	if f.closed {
		return fmt.Errorf("%w: %s", ErrClosed, f.path)
	}
	if err := f.broken.Load(); err != nil {
		return *err
	}
	var done bool
	err := func() (err error) {
		defer fault(debug.SetPanicOnFault(true), &err)
		err = do()
		done = true
		return err
	}()
	switch {
	case !done:
		err = fmt.Errorf("%w while in use: %s: %w", ErrDamaged, f.path, err)
		f.broken.Store(&err)
	case err != nil:
		err = fmt.Errorf("store: %s: %w", f.path, err)
	}
	return err
}

// fault makes an error of a panic, also of one because of memory that is not there:
// bbolt reads the file as memory, and somebody may have cut it off.
func fault(before bool, err *error) {
	debug.SetPanicOnFault(before)
	if r := recover(); r != nil {
		*err = fmt.Errorf("panic: %v", r)
	}
}

// A header is the file's own record. It says what all others are, so that one that is
// missing or changed shows.
type header struct {
	version uint32
	records uint64
	sum     uint64 // of the hashes of all records, modulo 2^64
}

const headerLen = 4 + 8 + 8

func (h header) encode() []byte {
	b := binary.BigEndian.AppendUint32(nil, h.version)
	b = binary.BigEndian.AppendUint64(b, h.records)
	return binary.BigEndian.AppendUint64(b, h.sum)
}

func decodeHeader(b []byte) (header, error) {
	if len(b) < 4 {
		return header{}, fmt.Errorf("%w: there is no header", ErrDamaged)
	}
	h := header{version: binary.BigEndian.Uint32(b)}
	switch {
	case h.version > version:
		return h, fmt.Errorf("%w: the file has version %d, and this program reads up to %d", ErrNewer, h.version, version)
	case h.version == 0 || len(b) != headerLen:
		return h, fmt.Errorf("%w: the header is not one", ErrDamaged)
	}
	h.records = binary.BigEndian.Uint64(b[4:])
	h.sum = binary.BigEndian.Uint64(b[12:])
	return h, nil
}

func (h *header) add(key, value []byte) {
	h.records++
	h.sum += hash(key, value)
}

func (h *header) remove(key, value []byte) {
	h.records--
	h.sum -= hash(key, value)
}

// hash is FNV-1a of a record. Each step is a bijection of what came before, so that the
// change of a single byte never goes unseen.
func hash(key, value []byte) uint64 {
	const prime = 1099511628211
	h := uint64(14695981039346656037)
	h = (h ^ uint64(len(key))) * prime
	for _, c := range key {
		h = (h ^ uint64(c)) * prime
	}
	for _, c := range value {
		h = (h ^ uint64(c)) * prime
	}
	return h
}
