package trace

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/kith-p2p/kith/host"
)

const (
	// maxReaders is how many can read a node's trace at a time: each costs a queue, and
	// some work for every event.
	maxReaders = 16
	// readerBuffer is how many records wait for a reader: those of a second of a busy node.
	readerBuffer = 4096
	// writeTimeout is how long a reader may take none of what it asked for.
	writeTimeout = 10 * time.Second
)

// Handler serves the trace of a running host: a GET is answered with a line for
// each event from then on, until the reader goes away. The first tells of the node.
// Lines are JSON objects, or for people with ?format=text; ?only=dial,conn gives the
// events alone whose names begin so.
//
// A trace tells who talks with whom: serve it where only those can read it who may.
func Handler(h *host.Host) http.Handler {
	var readers atomic.Int32
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			http.Error(w, "trace: only GET is answered", http.StatusMethodNotAllowed)
			return
		}
		if readers.Add(1) > maxReaders {
			readers.Add(-1)
			http.Error(w, "trace: as many read this trace as may: end one of them", http.StatusServiceUnavailable)
			return
		}
		defer readers.Add(-1)
		serve(w, r, h)
	})
}

func serve(w http.ResponseWriter, r *http.Request, h *host.Host) {
	query := r.URL.Query()
	text := query.Get("format") == "text"
	var only []string
	if o := query.Get("only"); o != "" {
		only = strings.Split(o, ",")
	}
	t := Start(h, readerBuffer)
	defer t.Close()
	if text {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	} else {
		w.Header().Set("Content-Type", "application/jsonl")
	}
	out := http.NewResponseController(w)
	write := func(line []byte) bool {
		// Not every ResponseWriter has deadlines; the server's own count then.
		out.SetWriteDeadline(time.Now().Add(writeTimeout))
		_, err := w.Write(append(line, '\n'))
		return err == nil
	}
	if !write(greeting(h, text)) || out.Flush() != nil {
		return
	}
	for {
		select {
		case rec, ok := <-t.Records():
			if !ok {
				return
			}
			if l := Describe(rec.Event); l.Is(only...) && !write(rec.line(text)) {
				return
			}
			if len(t.Records()) == 0 && out.Flush() != nil {
				return
			}
		case <-r.Context().Done():
			return
		}
	}
}

// greeting tells of which node the trace is, and what there was before it began.
func greeting(h *host.Host, text bool) []byte {
	l := line("node", who(h.ID()), num("conns", len(h.Conns())), num("peers", len(h.Peers())), list("addrs", h.Addrs()), list("protocols", h.Protocols()))
	if text {
		return []byte(time.Now().Format(clock) + l.String())
	}
	return append(l.AppendJSON([]byte{'{'}), '}')
}

func (r Record) line(text bool) []byte {
	if text {
		return []byte(r.String())
	}
	b, err := json.Marshal(r)
	if err != nil {
		b, _ = json.Marshal(map[string]string{"event": "error", "err": err.Error()})
	}
	return b
}

// Is tells whether the event's name begins with one of prefixes, or there are none:
// "dial" is all of a dial.
func (l Line) Is(prefixes ...string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(l.Event, p) {
			return true
		}
	}
	return len(prefixes) == 0
}
