package metrics

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/trace"
)

// maxNames is how many protocols, and how many discoveries, have series of their own.
const maxNames = 64

// dialBuckets are of a dial and its steps: from within a machine to the longest wait
// for an answer.
var dialBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 15}

// streamBuckets are of a handler's run, from a question with its answer to an
// afternoon.
var streamBuckets = []float64{.0001, .0005, .001, .005, .025, .1, .5, 2.5, 10, 60, 600, 3600}

// Metrics are the figures of one host, a prometheus.Collector.
type Metrics struct {
	host *host.Host
	stop func()
	all  []prometheus.Collector

	events         *prometheus.CounterVec
	connsOpened    *prometheus.CounterVec
	connsClosed    *prometheus.CounterVec
	connSeconds    prometheus.Histogram
	upgradesFailed *prometheus.CounterVec
	dials          *prometheus.CounterVec
	dialSeconds    *prometheus.HistogramVec
	attempts       *prometheus.CounterVec
	skipped        *prometheus.CounterVec
	stages         *prometheus.HistogramVec
	resolveSeconds prometheus.Histogram
	streamsOpened  *prometheus.CounterVec
	streamsRefused *prometheus.CounterVec
	streamSeconds  *prometheus.HistogramVec
	handlerErrors  *prometheus.CounterVec
	panics         *prometheus.CounterVec
	discovered     *prometheus.CounterVec
	limits         *prometheus.CounterVec

	mu      sync.RWMutex
	counts  map[reflect.Type]prometheus.Counter // of events, to look them up fast
	streams map[streamKey]streamFigures
	names   map[string]map[string]bool // by label: those that have a series
}

type streamKey struct {
	proto host.ProtocolID
	dir   host.Direction
}

type streamFigures struct {
	name    string // of the protocol, or "other"
	opened  prometheus.Counter
	seconds prometheus.Observer
}

// New counts what h does from now on, until Close.
func New(h *host.Host) *Metrics {
	m := &Metrics{
		host:    h,
		counts:  make(map[reflect.Type]prometheus.Counter),
		streams: make(map[streamKey]streamFigures),
		names:   make(map[string]map[string]bool),
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		m.all = append(m.all, c)
		return c
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
		m.all = append(m.all, h)
		return h
	}
	single := func(name, help string, buckets []float64) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
		m.all = append(m.all, h)
		return h
	}
	m.events = counter("kith_events_total", "Events of the host, by type.", "event")
	m.connsOpened = counter("kith_conns_opened_total", "Connections that became ready for streams.", "direction", "transport")
	m.connsClosed = counter("kith_conns_closed_total", "Connections that ended, by who or what ended them: local, remote, timeout, error.", "direction", "transport", "reason")
	m.connSeconds = single("kith_conn_seconds", "How long connections lasted.", streamBuckets)
	m.upgradesFailed = counter("kith_upgrades_failed_total", "Inbound connections that did not become one, by the last stage reached.", "stage")
	m.dials = counter("kith_dials_total", "Dials of peers, by result.", "result")
	m.dialSeconds = histogram("kith_dial_seconds", "How long dials of peers took, by result.", dialBuckets, "result")
	m.attempts = counter("kith_dial_attempts_total", "Addresses that were dialed, by what became of it.", "transport", "result")
	m.skipped = counter("kith_dial_skipped_total", "Addresses that were not dialed, by reason.", "reason")
	m.stages = histogram("kith_dial_stage_seconds", "How long the steps of a dialed address took: open, secure, mux.", dialBuckets, "transport", "stage")
	m.resolveSeconds = single("kith_dial_resolve_seconds", "How long the names among a peer's addresses took to resolve.", dialBuckets)
	m.streamsOpened = counter("kith_streams_opened_total", "Streams whose protocol was agreed on or chosen.", "protocol", "direction")
	m.streamsRefused = counter("kith_streams_refused_total", "Streams of remotes that were not served: for a limit, for their protocol, or for another reason.", "reason")
	m.streamSeconds = histogram("kith_stream_seconds", "How long handlers ran.", streamBuckets, "protocol")
	m.handlerErrors = counter("kith_handler_errors_total", "Handlers that returned an error.", "protocol")
	m.panics = counter("kith_handler_panics_total", "Handlers that panicked. Each one is a bug.", "protocol")
	m.discovered = counter("kith_discovered_total", "Peers found, by the discovery that found them.", "source")
	m.limits = counter("kith_limit_reached_total", "How often a limit was reached, within a second: what it refused, and what it ended.", "scope", "outcome")
	m.stop = h.Trace(m.note)
	return m
}

// Close ends the counting.
func (m *Metrics) Close() { m.stop() }

// Handler serves the figures, with those of the Go runtime and of the process.
func (m *Metrics) Handler() http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(m, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{EnableOpenMetrics: true, MaxRequestsInFlight: 4})
}

