package trace

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// An Outcome is what became of one address of a dial.
type Outcome string

// The outcomes.
const (
	Connected Outcome = "connected"
	Failed    Outcome = "failed"
	GivenUp   Outcome = "given up"  // begun, and not needed any more
	NotTried  Outcome = "not tried" // a rule kept it from being tried
	NoTurn    Outcome = "no turn"   // the dial had ended when its turn came
)

// An Explanation is one dial: every address, what was done, how long it took, why it
// failed, and what to do about that.
type Explanation struct {
	ID       uint64
	Peer     peer.ID
	Resolve  time.Duration // until the names among the addresses were resolved; 0: there were none, or nobody waited
	Elapsed  time.Duration // of the dial; 0: it has not ended
	Identify time.Duration // from the connection until the peer has said who it is; 0: it did not yet
	Agent    string        // what the peer calls itself
	Conn     *host.Conn    // nil: there is none
	Err      error         // why there is none
	Ended    error         // why the peer closed it again before it had said who it is
	Steps    []Step        // in the order in which they were tried, then those that were not
}

// A Step is one address of a dial.
type Step struct {
	Addr    multiaddr.Addr
	Outcome Outcome
	Rank    string        // what put it into its place
	Turn    time.Duration // when its turn was to come, from the start of the dial
	Start   time.Duration // when it was begun
	Open    time.Duration // until the transport's own connection stood; 0: not reached, or at once
	Secure  time.Duration // from then until the peer had proved who it is
	Mux     time.Duration // from then until streams could be opened
	Total   time.Duration
	Stage   host.Stage // the last one reached
	Err     error
	Reason  string // Err in words for people
	Remedy  string // what to do; "" when there is nothing to do
}

// Explain makes of a trace, as far as it goes, the dials in it.
func Explain(records []Record) []*Explanation {
	var all []*Explanation
	find := func(id uint64, p peer.ID) *Explanation {
		i := slices.IndexFunc(all, func(x *Explanation) bool { return x.ID == id })
		if i < 0 {
			all = append(all, &Explanation{ID: id, Peer: p})
			i = len(all) - 1
		}
		return all[i]
	}
	opened, closed := make(map[*host.Conn]time.Time), make(map[*host.Conn]error)
	for _, r := range records {
		switch e := r.Event.(type) {
		case host.DialStarted:
			find(e.ID, e.Peer)
		case host.DialResolved:
			x := find(e.ID, e.Peer)
			x.Resolve = e.Elapsed
			for _, a := range e.Failed {
				x.note(a)
			}
		case host.DialRanked:
			x := find(e.ID, e.Peer)
			for _, s := range e.Steps {
				step := x.step(s.Addr)
				step.Turn, step.Rank = s.Delay, s.Why
				if step.Outcome == "" || step.Outcome == NotTried {
					*step = Step{Addr: s.Addr, Outcome: NoTurn, Turn: s.Delay, Rank: s.Why, Reason: "the dial had ended before its turn came"}
				}
			}
			for _, a := range e.Skipped {
				x.note(a)
			}
		case host.DialAttempted:
			find(e.ID, e.Peer).note(e.Attempt)
		case host.ConnOpened:
			opened[e.Conn] = r.Time
		case host.ConnClosed:
			closed[e.Conn] = e.Err
		case host.DialEnded:
			x := find(e.ID, e.Peer)
			x.Elapsed, x.Conn, x.Err = e.Elapsed, e.Conn, e.Err
			x.addMissing()
		case host.PeerIdentified:
			for _, x := range all {
				if x.Conn != nil && x.Conn == e.Conn && x.Identify == 0 {
					x.Identify, x.Agent = r.Time.Sub(opened[e.Conn]), e.Info.AgentVersion
				}
			}
		}
	}
	for _, x := range all {
		if err := closed[x.Conn]; x.Conn != nil && x.Identify == 0 && byRemote(err) {
			x.Ended = err
		}
		slices.SortStableFunc(x.Steps, func(a, b Step) int {
			return cmp.Or(cmp.Compare(a.group(), b.group()), cmp.Compare(a.Start, b.Start), cmp.Compare(a.Turn, b.Turn))
		})
	}
	return all
}

