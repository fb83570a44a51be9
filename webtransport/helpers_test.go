package webtransport

import (
	"context"
	"crypto/ed25519"
	"testing"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/noise"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/quic"
)

// patience is how long something may take that takes no time when all is well.
const patience = 20 * time.Second

func newKey(t testing.TB) peer.PrivateKey {
	t.Helper()
	key, err := peer.GenerateKey(peer.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// fixedKey is always the same.
func fixedKey(t testing.TB) peer.PrivateKey {
	t.Helper()
	seed := make([]byte, ed25519.SeedSize)
	private := ed25519.NewKeyFromSeed(seed)
	key, err := peer.UnmarshalPrivateKey(append([]byte{8, 1, 18, 64}, private...))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newTransport(t testing.TB, key peer.PrivateKey) *Transport {
	t.Helper()
	e := newEndpoint(t)
	t.Cleanup(func() { e.Close() })
	tr, err := New(Config{Endpoint: e, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func newEndpoint(t testing.TB) *quic.Endpoint {
	return quic.NewEndpoint(quic.EndpointConfig{IdleTimeout: 6 * time.Second})
}

func listen(t testing.TB, tr *Transport) host.TransportListener {
	t.Helper()
	ln, err := tr.Listen(multiaddr.MustParse("/ip4/127.0.0.1/udp/0/quic-v1/webtransport"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// an outcome is what became of one side of a connection.
type outcome struct {
	host.TransportConn
	err error
}

// admitNext takes the next connection in.
func admitNext(ctx context.Context, ln host.TransportListener) <-chan outcome {
	done := make(chan outcome, 1)
	go func() {
		in, err := ln.Accept()
		if err != nil {
			done <- outcome{err: err}
			return
		}
		tc, err := in.Upgrade(ctx, func(host.Stage) {})
		done <- outcome{tc, err}
	}()
	return done
}

// admitAll takes all connections in, until the listener closes.
func admitAll(ctx context.Context, ln host.TransportListener) {
	for {
		in, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			if tc, err := in.Upgrade(ctx, func(host.Stage) {}); err == nil {
				tc.Mux.Serve(func(s host.MuxedStream) { s.Reset(0) })
			}
		}()
	}
}

// connect makes a connection between two new transports.
func connect(t testing.TB) (dialed, accepted host.TransportConn) {
	t.Helper()
	key := newKey(t)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ln := listen(t, newTransport(t, key))
	admitted := admitNext(ctx, ln)
	d, err := newTransport(t, newKey(t)).Dial(ctx, ln.Addr(), key.ID(), func(host.Stage) {})
	if err != nil {
		t.Fatal(err)
	}
	a := <-admitted
	if a.err != nil {
		t.Fatal(a.err)
	}
	t.Cleanup(func() {
		d.Mux.CloseWithCode(0)
		a.Mux.CloseWithCode(0)
	})
	return d, a.TransportConn
}

func noiseConfig(remote peer.ID) noise.Config { return noise.Config{Remote: remote} }
