package peer

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// maxKeyFile is the longest key file that is read, in bytes: the protobuf of an
// RSA key of 8192 bits, the largest kind.
const maxKeyFile = rsaMaxPrivate + 8

// LoadOrCreateKey returns the key in the file at path, of whatever type that is.
// If there is no such file, it makes a key of type t and saves it there. Of
// several processes that do so at once, all get the same key. An existing file
// is never changed.
func LoadOrCreateKey(path string, t KeyType) (PrivateKey, error) {
	key, err := LoadKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	key, err = GenerateKey(t)
	if err != nil {
		return PrivateKey{}, err
	}
	if err = SaveKey(path, key); errors.Is(err, fs.ErrExist) {
		return LoadKey(path) // another process was faster
	}
	if err != nil {
		return PrivateKey{}, err
	}
	return key, nil
}

// LoadKey reads a key file: the protobuf of a private key and nothing else.
// The error wraps fs.ErrNotExist if there is none. A file that others than its
// owner can read is refused, except on Windows, where its directory's access
// control list rules.
func LoadKey(path string) (PrivateKey, error) {
	info, err := os.Stat(path) // before opening it: a pipe would block
	if err != nil {
		return PrivateKey{}, fmt.Errorf("peer: key file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return PrivateKey{}, fmt.Errorf("peer: key file %s is not a regular file: name another path", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return PrivateKey{}, fmt.Errorf("peer: key file: %w", err)
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return PrivateKey{}, fmt.Errorf("peer: key file: %w", err)
	}
	if !ownerOnly(info.Mode()) {
		return PrivateKey{}, fmt.Errorf("peer: key file %s can be read by others (mode %04o), so it may be known: run chmod 600 %[1]s, or move it away for a new identity",
			path, info.Mode().Perm())
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return PrivateKey{}, fmt.Errorf("peer: key file: %w", err)
	}
	key, err := unmarshalPrivateKey(data)
	if err != nil {
		return PrivateKey{}, fmt.Errorf("peer: key file %s is damaged: restore it from a backup, or move it away for a new identity: %w", path, err)
	}
	return key, nil
}

// SaveKey writes key to a new file at path that only its owner can read. Missing
// directories are made, for the owner only. The file appears whole or not at
// all, and is on the disk when SaveKey returns. The error wraps fs.ErrExist if
// there is anything at path already, which is left alone.
func SaveKey(path string, key PrivateKey) error {
	if key.IsZero() {
		return errors.New("peer: save a key: no private key")
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("peer: save a key: %w", err)
	}
	temp, err := writeTemp(dir, key.Marshal())
	if err != nil {
		return fmt.Errorf("peer: save a key: %w", err)
	}
	err = publish(temp, path)
	os.Remove(temp) // gone already where publish renamed it
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("peer: save a key: %w", err)
	}
	return nil
}

// writeTemp writes a file in dir, down to the disk, and returns its name.
func writeTemp(dir string, data []byte) (name string, err error) {
	f, err := os.CreateTemp(dir, ".key-*.tmp") // mode 0600
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err := f.Write(data); err != nil {
		return "", err
	}
	if err := f.Sync(); err != nil {
		return "", err
	}
	return f.Name(), f.Close()
}

// publish gives the file temp the name path, if that is free. A hard link does
// so in one step.
func publish(temp, path string) error {
	err := os.Link(temp, path)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	return publishByRename(temp, path)
}

// publishByRename is for file systems without hard links (FAT, some network
// drives, Android). It takes the name with an empty file, then renames over it.
// Whoever loads the key just in between finds it damaged, and after a crash there
// it stays so.
func publishByRename(temp, path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(temp, path)
}
