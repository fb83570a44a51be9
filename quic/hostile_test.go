package quic

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	quicgo "github.com/quic-go/quic-go"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/testkit"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// bare is a certificate without the libp2p extension.
func bare(t testing.TB, until time.Time) tls.Certificate {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(1, 0), NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	check(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}
}

// badTLS are configurations that no honest peer has, with what the other side says of them.
func badTLS(t testing.TB) map[string]func(*tls.Config) (want string) {
	tomorrow := time.Now().Add(24 * time.Hour)
	return map[string]func(*tls.Config) string{
		"no extension": func(c *tls.Config) string {
			c.Certificates = []tls.Certificate{bare(t, tomorrow)}
			return "no libp2p Public Key Extension"
		},
		"expired": func(c *tls.Config) string {
			c.Certificates = []tls.Certificate{bare(t, time.Now().Add(-24*time.Hour))}
			return "expired"
		},
		"two certificates": func(c *tls.Config) string {
			one := c.Certificates[0]
			one.Certificate = append(one.Certificate[:1:1], one.Certificate[0])
			c.Certificates = []tls.Certificate{one}
			return "2 certificates"
		},
		"key of another": func(c *tls.Config) string {
			one := c.Certificates[0]
			_, one.PrivateKey, _ = ed25519.GenerateKey(rand.Reader)
			c.Certificates = []tls.Certificate{one}
			return "" // crypto/tls of either side sees it
		},
		"other protocol": func(c *tls.Config) string {
			c.NextProtos = []string{"h3"}
			return ""
		},
		"no protocol": func(c *tls.Config) string {
			c.NextProtos = nil
			return ""
		},
		"long certificate": func(c *tls.Config) string {
			one := c.Certificates[0]
			one.Certificate = append(one.Certificate[:1:1], make([]byte, 40_000))
			c.Certificates = []tls.Certificate{one}
			return ""
		},
	}
}

// badPeer is a configuration that checks nothing, changed.
func badPeer(t testing.TB, change func(*tls.Config) string) (*tls.Config, string) {
	conf := tlsFor(t, alpn)
	conf.VerifyConnection = nil
	return conf, change(conf)
}

func TestMaliciousListener(t *testing.T) {
	for name, change := range badTLS(t) {
		t.Run(name, func(t *testing.T) {
			conf, want := badPeer(t, change)
			udpConn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			check(t, err)
			defer udpConn.Close()
			l, err := quicgo.Listen(udpConn, conf, &quicgo.Config{})
			check(t, err)
			defer l.Close()
			near := newTransport(t, testkit.Key(t), EndpointConfig{})
			wantRefused(t, near, fromNet(l.Addr()), want)
		})
	}
}

// wantRefused dials and wants an error that says why, and that is not of our own closing.
func wantRefused(t *testing.T, near *Transport, to multiaddr.Addr, want string) {
	t.Helper()
	_, err := near.Dial(t.Context(), to, peer.ID{}, func(host.Stage) {})
	if err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, net.ErrClosed) {
		t.Errorf("dialed: %v; want %q", err, want)
	}
	await(t, "the socket closes", func() bool {
		near.endpoint.mu.Lock()
		defer near.endpoint.mu.Unlock()
		return len(near.endpoint.open) == 0
	})
}

// A listener that answers with garbage, or not at all, is given up in time.
func TestGarbageListener(t *testing.T) {
	for name, answer := range map[string]func([]byte) []byte{
		"echo":    func(p []byte) []byte { return p },
		"zeros":   func(p []byte) []byte { return make([]byte, len(p)) },
		"version": func(p []byte) []byte { return append([]byte{0x80, 0, 0, 0, 0}, p[5:]...) },
		"silence": func(p []byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			check(t, err)
			defer conn.Close()
			go func() {
				buf := make([]byte, 2000)
				for {
					n, from, err := conn.ReadFrom(buf)
					if err != nil {
						return
					}
					conn.WriteTo(answer(buf[:n]), from)
				}
			}()
			near := newTransport(t, testkit.Key(t), EndpointConfig{})
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			_, err = near.Dial(ctx, fromNet(conn.LocalAddr()), peer.ID{}, func(host.Stage) {})
			if err == nil || errors.Is(err, net.ErrClosed) {
				t.Errorf("dialed: %v", err)
			}
		})
	}
}

