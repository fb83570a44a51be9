package netwatch

import (
	"context"
	"net"
	"runtime"
	"slices"
	"strings"
	"time"
)

const (
	// settle is how long it has to be quiet after a notice: an interface that comes up
	// makes some ten of them within milliseconds.
	settle = 30 * time.Millisecond
	// settleMax is how long it is waited for quiet.
	settleMax = 250 * time.Millisecond
	// pollEvery is how often it is looked where nobody tells. It takes some 50 µs.
	pollEvery = 2 * time.Second
	// beat is how often the clock is looked at.
	beat = time.Second
	// burst is how many changes are told at once, and refill after how long one more is:
	// a machine that starts containers has new links all the time.
	burst  = 5
	refill = time.Second
	// asleep is by how much the clock must have gone on in one beat for the time
	// between to have been sleep. A busy machine is late by less.
	asleep = 4 * time.Second
)

// Watch calls changed after each change, from the goroutine that called Watch, until
// ctx ends.
func Watch(ctx context.Context, changed func()) {
	if runtime.GOOS == "js" {
		<-ctx.Done() // a web page sees no network
		return
	}
	notices, look, stop := listen()
	defer stop()
	watch(ctx, notices, look, changed)
}

// watch is Watch with its inputs: notices, nil when nobody tells, and look, which
// gives the same text as long as nothing has changed.
func watch(ctx context.Context, notices <-chan bool, look func() string, changed func()) {
	known := look()
	every := beat
	if notices == nil {
		every = pollEvery
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	last := wall()
	allowance := allowance{n: burst, at: time.Now()}
	pending := false // a change that was not told yet
	for {
		forced, poll := false, notices == nil
		select {
		case f, ok := <-notices:
			if !ok {
				notices = nil // the kernel tells no more
				tick.Reset(pollEvery)
			}
			forced, poll = calm(ctx, notices) || f, true
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		now := wall()
		if now.Sub(last) > every+asleep {
			forced = true
		}
		last = now
		if forced || poll {
			if seen := look(); seen != known || forced {
				known, pending = seen, true
			}
		}
		if pending && allowance.take(time.Now()) {
			pending = false
			changed()
		}
	}
}

// An allowance bounds how often something happens.
type allowance struct {
	n  int
	at time.Time // when n was right
}

func (a *allowance) take(now time.Time) bool {
	if more := int(now.Sub(a.at) / refill); more > 0 {
		a.n = min(a.n+more, burst)
		a.at = a.at.Add(time.Duration(more) * refill)
	}
	if a.n == 0 {
		return false
	}
	a.n--
	return true
}

// calm waits until there are no notices for a while, and tells whether one of them
// was of a change that may not show any more.
func calm(ctx context.Context, notices <-chan bool) (forced bool) {
	end := time.NewTimer(settleMax)
	defer end.Stop()
	for {
		quiet := time.NewTimer(settle)
		select {
		case f, ok := <-notices:
			quiet.Stop()
			if !ok {
				return forced
			}
			forced = forced || f
			continue
		case <-quiet.C:
		case <-end.C:
			quiet.Stop()
		case <-ctx.Done():
			quiet.Stop()
		}
		return forced
	}
}

// wall is the time without Go's monotonic clock, which stands still in sleep.
func wall() time.Time { return time.Now().Round(0) }

// interfaces tells the addresses of this machine, and from which of them packets
// leave for the internet.
func interfaces() string {
	var seen []string
	if addrs, err := net.InterfaceAddrs(); err == nil {
		for _, a := range addrs {
			seen = append(seen, a.String())
		}
	}
	slices.Sort(seen)
	// No packet is sent: the addresses are for documentation.
	for _, to := range []string{"192.0.2.1:9", "[2001:db8::1]:9"} {
		if c, err := net.Dial("udp", to); err == nil {
			host, _, _ := net.SplitHostPort(c.LocalAddr().String())
			seen = append(seen, "from "+host)
			c.Close()
		}
	}
	return strings.Join(seen, "\n")
}
