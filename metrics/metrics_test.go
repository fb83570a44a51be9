package metrics_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/testkit"
	"github.com/kith-p2p/kith/memory"
	"github.com/kith-p2p/kith/metrics"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// scrape reads the figures as Prometheus does.
func scrape(t *testing.T, m *metrics.Metrics, accept string) string {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	r.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Fatal(w.Code, w.Body)
	}
	return w.Body.String()
}

func TestFigures(t *testing.T) {
	network := new(memory.Network)
	a, b := testkit.Host(t, network, host.Config{}), testkit.Host(t, network, host.Config{})
	ma, mb := metrics.New(a), metrics.New(b)
	defer ma.Close()
	defer mb.Close()
	b.Handle("/echo/1", func(_ context.Context, s *host.Stream) error {
		io.Copy(s, s)
		return errors.New("not today")
	})
	conn, err := a.Connect(t.Context(), testkit.Info(b))
	if err != nil {
		t.Fatal(err)
	}
	_, err = a.Connect(t.Context(), peer.AddrInfo{ID: testkit.Key(t).ID(), Addrs: []multiaddr.Addr{multiaddr.MustParse("/ip4/192.0.2.1/tcp/1")}})
	if err == nil {
		t.Fatal("connected to nobody")
	}
	s, err := a.NewStream(t.Context(), b.ID(), "/echo/1")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(s, "x")
	s.CloseWrite()
	io.ReadAll(s)
	ended := b.Subscribe(8)
	conn.Close()
	for e := range ended.Events() {
		if _, ok := e.(host.ConnClosed); ok {
			break
		}
	}

	for who, want := range map[*metrics.Metrics][]string{
		ma: {
			`kith_conns_opened_total{direction="outbound",transport="memory"} 1`,
			`kith_dials_total{result="connected"} 1`,
			`kith_dials_total{result="no_transport"} 1`,
			`kith_dial_attempts_total{result="connected",transport="memory"} 1`,
			`kith_dial_skipped_total{reason="no_transport"} 1`,
			`kith_dial_stage_seconds_count{stage="mux",transport="memory"} 1`,
			`kith_streams_opened_total{direction="outbound",protocol="/echo/1"} 1`,
			`kith_events_total{event="dial_ended"} 2`,
			`kith_info{peer="` + a.ID().String() + `"} 1`,
		},
		mb: {
			`kith_streams_opened_total{direction="inbound",protocol="/echo/1"} 1`,
			`kith_handler_errors_total{protocol="/echo/1"} 1`,
			`kith_stream_seconds_count{protocol="/echo/1"} 1`,
			`kith_conns_closed_total{direction="inbound",reason="remote",transport="memory"} 1`,
			`kith_peers 0`,
			`kith_protocols 1`,
			`kith_limit_used{scope="Conns",unit=""} 0`,
			`go_goroutines `,
		},
	} {
		text := scrape(t, who, "")
		for _, w := range want {
			if !strings.Contains(text, "\n"+w) {
				t.Errorf("there is no %s in\n%s", w, grep(text, w[:strings.IndexAny(w, "{ ")]))
			}
		}
	}
	if text := scrape(t, ma, "application/openmetrics-text; version=1.0.0"); !strings.HasSuffix(text, "# EOF\n") {
		t.Error("this is not OpenMetrics")
	}
}

func grep(text, word string) (lines string) {
	for l := range strings.Lines(text) {
		if strings.HasPrefix(l, word) {
			lines += l
		}
	}
	return lines
}

// Remotes and programs cannot make series without end.
func TestSeriesAreBounded(t *testing.T) {
	a := testkit.Host(t, new(memory.Network), host.Config{})
	m := metrics.New(a)
	defer m.Close()
	for i := range 1000 {
		a.Discovered(peer.AddrInfo{ID: testkit.Key(t).ID()}, fmt.Sprintf("source-%d", i), host.SourceLocal)
	}
	text := scrape(t, m, "")
	if n := strings.Count(text, "\nkith_discovered_total{"); n != 65 || !strings.Contains(text, "\n"+`kith_discovered_total{source="other"} 936`) {
		t.Errorf("%d series\n%s", n, grep(text, "kith_discovered_total"))
	}
}

