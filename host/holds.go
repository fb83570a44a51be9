package host

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
)

// holds is what the users of streams keep in memory for their remotes, beyond what
// muxers do.
type holds struct {
	ending atomic.Int64 // bytes of those that were reset and have not let go yet

	mu sync.Mutex
	of map[*Stream]hold
}

type hold struct {
	bytes  int
	ending bool
}

// Take takes n bytes of the memory that the host has for streams, for what the remote
// of this one makes its user keep, such as a message that is being read: before it is
// kept. The error is a *LimitError. When others need the memory and this stream's peer
// has the most, the stream is reset with CodeResourceLimit. What was taken has to be
// released, also after the end of the stream.
func (s *Stream) Take(n int) error {
	if n == 0 {
		return nil
	}
	c, b := s.conn, s.conn.host.budget
	if err := c.account.Take(n); err != nil {
		if hub := &c.host.hub; s.dir == DirInbound && hub.traced() {
			hub.emit(StreamRefused{Conn: c, Err: err})
		}
		return err
	}
	b.holds.mu.Lock()
	defer b.holds.mu.Unlock()
	if b.holds.of == nil {
		b.holds.of = make(map[*Stream]hold)
	}
	k := b.holds.of[s]
	k.bytes += n
	if k.ending {
		b.holds.ending.Add(int64(n))
	}
	b.holds.of[s] = k
	return nil
}

// Release gives back n bytes of what Take took.
func (s *Stream) Release(n int) {
	b := s.conn.host.budget
	b.holds.mu.Lock()
	k := b.holds.of[s]
	k.bytes -= n
	if k.ending {
		b.holds.ending.Add(-int64(n))
	}
	if k.bytes > 0 {
		b.holds.of[s] = k
	} else {
		delete(b.holds.of, s)
	}
	b.holds.mu.Unlock()
	s.conn.account.Release(n)
}

// shed resets streams of an account, those first whose users keep the most, until n
// bytes are on their way back. It tells how many are.
func (h *holds) shed(a *Account, n int) (given int) {
	h.mu.Lock()
	var streams []*Stream
	for s, k := range h.of {
		if &s.conn.account == a && !k.ending {
			streams = append(streams, s)
		}
	}
	slices.SortFunc(streams, func(s, t *Stream) int { return cmp.Compare(h.of[t].bytes, h.of[s].bytes) })
	for i, s := range streams {
		if given >= n {
			streams = streams[:i]
			break
		}
		k := h.of[s]
		k.ending = true
		h.of[s] = k
		given += k.bytes
	}
	h.ending.Add(int64(given))
	h.mu.Unlock()
	for _, s := range streams {
		s.Reset(CodeResourceLimit)
	}
	return given
}
