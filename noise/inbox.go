package noise

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
)

const (
	// smallLen is what every Conn has for reading, in bytes: enough for a
	// handshake's messages and for the chatter of a connection without
	// transfers.
	smallLen = 320

	recordsPerBlock = 4
	fullRecord      = lengthLen + maxMessage
)

// blockSizes are the sizes of shared memory, in bytes. The first holds most
// messages and the second any; the last is for bulk, where a system call moves
// several. The steps bound how much more than has arrived is ever held: who has
// sent a few hundred bytes gets 8 KiB of ours, who has sent 8 KiB gets 64 KiB.
var blockSizes = [...]int{8 << 10, fullRecord, recordsPerBlock * fullRecord}

// A block is memory that is held only while there is something in it.
type block struct {
	b    []byte
	size int // index in blockSizes
}

var blocks [len(blockSizes)]sync.Pool

// takeBlock returns a block of at least n bytes, or the largest.
func takeBlock(n int) *block {
	size := 0
	for size < len(blockSizes)-1 && blockSizes[size] < n {
		size++
	}
	if b, ok := blocks[size].Get().(*block); ok {
		return b
	}
	return &block{make([]byte, blockSizes[size]), size}
}

func (b *block) release() { blocks[b.size].Put(b) }

// An inbox reads messages from a connection, as many with one call as it can
// get. It is owned by the reader.
//
// A connection on which nothing has arrived must hold no large memory. With a
// socket that is simple: a block is taken when there is something to read.
// Otherwise Read is asked to fill small, and only when it has filled that, a
// block of the next size.
type inbox struct {
	conn   net.Conn
	socket syscall.RawConn // nil: read from conn

	block *block // nil: buf is small
	buf   []byte
	r, w  int // buf[r:w] was received and not yet returned

	// of one call of socket.Read
	try func(fd uintptr) bool
	n   int
	err error

	small [smallLen]byte
}

func (in *inbox) init(conn net.Conn) {
	in.conn = conn
	in.buf = in.small[:]
}

// frame returns the next message without its length, valid until the next call.
// The error is io.EOF only between two messages.
func (in *inbox) frame(max int) ([]byte, error) {
	for {
		if have := in.w - in.r; have >= lengthLen {
			size := int(binary.BigEndian.Uint16(in.buf[in.r:]))
			if size > max {
				return nil, fmt.Errorf("message of %d bytes is over the limit of %d", size, max)
			}
			if end := lengthLen + size; have >= end {
				msg := in.buf[in.r+lengthLen : in.r+end : in.r+end]
				in.r += end
				return msg, nil
			}
		}
		if err := in.fill(); err != nil {
			if err == io.EOF && in.r < in.w {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

// ready tells whether all of the next record is there, and it is not an empty one,
// which ReadRecord passes over.
func (in *inbox) ready() bool {
	have := in.w - in.r - lengthLen
	if have <= tagLen {
		return false
	}
	size := int(binary.BigEndian.Uint16(in.buf[in.r:]))
	return size > tagLen && size <= have
}

// fill reads once. The message at r is not complete.
func (in *inbox) fill() error {
	if in.socket != nil {
		in.n, in.err = 0, nil
		if err := in.socket.Read(in.try); err != nil {
			in.move(in.w - in.r) // it is closed: the block is for others
			return err
		}
		return in.err
	}
	if in.r == in.w {
		in.move(0)
	} else if in.w == len(in.buf) {
		in.move(max(in.w-in.r+1, len(in.buf)))
	}
	n, err := in.conn.Read(in.buf[in.w:])
	in.w += n
	if n > 0 {
		return nil
	}
	return err
}

// move brings what is not yet returned to the start of memory of at least n
// bytes.
func (in *inbox) move(n int) {
	have := in.buf[in.r:in.w]
	old := in.block
	switch {
	case n <= smallLen:
		in.block, in.buf = nil, in.small[:]
	case old == nil || len(old.b) < n || len(old.b) >= 2*n:
		in.block = takeBlock(n)
		in.buf = in.block.b
	}
	in.r, in.w = 0, copy(in.buf, have)
	if old != nil && old != in.block {
		old.release()
	}
}
