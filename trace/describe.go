package trace

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// A Line is an event in words: its name, and what there is to know of it in the
// order in which to read it. Keys are those of the JSON objects. Of values with
// these keys people see the value alone: peer, addr, text; err comes last.
type Line struct {
	Event string // the name of the type, as in "conn_opened"
	Attrs []slog.Attr
}

// Describe gives the line of an event. Of a type that it does not know, there is
// the name alone.
func Describe(e host.Event) Line {
	switch e := e.(type) {
	case host.ConnOpened:
		return line("conn_opened", conn(e.Conn), str("dir", dirOf(e.Conn)), str("security", securityOf(e.Conn)))
	case host.ConnClosed:
		return line("conn_closed", conn(e.Conn), dur("age", ageOf(e.Conn)), str("code", codeOf(e.Err)), fail(e.Err))
	case host.PeerConnected:
		return line("peer_connected", who(e.Peer))
	case host.PeerDisconnected:
		return line("peer_disconnected", who(e.Peer))
	case host.PeerIdentified:
		return line("peer_identified", conn(e.Conn), str("agent", e.Info.AgentVersion), num("protocols", len(e.Info.Protocols)), list("listens", e.Info.Addrs), flag("signed", e.Info.SignedRecord), flag("push", e.Push))
	case host.PeerDiscovered:
		return line("peer_discovered", who(e.Info.ID), str("source", e.Source), list("addrs", e.Info.Addrs))
	case host.AddrsChanged:
		return line("addrs_changed", list("addrs", e.Addrs))
	case host.NetworkChanged:
		return line("network_changed", str("network", fmt.Sprintf("%016x", uint64(e.Network))))
	case host.ProtocolsChanged:
		return line("protocols_changed", list("protocols", e.Protocols))
	case host.LimitReached:
		return line("limit_reached", limit(e.Err), num("refused", e.Refused), num("ended", e.Ended), remedy(e.Err))
	case host.EventsLost:
		return line("events_lost", num("n", e.N))
	case host.DialStarted:
		return line("dial_started", dial(e.ID, e.Peer), flag("background", e.Background), list("addrs", e.Addrs))
	case host.DialResolved:
		return line("dial_resolved", dial(e.ID, e.Peer), dur("elapsed", e.Elapsed), num("failed", len(e.Failed)), list("addrs", e.Addrs))
	case host.DialRanked:
		return line("dial_ranked", dial(e.ID, e.Peer), list("order", steps(e.Steps)), list("skipped", skipped(e.Skipped)))
	case host.DialAttempted:
		return line("dial_attempted", dial(e.ID, e.Peer), attempt(e.Attempt))
	case host.DialEnded:
		return line("dial_ended", dial(e.ID, e.Peer), dur("elapsed", e.Elapsed), num("conn", connID(e.Conn)), fail(e.Err))
	case host.UpgradeFailed:
		return line("upgrade_failed", addr(e.Addr), str("stage", e.Stage.String()), dur("elapsed", e.Elapsed), fail(e.Err))
	case host.StreamOpened:
		return line("stream_opened", conn(e.Conn), str("dir", e.Dir.String()), str("protocol", string(e.Protocol)))
	case host.StreamEnded:
		return line("stream_ended", conn(e.Conn), str("protocol", string(e.Protocol)), dur("elapsed", e.Elapsed), fail(e.Err))
	case host.StreamRefused:
		return line("stream_refused", conn(e.Conn), fail(e.Err))
	case host.HandlerPanicked:
		return line("handler_panicked", conn(e.Conn), str("protocol", string(e.Protocol)), str("value", fmt.Sprint(e.Value)), str("stack", string(e.Stack)))
	}
	return line(snake(strings.TrimPrefix(fmt.Sprintf("%T", e), "host.")))
}

// What a case of Describe is made of. attrs that are the zero Attr say nothing and
// are left out.

func line(event string, attrs ...slog.Attr) Line {
	l := Line{Event: event}
	for _, a := range attrs {
		switch {
		case a.Value.Kind() == slog.KindGroup:
			for _, in := range a.Value.Group() {
				if in.Key != "" {
					l.Attrs = append(l.Attrs, in)
				}
			}
		case a.Key != "":
			l.Attrs = append(l.Attrs, a)
		}
	}
	return l
}

func str(key, value string) slog.Attr {
	if value == "" {
		return slog.Attr{}
	}
	return slog.String(key, value)
}

func num[N int | uint64](key string, n N) slog.Attr {
	if n == 0 {
		return slog.Attr{}
	}
	return slog.Uint64(key, uint64(n))
}

func flag(key string, on bool) slog.Attr {
	if !on {
		return slog.Attr{}
	}
	return slog.Bool(key, true)
}

func dur(key string, d time.Duration) slog.Attr {
	if d == 0 {
		return slog.Attr{}
	}
	return slog.Duration(key, d)
}

func fail(err error) slog.Attr {
	if err == nil {
		return slog.Attr{}
	}
	return slog.String("err", err.Error())
}

func who(p peer.ID) slog.Attr {
	if p.IsZero() {
		return slog.Attr{}
	}
	return slog.Any("peer", p)
}

func addr(a multiaddr.Addr) slog.Attr { return str("addr", a.String()) }

func list[T any](key string, of []T) slog.Attr {
	texts := make([]string, len(of))
	for i, v := range of {
		texts[i] = fmt.Sprint(v)
	}
	return slog.Any(key, texts)
}

func limit(e *host.LimitError) slog.Attr {
	if e == nil {
		return slog.Attr{}
	}
	return slog.GroupAttrs("", str("scope", e.Scope), num("limit", e.Limit), num("used", e.Used))
}