// note counts an event. It is called from the goroutines of the host.
func (m *Metrics) note(e host.Event) {
	m.count(e).Inc()
	switch e := e.(type) {
	case host.ConnOpened:
		m.connsOpened.WithLabelValues(e.Conn.Direction().String(), Transport(e.Conn.RemoteAddr())).Inc()
	case host.ConnClosed:
		m.connsClosed.WithLabelValues(e.Conn.Direction().String(), Transport(e.Conn.RemoteAddr()), closeReason(e.Err)).Inc()
		m.connSeconds.Observe(time.Since(e.Conn.Opened()).Seconds())
	case host.UpgradeFailed:
		m.upgradesFailed.WithLabelValues(e.Stage.String()).Inc()
	case host.DialEnded:
		result := Result(e.Err)
		m.dials.WithLabelValues(result).Inc()
		m.dialSeconds.WithLabelValues(result).Observe(e.Elapsed.Seconds())
	case host.DialResolved:
		m.resolveSeconds.Observe(e.Elapsed.Seconds())
	case host.DialRanked:
		for _, a := range e.Skipped {
			m.skipped.WithLabelValues(Result(a.Err)).Inc()
		}
	case host.DialAttempted:
		m.attempted(e.Attempt)
	case host.StreamOpened:
		m.stream(e.Protocol, e.Dir).opened.Inc()
	case host.StreamEnded:
		s := m.stream(e.Protocol, host.DirInbound)
		s.seconds.Observe(e.Elapsed.Seconds())
		if e.Err != nil {
			m.handlerErrors.WithLabelValues(s.name).Inc()
		}
	case host.StreamRefused:
		m.streamsRefused.WithLabelValues(refusal(e.Err)).Inc()
	case host.HandlerPanicked:
		m.panics.WithLabelValues(m.stream(e.Protocol, host.DirInbound).name).Inc()
	case host.LimitReached:
		m.limits.WithLabelValues(e.Err.Scope, "refused").Add(float64(e.Refused))
		m.limits.WithLabelValues(e.Err.Scope, "ended").Add(float64(e.Ended))
	case host.PeerDiscovered:
		m.mu.Lock()
		source := m.name("source", e.Source)
		m.mu.Unlock()
		m.discovered.WithLabelValues(source).Inc()
	}
}

func (m *Metrics) attempted(a host.DialAttempt) {
	transport := Transport(a.Addr)
	m.attempts.WithLabelValues(transport, Result(a.Err)).Inc()
	before := time.Duration(0)
	for _, s := range []struct {
		name string
		at   host.Stage
	}{{"open", host.StageOpened}, {"secure", host.StageSecured}, {"mux", host.StageMuxed}} {
		at := a.Stages[s.at]
		if a.Stage < s.at || at == 0 {
			continue
		}
		m.stages.WithLabelValues(transport, s.name).Observe(max(at-before, 0).Seconds())
		before = at
	}
}

// count finds the counter of an event's type.
func (m *Metrics) count(e host.Event) prometheus.Counter {
	t := reflect.TypeOf(e)
	m.mu.RLock()
	c := m.counts[t]
	m.mu.RUnlock()
	if c == nil {
		c = m.events.WithLabelValues(trace.Describe(e).Event)
		m.mu.Lock()
		m.counts[t] = c
		m.mu.Unlock()
	}
	return c
}

// stream finds the figures of streams of a protocol.
func (m *Metrics) stream(proto host.ProtocolID, dir host.Direction) streamFigures {
	key := streamKey{proto, dir}
	m.mu.RLock()
	s, ok := m.streams[key]
	m.mu.RUnlock()
	if ok {
		return s
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	name := m.name("protocol", string(proto))
	s = streamFigures{name, m.streamsOpened.WithLabelValues(name, dir.String()), m.streamSeconds.WithLabelValues(name)}
	if len(m.streams) < 4*maxNames {
		m.streams[key] = s
	}
	return s
}

// name gives a value of a label, of which there are not many. m.mu is held.
func (m *Metrics) name(label, value string) string {
	known := m.names[label]
	if known == nil {
		known = make(map[string]bool)
		m.names[label] = known
	}
	if !known[value] {
		if len(known) >= maxNames {
			return "other"
		}
		known[value] = true
	}
	return strings.ToValidUTF8(value, "�")
}

// Figures that are read when they are asked for.
var (
	descInfo     = prometheus.NewDesc("kith_info", "Who this is; always 1.", []string{"peer"}, nil)
	descConns    = prometheus.NewDesc("kith_conns", "Connections that are open.", []string{"direction", "transport"}, nil)
	descPeers    = prometheus.NewDesc("kith_peers", "Peers that are connected.", nil, nil)
	descStreams  = prometheus.NewDesc("kith_streams", "Streams that are open.", nil, nil)
	descRTT      = prometheus.NewDesc("kith_rtt_seconds", "Round-trip times of the open connections, where they were measured.", nil, nil)
	descAddrs    = prometheus.NewDesc("kith_addrs", "Addresses at which the host can be dialed, as it tells others.", nil, nil)
	descLost     = prometheus.NewDesc("kith_events_lost_total", "Events for which subscribers were too slow.", nil, nil)
	descLimit    = prometheus.NewDesc("kith_limit", "Limits of what remotes can make the host hold; bytes where the unit says so.", []string{"scope", "unit"}, nil)
	descUsed     = prometheus.NewDesc("kith_limit_used", "How much of a limit is used.", []string{"scope", "unit"}, nil)
	descRefused  = prometheus.NewDesc("kith_limit_refused_total", "How often a limit was reached, so that something was refused or something else had to end.", []string{"scope"}, nil)
	descProtocol = prometheus.NewDesc("kith_protocols", "Protocols that the host serves.", nil, nil)
)

var gauges = []*prometheus.Desc{descInfo, descConns, descPeers, descStreams, descRTT, descAddrs, descLost, descLimit, descUsed, descRefused, descProtocol}

// Describe is for prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.all {
		c.Describe(ch)
	}
	for _, d := range gauges {
		ch <- d
	}
}

