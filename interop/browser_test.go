//go:build browser

package interop

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kith-p2p/kith/interop/internal/chromium"
	"github.com/kith-p2p/kith/interop/internal/peercmd"
)

// exchangeTimeout bounds what a page does with one peer.
const exchangeTimeout = 40 * time.Second

// A stack is how a browser reaches a listener.
type stack struct{ name, listen, has string }

var stacks = []stack{
	{"ws", "/ip4/127.0.0.1/tcp/0/ws", "/ws/"},
	{"webtransport", "/ip4/127.0.0.1/udp/0/quic-v1/webtransport", "/webtransport/certhash/"},
	{"webrtc-direct", "/ip4/127.0.0.1/udp/0/webrtc-direct", "/webrtc-direct/certhash/"},
}

// An exchange is what the page's function of the same name returns.
type exchange struct {
	Error         string
	Self, Peer    string
	Addr          string
	Agent         string
	Protocols     []string
	Observed      string
	SignedRecord  bool
	DialMillis    float64
	PingMillis    []float64
	EchoMillis    float64
	StreamsMillis float64
}

// TestBrowser dials from js-libp2p in Chromium. go-libp2p is there to tell, when it fails too, that the fault is in the page or the
// browser.
func TestBrowser(t *testing.T) {
	browser := startBrowser(t)
	script, err := chromium.Bundle("browser/page.js")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the page's script has %d bytes", len(script))
	site := http.NewServeMux()
	site.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, "browser/index.html") })
	site.HandleFunc("GET /page.js", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/javascript; charset=utf-8")
		w.Write(script)
	})
	url := serve(t, site)
	for _, listener := range []program{kithPeer, goPeer} {
		for _, stack := range stacks {
			t.Run(fmt.Sprintf("js-in-chromium-dials-%s/%s", listener.name, stack.name), func(t *testing.T) {
				testBrowser(t, open(t, browser, url), listener, stack)
			})
		}
	}
}

func testBrowser(t *testing.T, page *chromium.Page, listener program, stack stack) {
	const size = 10 << 20
	server := listener.run(t, "listen", "--listen="+stack.listen)
	listening := await[peercmd.Listening](t, server)
	addr := listening.Addrs[0]
	if !strings.Contains(addr, stack.has) {
		t.Fatalf("listens on %s, want an address with %s", addr, stack.has)
	}
	ctx, cancel := context.WithTimeout(t.Context(), exchangeTimeout)
	defer cancel()
	got, err := chromium.Call[exchange](ctx, page, "exchange", addr, size)
	if err != nil {
		t.Fatal(err)
	}
	if got.Error != "" {
		t.Fatalf("%s\nof %+v", got.Error, got)
	}
	t.Logf("dial %.0f ms, ping %v ms, echo of %d MiB %.0f ms, streams at once %.0f ms",
		got.DialMillis, got.PingMillis, size>>20, got.EchoMillis, got.StreamsMillis)
	if got.Peer != listening.Peer || !strings.Contains(got.Addr, strings.TrimSuffix(stack.has, "/")) {
		t.Errorf("connected to %s at %s", got.Peer, got.Addr)
	}
	if !strings.HasPrefix(got.Agent, listener.agent) || !slices.Contains(got.Protocols, peercmd.EchoProtocol) || !got.SignedRecord {
		t.Errorf("identify: %+v", got)
	}
	if inbound := await[peercmd.Connected](t, server); inbound.Peer != got.Self || inbound.Direction != "inbound" {
		t.Errorf("the listener sees %+v, want inbound, from %s", inbound, got.Self)
	}
	if identified := await[peercmd.Identify](t, server); identified.Peer != got.Self || !strings.HasPrefix(identified.Agent, jsPeer.agent) {
		t.Errorf("the listener identified %+v", identified)
	}
	if gone := await[peercmd.Disconnected](t, server); gone.Peer != got.Self {
		t.Errorf("the listener lost %+v", gone)
	}
	server.terminate(t)
}

func startBrowser(t *testing.T) *chromium.Browser {
	t.Helper()
	browser, err := chromium.Start(context.WithoutCancel(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := browser.Close(); err != nil {
			t.Errorf("the browser did not end well: %v", err)
		}
	})
	return browser
}

// open loads a page; what it logs is shown when the test fails.
func open(t *testing.T, browser *chromium.Browser, url string) *chromium.Page {
	t.Helper()
	page, err := browser.Open(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		page.Close()
		if t.Failed() {
			t.Logf("the page's console:\n%s", page.Log())
		}
	})
	return page
}

// serve serves a site of our own on loopback, which browsers take for as safe as HTTPS.
func serve(t *testing.T, site http.Handler) string {
	t.Helper()
	server := httptest.NewServer(site)
	t.Cleanup(server.Close)
	return server.URL
}