// byRemote tells whether the remote closed a connection.
func byRemote(err error) bool {
	var by interface {
		error
		IsRemote() bool
	}
	return errors.As(err, &by) && by.IsRemote()
}

// addMissing takes over what the error of a dial knows and no event has told.
func (x *Explanation) addMissing() {
	var all *host.DialError
	if !errors.As(x.Err, &all) {
		return
	}
	for _, a := range all.Attempts {
		if s := x.step(a.Addr); s.Outcome == "" || s.Outcome == NoTurn {
			x.note(a)
		}
	}
}

// group sorts what was tried before what was not.
func (s *Step) group() int {
	switch s.Outcome {
	case NoTurn:
		return 1
	case NotTried:
		return 2
	}
	return 0
}

// step finds the step of an address, or begins it.
func (x *Explanation) step(a multiaddr.Addr) *Step {
	i := slices.IndexFunc(x.Steps, func(s Step) bool { return s.Addr == a })
	if i < 0 {
		x.Steps = append(x.Steps, Step{Addr: a})
		i = len(x.Steps) - 1
	}
	return &x.Steps[i]
}

// note takes in what became of an address.
func (x *Explanation) note(a host.DialAttempt) {
	s := x.step(a.Addr)
	s.Err, s.Stage, s.Start, s.Total = a.Err, a.Stage, a.Delay, a.Elapsed
	s.Reason, s.Remedy = Why(a)
	switch {
	case a.Err == nil:
		s.Outcome = Connected
	case a.Skipped():
		s.Outcome = NotTried
	case errors.Is(a.Err, host.ErrNotNeeded):
		s.Outcome = GivenUp
	default:
		s.Outcome = Failed
	}
	// A transport tells of some stages alone; what it skips took no time.
	var at [len(a.Stages)]time.Duration
	for i := 1; i < len(at); i++ {
		at[i] = max(at[i-1], a.Stages[i])
	}
	open := at[host.StageOpened]
	if open == 0 {
		open = at[host.StageSecuring]
	}
	s.Open = open
	if a.Stage >= host.StageSecured {
		s.Secure = at[host.StageSecured] - open
	}
	if a.Stage >= host.StageMuxed {
		s.Mux = at[host.StageMuxed] - at[host.StageSecured]
	}
}

// Summary is the outcome in a sentence.
func (x *Explanation) Summary() string {
	switch {
	case x.Ended != nil:
		reason, _ := Why(host.DialAttempt{Stage: host.StageMuxed, Err: x.Ended})
		return fmt.Sprintf("connected to %s at %s in %v, but only for a moment: %s", x.Peer, x.Conn.RemoteAddr(), rounded(x.Elapsed), printable(reason))
	case x.Conn != nil:
		return fmt.Sprintf("connected to %s at %s in %v", x.Peer, x.Conn.RemoteAddr(), rounded(x.Elapsed))
	case x.Err == nil:
		return fmt.Sprintf("the dial of %s has not ended", x.Peer)
	}
	text := fmt.Sprintf("not connected to %s after %v", x.Peer, rounded(x.Elapsed))
	var all *host.DialError
	if errors.As(x.Err, &all) {
		switch {
		case errors.Is(all.Cause, context.DeadlineExceeded):
			return text + ": its time was over before an address gave a connection"
		case errors.Is(all.Cause, context.Canceled): // the time of who waited was, as a rule
			return text + ": it was given up before an address gave a connection"
		}
		if all.Cause != nil {
			reason, _ := Why(host.DialAttempt{Err: all.Cause})
			return text + ": " + printable(strings.TrimPrefix(reason, "host: "))
		}
		return text + ": none of its addresses gave a connection"
	}
	return text + ": " + printable(x.Err.Error())
}

// Remedy is what to do about what ended the dial as a whole; "" if its steps have
// what there is to say.
func (x *Explanation) Remedy() string {
	if x.Ended != nil {
		_, remedy := Why(host.DialAttempt{Stage: host.StageMuxed, Err: x.Ended})
		return remedy
	}
	var all *host.DialError
	if !errors.As(x.Err, &all) || all.Cause == nil || errors.Is(all.Cause, context.Canceled) || errors.Is(all.Cause, context.DeadlineExceeded) {
		return ""
	}
	_, remedy := Why(host.DialAttempt{Err: all.Cause})
	return remedy
}