func TestMaliciousDialer(t *testing.T) {
	for name, change := range badTLS(t) {
		t.Run(name, func(t *testing.T) {
			conf, want := badPeer(t, change)
			_, l := listening(t)
			upgraded := make(chan error, 1)
			go func() {
				in, err := l.Accept()
				if err != nil {
					return // such a dialer does not come that far
				}
				_, err = in.Upgrade(context.Background(), func(host.Stage) {})
				upgraded <- err
			}()
			conn, err := badDial(t, l, conf)
			if err == nil {
				<-conn.Context().Done() // refused after its own handshake
			}
			if want != "" {
				if err := <-upgraded; err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, net.ErrClosed) {
					t.Errorf("upgraded: %v; want %q", err, want)
				}
			}
			wantAlive(t, l)
		})
	}
}

func badDial(t testing.TB, l host.TransportListener, conf *tls.Config) (*quicgo.Conn, error) {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	check(t, err)
	tr := &quicgo.Transport{Conn: conn}
	t.Cleanup(func() { tr.Close(); conn.Close() })
	ap, _, _ := l.Addr().AddrPort()
	return tr.Dial(t.Context(), net.UDPAddrFromAddrPort(ap), conf, &quicgo.Config{
		InitialStreamReceiveWindow: 1, MaxStreamReceiveWindow: 1, InitialConnectionReceiveWindow: 1, MaxConnectionReceiveWindow: 1,
	})
}

// wantAlive makes an honest connection.
func wantAlive(t testing.TB, l host.TransportListener) {
	t.Helper()
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			in.Upgrade(context.Background(), func(host.Stage) {})
		}
	}()
	near := newTransport(t, testkit.Key(t), EndpointConfig{})
	tc, err := near.Dial(t.Context(), l.Addr(), peer.ID{}, func(host.Stage) {})
	check(t, err)
	tc.Mux.CloseWithCode(0)
}

// What a client calls us is of no interest.
func TestServerName(t *testing.T) {
	for _, name := range []string{"example.com", "127.0.0.1", strings.Repeat("a.", 100) + "b", strings.Repeat("x", 10_000), "\x00\xff/..", " "} {
		_, l := listening(t)
		conf := tlsFor(t, alpn)
		conf.ServerName = name
		if conn, err := badDial(t, l, conf); err != nil {
			t.Errorf("%.20q: %v", name, err)
		} else {
			conn.CloseWithError(0, "")
		}
	}
}

// A remote that gives no credit cannot hold up the end of streams and connections.
func TestWithheldCredit(t *testing.T) {
	_, l := listening(t)
	go badDial(t, l, tlsFor(t, alpn))
	in, err := l.Accept()
	check(t, err)
	tc, err := in.Upgrade(t.Context(), func(host.Stage) {})
	check(t, err)
	s := open(t, tc.Mux)
	failed := make(chan error)
	go func() {
		_, err := s.Write(make([]byte, 1<<20))
		failed <- err
	}()
	s.Close()
	if err := <-failed; !errors.Is(err, net.ErrClosed) {
		t.Errorf("writing to a stream that was closed: %v", err)
	}
	s = open(t, tc.Mux)
	s.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := s.Write(make([]byte, 1<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("writing without credit: %v", err)
	}
	if took := testkit.Took(func() { check(t, tc.Mux.CloseWithCode(host.ConnCodeShutdown)) }); took > time.Second {
		t.Errorf("closing took %v", took)
	}
}

// A dialer that stops in the middle of the handshake holds up neither others nor Close.
func TestHalfOpen(t *testing.T) {
	far := newTransport(t, testkit.Key(t), EndpointConfig{})
	l, err := far.Listen(multiaddr.MustParse("/ip4/127.0.0.1/udp/0/quic-v1"))
	check(t, err)
	ap, _, _ := l.Addr().AddrPort()
	const dialers = 30
	for range dialers {
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		check(t, err)
		tr := &quicgo.Transport{Conn: &mute{UDPConn: conn}}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			tr.Dial(ctx, net.UDPAddrFromAddrPort(ap), tlsFor(t, alpn), nil)
		}()
		defer func() { cancel(); <-ended; tr.Close(); conn.Close() }()
	}
	// What a client says first takes two packets.
	await(t, "all are begun", func() bool {
		g := &far.endpoint.gate
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.opening == dialers
	})
	wantAlive(t, l)
	if took := testkit.Took(func() { check(t, far.endpoint.Close()) }); took > 2*time.Second {
		t.Errorf("closing took %v", took)
	}
}

// mute sends one packet, the first, and none after it.
type mute struct {
	*net.UDPConn
	sent bool
}

func (m *mute) WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (int, int, error) {
	if m.sent {
		return len(b), len(oob), nil
	}
	m.sent = true
	return m.UDPConn.WriteMsgUDP(b, oob, addr)
}
