package quic

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/transporttest"
	"github.com/kith-p2p/kith/peer"
)

func newTransport(t testing.TB, key peer.PrivateKey, cfg EndpointConfig) *Transport {
	t.Helper()
	cfg.Key = key
	e := NewEndpoint(cfg)
	t.Cleanup(func() { e.Close() })
	transport, err := New(Config{Key: key, Endpoint: e})
	if err != nil {
		t.Fatal(err)
	}
	return transport
}

func TestTransport(t *testing.T) {
	transporttest.Run(t, transporttest.Case{
		New: func(t testing.TB, key peer.PrivateKey) host.Transport {
			return newTransport(t, key, EndpointConfig{IdleTimeout: 6 * time.Second})
		},
		Listen:    transporttest.Addrs("/ip4/127.0.0.1/udp/0/quic-v1", "/ip6/::1/udp/0/quic-v1"),
		Silence:   6 * time.Second,
		Datagrams: true,
	})
}

// A connection that was authenticated needs the certificate no more, and lives on without it.
func TestCertificateIsForgotten(t *testing.T) {
	transport, l := listening(t)
	dialed, taken := dialTo(t, transport, l)
	for _, c := range []host.TransportConn{dialed, taken} {
		state := c.Mux.(*conn).qc.ConnectionState().TLS
		if len(state.PeerCertificates) != 1 || state.PeerCertificates[0] != forgotten {
			t.Errorf("%v keeps the remote's certificate", c.RemoteAddr)
		}
	}
	go taken.Mux.Serve(func(s host.MuxedStream) {
		go func() {
			io.Copy(s, s)
			s.Close()
		}()
	})
	s, err := dialed.Mux.OpenStream(t.Context())
	check(t, err)
	// Enough packets for the first key update of quic-go, at 100, and more.
	sent := bytes.Repeat([]byte("forget me"), 1<<18/9)
	go func() {
		s.Write(sent)
		s.CloseWrite()
	}()
	got, err := io.ReadAll(s)
	if check(t, err); !bytes.Equal(got, sent) {
		t.Error("something else came back")
	}
}

func TestSimultaneousDials(t *testing.T) {
	transporttest.Simultaneous(t, transporttest.Case{
		New:    func(t testing.TB, key peer.PrivateKey) host.Transport { return newTransport(t, key, EndpointConfig{}) },
		Listen: transporttest.Addrs("/ip4/127.0.0.1/udp/0/quic-v1"),
	})
}

func TestClosing(t *testing.T) {
	transporttest.Closing(t, transporttest.Case{
		New:    func(t testing.TB, key peer.PrivateKey) host.Transport { return newTransport(t, key, EndpointConfig{}) },
		Listen: transporttest.Addrs("/ip4/127.0.0.1/udp/0/quic-v1"),
	})
}
