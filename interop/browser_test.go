//go:build browser

package interop

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kith-p2p/kith/interop/internal/chromium"
	"github.com/kith-p2p/kith/interop/internal/peercmd"
)

// exchangeTimeout bounds what a page does with one peer.
const exchangeTimeout = 40 * time.Second

// A browserWay is how a browser reaches a listener.
type browserWay struct{ name, listen, has string }

var browserWays = []browserWay{
	{"ws", "/ip4/127.0.0.1/tcp/%d/ws", "/ws/"},
	{"webtransport", "/ip4/127.0.0.1/udp/%d/quic-v1/webtransport", "/webtransport/certhash/"},
	{"webrtc-direct", "/ip4/127.0.0.1/udp/%d/webrtc-direct", "/webrtc-direct/certhash/"},
}

// onOnePort are addresses for all that Kith listens on by default, with one port number.
func onOnePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	addrs := []string{fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", port), fmt.Sprintf("/ip4/127.0.0.1/udp/%d/quic-v1", port)}
	for _, way := range browserWays {
		addrs = append(addrs, fmt.Sprintf(way.listen, port))
	}
	return strings.Join(addrs, ",")
}

// A pageExchange is what the page's function exchange returns.
type pageExchange struct {
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

// TestBrowser dials from Chromium: with js-libp2p over each transport that browsers have, and with Kith itself, which is in the
// page of examples/browser.
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
	for _, way := range browserWays {
		t.Run("js-dials-kith/"+way.name, func(t *testing.T) {
			testJS(t, open(t, browser, url), kithPeer, onOnePort(t), way)
		})
		// When this fails too, the fault is in the page or the browser.
		t.Run("js-dials-go/"+way.name, func(t *testing.T) {
			testJS(t, open(t, browser, url), goPeer, fmt.Sprintf(way.listen, 0), way)
		})
	}
	t.Run("kith", func(t *testing.T) { testExample(t, browser) })
}

