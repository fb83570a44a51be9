package spans

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/feed"
	"github.com/kith-p2p/kith/peer"
)

const (
	// queue is how many events of dials wait for their spans.
	queue = 1024
	// maxOpen is how many dials, and how many connections that were not identified yet,
	// are kept in mind.
	maxOpen = 1024
	// scope is the name of the tracer.
	scope = "github.com/kith-p2p/kith"
)

// Spans makes spans of the dials of one host.
type Spans struct {
	tracer trace.Tracer
	feed   *feed.Feed[noted]
	stop   func()
	ended  chan struct{}

	// owned by run
	dials map[uint64]*dial
	conns map[*host.Conn]opened

	mu      sync.Mutex
	waiting map[peer.ID][]*waiter
}

// A waiter is who wants the spans of a peer's dials in a trace of its own.
type waiter struct{ span trace.SpanContext }

// noted is an event of a dial, with its time and who waited for the peer then.
type noted struct {
	at      time.Time
	event   host.Event
	waiting []trace.SpanContext
}

// A dial is what is known of one that has not ended.
type dial struct {
	begun    time.Time
	known    int // addresses
	resolved *host.DialResolved
	ranked   []time.Time // when an order was found
	order    []string    // the last one
	skipped  int
	attempts []host.DialAttempt
}

// opened is a connection that was dialed and not identified yet.
type opened struct {
	at   time.Time
	dial trace.SpanContext
}

// Start makes spans for the dials that h begins from now on.
func Start(h *host.Host, provider trace.TracerProvider) *Spans {
	s := &Spans{
		tracer:  provider.Tracer(scope),
		feed:    feed.New(feed.Config[noted]{Buffer: queue, Lost: func(n int) noted { return noted{event: host.EventsLost{N: n}} }}),
		ended:   make(chan struct{}),
		dials:   make(map[uint64]*dial),
		conns:   make(map[*host.Conn]opened),
		waiting: make(map[peer.ID][]*waiter),
	}
	s.stop = h.Trace(s.note)
	go s.run()
	return s
}

// Close ends it. What was noted before becomes spans first.
func (s *Spans) Close() {
	s.stop()
	s.feed.Close()
	<-s.ended
}

// Within makes the dials of p that end until done is called parts of the trace of
// the span in ctx. Of several who wait for one dial, it is a part of the first one's
// trace, with links to the others.
//
//	done := s.Within(ctx, p)
//	stream, err := h.NewStream(ctx, p, "/my/1")
//	done()
func (s *Spans) Within(ctx context.Context, p peer.ID) (done func()) {
	w := &waiter{trace.SpanContextFromContext(ctx)}
	if !w.span.IsValid() {
		return func() {}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting[p] = append(s.waiting[p], w)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		left := slices.DeleteFunc(slices.Clone(s.waiting[p]), func(o *waiter) bool { return o == w })
		if len(left) == 0 {
			delete(s.waiting, p)
		} else {
			s.waiting[p] = left
		}
	}
}

// note takes in the events that spans are made of. It is called from the host's goroutines.
func (s *Spans) note(e host.Event) {
	n := noted{at: time.Now(), event: e}
	switch e := e.(type) {
	case host.DialStarted, host.DialResolved, host.DialRanked, host.DialAttempted, host.PeerIdentified, host.ConnClosed:
	case host.DialEnded:
		s.mu.Lock()
		for _, w := range s.waiting[e.Peer] {
			n.waiting = append(n.waiting, w.span)
		}
		s.mu.Unlock()
	default:
		return
	}
	s.feed.Tell(n)
}

func (s *Spans) run() {
	defer close(s.ended)
	for n := range s.feed.Values() {
		switch e := n.event.(type) {
		case host.DialStarted:
			if len(s.dials) >= maxOpen {
				clear(s.dials) // the ends of many were lost
			}
			s.dials[e.ID] = &dial{begun: n.at, known: len(e.Addrs)}
		case host.DialResolved:
			if d := s.dials[e.ID]; d != nil {
				d.resolved = &e
			}
		case host.DialRanked:
			if d := s.dials[e.ID]; d != nil {
				d.ranked = append(d.ranked, n.at)
				d.skipped += len(e.Skipped)
				for _, step := range e.Steps {
					d.order = append(d.order, step.Addr.String())
				}
			}
		case host.DialAttempted:
			if d := s.dials[e.ID]; d != nil {
				d.attempts = append(d.attempts, e.Attempt)
			}
		case host.DialEnded:
			if d := s.dials[e.ID]; d != nil {
				delete(s.dials, e.ID)
				s.make(d, e, n)
			}
		case host.PeerIdentified:
			if o, ok := s.conns[e.Conn]; ok {
				delete(s.conns, e.Conn)
				_, span := s.begin(trace.ContextWithSpanContext(context.Background(), o.dial), "libp2p.identify", o.at,
					attribute.String("libp2p.agent", strings.ToValidUTF8(e.Info.AgentVersion, "�")), attribute.Int("libp2p.protocols", len(e.Info.Protocols)))
				span.End(trace.WithTimestamp(n.at))
			}
		case host.ConnClosed:
			delete(s.conns, e.Conn)
		}
	}
}

