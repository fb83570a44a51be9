package trace_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/testkit"
	"github.com/kith-p2p/kith/memory"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/trace"
)

// Lines as people read them, and as programs do. A nil connection is what an event
// of a test has; its line is only shorter.
func TestLines(t *testing.T) {
	p := someone(t)
	a := multiaddr.MustParse("/ip4/192.0.2.7/tcp/4001")
	at := time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC)
	for _, c := range []struct {
		event      host.Event
		text, json string
	}{
		{host.PeerConnected{Peer: p}, "03:04:05.678901 peer_connected    12*6QN6Hb", `"event":"peer_connected","peer":"` + p.String() + `"`},
		{host.ConnClosed{Err: errors.New("gone\x1b[2J\n  and more")}, "03:04:05.678901 conn_closed      : gone�[2J; and more", `"event":"conn_closed","err":"gone\u001b[2J\n  and more"`},
		{host.ConnClosed{Err: &coded{host.ConnCodeResourceLimit}}, "03:04:05.678901 conn_closed       code=resource_limit: closed", `"event":"conn_closed","code":"resource_limit","err":"closed"`},
		{host.DialStarted{ID: 3, Peer: p, Addrs: []multiaddr.Addr{a}, Background: true}, "03:04:05.678901 dial_started      12*6QN6Hb dial=3 background=true addrs=[/ip4/192.0.2.7/tcp/4001]",
			`"event":"dial_started","peer":"` + p.String() + `","dial":3,"background":true,"addrs":["/ip4/192.0.2.7/tcp/4001"]`},
		{host.UpgradeFailed{Addr: a, Stage: host.StageSecuring, Elapsed: 1234567 * time.Nanosecond, Err: io.EOF}, `03:04:05.678901 upgrade_failed    /ip4/192.0.2.7/tcp/4001 stage="the security handshake" elapsed=1.23ms: EOF`,
			`"event":"upgrade_failed","addr":"/ip4/192.0.2.7/tcp/4001","stage":"the security handshake","elapsed_ms":1.235,"err":"EOF"`},
		{host.LimitReached{Err: &host.LimitError{Scope: "ConnsPerIP", Limit: 64, Used: 64}, Refused: 9}, `03:04:05.678901 limit_reached     scope=ConnsPerIP limit=64 used=64 refused=9 remedy="raise Limits.ConnsPerIP to allow more"`,
			`"event":"limit_reached","scope":"ConnsPerIP","limit":64,"used":64,"refused":9,"remedy":"raise Limits.ConnsPerIP to allow more"`},
		{host.EventsLost{N: 7}, "03:04:05.678901 events_lost       n=7", `"event":"events_lost","n":7`},
	} {
		r := trace.Record{Seq: 5, Time: at, Event: c.event}
		if r.String() != c.text {
			t.Errorf("got  %s\nwant %s", r, c.text)
		}
		got, err := json.Marshal(r)
		if want := `{"seq":5,"time":"2026-01-02T03:04:05.678901Z",` + c.json + `}`; err != nil || string(got) != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	for _, zero := range []host.Event{
		host.ConnOpened{}, host.PeerIdentified{}, host.StreamOpened{}, host.StreamEnded{}, host.StreamRefused{}, host.HandlerPanicked{}, host.DialEnded{}, host.LimitReached{},
	} {
		if l := trace.Describe(zero); l.String() == "" {
			t.Errorf("%T has no line", zero)
		}
	}
}

// coded is an error as muxers have it.
type coded struct{ code uint32 }

func (e *coded) Error() string     { return "closed" }
func (e *coded) ErrorCode() uint32 { return e.code }

// Twenty readers of the whole trace who do nothing, a thousand streams: each is
// served, and each reader learns of every event that it missed. Nothing is timed;
// the benchmark in the root does that.
func TestSlowReadersCost(t *testing.T) {
	const readers, streams, buffer = 20, 1000, 16
	a, b := testkit.Pair(t)
	b.Handle("/echo/1", func(_ context.Context, s *host.Stream) error {
		_, err := io.Copy(s, s)
		return err
	})
	var traces []*trace.Trace
	for range readers {
		traces = append(traces, trace.Start(a, buffer))
	}
	var wg sync.WaitGroup
	for range streams {
		wg.Go(func() {
			s, err := a.NewStream(t.Context(), b.ID(), "/echo/1")
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			s.Write([]byte("x"))
			s.CloseWrite()
			if got, err := io.ReadAll(s); string(got) != "x" || err != nil {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	wg.Wait()
	for _, tr := range traces {
		var seen, last uint64
		var lost int
		for seen+uint64(lost) < streams {
			r := <-tr.Records()
			if e, ok := r.Event.(host.EventsLost); ok {
				lost += e.N
				continue
			}
			seen++
			if r.Seq <= last {
				t.Fatalf("record %d after %d", r.Seq, last)
			}
			last = r.Seq
		}
		if seen > buffer+2 || uint64(lost) != tr.Lost() {
			t.Errorf("%d records waited in a buffer of %d; %d lost, counted %d", seen, buffer, lost, tr.Lost())
		}
		tr.Close()
	}
}

func TestHandler(t *testing.T) {
	a := testkit.Host(t, new(memory.Network), host.Config{})
	server := httptest.NewServer(trace.Handler(a))
	defer server.Close()
	open := func(query string) (*bufio.Reader, func()) {
		t.Helper()
		resp, err := http.Get(server.URL + query)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != http.StatusOK {
			t.Fatal(resp.Status)
		}
		return bufio.NewReader(resp.Body), func() { resp.Body.Close() }
	}
	line := func(r *bufio.Reader) string {
		t.Helper()
		l, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	objects, closeObjects := open("")
	defer closeObjects()
	text, closeText := open("?format=text&only=peer_disc,conn")
	defer closeText()
	if l := line(objects); !strings.HasPrefix(l, `{"event":"node","peer":"`+a.ID().String()) {
		t.Errorf("begins with %s", l)
	}
	if l := line(text); !strings.Contains(l, " node ") {
		t.Errorf("begins with %s", l)
	}
	a.Handle("/x", func(context.Context, *host.Stream) error { return nil })
	a.Discovered(peer.AddrInfo{ID: someone(t)}, "test", host.SourceLocal)
	if l := line(objects); !strings.Contains(l, `"event":"protocols_changed","protocols":["/x"]`) {
		t.Errorf("got %s", l)
	}
	if l := line(objects); !strings.Contains(l, `"event":"peer_discovered"`) {
		t.Errorf("got %s", l)
	}
	if l := line(text); !strings.Contains(l, " peer_discovered   12*6QN6Hb source=test") {
		t.Errorf("got %s", l)
	}
	for range 14 {
		_, end := open("")
		defer end()
	}
	resp, err := http.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("the 17th reader: %s", resp.Status)
	}
	resp, err = http.Post(server.URL, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %s", resp.Status)
	}
}