func remedy(e *host.LimitError) slog.Attr {
	if e == nil {
		return slog.Attr{}
	}
	return str("remedy", e.Remedy())
}

// conn names a connection by its peer, address and number.
func conn(c *host.Conn) slog.Attr {
	if c == nil {
		return slog.Attr{}
	}
	return slog.GroupAttrs("", who(c.RemotePeer()), addr(c.RemoteAddr()), num("conn", c.ID()))
}

func connID(c *host.Conn) uint64 {
	if c == nil {
		return 0
	}
	return c.ID()
}

func dirOf(c *host.Conn) string {
	if c == nil {
		return ""
	}
	return c.Direction().String()
}

func securityOf(c *host.Conn) string {
	if c == nil {
		return ""
	}
	return string(c.Security())
}

func ageOf(c *host.Conn) time.Duration {
	if c == nil {
		return 0
	}
	return time.Since(c.Opened())
}

// codeOf words the code with which a connection was closed, where its muxer carries one.
func codeOf(err error) string {
	var coded interface {
		error
		ErrorCode() uint32
	}
	if !errors.As(err, &coded) {
		return ""
	}
	switch coded.ErrorCode() {
	case host.ConnCodeNegotiationFailed:
		return "negotiation_failed"
	case host.ConnCodeResourceLimit:
		return "resource_limit"
	case host.ConnCodeRateLimited:
		return "rate_limited"
	case host.ConnCodeProtocolViolation:
		return "protocol_violation"
	case host.ConnCodeSupplanted:
		return "supplanted"
	case host.ConnCodeGarbageCollected:
		return "garbage_collected"
	case host.ConnCodeShutdown:
		return "shutdown"
	case host.ConnCodeGated:
		return "gated"
	}
	return ""
}

func dial(id uint64, p peer.ID) slog.Attr {
	return slog.GroupAttrs("", who(p), num("dial", id))
}

func attempt(a host.DialAttempt) slog.Attr {
	if a.Skipped() {
		return slog.GroupAttrs("", addr(a.Addr), flag("skipped", true), fail(a.Err))
	}
	return slog.GroupAttrs("", addr(a.Addr), str("stage", a.Stage.String()), dur("delay", a.Delay), dur("elapsed", a.Elapsed), fail(a.Err))
}

func steps(all []host.DialStep) []string {
	texts := make([]string, len(all))
	for i, s := range all {
		texts[i] = fmt.Sprintf("%s +%v", s.Addr, rounded(s.Delay))
		if s.Why != "" {
			texts[i] += " (" + s.Why + ")"
		}
	}
	return texts
}

func skipped(all []host.DialAttempt) []string {
	texts := make([]string, len(all))
	for i, a := range all {
		texts[i] = fmt.Sprintf("%s: %v", a.Addr, a.Err)
	}
	return texts
}

// AppendText appends the line for people, without a line's end.
func (l Line) AppendText(b []byte) ([]byte, error) {
	b = fmt.Appendf(b, "%-17s", l.Event)
	var last string
	for _, a := range l.Attrs {
		text := valueText(a.Value)
		switch a.Key {
		case "err":
			last = text
		case "stack": // for programs, and the log has it
		case "peer", "addr", "text":
			b = append(append(b, ' '), text...)
		default:
			if strings.ContainsRune(text, ' ') && text[0] != '[' {
				text = fmt.Sprintf("%q", text)
			}
			b = fmt.Appendf(b, " %s=%s", a.Key, text)
		}
	}
	if last != "" {
		b = append(append(b, ": "...), last...)
	}
	return b, nil
}

// String is the line for people.
func (l Line) String() string {
	b, _ := l.AppendText(nil)
	return string(b)
}

// valueText words a value for a terminal: on one line, and without what could move the cursor.
func valueText(v slog.Value) string {
	switch v.Kind() {
	case slog.KindDuration:
		return rounded(v.Duration()).String()
	case slog.KindAny:
		switch any := v.Any().(type) {
		case peer.ID:
			return any.ShortString()
		case []string:
			return "[" + printable(strings.Join(any, " ")) + "]"
		}
	}
	return printable(v.String())
}

// rounded keeps as much of a duration as people want to read.
func rounded(d time.Duration) time.Duration {
	switch {
	case d >= time.Second:
		return d.Round(time.Millisecond)
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond)
	}
	return d.Round(100 * time.Nanosecond)
}

// printable makes the words of strangers safe for a terminal. An error of several
// lines becomes one.
func printable(s string) string {
	if strings.Contains(s, "\n") {
		s = strings.ReplaceAll(strings.ReplaceAll(s, "\n  ", "; "), "\n", "; ")
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// AppendJSON appends the members of the JSON object of the line, without braces.
// Times are in milliseconds, under keys that end in _ms.
func (l Line) AppendJSON(b []byte) []byte {
	b = fmt.Appendf(b, `"event":%q`, l.Event)
	for _, a := range l.Attrs {
		key, value := a.Key, a.Value.Any()
		if a.Value.Kind() == slog.KindDuration {
			key, value = key+"_ms", millis(a.Value.Duration())
		}
		text, err := json.Marshal(value)
		if err != nil {
			text, _ = json.Marshal(err.Error())
		}
		b = fmt.Appendf(b, `,%q:%s`, key, text)
	}
	return b
}

func millis(d time.Duration) float64 {
	return float64(d.Round(time.Microsecond)) / float64(time.Millisecond)
}

// snake makes "conn_opened" of "ConnOpened".
func snake(name string) string {
	var b strings.Builder
	for i, r := range name {
		if unicode.IsUpper(r) && i > 0 {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}
