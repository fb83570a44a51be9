//go:build !js

package websocket_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/testkit"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/tcp"
	"github.com/kith-p2p/kith/upgrade"
	"github.com/kith-p2p/kith/websocket"
)

func newHost(t testing.TB, cfg websocket.Config, listen ...string) *host.Host {
	t.Helper()
	key := newKey(t)
	h, err := host.New(host.Config{Identity: key, Transports: []host.Transport{newTransport(t, key, upgrade.Noise, cfg)}})
	check(t, err)
	t.Cleanup(func() { check(t, h.Close()) })
	for _, a := range listen {
		check(t, h.Listen(multiaddr.MustParse(a)))
	}
	h.Handle("/echo/1", echo)
	return h
}

func echo(_ context.Context, s *host.Stream) error {
	_, err := io.Copy(s, s)
	return err
}

func echoOnce(h *host.Host, to *host.Host, addr multiaddr.Addr) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := h.Connect(ctx, peer.AddrInfo{ID: to.ID(), Addrs: []multiaddr.Addr{addr}}); err != nil {
		return err
	}
	s, err := h.NewStream(ctx, to.ID(), "/echo/1")
	if err != nil {
		return err
	}
	defer s.Close()
	s.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprint(s, "hello")
	s.CloseWrite()
	got, err := io.ReadAll(s)
	if string(got) != "hello" || err != nil {
		return fmt.Errorf("echo gave %q, %v", got, err)
	}
	return nil
}

func port(t testing.TB, a multiaddr.Addr) int {
	t.Helper()
	ap, _, ok := a.AddrPort()
	if !ok {
		t.Fatalf("%s has no port", a)
	}
	return int(ap.Port())
}

// A certificate is checked against the name in the address, which reaches the
// transport as it is.
func TestNames(t *testing.T) {
	server, client := certificate(t)
	for _, c := range []struct {
		listen, dial string // %d is the port
		client       *tls.Config
		says         string // "": it works
	}{
		{"/ip4/127.0.0.1/tcp/0/ws", "/ip4/127.0.0.1/tcp/%d/ws", nil, ""},
		{"/ip6/::1/tcp/0/ws", "/ip6/::1/tcp/%d/ws", nil, ""},
		{"/ip4/127.0.0.1/tcp/0/ws", "/dns4/localhost/tcp/%d/ws", nil, ""},
		{"/ip4/127.0.0.1/tcp/0/ws", "/ip4/127.0.0.1/tcp/%d/ws/http-path/a%%2Fb%%20c", nil, ""},
		{"/ip4/127.0.0.1/tcp/0/wss", "/dns4/localhost/tcp/%d/wss", client, ""},
		{"/ip4/127.0.0.1/tcp/0/tls/ws", "/dns/localhost/tcp/%d/tls/ws", client, ""},
		{"/ip4/127.0.0.1/tcp/0/tls/ws", "/ip4/127.0.0.1/tcp/%d/wss", client, ""},
		{"/ip6/::1/tcp/0/tls/ws", "/ip6/::1/tcp/%d/tls/ws", client, ""},
		{"/ip4/127.0.0.1/tcp/0/tls/sni/example.test/ws", "/ip4/127.0.0.1/tcp/%d/tls/sni/example.test/ws", client, ""},
		{"/ip4/127.0.0.1/tcp/0/tls/ws", "/ip4/127.0.0.1/tcp/%d/tls/sni/other.test/ws", client, "not other.test"},
		{"/ip4/127.0.0.1/tcp/0/tls/ws", "/ip4/127.0.0.1/tcp/%d/tls/sni/\x01 garbage%%00/ws", client, "TLS"},
		{"/ip4/127.0.0.1/tcp/0/tls/ws", "/ip4/127.0.0.1/tcp/%d/tls/ws", nil, "unknown authority"},
		{"/ip4/127.0.0.1/tcp/0/tls/ws", "/ip4/127.0.0.1/tcp/%d/ws", nil, "asking for a WebSocket"},
		{"/ip4/127.0.0.1/tcp/0/ws", "/ip4/127.0.0.1/tcp/%d/tls/ws", client, "TLS"},
	} {
		t.Run(c.dial, func(t *testing.T) {
			if strings.HasPrefix(c.listen, "/ip6") && !testkit.HasIPv6(t) {
				return
			}
			b := newHost(t, websocket.Config{TLS: server}, c.listen)
			if got, want := b.Addrs()[0].String(), strings.Replace(c.listen, "/wss", "/tls/ws", 1); got != strings.Replace(want, "tcp/0", fmt.Sprint("tcp/", port(t, b.Addrs()[0])), 1) {
				t.Errorf("listening on %s is told as %s", c.listen, got)
			}
			addr, err := multiaddr.Parse(fmt.Sprintf(c.dial, port(t, b.Addrs()[0])))
			if err != nil {
				return // not even an address
			}
			a := newHost(t, websocket.Config{ClientTLS: c.client})
			err = echoOnce(a, b, addr)
			if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Fatalf("%v, want %q", err, c.says)
			}
			if c.says != "" {
				return
			}
			conn := a.ConnsTo(b.ID())[0]
			if ap, _, ok := conn.RemoteAddr().AddrPort(); !ok || int(ap.Port()) != port(t, b.Addrs()[0]) {
				t.Errorf("the remote address is %s", conn.RemoteAddr())
			}
			for _, far := range b.ConnsTo(a.ID()) {
				if far.RemoteAddr() != conn.LocalAddr() {
					t.Errorf("one sees the other at %s, which is at %s", far.RemoteAddr(), conn.LocalAddr())
				}
			}
		})
	}
}

