//go:build !js

package websocket_test

import (
	"fmt"
	"io"
	"testing"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/upgrade"
	"github.com/kith-p2p/kith/websocket"
)

// connected gives the two ends of a connection of which the dialer's is first.
func connected(t testing.TB, listen string, channel func(peer.PrivateKey) (upgrade.Security, error)) (dialer, listener host.TransportConn) {
	t.Helper()
	server, client := certificate(t)
	cfg := websocket.Config{TLS: server, ClientTLS: client}
	key := newKey(t)
	l, err := newTransport(t, key, channel, cfg).Listen(multiaddr.MustParse(listen))
	check(t, err)
	defer l.Close()
	accepted := make(chan host.TransportConn, 1)
	go func() {
		in, err := l.Accept()
		if err != nil {
			return
		}
		tc, err := in.Upgrade(t.Context(), func(host.Stage) {})
		if err != nil {
			t.Error(err)
		}
		accepted <- tc
	}()
	dialer, err = newTransport(t, newKey(t), channel, cfg).Dial(t.Context(), l.Addr(), key.ID(), func(host.Stage) {})
	check(t, err)
	listener = <-accepted
	t.Cleanup(func() {
		dialer.Mux.CloseWithCode(0)
		listener.Mux.CloseWithCode(0)
	})
	return dialer, listener
}

func newKey(t testing.TB) peer.PrivateKey {
	t.Helper()
	key, err := peer.GenerateKey(peer.Ed25519)
	check(t, err)
	return key
}

// One stream in each direction, both ends counted.
func BenchmarkBulk(b *testing.B) {
	for name, channel := range map[string]func(peer.PrivateKey) (upgrade.Security, error){"noise": upgrade.Noise, "tls": upgrade.TLS} {
		for _, kind := range []string{"ws", "tls/ws"} {
			for _, up := range []bool{true, false} {
				b.Run(fmt.Sprintf("%s/%s/up=%v", kind, name, up), func(b *testing.B) {
					from, to := connected(b, "/ip4/127.0.0.1/tcp/0/"+kind, channel)
					if !up {
						from, to = to, from
					}
					const chunk = 256 << 10
					b.SetBytes(chunk)
					b.ReportAllocs()
					read := make(chan error, 1)
					total := int64(b.N) * chunk
					go from.Mux.Serve(func(host.MuxedStream) {})
					go to.Mux.Serve(func(s host.MuxedStream) {
						go func() {
							_, err := io.CopyBuffer(discard{}, io.LimitReader(s, total), make([]byte, chunk))
							read <- err
						}()
					})
					s, err := from.Mux.OpenStream(b.Context())
					check(b, err)
					p := make([]byte, chunk)
					b.ResetTimer()
					for range b.N {
						if _, err := s.Write(p); err != nil {
							b.Fatal(err)
						}
					}
					check(b, <-read)
				})
			}
		}
	}
}

// discard has no ReadFrom, so that CopyBuffer uses its buffer.
type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
