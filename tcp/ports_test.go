package tcp

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/testkit"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/upgrade"
)

var loopback = netip.MustParseAddrPort("127.0.0.1:0")

func TestClassify(t *testing.T) {
	for _, c := range []struct {
		first string
		kind  Kind
		sure  bool
	}{
		{"", Multistream, false},
		{"\x13/multistream/1.0.0\n", Multistream, true},
		{"\x13", Multistream, true},
		{"G", Multistream, false},
		{"GET", Multistream, false},
		{"GET / HTTP/1.1", HTTP, true},
		{"POST /", HTTP, true},
		{"OPTIONS *", HTTP, true},
		{"GEX", Multistream, true},
		{"PUX ", Multistream, true},
		{"\x16", Multistream, false},
		{"\x16\x03", Multistream, false},
		{"\x16\x03\x01\x02\x00", Multistream, false},
		{"\x16\x03\x01\x02\x00\x01", TLS, true},
		{"\x16\x03\x01\x02\x00\x02", Multistream, true}, // a ServerHello
		{"\x16\x02", Multistream, true},
		{"\x17\x03\x03", Multistream, true}, // TLS, but not its start
	} {
		if kind, sure := classify([]byte(c.first)); kind != c.kind || sure != c.sure {
			t.Errorf("%q is %v, sure %v; want %v, %v", c.first, kind, sure, c.kind, c.sure)
		}
	}
}

// What is said of a start holds for all that begin with it.
func FuzzClassify(f *testing.F) {
	for _, s := range []string{"", "GET / HTTP/1.1\r\n", "\x13/multistream/1.0.0\n", "\x16\x03\x01\x02\x00\x01\x00", "OPTI", "\x16\x03\x01"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		known, is := false, Multistream
		for n := range len(b) + 1 {
			kind, sure := classify(b[:n])
			if known && (!sure || kind != is) {
				t.Fatalf("%q is %v, sure %v; but it was %v with less", b[:n], kind, sure, is)
			}
			if !sure && (kind != Multistream || n >= sniffLen) {
				t.Fatalf("%q is %v, and not known after %d bytes", b[:n], kind, n)
			}
			known, is = sure, kind
		}
	})
}

func listenAll(t *testing.T, ports *Ports) (ap netip.AddrPort, listeners [numKinds]net.Listener) {
	t.Helper()
	ap = loopback
	for kind := range numKinds {
		l, err := ports.Listen(ap, kind)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		listeners[kind] = l
		ap = l.Addr().(*net.TCPAddr).AddrPort()
	}
	return ap, listeners
}

func dial(t *testing.T, to netip.AddrPort) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	return conn
}

// hello is what a TLS client begins with.
func hello(t *testing.T) string {
	near, far := net.Pipe()
	defer near.Close()
	go func() {
		tls.Client(far, &tls.Config{ServerName: "example.com"}).Handshake()
	}()
	b := make([]byte, 4096)
	n, err := near.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

// All three kinds share one port at once; bytes that come one by one, or after a
// while, are told apart all the same, and none is missing; those who are silent
// keep nobody waiting.
func TestSharedPort(t *testing.T) {
	ap, listeners := listenAll(t, new(Ports))
	for range 50 {
		dial(t, ap) // says nothing
	}
	starts := [numKinds]string{
		Multistream: "\x13/multistream/1.0.0\n",
		HTTP:        "GET / HTTP/1.1\r\n\r\n",
		TLS:         hello(t),
	}
	for _, slowly := range []bool{false, true} {
		var clients [numKinds]net.Conn
		for kind := range numKinds {
			clients[kind] = dial(t, ap)
		}
		for kind, text := range starts {
			go func() {
				c := clients[kind]
				if slowly {
					for i := range sniffLen {
						io.WriteString(c, text[i:i+1])
						runtime.Gosched()
					}
					text = text[sniffLen:]
				}
				io.WriteString(c, text)
			}()
		}
		for kind, l := range listeners {
			for {
				conn, err := l.Accept()
				if err != nil {
					t.Fatal(err)
				}
				if conn.RemoteAddr().String() != clients[kind].LocalAddr().String() {
					conn.Close() // one of the silent
					continue
				}
				got := make([]byte, len(starts[kind]))
				if _, err := io.ReadFull(conn, got); err != nil || string(got) != starts[kind] {
					t.Errorf("%v: got %q, %v; want %q", Kind(kind), got, err, starts[kind])
				}
				conn.Close()
				break
			}
		}
	}
}

// Who says nothing is taken for one that waits for us.
func TestSilentIsMultistream(t *testing.T) {
	ap, listeners := listenAll(t, new(Ports))
	client := dial(t, ap)
	conn, err := listeners[Multistream].Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "hello")
	b := make([]byte, 5)
	if _, err := io.ReadFull(client, b); err != nil || string(b) != "hello" {
		t.Errorf("the silent client read %q, %v", b, err)
	}
	// The deadline of the look is gone.
	io.WriteString(client, "world")
	if _, err := io.ReadFull(conn, b); err != nil || string(b) != "world" {
		t.Errorf("read %q, %v", b, err)
	}
}

