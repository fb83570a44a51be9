package host

import (
	"sync"
	"time"
)

const (
	// courtesies is how many handshakes at once are finished although there seems to be
	// no room, and courtesyEvery after how long there is one more. A handshake takes a
	// millisecond of the processor: a hundredth of a core, whatever comes.
	courtesies    = 16
	courtesyEvery = 100 * time.Millisecond
)

// A courtesy lets some of those prove who they are for whom there is no room where they
// come from. They hear of the limit by a code, which only a connection that stands
// carries, and who turns out to be protected or worth more than others gets in. The rest
// of a flood is hung up on. The zero value is ready.
type courtesy struct {
	mu    sync.Mutex
	spent int
	at    time.Time // when spent was right
}

// take tells whether there is one now.
func (c *courtesy) take(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if back := int(now.Sub(c.at) / courtesyEvery); back >= c.spent {
		c.spent, c.at = 0, now
	} else {
		c.spent -= back
		c.at = c.at.Add(time.Duration(back) * courtesyEvery)
	}
	if c.spent == courtesies {
		return false
	}
	c.spent++
	return true
}
