package yamux

import "time"

// What a peer may do before the session ends or its frames are refused.
const (
	// maxUnacked is how many own streams may be open that the peer has not
	// acknowledged; the specification's bound, which go-libp2p and rust-libp2p
	// enforce. https://github.com/libp2p/specs/blob/master/yamux/README.md#ack-backlog--backpressure
	maxUnacked = 256

	// ackBatch is after how many unacknowledged streams of the peer they are
	// all acknowledged, well before it would have to wait (256).
	ackBatch = 32

	// maxPings ends a session in pingSpan: the other implementations ping at
	// most every few seconds, and each ping costs an answer.
	maxPings = 1000
	pingSpan = 10 * time.Second

	// maxResets is how many streams a peer may reset, or open beyond
	// MaxIncomingStreams, in resetSpan: opening and resetting costs it nothing.
	maxResets = 1000
	resetSpan = 10 * time.Second

	// maxEmpty is how many frames without any effect a peer may send in
	// emptySpan. Honest ones send none.
	maxEmpty  = 1000
	emptySpan = time.Second

	// maxReplies bounds, in bytes, the answers of the read loop that wait while
	// the peer does not read. It has room for every answer that the limits above
	// permit within the default WriteTimeout.
	maxReplies = 64 << 10

	// maxLingering is how many streams are remembered that we closed and the
	// peer has not finished. Beyond it one is forgotten: what comes for it is
	// then ignored for ever.
	maxLingering = 256

	// lingerBytes is how much a peer may send on a stream that we closed until
	// it is reset: what can be under way when it has not grown its window.
	lingerBytes = initialWindow

	// minChunk is from what size, in bytes, a record is decrypted straight into
	// a buffer that a stream's queue can take over; shorter ones are copied.
	minChunk = 16 << 10

	// usedIDs is how far behind the newest a new stream id of the peer may be.
	usedIDs = 512
)

// A rate counts events in spans of time.
type rate struct {
	start time.Duration
	n     int
}

// exceeds counts one event and tells whether there were more than limit in the
// span.
func (r *rate) exceeds(limit int, span, now time.Duration) bool {
	if now-r.start >= span {
		r.start, r.n = now, 0
	}
	r.n++
	return r.n > limit
}

// An idWindow remembers which of the peer's stream ids were used. They are not
// simply ascending: go-libp2p takes ids and sends first frames concurrently.
// Ids further back than usedIDs count as used.
type idWindow struct {
	next uint32 // all indexes from here on are unused
	bits [usedIDs / 64]uint64
}

// use marks a stream id and tells whether it was unused.
func (w *idWindow) use(id uint32) bool {
	index := (id - 1) / 2 // 1, 3, 5… and 2, 4, 6… both count from 0
	if index < w.next && w.next-index > usedIDs {
		return false
	}
	for n := min(usedIDs, index-w.next+1); index >= w.next && n > 0; n-- {
		*w.word(index - n + 1) &^= bit(index - n + 1)
	}
	w.next = max(w.next, index+1)
	fresh := *w.word(index)&bit(index) == 0
	*w.word(index) |= bit(index)
	return fresh
}

func (w *idWindow) word(index uint32) *uint64 { return &w.bits[index/64%uint32(len(w.bits))] }

func bit(index uint32) uint64 { return 1 << (index % 64) }
