package host

// A Store keeps what must survive a restart: small values under short keys. Package
// store has two, in memory and in a file. Each part of a program takes keys with a
// prefix of its own that ends in a slash, such as "book/"; what it reads back it
// must take for untrusted.
//
// All methods may be called from several goroutines.
type Store interface {
	// Get returns the value of key, or nil when there is none. The caller may keep it.
	Get(key string) ([]byte, error)

	// Write makes all of the changes, in order, or none. When it has returned nil they
	// survive the end of the process and of the machine's power.
	Write(changes ...Change) error

	// Each calls f for every key with the prefix, in the order of their bytes, until f
	// returns an error, which it then returns. The value is valid until f returns. f
	// must not use the Store.
	Each(prefix string, f func(key string, value []byte) error) error
}

// A Change is one thing that a Store writes.
type Change struct {
	Key   string
	Value []byte // nil: the key is deleted
}