// Collect is for prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.all {
		c.Collect(ch)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	h := m.host
	conns, streams := make(map[[2]string]int), 0
	rtts, sum, known := make(map[float64]uint64), 0.0, uint64(0)
	for _, c := range h.Conns() {
		conns[[2]string{c.Direction().String(), Transport(c.RemoteAddr())}]++
		streams += c.NumStreams()
		if rtt := c.RTT().Seconds(); rtt > 0 {
			known++
			sum += rtt
			for _, b := range dialBuckets {
				if rtt <= b {
					rtts[b]++
				}
			}
		}
	}
	for k, n := range conns {
		gauge(descConns, float64(n), k[0], k[1])
	}
	for _, b := range dialBuckets {
		rtts[b] += 0 // every bucket is there
	}
	ch <- prometheus.MustNewConstHistogram(descRTT, known, sum, rtts)
	gauge(descInfo, 1, h.ID().String())
	gauge(descPeers, float64(len(h.Peers())))
	gauge(descStreams, float64(streams))
	gauge(descAddrs, float64(len(h.Addrs())))
	gauge(descProtocol, float64(len(h.Protocols())))
	ch <- prometheus.MustNewConstMetric(descLost, prometheus.CounterValue, float64(h.EventsLost()))
	for _, s := range h.Usage().Scopes {
		gauge(descUsed, float64(s.Used), s.Name, s.Unit)
		if s.Limit >= 0 {
			gauge(descLimit, float64(s.Limit), s.Name, s.Unit)
		}
		ch <- prometheus.MustNewConstMetric(descRefused, prometheus.CounterValue, float64(s.Refused), s.Name)
	}
}

// Transport is the label of an address: what carries the connection.
func Transport(a multiaddr.Addr) string {
	for _, t := range []struct {
		code multiaddr.Code
		name string
	}{
		{multiaddr.P2PCircuit, "relay"}, {multiaddr.WebTransport, "webtransport"}, {multiaddr.WebRTCDirect, "webrtc"}, {multiaddr.QUICV1, "quic"},
		{multiaddr.WS, "websocket"}, {multiaddr.WSS, "websocket"}, {multiaddr.TCP, "tcp"}, {multiaddr.Unix, "unix"}, {multiaddr.Memory, "memory"},
	} {
		if a.Has(t.code) {
			return t.name
		}
	}
	return "other"
}

// Result is the label of how a dial, or one address of it, ended.
func Result(err error) string {
	var (
		gate  *host.GateError
		limit *host.LimitError
		dns   *net.DNSError
		wait  interface{ Timeout() bool }
	)
	switch {
	case err == nil:
		return "connected"
	case errors.Is(err, host.ErrNotNeeded):
		return "not_needed"
	case errors.As(err, &gate):
		return "gated"
	case errors.As(err, &limit):
		return "limit"
	case errors.Is(err, host.ErrNoAddrs):
		return "no_addrs"
	case errors.Is(err, context.Canceled):
		return "given_up"
	case errors.As(err, &dns):
		return "dns"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &wait) && wait.Timeout():
		return "timeout"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return "unreachable"
	case errors.Is(err, host.ErrBlackHole):
		return "black_hole"
	case errors.Is(err, host.ErrBackoff):
		return "backoff"
	case errors.Is(err, host.ErrForbidden):
		return "forbidden"
	case errors.Is(err, host.ErrPaced), errors.Is(err, host.ErrInFlight):
		return "paced"
	case errors.Is(err, host.ErrTooManyAddrs):
		return "too_many_addrs"
	case errors.Is(err, host.ErrNoTransport):
		return "no_transport"
	}
	return "failed"
}

// closeReason is the label of who or what ended a connection.
func closeReason(err error) string {
	var (
		wait  interface{ Timeout() bool }
		ended interface { // as muxers tell it
			error
			IsRemote() bool
		}
	)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &wait) && wait.Timeout():
		return "timeout"
	case errors.As(err, &ended) && ended.IsRemote(), errors.Is(err, io.EOF):
		return "remote"
	case errors.Is(err, net.ErrClosed):
		return "local"
	}
	return "error"
}

// refusal is the label of why a stream was not served.
func refusal(err error) string {
	var limit *host.LimitError
	var coded *host.StreamError
	switch {
	case errors.As(err, &limit):
		return "limit"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "timeout"
	case errors.As(err, &coded), errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
		return "ended"
	}
	return "protocol"
}
