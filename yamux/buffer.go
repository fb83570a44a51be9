package yamux

import (
	"math/bits"
	"sync"
)

// Buffers come in powers of two, from 64 bytes, so that a stream which got one
// byte pins little, to 256 KiB, the largest single write.
const (
	minBufferBits = 6
	maxBufferBits = 18
	maxBuffer     = 1 << maxBufferBits
)

var bufferPools [maxBufferBits - minBufferBits + 1]sync.Pool

// A buffer is a pooled run of bytes, and a link of a queue.
type buffer struct {
	data []byte // data[off:] is still to be consumed
	off  int
	next *buffer
}

// newBuffer returns an empty buffer with room for n bytes, at most maxBuffer.
func newBuffer(n int) *buffer {
	class := max(bits.Len(uint(n-1)), minBufferBits) - minBufferBits
	if b, ok := bufferPools[class].Get().(*buffer); ok {
		return b
	}
	return &buffer{data: make([]byte, 0, 1<<(class+minBufferBits))}
}

// free gives the buffer back; nobody may hold a slice of it any more.
func (b *buffer) free() {
	class := bits.Len(uint(cap(b.data))) - 1 - minBufferBits
	b.data, b.off, b.next = b.data[:0], 0, nil
	bufferPools[class].Put(b)
}

// extend returns the next n bytes of the buffer to be filled in.
func (b *buffer) extend(n int) []byte {
	end := len(b.data)
	b.data = b.data[:end+n]
	return b.data[end:]
}

func (b *buffer) room() int { return cap(b.data) - len(b.data) }

// A queue is a list of buffers; the zero queue is empty and holds no memory.
type queue struct {
	head, tail *buffer
	size       int // bytes not yet consumed
}

func (q *queue) push(b *buffer) {
	if q.tail == nil {
		q.head = b
	} else {
		q.tail.next = b
	}
	q.tail = b
	q.size += len(b.data) - b.off
}

// pop takes the first buffer out; nil when there is none.
func (q *queue) pop() *buffer {
	b := q.head
	if b == nil {
		return nil
	}
	q.head = b.next
	if q.head == nil {
		q.tail = nil
	}
	b.next = nil
	q.size -= len(b.data) - b.off
	return b
}

func (q *queue) clear() {
	for b := q.pop(); b != nil; b = q.pop() {
		b.free()
	}
}

// write appends a copy of p. The memory it takes is at most about 1.5 times the
// bytes in the queue, however small or odd the pieces are.
func (q *queue) write(p []byte) {
	if t := q.tail; t != nil {
		n := min(len(p), t.room())
		copy(t.extend(n), p)
		q.size += n
		p = p[n:]
	}
	for len(p) > 0 {
		// A trickle of small pieces gets larger buffers the more of it waits, so
		// that the overhead of each is bounded, too.
		want := max(len(p), min(q.size/4, 4<<10))
		b := newBuffer(1 << fittingBits(want))
		n := min(len(p), b.room())
		copy(b.extend(n), p)
		q.push(b)
		p = p[n:]
	}
}

// fittingBits returns the size class for n bytes that wastes at most a third
// of itself; where the next power of two wastes more, it is the one below, and
// what does not fit goes to another buffer.
func fittingBits(n int) int {
	b := bits.Len(uint(n - 1))
	if b > minBufferBits && 3*n < 2<<b {
		b--
	}
	return min(max(b, minBufferBits), maxBufferBits)
}

// read moves bytes to p, as many as there are.
func (q *queue) read(p []byte) (n int) {
	for n < len(p) && q.head != nil {
		b := q.head
		m := copy(p[n:], b.data[b.off:])
		b.off += m
		q.size -= m
		n += m
		if b.off == len(b.data) {
			q.pop().free()
		}
	}
	return n
}

// extend returns n contiguous bytes at the end of the queue to be filled in.
// Small pieces gather in one buffer of up to limit bytes, to be written at once.
func (q *queue) extend(n, limit int) []byte {
	t := q.tail
	switch {
	case t == nil || t.room() < n && len(t.data)+n > limit:
		q.push(newBuffer(n))
		t = q.tail
	case t.room() < n:
		larger := newBuffer(min(2*(len(t.data)+n), limit))
		larger.data = append(larger.data, t.data...)
		t.data, larger.data = larger.data, t.data
		larger.free()
	}
	q.size += n
	return t.extend(n)
}