// testJS lets js-libp2p do everything with one peer.
func testJS(t *testing.T, page *chromium.Page, listener program, listen string, way browserWay) {
	const size = 10 << 20
	server := listener.run(t, "listen", "--listen="+listen)
	listening := await[peercmd.Listening](t, server)
	at := slices.IndexFunc(listening.Addrs, func(addr string) bool { return strings.Contains(addr, way.has) })
	if at < 0 {
		t.Fatalf("listens on %v, want an address with %s", listening.Addrs, way.has)
	}
	addr := listening.Addrs[at]
	ctx, cancel := context.WithTimeout(t.Context(), exchangeTimeout)
	defer cancel()
	got, err := chromium.Call[pageExchange](ctx, page, "exchange", addr, size)
	if err != nil {
		t.Fatal(err)
	}
	if got.Error != "" {
		t.Fatalf("%s\nof %+v", got.Error, got)
	}
	t.Logf("dial %.0f ms, ping %v ms, echo of %d MiB %.0f ms, streams at once %.0f ms",
		got.DialMillis, got.PingMillis, size>>20, got.EchoMillis, got.StreamsMillis)
	if got.Peer != listening.Peer || !strings.Contains(got.Addr, strings.TrimSuffix(way.has, "/")) {
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

// maxNode is how large Kith may be that a page loads, compressed.
const maxNode = 4_000_000

// A meeting is what the function meet of the example's page returns.
type meeting struct {
	Error       string
	Peer, Agent string
	Millis      float64
	PingMillis  []float64
}

// testExample runs examples/browser as its readers do.
func testExample(t *testing.T, browser *chromium.Browser) {
	const root = ".."
	binary := filepath.Join(t.TempDir(), "browser")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./examples/browser")
	// The program builds the node; here that has more time.
	warm := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", os.DevNull, "./examples/browser/node")
	warm.Env = append(os.Environ(), "GOOS=js", "GOARCH=wasm")
	for _, cmd := range []*exec.Cmd{build, warm} {
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", cmd, err, out)
		}
	}
	cmd := exec.CommandContext(t.Context(), binary, "-http", "127.0.0.1:0")
	cmd.Dir = root
	example := runCmd(t, cmd)
	url := "http://" + example.awaitLine(t, "http://")
	ctx, cancel := context.WithTimeout(t.Context(), exchangeTimeout)
	defer cancel()

	t.Run("size", func(t *testing.T) {
		request, err := http.NewRequestWithContext(ctx, "GET", url+"/node.wasm", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Accept-Encoding", "gzip") // so that it is not decompressed here
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		n, err := io.Copy(io.Discard, response.Body)
		if err != nil || response.Header.Get("Content-Encoding") != "gzip" {
			t.Fatalf("%v, %v", err, response.Header)
		}
		t.Logf("compressed the node has %d bytes", n)
		if n > maxNode {
			t.Errorf("compressed the node has %d bytes, more than %d", n, maxNode)
		}
	})

	page := open(t, browser, url)
	// A person's way: the example's own address is in the field already.
	t.Run("form", func(t *testing.T) {
		text, err := chromium.Eval[string](ctx, page, `new Promise(resolve => {
			const look = () => {
				document.querySelector('form button:enabled')?.click()
				if (document.querySelectorAll('article rect').length >= 2) resolve(document.body.innerText)
				else if (document.querySelector('.wrong')?.textContent) resolve('wrong: ' + document.querySelector('.wrong').textContent)
				else setTimeout(look, 300)
			}
			look()
		})`)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(text, kithPeer.agent) || !strings.Contains(text, "median") {
			t.Errorf("the page says:\n%s", text)
		}
	})
	for _, listener := range []program{kithPeer, jsPeer, goPeer} {
		t.Run("dials-"+listener.name, func(t *testing.T) {
			const pings = 20
			server := listener.run(t, "listen", "--listen=/ip4/127.0.0.1/tcp/0/ws")
			listening := await[peercmd.Listening](t, server)
			got, err := chromium.Call[meeting](ctx, page, "meet", listening.Addrs[0], pings)
			if err != nil {
				t.Fatal(err)
			}
			if got.Error != "" || got.Peer != listening.Peer || !strings.HasPrefix(got.Agent, listener.agent) || len(got.PingMillis) != pings {
				t.Fatalf("%+v", got)
			}
			slices.Sort(got.PingMillis)
			t.Logf("dial %.1f ms, ping %.2f ms in the middle of %d", got.Millis, got.PingMillis[pings/2], pings)
			if identified := await[peercmd.Identify](t, server); identified.Agent != "kith-in-a-browser" {
				t.Errorf("the listener identified %+v", identified)
			}
			server.terminate(t)
		})
	}
	const stranger = "/p2p/12D3KooWASf5dzsRVtjydi2D598E1hrY33DCFpsRyEp9TmZigJY3" // nobody has its key any more
	fails := func(t *testing.T, addr string, want ...string) {
		t.Helper()
		got, err := chromium.Call[meeting](ctx, page, "meet", addr, 1)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(want, func(text string) bool { return strings.Contains(got.Error, text) }) {
			t.Errorf("%+v, want an error with one of %q", got, want)
		}
	}
	t.Run("wrong-peer", func(t *testing.T) {
		server := kithPeer.run(t, "listen", "--listen=/ip4/127.0.0.1/tcp/0/ws")
		addr := withoutPeer(await[peercmd.Listening](t, server).Addrs[0])
		fails(t, addr+stranger, kithPeer.mismatch...)
		server.terminate(t)
	})
	t.Run("nobody-there", func(t *testing.T) { fails(t, "/ip4/127.0.0.1/tcp/1/ws"+stranger, "cannot be reached") })
	t.Run("no-address", func(t *testing.T) { fails(t, "example.org", "multiaddr") })
	example.terminate(t)
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
