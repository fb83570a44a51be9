package yamux

import "time"

// A Config tunes a session; the zero value is good for a node on the internet.
type Config struct {
	// MaxIncomingStreams is how many streams of the peer may be open at once;
	// more are reset. 0: 1024. Negative: none.
	MaxIncomingStreams int

	// MaxWindow is how far, in bytes, the receive window of one stream may grow
	// from its initial 256 KiB, with bandwidth times delay. 0: 16 MiB, which
	// is what go-libp2p grants and fills 1.3 Gbit/s at 100 ms. Negative: windows
	// do not grow.
	MaxWindow int

	// Budget is how many bytes all streams together may hold for readers that
	// are slow. Windows do not grow beyond it, and the stream that would exceed
	// it is reset. 0: 64 MiB, that is 256 streams with a full initial window, as
	// many as a peer may open before we acknowledge any, or 4 with the largest.
	// Negative: no limit.
	Budget int

	// KeepAlive is after how long without a word from the peer the server asks it for
	// one, and the client after half as long again; it has 10 s to answer. 0: 30 s.
	// Negative: off.
	KeepAlive time.Duration

	// WriteTimeout is how long one Conn.Write may take until the session ends.
	// 0: 10 s. Negative: no limit.
	WriteTimeout time.Duration
}

const (
	defaultStreams      = 1024
	defaultMaxWindow    = 16 << 20
	defaultBudget       = 64 << 20
	defaultKeepAlive    = 30 * time.Second
	defaultWriteTimeout = 10 * time.Second

	// maxMaxWindow keeps sums of windows within 32 bits.
	maxMaxWindow = 1 << 30
)

func (c Config) withDefaults() Config {
	switch {
	case c.MaxIncomingStreams == 0:
		c.MaxIncomingStreams = defaultStreams
	case c.MaxIncomingStreams < 0:
		c.MaxIncomingStreams = 0
	}
	if c.MaxWindow == 0 {
		c.MaxWindow = defaultMaxWindow
	}
	c.MaxWindow = min(max(c.MaxWindow, initialWindow), maxMaxWindow)
	if c.Budget == 0 {
		c.Budget = defaultBudget
	}
	if c.KeepAlive == 0 {
		c.KeepAlive = defaultKeepAlive
	}
	if c.WriteTimeout == 0 {
		c.WriteTimeout = defaultWriteTimeout
	}
	return c
}
