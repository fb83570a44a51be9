package tor

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/tcp"
	"github.com/kith-p2p/kith/upgrade"
)

var onion = strings.Repeat("kith2345", 7) // 56 characters, as the names of onion services have

// newHost makes a host that listens with TCP on loopback and dials through a proxy,
// if it has one.
func newHost(t *testing.T, proxy string) *host.Host {
	t.Helper()
	key, err := peer.GenerateKey(peer.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	noise, err := upgrade.Noise(key)
	if err != nil {
		t.Fatal(err)
	}
	upgrader, err := upgrade.New(upgrade.Config{Security: []upgrade.Security{noise}})
	if err != nil {
		t.Fatal(err)
	}
	var transport host.Transport
	if proxy != "" {
		transport, err = New(Config{Upgrader: upgrader, Proxy: proxy, Names: true})
	} else {
		transport, err = tcp.New(tcp.Config{Upgrader: upgrader})
	}
	if err != nil {
		t.Fatal(err)
	}
	h, err := host.New(host.Config{Identity: key, Transports: []host.Transport{transport}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	if proxy == "" {
		if err := h.Listen(multiaddr.MustParse("/ip4/127.0.0.1/tcp/0")); err != nil {
			t.Fatal(err)
		}
		h.Handle("/echo/1", func(_ context.Context, s *host.Stream) error {
			_, err := io.Copy(s, s)
			return err
		})
	}
	return h
}

func TestDial(t *testing.T) {
	server := newHost(t, "")
	ap, _, _ := server.Addrs()[0].AddrPort()
	names := map[string]string{onion + ".onion:4001": ap.String(), "service.example:4001": ap.String()}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()

	for target := range names {
		t.Run(target, func(t *testing.T) {
			p := newProxy(t, names)
			testDial(ctx, t, server, newHost(t, p.addr), target)
			// It is the proxy that resolves the name.
			if asked := p.requests(); len(asked) != 1 || asked[0] != target {
				t.Errorf("the proxy was asked for %v", asked)
			}
		})
	}
}

func testDial(ctx context.Context, t *testing.T, server, client *host.Host, target string) {
	addr := multiaddr.MustParse("/onion3/" + onion + ":4001")
	if name, port, _ := net.SplitHostPort(target); !strings.HasSuffix(name, ".onion") {
		addr = multiaddr.MustParse("/dns4/" + name + "/tcp/" + port)
	}
	conn, err := client.Connect(ctx, peer.AddrInfo{ID: server.ID(), Addrs: []multiaddr.Addr{addr}})
	if err != nil {
		t.Fatal(err)
	}
	if conn.RemoteAddr() != addr || conn.RemotePeer() != server.ID() {
		t.Errorf("connected to %s at %s", conn.RemotePeer(), conn.RemoteAddr())
	}
	s, err := client.NewStream(ctx, server.ID(), "/echo/1")
	if err != nil {
		t.Fatal(err)
	}
	s.SetDeadline(time.Now().Add(20 * time.Second))
	text := strings.Repeat("through the onion ", 10_000)
	go func() {
		io.WriteString(s, text)
		s.CloseWrite()
	}()
	if got, err := io.ReadAll(s); err != nil || string(got) != text {
		t.Errorf("%d bytes of %d came back: %v", len(got), len(text), err)
	}
}

// Another peer than the one that was asked for is found out, also behind a proxy.
func TestWrongPeer(t *testing.T) {
	wanted, impostor := newHost(t, ""), newHost(t, "")
	ap, _, _ := impostor.Addrs()[0].AddrPort()
	p := newProxy(t, map[string]string{onion + ".onion:1": ap.String()})
	addr := multiaddr.MustParse("/onion3/" + onion + ":1")
	_, err := newHost(t, p.addr).Connect(t.Context(), peer.AddrInfo{ID: wanted.ID(), Addrs: []multiaddr.Addr{addr}})
	if err == nil || !strings.Contains(err.Error(), impostor.ID().String()) {
		t.Errorf("connected, or failed for another reason: %v", err)
	}
}

func TestProxyRefuses(t *testing.T) {
	p := newProxy(t, nil)
	addr := multiaddr.MustParse("/onion3/" + onion + ":1")
	_, err := newHost(t, p.addr).Connect(t.Context(), peer.AddrInfo{ID: newHost(t, "").ID(), Addrs: []multiaddr.Addr{addr}})
	if err == nil || !strings.Contains(err.Error(), "host unreachable") {
		t.Errorf("connected, or failed for another reason: %v", err)
	}
}

// A dial ends with its context, whatever the proxy withholds.
func TestDialEnds(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	addr := multiaddr.MustParse("/onion3/" + onion + ":1")
	_, err = newHost(t, silent.Addr().String()).Connect(ctx, peer.AddrInfo{ID: newHost(t, "").ID(), Addrs: []multiaddr.Addr{addr}})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

func TestAddresses(t *testing.T) {
	for addr, want := range map[string][2]bool{ // without and with names
		"/onion3/" + onion + ":80":             {true, true},
		"/dns4/example.com/tcp/80":             {false, true},
		"/dns/example.com/tcp/80":              {false, true},
		"/dns/example.com/tcp/80/ws":           {false, false},
		"/dns/example.com/udp/80":              {false, false},
		"/ip4/192.0.2.1/tcp/80":                {false, false},
		"/onion3/" + onion + ":80/tcp/1":       {false, false},
		"/dns/example.com/udp/80/quic-v1":      {false, false},
		"/onion3/" + onion + ":80/p2p-circuit": {false, false},
	} {
		a := multiaddr.MustParse(addr)
		without, with := &Transport{}, &Transport{names: true}
		if got := [2]bool{without.CanDial(a), with.CanDial(a)}; got != want {
			t.Errorf("%s: %v, want %v", addr, got, want)
		}
		if _, err := with.Listen(a); with.CanListen(a) || err == nil || !strings.Contains(err.Error(), "HiddenServicePort") {
			t.Errorf("listening on %s: %v", addr, err)
		}
	}
}

// A socksProxy is as much of RFC 1928 as is needed to connect to a name.
type socksProxy struct {
	addr  string
	names map[string]string // what stands behind each name and port

	mu    sync.Mutex
	asked []string
}

func newProxy(t *testing.T, names map[string]string) *socksProxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	p := &socksProxy{addr: l.Addr().String(), names: names}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				p.serve(conn) // what fails, the client tells
			}()
		}
	}()
	return p
}

