package trace

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/kith-p2p/kith/host"
)

// A peer that closes a connection at once has not let us in, whatever the dial says.
func TestExplainTurnedAway(t *testing.T) {
	c := new(host.Conn)
	gated := &host.ConnError{Code: host.ConnCodeGated, Remote: true, Err: closedBy{remote: true}}
	for _, x := range []struct {
		err  error
		want bool
	}{{gated, true}, {&host.ConnError{Code: host.ConnCodeShutdown, Err: closedBy{}}, false}, {errors.New("silence"), false}} {
		records := []Record{
			{Seq: 1, Event: host.DialStarted{ID: 1}},
			{Seq: 2, Event: host.ConnOpened{Conn: c}},
			{Seq: 3, Event: host.DialEnded{ID: 1, Conn: c, Elapsed: time.Millisecond}},
			{Seq: 4, Event: host.ConnClosed{Conn: c, Err: x.err}},
		}
		all := Explain(records)
		if len(all) != 1 || (all[0].Ended != nil) != x.want {
			t.Fatalf("%v: %+v", x.err, all)
		}
		text := all[0].String()
		if got := strings.Contains(text, "only for a moment: the peer turned us away") && strings.Contains(text, "do: the peer decides"); got != x.want {
			t.Errorf("%v: %s", x.err, text)
		}
	}
}

type closedBy struct{ remote bool }

func (closedBy) Error() string    { return "closed" }
func (closedBy) Unwrap() error    { return net.ErrClosed }
func (c closedBy) IsRemote() bool { return c.remote }