// One port for TCP, WebSocket, secure WebSocket and the web, all at once.
func TestSharedPort(t *testing.T) {
	server, client := certificate(t)
	ports := new(tcp.Ports)
	key := newKey(t)
	security, err := upgrade.Noise(key)
	check(t, err)
	u, err := upgrade.New(upgrade.Config{Security: []upgrade.Security{security}})
	check(t, err)
	overTCP, err := tcp.New(tcp.Config{Upgrader: u, Ports: ports})
	check(t, err)
	cfg := websocket.Config{
		TLS:     server,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "web %s", r.URL.Path) }),
		Listen: func(ap netip.AddrPort, secure bool) (net.Listener, error) {
			if secure {
				return ports.Listen(ap, tcp.TLS)
			}
			return ports.Listen(ap, tcp.HTTP)
		},
	}
	b, err := host.New(host.Config{Identity: key, Transports: []host.Transport{overTCP, newTransport(t, key, upgrade.Noise, cfg)}})
	check(t, err)
	defer b.Close()
	b.Handle("/echo/1", echo)
	check(t, b.Listen(multiaddr.MustParse("/ip4/127.0.0.1/tcp/0")))
	p := port(t, b.Addrs()[0])
	base := fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", p)
	check(t, b.Listen(multiaddr.MustParse(base+"/ws")))
	check(t, b.Listen(multiaddr.MustParse(base+"/tls/ws")))

	var all sync.WaitGroup
	for range 5 {
		for _, suffix := range []string{"", "/ws", "/tls/ws"} {
			key := newKey(t)
			security, err := upgrade.Noise(key)
			check(t, err)
			u, err := upgrade.New(upgrade.Config{Security: []upgrade.Security{security}})
			check(t, err)
			plain, err := tcp.New(tcp.Config{Upgrader: u})
			check(t, err)
			a, err := host.New(host.Config{Identity: key, Transports: []host.Transport{plain, newTransport(t, key, upgrade.Noise, websocket.Config{ClientTLS: client})}})
			check(t, err)
			defer a.Close()
			all.Go(func() {
				if err := echoOnce(a, b, multiaddr.MustParse(base+suffix)); err != nil {
					t.Errorf("%s%s: %v", base, suffix, err)
				}
			})
		}
		all.Go(func() {
			web := &http.Client{Transport: &http.Transport{TLSClientConfig: client.Clone()}}
			defer web.CloseIdleConnections()
			for _, scheme := range []string{"http", "https"} {
				if got, err := get(web, fmt.Sprintf("%s://127.0.0.1:%d/x", scheme, p)); got != "web /x" || err != nil {
					t.Errorf("%s: %q, %v", scheme, got, err)
				}
			}
		})
	}
	all.Wait()
}

