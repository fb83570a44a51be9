package store

import "errors"

// A File is a store in a file; in a browser there are none.
type File struct{ Memory }

// Open fails: what a page keeps it keeps otherwise.
func Open(string) (*File, error) {
	return nil, errors.New("store: there are no files in a browser: use Memory, or a Store of your own")
}

// Path is where the file is.
func (*File) Path() string { return "" }

// Close does nothing.
func (*File) Close() error { return nil }