// String is the dial as a table, with the reasons and remedies below it.
func (x *Explanation) String() string {
	var b strings.Builder
	fmt.Fprintln(&b, x.Summary())
	if r := x.Remedy(); r != "" {
		fmt.Fprintf(&b, "do: %s\n", printable(r))
	}
	if x.Resolve > 0 {
		fmt.Fprintf(&b, "names were resolved within %v\n", rounded(x.Resolve))
	}
	if x.Identify > 0 {
		fmt.Fprintf(&b, "identified in %v more as %s\n", rounded(x.Identify), printable(x.Agent))
	}
	if len(x.Steps) == 0 {
		return strings.TrimSuffix(b.String(), "\n")
	}
	b.WriteByte('\n')
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "#\tSTARTED\tOPEN\tSECURE\tMUX\tTOTAL\tOUTCOME\tADDRESS\n")
	for i, s := range x.Steps {
		started := "-"
		switch s.Outcome {
		case NotTried:
		case NoTurn:
			started = "(+" + rounded(s.Turn).String() + ")"
		default:
			started = "+" + rounded(s.Start).String()
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", i+1, started, cell(s.Open), cell(s.Secure), cell(s.Mux), cell(s.Total), s.Outcome, printable(s.Addr.String()))
	}
	w.Flush()
	first := true
	for i, s := range x.Steps {
		if s.Reason == "" && s.Rank == "" {
			continue
		}
		if first {
			b.WriteByte('\n')
			first = false
		}
		label := fmt.Sprintf("%d", i+1)
		for _, l := range []struct{ what, text string }{{"rank", s.Rank}, {"why", s.Reason}, {"do", s.Remedy}} {
			if l.text != "" {
				fmt.Fprintf(&b, "%-2s %-4s %s\n", label, l.what, printable(l.text))
				label = ""
			}
		}
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func cell(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return rounded(d).String()
}

// MarshalJSON gives the same as an object; times are in milliseconds.
func (x *Explanation) MarshalJSON() ([]byte, error) {
	type step struct {
		Addr    string  `json:"addr"`
		Outcome Outcome `json:"outcome"`
		Rank    string  `json:"rank,omitempty"`
		Turn    float64 `json:"turn_ms"`
		Start   float64 `json:"started_ms"`
		Open    float64 `json:"open_ms"`
		Secure  float64 `json:"secure_ms"`
		Mux     float64 `json:"mux_ms"`
		Total   float64 `json:"total_ms"`
		Stage   string  `json:"stage,omitempty"`
		Err     string  `json:"err,omitempty"`
		Reason  string  `json:"reason,omitempty"`
		Remedy  string  `json:"remedy,omitempty"`
	}
	object := struct {
		Event    string  `json:"event"`
		Peer     peer.ID `json:"peer"`
		Dial     uint64  `json:"dial"`
		Summary  string  `json:"summary"`
		Remedy   string  `json:"remedy,omitempty"`
		Conn     string  `json:"connected,omitempty"`
		Resolve  float64 `json:"resolve_ms"`
		Elapsed  float64 `json:"elapsed_ms"`
		Identify float64 `json:"identify_ms"`
		Agent    string  `json:"agent,omitempty"`
		Steps    []step  `json:"steps"`
	}{"explanation", x.Peer, x.ID, x.Summary(), x.Remedy(), "", millis(x.Resolve), millis(x.Elapsed), millis(x.Identify), x.Agent, []step{}}
	if x.Conn != nil {
		object.Conn = x.Conn.RemoteAddr().String()
	}
	for _, s := range x.Steps {
		one := step{
			Addr: s.Addr.String(), Outcome: s.Outcome, Rank: s.Rank, Turn: millis(s.Turn), Start: millis(s.Start),
			Open: millis(s.Open), Secure: millis(s.Secure), Mux: millis(s.Mux), Total: millis(s.Total), Reason: s.Reason, Remedy: s.Remedy,
		}
		if s.group() == 0 {
			one.Stage = s.Stage.String()
		}
		if s.Err != nil {
			one.Err = s.Err.Error()
		}
		object.Steps = append(object.Steps, one)
	}
	return json.Marshal(object)
}
