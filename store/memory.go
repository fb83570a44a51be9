package store

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/kith-p2p/kith/host"
)

const (
	// MaxKey is the longest key, in bytes: a name, a slash and a peer ID or an address
	// fit several times.
	MaxKey = 512
	// MaxValue is the largest value, in bytes: what is larger belongs in a file of its own.
	MaxValue = 1 << 20
	// MaxFile is the largest file, in bytes: an address book that takes 64 MiB of
	// memory, with the free space of a database, several times.
	MaxFile = 1 << 30

	// FileName is the name of the file in its directory.
	FileName = "kith.db"
)

var (
	// ErrInUse: another process, or this one, has the file open.
	ErrInUse = errors.New("store: in use")
	// ErrDamaged: the file is not as it was written.
	ErrDamaged = errors.New("store: damaged")
	// ErrNewer: the file was written by a newer version of the program.
	ErrNewer = errors.New("store: newer version")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("store: closed")
)

// Memory is a store that lasts as long as the process. The zero value is empty and
// ready. Its methods are as host.Store says.
type Memory struct {
	mu     sync.RWMutex
	values map[string][]byte
}

var _ host.Store = (*Memory)(nil)

// Get returns the value of key, or nil.
func (m *Memory) Get(key string) ([]byte, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return slices.Clone(m.values[key]), nil // of an empty value an empty one
}

// Write makes all of the changes.
func (m *Memory) Write(changes ...host.Change) error {
	if err := check(changes); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.values == nil {
		m.values = make(map[string][]byte)
	}
	for _, c := range changes {
		if c.Value == nil {
			delete(m.values, c.Key)
			continue
		}
		m.values[c.Key] = append([]byte{}, c.Value...)
	}
	return nil
}

// Each calls f for every key with the prefix, in order. It holds nothing while it does.
func (m *Memory) Each(prefix string, f func(key string, value []byte) error) error {
	m.mu.RLock()
	keys := slices.Sorted(maps.Keys(m.values))
	m.mu.RUnlock()
	for _, key := range keys {
		if !strings.HasPrefix(key, prefix) {
			continue
		}
		value, err := m.Get(key)
		if err == nil && value != nil {
			err = f(key, value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// check refuses changes that no store takes.
func check(changes []host.Change) error {
	for _, c := range changes {
		switch {
		case c.Key == "" || len(c.Key) > MaxKey:
			return fmt.Errorf("store: a key has %d bytes; it must have 1 to %d", len(c.Key), MaxKey)
		case c.Key[0] == 0:
			return fmt.Errorf("store: key %q begins with a zero byte, which the store keeps for itself", c.Key)
		case len(c.Value) > MaxValue:
			return fmt.Errorf("store: the value of %q has %d bytes; %d is the most", c.Key, len(c.Value), MaxValue)
		}
	}
	return nil
}
