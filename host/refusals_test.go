package host

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A lockedBuffer is written to and read by several goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// take gives what was written since the last time.
func (l *lockedBuffer) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.b.Reset()
	return l.b.String()
}

// What limits keep out is told at once, and again after a minute, but not each time.
func TestRefusalsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out lockedBuffer
		ctx, end := context.WithCancel(t.Context())
		r := refusalLog{emit: func(Event) {}, log: slog.New(slog.NewTextHandler(&out, nil)), spawn: func(f func(context.Context)) bool {
			go f(ctx)
			return true
		}}
		told := func() (lines []string) {
			synctest.Wait()
			for line := range strings.Lines(out.take()) {
				_, line, _ = strings.Cut(strings.TrimSpace(line), "msg=")
				lines = append(lines, line)
			}
			return lines
		}
		expect := func(when string, want ...string) {
			t.Helper()
			got := told()
			if strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Errorf("%s: told %q, want %q", when, got, want)
			}
		}
		const remedy = ` remedy="raise Limits.Conns (kith node --conns), or Limits.Memory (--memory) from which it follows"`
		r.note(&LimitError{Scope: "Conns", Used: 8, Limit: 8})
		expect("at once", `"limit reached" limit=Conns used=8 of=8 refused=1`+remedy)
		for range 1000 {
			r.note(&LimitError{Scope: "Conns", Used: 8, Limit: 8})
		}
		r.note(&LimitError{Scope: "HalfOpen", Used: 4, Limit: 4})
		expect("within the minute")
		time.Sleep(tellEvery)
		expect("after a minute", `"limit reached" limit=Conns used=8 of=8 refused=1000`+remedy,
			`"limit reached" limit=HalfOpen used=4 of=4 refused=1 remedy="raise Limits.HalfOpen to allow more"`)
		time.Sleep(10 * tellEvery)
		expect("when it is over")
		r.note(&LimitError{Scope: "Conns", Used: 8, Limit: 8})
		expect("again", `"limit reached" limit=Conns used=8 of=8 refused=1`+remedy)
		if n := r.count("Conns", "HalfOpen", "ConnsPerIP"); n != 1003 {
			t.Errorf("%d were counted, want 1003", n)
		}
		end()
	})
}

// A connection that was closed with a code says in words why.
func TestConnErrorsSayWhy(t *testing.T) {
	err := fromMux(errors.Join(ended{ConnCodeResourceLimit, true}, net.ErrClosed))
	if want := "host: the remote closed the connection: resource limit exceeded"; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
	for code := ConnCodeNegotiationFailed; code <= ConnCodeGated; code++ {
		if connCodeText(code) == "" {
			t.Errorf("code %#x has no text", code)
		}
	}
	if err := errors.Join(ended{0, true}, net.ErrClosed); fromMux(err) != err {
		t.Errorf("got %q, want what the muxer says", fromMux(err))
	}
}