// Every figure that a dashboard asks for is there, with the labels that it asks for.
func TestDashboards(t *testing.T) {
	known := descriptions(t)
	files, err := filepath.Glob("../docs/grafana/*.json")
	if err != nil || len(files) == 0 {
		t.Fatal("there are no dashboards", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var dashboard map[string]any
		if err := json.Unmarshal(text, &dashboard); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		exprs := queries(dashboard)
		if len(exprs) < 5 {
			t.Errorf("%s has only %d queries", file, len(exprs))
		}
		for _, expr := range exprs {
			if err := checkQuery(known, expr); err != nil {
				t.Errorf("%s: %s: %v", file, expr, err)
			}
		}
	}
	// The check can fail.
	for _, bad := range []string{`rate(kith_nothing_total[1m])`, `sum(kith_peers{color="red"})`, `sum by (color) (kith_conns)`, `1 + 1`, `kith_dial_seconds`} {
		if checkQuery(known, bad) == nil {
			t.Errorf("%s passed", bad)
		}
	}
}

// queries finds what a dashboard asks for.
func queries(v any) (all []string) {
	switch v := v.(type) {
	case map[string]any:
		for key, in := range v {
			if expr, ok := in.(string); ok && key == "expr" {
				all = append(all, expr)
			}
			all = append(all, queries(in)...)
		}
	case []any:
		for _, in := range v {
			all = append(all, queries(in)...)
		}
	}
	return all
}

var (
	figure   = regexp.MustCompile(`\b((?:kith|go|process)_\w+)(\{[^}]*\})?`)
	matcher  = regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)`)
	grouping = regexp.MustCompile(`\b(?:by|without)\s*\(([^)]*)\)`)
)

// checkQuery looks whether the figures and labels of a PromQL query exist.
func checkQuery(known map[string][]string, expr string) error {
	found := figure.FindAllStringSubmatch(expr, -1)
	if len(found) == 0 {
		return errors.New("it asks for none of our figures")
	}
	var labels []string
	for _, f := range found {
		own, ok := known[f[1]]
		if !ok {
			return fmt.Errorf("there is no figure %s", f[1])
		}
		labels = append(labels, own...)
		for _, l := range matcher.FindAllStringSubmatch(f[2], -1) {
			if !slices.Contains(own, l[1]) && !slices.Contains(targets, l[1]) {
				return fmt.Errorf("%s has no label %s", f[1], l[1])
			}
		}
	}
	for _, g := range grouping.FindAllStringSubmatch(expr, -1) {
		for l := range strings.SplitSeq(g[1], ",") {
			if l = strings.TrimSpace(l); !slices.Contains(labels, l) && !slices.Contains(targets, l) {
				return fmt.Errorf("there is no label %s", l)
			}
		}
	}
	return nil
}

// targets are the labels that Prometheus itself gives to what it reads.
var targets = []string{"job", "instance"}

var described = regexp.MustCompile(`fqName: "([^"]+)".*variableLabels: \{([^}]*)\}`)

// descriptions gives the labels of every series.
func descriptions(t *testing.T) map[string][]string {
	t.Helper()
	m := metrics.New(testkit.Host(t, new(memory.Network), host.Config{}))
	defer m.Close()
	ch := make(chan *prometheus.Desc)
	go func() {
		defer close(ch)
		m.Describe(ch)
		collectors.NewGoCollector().Describe(ch)
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}).Describe(ch)
	}()
	known := make(map[string][]string)
	for d := range ch {
		found := described.FindStringSubmatch(d.String())
		if found == nil {
			t.Fatalf("not understood: %s", d)
		}
		labels := strings.FieldsFunc(found[2], func(r rune) bool { return r == ',' || r == ' ' })
		if !strings.HasPrefix(found[1], "kith_") || !strings.HasSuffix(found[1], "_seconds") {
			known[found[1]] = labels
			continue
		}
		for _, suffix := range []string{"_sum", "_count"} {
			known[found[1]+suffix] = labels
		}
		known[found[1]+"_bucket"] = append(slices.Clone(labels), "le")
	}
	return known
}

// What counting costs a stream that is opened, carries a byte there and back, and is
// closed, with the figures of the end that opens it, of both, or of none.
func BenchmarkStream(b *testing.B) {
	for _, counted := range []int{0, 1, 2} {
		b.Run(fmt.Sprintf("counted=%d", counted), func(b *testing.B) {
			client, server := testkit.Pair(b)
			for _, h := range []*host.Host{client, server}[:counted] {
				defer metrics.New(h).Close()
			}
			testkit.BenchmarkStreams(b, client, server)
		})
	}
}