func get(c *http.Client, url string) (string, error) {
	r, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	return string(body), err
}

// The handler gets whole requests, also large ones and several on a connection,
// and is stopped with the listener.
func TestHandler(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(w, r.Body)
	})
	b := newHost(t, websocket.Config{Handler: handler}, "/ip4/127.0.0.1/tcp/0/ws")
	url := fmt.Sprintf("http://127.0.0.1:%d/", port(t, b.Addrs()[0]))
	web := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}}
	for range 3 {
		sent := bytes.Repeat([]byte("kith"), 1<<18)
		r, err := web.Post(url, "text/plain", bytes.NewReader(sent))
		check(t, err)
		got, err := io.ReadAll(r.Body)
		r.Body.Close()
		if !bytes.Equal(got, sent) || err != nil {
			t.Errorf("%d bytes came back, %v", len(got), err)
		}
	}
	idle, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/"))
	check(t, err)
	defer idle.Close()
	fmt.Fprint(idle, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	r := bufio.NewReader(idle)
	_, err = http.ReadResponse(r, nil)
	check(t, err)
	check(t, b.Close())
	idle.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := r.ReadByte(); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the handler's connection is still open: %v", err)
	}

	// Without a handler there is nothing.
	c := newHost(t, websocket.Config{}, "/ip4/127.0.0.1/tcp/0/ws")
	got, err := get(&http.Client{}, fmt.Sprintf("http://127.0.0.1:%d/", port(t, c.Addrs()[0])))
	if !strings.Contains(got, "404") || err != nil {
		t.Errorf("without a handler: %q, %v", got, err)
	}
}

// More connections than the handler may have are closed; when some go, others
// come in.
func TestHandlerIsBounded(t *testing.T) {
	b := newHost(t, websocket.Config{}, "/ip4/127.0.0.1/tcp/0/ws")
	to := fmt.Sprintf("127.0.0.1:%d", port(t, b.Addrs()[0]))
	var open []net.Conn
	answered := func() bool {
		c, err := net.Dial("tcp", to)
		check(t, err)
		open = append(open, c)
		c.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		_, err = http.ReadResponse(bufio.NewReader(c), nil)
		return err == nil
	}
	n := 0
	for answered() {
		n++
	}
	if n != 256 {
		t.Errorf("%d connections were served", n)
	}
	for _, c := range open {
		c.Close()
	}
	for end := time.Now().Add(10 * time.Second); !answered(); {
		if time.Now().After(end) {
			t.Fatal("no connection is served although all others are gone")
		}
	}
	for _, c := range open {
		c.Close()
	}
}

func TestListenErrors(t *testing.T) {
	server, _ := certificate(t)
	first := newHost(t, websocket.Config{}, "/ip4/127.0.0.1/tcp/0/ws")
	transport := newTransport(t, newKey(t), upgrade.Noise, websocket.Config{TLS: server})
	_, err := transport.Listen(first.Addrs()[0])
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), fmt.Sprint(port(t, first.Addrs()[0]))) || !strings.Contains(err.Error(), "choose another") {
		t.Errorf("the error does not name the port and the remedy: %v", err)
	}
	for _, a := range []string{"/dns/localhost/tcp/0/ws", "/ip4/127.0.0.1/ws", "/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/0/ws/http-path/a"} {
		if transport.CanListen(multiaddr.MustParse(a)) {
			t.Errorf("%s could be listened on", a)
		}
		if _, err := transport.Listen(multiaddr.MustParse(a)); err == nil {
			t.Errorf("%s was listened on", a)
		}
	}
	if _, err := newTransport(t, newKey(t), upgrade.Noise, websocket.Config{}).Listen(multiaddr.MustParse("/ip4/127.0.0.1/tcp/0/tls/ws")); err == nil || !strings.Contains(err.Error(), "Config.TLS") {
		t.Errorf("listening with TLS and no certificate: %v", err)
	}
	if _, err := websocket.New(websocket.Config{}); err == nil {
		t.Error("a transport without an upgrader was made")
	}
}

