package feed

import "sync"

// A Config says how a Feed treats what it carries.
type Config[T any] struct {
	// Buffer is how many values may wait, at least 1. One more may be in the hands
	// of the goroutine that a slow reader causes, and one more be the mark of a loss.
	Buffer int

	// Lost makes the mark that stands where n values were dropped.
	Lost func(n int) T

	// Key, when set, names the subject of a value that makes earlier ones of the same
	// subject worthless; nil for others. Such a value takes the place of the earlier
	// one if that still waits for a slow reader.
	Key func(T) any
}

// A Feed carries values in their order. While the reader keeps up there is no more
// to it than a channel. A reader that lags causes one goroutine, until it has caught up.
type Feed[T any] struct {
	cfg  Config[T]
	out  chan T
	done chan struct{}

	mu      sync.Mutex
	closed  bool
	ring    []T            // what found no room in out; allocated when it is needed first
	head    uint64         // the number of the first in the ring, counted from the start of the feed
	tail    uint64         // the number of the one after the last
	places  map[any]uint64 // the number of the last value of a subject in the ring
	pending int            // values lost after the last in the ring
	lost    uint64         // all of them
	pumped  chan struct{}  // closed when the goroutine that empties the ring has ended; nil: there is none
}

// New makes a feed.
func New[T any](cfg Config[T]) *Feed[T] {
	cfg.Buffer = max(cfg.Buffer, 1)
	// Half of it is the channel, and half can be replaced while it waits.
	return &Feed[T]{cfg: cfg, out: make(chan T, (cfg.Buffer+1)/2), done: make(chan struct{})}
}

// Values gives what is told, in order. The channel is closed by Close.
func (f *Feed[T]) Values() <-chan T { return f.out }

// Lost tells how many values were dropped so far.
func (f *Feed[T]) Lost() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lost
}

// Tell passes v on. It does not wait for the reader.
func (f *Feed[T]) Tell(v T) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	if f.pumped == nil {
		select {
		case f.out <- v:
			return
		default:
		}
		if f.ring == nil {
			f.ring, f.places = make([]T, max(f.cfg.Buffer/2, 1)), make(map[any]uint64)
		}
		f.pumped = make(chan struct{})
		go f.pump(f.pumped)
	}
	var key any
	if f.cfg.Key != nil {
		key = f.cfg.Key(v)
	}
	if key != nil {
		if at, ok := f.places[key]; ok {
			f.ring[at%uint64(len(f.ring))] = v
			return
		}
	}
	need := 1
	if f.pending > 0 {
		need = 2 // the mark of the loss comes first
	}
	if int(f.tail-f.head)+need > len(f.ring) {
		f.pending++
		f.lost++
		return
	}
	if f.pending > 0 {
		f.push(f.cfg.Lost(f.pending), nil)
		f.pending = 0
	}
	f.push(v, key)
}

// push puts v at the end of the ring, which has room. f.mu is held.
func (f *Feed[T]) push(v T, key any) {
	f.ring[f.tail%uint64(len(f.ring))] = v
	if key != nil {
		f.places[key] = f.tail
	}
	f.tail++
}

// pop takes the next value out. f.mu is held.
func (f *Feed[T]) pop() (v T, ok bool) {
	if f.head == f.tail {
		if f.pending == 0 {
			return v, false
		}
		v, f.pending = f.cfg.Lost(f.pending), 0
		return v, true
	}
	place := &f.ring[f.head%uint64(len(f.ring))]
	v = *place
	var none T
	*place = none
	if f.cfg.Key != nil {
		if key := f.cfg.Key(v); key != nil {
			delete(f.places, key)
		}
	}
	f.head++
	return v, true
}

// pump hands the ring to the reader, and ends when it is empty.
func (f *Feed[T]) pump(ended chan struct{}) {
	defer close(ended)
	for {
		f.mu.Lock()
		v, ok := f.pop()
		if !ok || f.closed {
			f.pumped = nil
			f.mu.Unlock()
			return
		}
		f.mu.Unlock()
		select {
		case f.out <- v:
		case <-f.done:
			return
		}
	}
}

// Close ends the feed. What waits in the channel can still be read, what waits
// behind it is dropped.
func (f *Feed[T]) Close() {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return
	}
	f.closed = true
	close(f.done)
	pumped := f.pumped
	f.ring, f.places = nil, nil
	f.head, f.tail, f.pending = 0, 0, 0
	f.mu.Unlock()
	if pumped != nil {
		<-pumped
	}
	close(f.out)
}
