package rpc

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/kith-p2p/kith/host"
)

// callCost is what the server of a call takes, in bytes, beyond its stream and its
// messages: the goroutine that reads, its buffer and a context with a time.
const callCost = 4 << 10

// memory is what one side of a call holds for the other. It is taken from the host's,
// before it is made.
type memory struct {
	stream *host.Stream
	taken  atomic.Int64
}

// Take is for wire.Memory.
func (m *memory) Take(n int) error {
	err := m.stream.Take(n)
	if err == nil {
		m.taken.Add(int64(n))
	}
	return err
}

func (m *memory) release(n int) {
	m.taken.Add(-int64(n))
	m.stream.Release(n)
}

// releaseAll is for when nobody takes any more.
func (m *memory) releaseAll() { m.stream.Release(int(m.taken.Swap(0))) }

// frameLen is what readFrame has taken for a frame.
func frameLen(body []byte) int { return 1 + len(body) }

// outOfMemory tells whether err says that our host has reset the stream, because it has
// too little memory for what the other side makes it hold.
func outOfMemory(err error) *host.StreamError {
	var reset *host.StreamError
	if errors.As(err, &reset) && !reset.Remote && reset.Code == host.CodeResourceLimit {
		return reset
	}
	return nil
}

func noMemory(reset *host.StreamError) error {
	return fmt.Errorf("this host has no memory left for the call: have fewer and smaller ones at once, or raise Limits.Memory: %w", reset)
}