func (p *socksProxy) requests() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

func (p *socksProxy) serve(conn net.Conn) error {
	const version, connect, domain = 5, 1, 3
	head := make([]byte, 2)
	if _, err := io.ReadFull(conn, head); err != nil || head[0] != version {
		return fmt.Errorf("greeting %x: %v", head, err)
	}
	if _, err := io.ReadFull(conn, make([]byte, head[1])); err != nil {
		return err
	}
	conn.Write([]byte{version, 0}) // no authentication
	request := make([]byte, 5)
	if _, err := io.ReadFull(conn, request); err != nil || request[1] != connect || request[3] != domain {
		return fmt.Errorf("request %x: %v", request, err)
	}
	rest := make([]byte, int(request[4])+2)
	if _, err := io.ReadFull(conn, rest); err != nil {
		return err
	}
	name, port := string(rest[:len(rest)-2]), binary.BigEndian.Uint16(rest[len(rest)-2:])
	target := net.JoinHostPort(name, strconv.Itoa(int(port)))
	p.mu.Lock()
	p.asked = append(p.asked, target)
	p.mu.Unlock()
	answer := []byte{version, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	remote, err := net.Dial("tcp", p.names[target])
	if err != nil {
		answer[1] = 4 // host unreachable
		conn.Write(answer)
		return err
	}
	defer remote.Close()
	conn.Write(answer)
	go func() {
		io.Copy(remote, conn)
		remote.(*net.TCPConn).CloseWrite()
	}()
	io.Copy(conn, remote)
	return nil
}