// Clients that make a mess of TLS: an error and an end, and others are served.
func TestBadTLS(t *testing.T) {
	server, client := certificate(t)
	key := newKey(t)
	l, err := newTransport(t, key, upgrade.Noise, websocket.Config{TLS: server}).Listen(multiaddr.MustParse("/ip4/127.0.0.1/tcp/0/tls/ws"))
	check(t, err)
	defer l.Close()
	to := fmt.Sprintf("127.0.0.1:%d", port(t, l.Addr()))
	serve := func() (host.TransportConn, error) {
		in, err := l.Accept()
		check(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		return in.Upgrade(ctx, func(host.Stage) {})
	}
	for _, sent := range []string{
		"", "\x16", "\x16\x03\x01\xff\xff\x01", "GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
		"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + strings.Repeat("x", 16<<10), strings.Repeat("\x00", 1<<16),
	} {
		c, err := net.Dial("tcp", to)
		check(t, err)
		go func() {
			io.WriteString(c, sent)
			c.Close()
		}()
		if _, err := serve(); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%.20q: %v", sent, err)
		}
	}
	// A name that no certificate is for, and one that is no name: the name is not what
	// a peer is known by, so the certificate there is is given.
	for _, name := range []string{"other.test", strings.Repeat("x", 255), "a..b", "-", "\x7f"} {
		c, err := net.Dial("tcp", to)
		check(t, err)
		done := make(chan error)
		go func() {
			done <- tls.Client(c, &tls.Config{ServerName: name, InsecureSkipVerify: true}).Handshake()
			c.Close()
		}()
		served := make(chan error)
		go func() {
			_, err := serve()
			served <- err
		}()
		if err := <-done; err != nil {
			t.Errorf("SNI %q: %v", name, err)
		}
		if err := <-served; err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("SNI %q: %v", name, err)
		}
	}
	go serve()
	dialed, err := newTransport(t, newKey(t), upgrade.Noise, websocket.Config{ClientTLS: client}).Dial(t.Context(), l.Addr(), key.ID(), func(host.Stage) {})
	check(t, err)
	dialed.Mux.CloseWithCode(0)
}

// A node is closed within a second, whatever clients are in the middle of.
func TestCloseInTheMiddle(t *testing.T) {
	server, _ := certificate(t)
	b := newHost(t, websocket.Config{TLS: server}, "/ip4/127.0.0.1/tcp/0/ws", "/ip4/127.0.0.1/tcp/0/tls/ws")
	var clients []net.Conn
	for _, a := range b.Addrs() {
		sent := []string{"", "G", "GET / HTTP/1.1\r\nX: "}
		if a.Has(multiaddr.TLS) {
			sent = []string{"", "\x16", "\x16\x03\x01\x02\x00\x01"}
		}
		for _, sent := range sent {
			c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port(t, a)))
			check(t, err)
			defer c.Close()
			io.WriteString(c, sent)
			clients = append(clients, c)
		}
	}
	for b.Usage().HalfOpen < len(clients) {
		runtime.Gosched()
	}
	if took := testkit.Took(func() { check(t, b.Close()) }); took > time.Second {
		t.Errorf("closing took %v", took)
	}
	for _, c := range clients {
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, context.DeadlineExceeded) {
			t.Error("a connection is still open")
		}
	}
}
