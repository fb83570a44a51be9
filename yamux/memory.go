package yamux

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
)

// Memory is where a session takes what its peer makes it hold, before it does. It is
// shared with other sessions. Its methods do not block, and take no lock that is held
// while a session is used.
type Memory interface {
	// Reserve takes n bytes, or does not.
	Reserve(n int) bool
	// Release gives back what Reserve took.
	Release(n int)
	// Grow takes up to n bytes for a window beyond the initial one and returns how
	// many. When the others have too little for theirs it returns less than 0: by so
	// much this session's should shrink.
	Grow(n int) int
	// Shrink gives back what Grow took.
	Shrink(n int)
}

const (
	// freeBytes is what a session holds without asking: small messages cost nothing
	// more. It is within what an idle connection is reckoned at.
	freeBytes = 4 << 10

	// Memory is reserved in steps from the first to the second, so that a busy session
	// seldom has to, and in between of a quarter of what it has.
	minReserve = 16 << 10
	maxReserve = 1 << 20

	// streamBytes is what shedding a stream that holds nothing is reckoned to give back.
	streamBytes = 6 << 10
)

// reserve is what a session has taken of its Memory for what waits for readers. A
// stream's window beyond the initial one is taken already when it grows.
type reserve struct {
	memory Memory       // nil: none; never changes after Serve was called
	owed   atomic.Int64 // what streams hold beyond that
	taken  atomic.Int64 // at least as much, with freeBytes; changes with mu held

	mu    sync.Mutex
	ended bool
}

// Charge makes the session take from m what it holds. It is to be called before
// Serve, at most once.
func (s *Session) Charge(m Memory) {
	s.reserve.mu.Lock() // somebody may be closing the session
	defer s.reserve.mu.Unlock()
	s.reserve.memory = m
	s.reserve.taken.Store(freeBytes)
}

// add notes that n bytes more are to be held, or tells that there is no memory.
func (r *reserve) add(n int) bool {
	if n == 0 || r.memory == nil {
		return true
	}
	owed := r.owed.Add(int64(n))
	return owed <= r.taken.Load() || r.take(n)
}

// take reserves another step.
func (r *reserve) take(n int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := r.taken.Load()
	short := int(r.owed.Load() - taken)
	if short <= 0 || r.ended {
		return true
	}
	step := max(short, min(int(taken)/4, maxReserve), minReserve)
	if step > short && r.memory.Reserve(step) {
		r.taken.Add(int64(step))
		return true
	}
	if r.memory.Reserve(short) {
		r.taken.Add(int64(short))
		return true
	}
	r.owed.Add(int64(-n))
	return false
}

// sub notes that n bytes less are held.
func (r *reserve) sub(n int) {
	if n == 0 || r.memory == nil {
		return
	}
	owed := r.owed.Add(int64(-n))
	if taken := r.taken.Load(); taken > freeBytes && owed < taken/4 {
		r.give()
	}
}

// give gives back what is not needed soon.
func (r *reserve) give() {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken, keep := r.taken.Load(), max(2*r.owed.Load(), freeBytes)
	if keep < taken && !r.ended {
		r.taken.Store(keep)
		// Meanwhile add may have seen that there is enough.
		if owed := r.owed.Load(); owed > keep {
			keep = min(owed, taken)
			r.taken.Store(keep)
		}
		if keep < taken {
			r.memory.Release(int(taken - keep))
		}
	}
}

// end gives everything back; what is still unread belongs to its readers.
func (r *reserve) end(grown int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.memory == nil || r.ended {
		return
	}
	r.ended = true
	if taken := r.taken.Load(); taken > freeBytes {
		r.memory.Release(int(taken - freeBytes))
	}
	if grown > 0 {
		r.memory.Shrink(grown)
	}
}

// beyond is what the stream holds of size bytes that its window's growth has not paid
// for. st.mu is held.
func (st *Stream) beyond(size int) int { return max(0, size-(int(st.window)-initialWindow)) }

// Shed gives back at least n bytes, if there are so many, by resetting streams with the
// code for resource limits: those first that hold the most.
func (s *Session) Shed(n int) {
	type holder struct {
		st   *Stream
		held int
	}
	s.mu.Lock()
	holders := make([]holder, 0, len(s.streams))
	for _, st := range s.streams {
		holders = append(holders, holder{st: st})
	}
	s.mu.Unlock()
	for i := range holders {
		st := holders[i].st
		st.mu.Lock()
		holders[i].held = max(st.received.size, int(st.window)-initialWindow) + streamBytes
		st.mu.Unlock()
	}
	slices.SortFunc(holders, func(a, b holder) int { return cmp.Compare(b.held, a.held) })
	for _, h := range holders {
		if n <= 0 {
			return
		}
		n -= h.held
		h.st.Reset(codeResourceLimit)
	}
}
