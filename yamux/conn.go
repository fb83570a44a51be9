package yamux

import (
	"net"
	"time"
)

// A Conn is what a session runs on: noise.Conn, p2ptls.Conn, or Records of any
// other net.Conn. Write must not keep its argument.
type Conn interface {
	// ReadRecord returns the next run of bytes, never empty, which is valid until
	// the next call. It may put them into what take returns, if that is not nil:
	// memory of at least n bytes, where n is what it returns.
	ReadRecord(take func(n int) []byte) ([]byte, error)
	// Ready tells whether ReadRecord is sure not to wait. It is called by the
	// goroutine that calls ReadRecord.
	Ready() bool
	Write(p []byte) (int, error)
	Close() error
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
}

// Records returns c as a Conn. While nothing comes in it holds half a KiB.
func Records(c net.Conn) Conn { return &records{Conn: c} }

type records struct {
	net.Conn
	small [512]byte
	large *buffer // in use while reads fill what they are given
	err   error   // came with the last bytes
}

// largeRecord is what one read takes in while data streams in.
const largeRecord = 64 << 10

func (r *records) Ready() bool { return false }

func (r *records) ReadRecord(func(int) []byte) ([]byte, error) {
	if r.large != nil {
		if len(r.large.data) <= len(r.small) {
			r.large.free()
			r.large = nil
		}
	}
	for r.err == nil {
		into := r.small[:]
		if r.large != nil {
			into = r.large.data[:cap(r.large.data)]
		}
		var n int
		n, r.err = r.Read(into)
		switch {
		case n == 0:
		case r.large != nil:
			r.large.data = into[:n]
			return into[:n], nil
		default:
			if n == len(into) {
				r.large = newBuffer(largeRecord)
				r.large.data = r.large.data[:largeRecord]
			}
			return into[:n], nil
		}
	}
	return nil, r.err
}
