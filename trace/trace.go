package trace

import (
	"fmt"
	"sync"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/feed"
)

// A Record is an event with its place in the order and its time.
type Record struct {
	Seq   uint64 // from 1; those that were lost are counted too
	Time  time.Time
	Event host.Event
}

// A Trace keeps the events of a host until they are read, at most as many as it was
// made for. The host never waits for it: see host.EventsLost.
type Trace struct {
	feed *feed.Feed[Record]
	stop func()

	mu   sync.Mutex // keeps the order of the numbers
	last uint64
}

// New makes a trace that gets its events by Add, which can be a Config's Trace, to
// have them from the very first. buffer is how many may wait to be read.
func New(buffer int) *Trace {
	return &Trace{stop: func() {}, feed: feed.New(feed.Config[Record]{
		Buffer: buffer,
		Lost: func(n int) Record {
			return Record{Time: time.Now(), Event: host.EventsLost{N: n}}
		},
	})}
}

// Start traces a host that runs.
func Start(h *host.Host, buffer int) *Trace {
	t := New(buffer)
	t.stop = h.Trace(t.Add)
	return t
}

// Add notes an event that happens now. It does not block.
func (t *Trace) Add(e host.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last++
	t.feed.Tell(Record{Seq: t.last, Time: time.Now(), Event: e})
}

// Records gives what was traced, in order. The channel is closed by Close. A record
// of host.EventsLost stands for those that are missing, and has no number.
func (t *Trace) Records() <-chan Record { return t.feed.Values() }

// Lost tells how many events there was no room for.
func (t *Trace) Lost() uint64 { return t.feed.Lost() }

// Close ends the trace.
func (t *Trace) Close() {
	t.stop()
	t.feed.Close()
}

// clock is how a line for people begins.
const clock = "15:04:05.000000 "

// String is the record for people, as one line without its end.
func (r Record) String() string {
	return r.Time.Format(clock) + Describe(r.Event).String()
}

// MarshalJSON gives {"seq":1,"time":"…","event":"…", …}.
func (r Record) MarshalJSON() ([]byte, error) {
	b := fmt.Appendf(nil, `{"seq":%d,"time":%q,`, r.Seq, r.Time.UTC().Format(time.RFC3339Nano))
	return append(Describe(r.Event).AppendJSON(b), '}'), nil
}