// make makes the spans of a dial that has ended.
func (s *Spans) make(d *dial, e host.DialEnded, n noted) {
	ctx := context.Background()
	var links []trace.Link
	for i, w := range n.waiting {
		if i == 0 {
			ctx = trace.ContextWithRemoteSpanContext(ctx, w)
			continue
		}
		links = append(links, trace.Link{SpanContext: w})
	}
	ctx, root := s.tracer.Start(ctx, "libp2p.dial", trace.WithTimestamp(d.begun), trace.WithSpanKind(trace.SpanKindClient), trace.WithLinks(links...),
		trace.WithAttributes(attribute.String("libp2p.peer", e.Peer.String()), attribute.Int64("libp2p.dial", int64(e.ID)), attribute.Int("libp2p.addrs.known", d.known)))
	if e.Conn != nil {
		root.SetAttributes(attribute.String("libp2p.addr", e.Conn.RemoteAddr().String()), attribute.String("libp2p.security", string(e.Conn.Security())), attribute.String("libp2p.muxer", string(e.Conn.Muxer())))
		if len(s.conns) >= maxOpen {
			clear(s.conns)
		}
		s.conns[e.Conn] = opened{n.at, root.SpanContext()}
	}

	at := d.begun
	if r := d.resolved; r != nil {
		_, span := s.begin(ctx, "libp2p.resolve", d.begun, attribute.Int("libp2p.addrs.resolved", len(r.Addrs)), attribute.Int("libp2p.addrs.failed", len(r.Failed)))
		at = d.begun.Add(r.Elapsed)
		span.End(trace.WithTimestamp(at))
	}
	if len(d.ranked) > 0 {
		last := d.ranked[len(d.ranked)-1]
		if at.After(last) {
			at = d.begun // what was known was ranked before the names were resolved
		}
		_, span := s.begin(ctx, "libp2p.rank", at, attribute.StringSlice("libp2p.addrs.order", d.order), attribute.Int("libp2p.addrs.skipped", d.skipped))
		span.End(trace.WithTimestamp(last))
	}
	for _, a := range d.attempts {
		if !a.Skipped() {
			s.attempt(ctx, a)
		}
	}
	fail(root, e.Err)
	root.End(trace.WithTimestamp(n.at))
}

// attempt makes the spans of one address.
func (s *Spans) attempt(ctx context.Context, a host.DialAttempt) {
	ctx, span := s.begin(ctx, "libp2p.dial.addr", a.Start, attribute.String("libp2p.addr", a.Addr.String()), attribute.Float64("libp2p.delay", a.Delay.Seconds()))
	end := a.Start.Add(a.Elapsed)
	at := a.Start
	for _, step := range []struct {
		name string
		upTo host.Stage
	}{{"libp2p.connect", host.StageOpened}, {"libp2p.secure", host.StageSecured}, {"libp2p.mux", host.StageMuxed}} {
		_, sub := s.begin(ctx, step.name, at)
		if a.Stage < step.upTo {
			fail(sub, a.Err)
			sub.End(trace.WithTimestamp(end))
			break
		}
		reached := a.Stages[step.upTo]
		if step.upTo == host.StageOpened && reached == 0 {
			reached = a.Stages[host.StageSecuring] // some transports secure and connect in one
		}
		if next := a.Start.Add(reached); next.After(at) {
			at = next
		}
		sub.End(trace.WithTimestamp(at))
	}
	fail(span, a.Err)
	span.End(trace.WithTimestamp(end))
}

func (s *Spans) begin(ctx context.Context, name string, at time.Time, attrs ...attribute.KeyValue) (context.Context, trace.Span) {
	return s.tracer.Start(ctx, name, trace.WithTimestamp(at), trace.WithAttributes(attrs...))
}

// fail notes why a step did not succeed. That another address was faster is no failure.
func fail(span trace.Span, err error) {
	switch {
	case err == nil:
	case errors.Is(err, host.ErrNotNeeded):
		span.SetAttributes(attribute.Bool("libp2p.not_needed", true))
	default:
		span.SetStatus(codes.Error, strings.ToValidUTF8(err.Error(), "�"))
	}
}