// More silent clients than may be looked at do not keep others out, and none of
// them is refused here: that is for the host.
func TestManySilent(t *testing.T) {
	ports := new(Ports)
	ap, listeners := listenAll(t, ports)
	const silent = maxSniffing + 200
	accepted := make(chan bool)
	go func() {
		for range silent {
			conn, err := listeners[Multistream].Accept()
			if err != nil {
				t.Error(err)
				break
			}
			defer conn.Close()
		}
		close(accepted)
	}()
	for range silent {
		dial(t, ap)
	}
	client := dial(t, ap)
	io.WriteString(client, "GET / HTTP/1.1\r\n\r\n")
	conn, err := listeners[HTTP].Accept()
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	<-accepted
	ports.mu.Lock()
	defer ports.mu.Unlock()
	if n := ports.open[ap].sniffing.Len(); n != 0 {
		t.Errorf("%d connections are still looked at", n)
	}
}

func TestKindNobodyListensFor(t *testing.T) {
	l, err := new(Ports).Listen(loopback, HTTP)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client := dial(t, l.Addr().(*net.TCPAddr).AddrPort())
	io.WriteString(client, "\x13/multistream/1.0.0\n")
	if _, err := client.Read(make([]byte, 1)); err == nil || errors.Is(err, syscall.ETIMEDOUT) {
		t.Errorf("the connection is still open: %v", err)
	}
}

func TestPortsClose(t *testing.T) {
	ports := new(Ports)
	ap, listeners := listenAll(t, ports)
	if _, err := ports.Listen(ap, HTTP); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), fmt.Sprint(ap.Port())) {
		t.Errorf("listening twice: %v", err)
	}
	if _, err := new(Ports).Listen(ap, HTTP); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), fmt.Sprint(ap.Port())) {
		t.Errorf("listening on a port of somebody else: %v", err)
	}
	waiting, looked := dial(t, ap), dial(t, ap)
	io.WriteString(waiting, "GET / HTTP/1.1\r\n\r\n")
	took := testkit.Took(func() {
		for _, l := range listeners {
			ended := make(chan error)
			if l != listeners[HTTP] { // where one waits
				go func() {
					_, err := l.Accept()
					ended <- err
				}()
			} else {
				go func() { ended <- net.ErrClosed }()
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			l.Close()
			if err := <-ended; !errors.Is(err, net.ErrClosed) {
				t.Errorf("Accept ended with %v", err)
			}
		}
		for _, c := range []net.Conn{waiting, looked} {
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Error("a connection that nobody accepted is still open")
			}
		}
	})
	if took > 900*time.Millisecond {
		t.Errorf("closing took %v", took)
	}
	// The port is free again.
	l, err := ports.Listen(ap, TLS)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

// A TCP transport with Ports works as without, and from its port is dialed.
func TestTransportOnSharedPort(t *testing.T) {
	ports := new(Ports)
	key := testkit.Key(t)
	security, err := upgrade.Noise(key)
	if err != nil {
		t.Fatal(err)
	}
	u, err := upgrade.New(upgrade.Config{Security: []upgrade.Security{security}})
	if err != nil {
		t.Fatal(err)
	}
	transport, err := New(Config{Upgrader: u, Ports: ports})
	if err != nil {
		t.Fatal(err)
	}
	h, err := host.New(host.Config{Identity: key, Transports: []host.Transport{transport}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := h.Listen(multiaddr.MustParse("/ip4/127.0.0.1/tcp/0")); err != nil {
		t.Fatal(err)
	}
	h.Handle("/echo/1", echo)
	ap, _, _ := h.Addrs()[0].AddrPort()
	web, err := ports.Listen(ap, HTTP)
	if err != nil {
		t.Fatal(err)
	}
	defer web.Close()
	other := newHost(t, "/ip4/127.0.0.1/tcp/0", upgrade.Noise)
	if _, err := other.Connect(t.Context(), testkit.Info(h)); err != nil {
		t.Fatal(err)
	}
	if err := echoOnce(other, h.ID()); err != nil {
		t.Error(err)
	}
	if transport.reuse && (len(transport.listening) != 1 || transport.listening[0] != ap) {
		t.Errorf("dials would leave from %v, want %v", transport.listening, ap)
	}
}
