package spans_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/testkit"
	"github.com/kith-p2p/kith/memory"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/spans"
)

// byName finds the only span with a name.
func byName(t *testing.T, all tracetest.SpanStubs, name string) tracetest.SpanStub {
	t.Helper()
	var found []tracetest.SpanStub
	for _, s := range all {
		if s.Name == name {
			found = append(found, s)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d spans %s", len(found), name)
	}
	return found[0]
}

func TestDial(t *testing.T) {
	out := tracetest.NewInMemoryExporter()
	provider := sdk.NewTracerProvider(sdk.WithSyncer(out))
	network := new(memory.Network)
	a, b := testkit.Host(t, network, host.Config{}), testkit.Host(t, network, host.Config{})
	s := spans.Start(a, provider)

	ctx, request := provider.Tracer("test").Start(t.Context(), "request")
	done := s.Within(ctx, b.ID())
	conn, err := a.Connect(ctx, testkit.Info(b))
	if err != nil {
		t.Fatal(err)
	}
	done()
	request.End()
	a.Identified(conn, host.PeerInfo{AgentVersion: "test/1"}, false)
	s.Close()

	all := out.GetSpans()
	root := byName(t, all, "libp2p.dial")
	if root.Parent.SpanID() != request.SpanContext().SpanID() || root.Status.Code != codes.Unset {
		t.Errorf("the dial is not in the trace of the request: %v", root)
	}
	addr := byName(t, all, "libp2p.dial.addr")
	for name, parent := range map[string]tracetest.SpanStub{
		"libp2p.rank": root, "libp2p.dial.addr": root, "libp2p.identify": root,
		"libp2p.connect": addr, "libp2p.secure": addr, "libp2p.mux": addr,
	} {
		span := byName(t, all, name)
		if span.Parent.SpanID() != parent.SpanContext.SpanID() || span.SpanContext.TraceID() != request.SpanContext().TraceID() {
			t.Errorf("%s is not below %s", name, parent.Name)
		}
		if span.EndTime.Before(span.StartTime) || span.StartTime.Before(root.StartTime) || name != "libp2p.identify" && span.EndTime.After(root.EndTime) {
			t.Errorf("%s is from %v to %v, the dial from %v to %v", name, span.StartTime, span.EndTime, root.StartTime, root.EndTime)
		}
	}
	connect, secure, mux := byName(t, all, "libp2p.connect"), byName(t, all, "libp2p.secure"), byName(t, all, "libp2p.mux")
	if secure.StartTime.Before(connect.EndTime) || mux.StartTime.Before(secure.EndTime) {
		t.Error("the steps do not follow each other")
	}
}

func TestFailedDial(t *testing.T) {
	out := tracetest.NewInMemoryExporter()
	provider := sdk.NewTracerProvider(sdk.WithSyncer(out))
	a := testkit.Host(t, new(memory.Network), host.Config{})
	s := spans.Start(a, provider)
	_, err := a.Connect(t.Context(), peer.AddrInfo{ID: testkit.Key(t).ID(), Addrs: []multiaddr.Addr{multiaddr.MustParse("/memory/99"), multiaddr.MustParse("/ip4/192.0.2.1/tcp/1")}})
	var failed *host.DialError
	if !errors.As(err, &failed) {
		t.Fatal(err)
	}
	s.Close()
	all := out.GetSpans()
	root := byName(t, all, "libp2p.dial")
	if root.Status.Code != codes.Error || root.Parent.IsValid() {
		t.Errorf("got %+v", root)
	}
	if c := byName(t, all, "libp2p.connect"); c.Status.Code != codes.Error {
		t.Errorf("the step that failed is %+v", c.Status)
	}
}

// A resolver knows one name.
type resolver struct{ records []string }

func (resolver) LookupNetIP(_ context.Context, _, name string) ([]netip.Addr, error) {
	return nil, &net.DNSError{Name: name, IsNotFound: true}
}

func (r resolver) LookupTXT(context.Context, string) ([]string, error) { return r.records, nil }

// Names are resolved in a span of their own, before the addresses that they stand for are ranked.
func TestDialOfAName(t *testing.T) {
	out := tracetest.NewInMemoryExporter()
	provider := sdk.NewTracerProvider(sdk.WithSyncer(out))
	network := new(memory.Network)
	b := testkit.Host(t, network, host.Config{})
	a := testkit.Host(t, network, host.Config{Resolver: resolver{[]string{"dnsaddr=" + b.Addrs()[0].String()}}})
	s := spans.Start(a, provider)
	_, err := a.Connect(t.Context(), peer.AddrInfo{ID: b.ID(), Addrs: []multiaddr.Addr{multiaddr.MustParse("/dnsaddr/b.example"), multiaddr.MustParse("/dns4/none.example/tcp/1")}})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	all := out.GetSpans()
	root, resolve, rank := byName(t, all, "libp2p.dial"), byName(t, all, "libp2p.resolve"), byName(t, all, "libp2p.rank")
	if resolve.Parent.SpanID() != root.SpanContext.SpanID() || resolve.StartTime.Before(root.StartTime) || rank.StartTime.Before(resolve.EndTime) {
		t.Errorf("resolving is from %v to %v, ranking from %v, the dial from %v", resolve.StartTime, resolve.EndTime, rank.StartTime, root.StartTime)
	}
	for _, want := range []attribute.KeyValue{attribute.Int("libp2p.addrs.resolved", 1), attribute.Int("libp2p.addrs.failed", 1)} {
		if !slices.Contains(resolve.Attributes, want) {
			t.Errorf("there is no %v in %v", want, resolve.Attributes)
		}
	}
}
