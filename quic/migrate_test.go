package quic

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
)

// A connection that was dialed moves to another address with its streams, in the
// middle of what they carry. It moves more often than a remote has connection IDs
// to begin with.
func TestAddrsChanged(t *testing.T) {
	near, l := listening(t)
	listen := func(addr string) host.TransportListener {
		t.Helper()
		l, err := near.Listen(multiaddr.MustParse(addr))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	from := listen("/ip4/127.0.0.1/udp/0/quic-v1")
	dialed, taken := dialTo(t, near, l)
	if !strings.Contains(taken.RemoteAddr.String(), "127.0.0.1") {
		t.Fatalf("dialed from %s", taken.RemoteAddr)
	}
	echo(t, dialed.Mux, taken.Mux)
	sent, received := busy(open(t, dialed.Mux), 8<<20)
	far := taken.Mux.(*conn).qc
	for i := range 8 {
		want := []string{"127.0.0.2", "127.0.0.3"}[i%2]
		to := listen("/ip4/" + want + "/udp/0/quic-v1")
		if err := from.Close(); err != nil {
			t.Fatal(err)
		}
		from = to
		if err := near.AddrsChanged(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(10 * time.Second); ; { // the next packet tells the remote
			echo(t, dialed.Mux, nil)
			if far.RemoteAddr().(*net.UDPAddr).IP.String() == want {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("move %d: the remote sends to %v, want %s", i, far.RemoteAddr(), want)
			}
		}
	}
	if b := <-received; !bytes.Equal(b, sent) {
		t.Errorf("%d bytes of %d came back", len(b), len(sent))
	}

	// Nothing stays behind when the connection ends.
	dialed.Mux.CloseWithCode(0)
	from.Close()
	await(t, "the sockets close", func() bool {
		e := near.endpoint
		e.mu.Lock()
		defer e.mu.Unlock()
		return len(e.open) == 0 && len(e.dialed) == 0
	})
}

// A socket on all addresses keeps its place: the system chooses the address of each packet.
func TestAddrsChangedUnbound(t *testing.T) {
	near, l := listening(t)
	dialed, taken := dialTo(t, near, l)
	echo(t, dialed.Mux, taken.Mux)
	if err := near.AddrsChanged(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	echo(t, dialed.Mux, nil)
	near.endpoint.mu.Lock()
	defer near.endpoint.mu.Unlock()
	if n := len(near.endpoint.open); n != 1 {
		t.Errorf("%d sockets are open", n)
	}
}

// A connection that cannot move stays, and it is told why.
func TestAddrsChangedNowhere(t *testing.T) {
	near, l := listening(t)
	first, err := near.Listen(multiaddr.MustParse("/ip4/127.0.0.1/udp/0/quic-v1"))
	if err != nil {
		t.Fatal(err)
	}
	dialed, taken := dialTo(t, near, l)
	echo(t, dialed.Mux, taken.Mux)
	first.Close() // dials leave from elsewhere now
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := near.AddrsChanged(ctx, nil); err == nil || !strings.Contains(err.Error(), "moving the connection") {
		t.Errorf("moving without time for it: %v", err)
	}
	echo(t, dialed.Mux, nil)
}

// echo sends something to far and back. far echoes from then on; nil: it does already.
func echo(t testing.TB, near, far host.MuxedConn) {
	t.Helper()
	if far != nil {
		go near.Serve(func(host.MuxedStream) {})
		go far.Serve(func(s host.MuxedStream) {
			go func() {
				io.Copy(struct{ io.Writer }{s}, struct{ io.Reader }{s})
				s.Close()
			}()
		})
	}
	s := open(t, near)
	s.SetDeadline(time.Now().Add(20 * time.Second))
	s.Write([]byte("kith"))
	s.CloseWrite()
	if b, err := io.ReadAll(s); string(b) != "kith" || err != nil {
		t.Fatalf("echo gave %q, %v", b, err)
	}
	s.Close()
}

func open(t testing.TB, c host.MuxedConn) host.MuxedStream {
	t.Helper()
	s, err := c.OpenStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// busy has something under way on a stream all the time, and tells what comes back.
func busy(s host.MuxedStream, n int) (sent []byte, received <-chan []byte) {
	sent = make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(sent)
	go func() {
		s.Write(sent)
		s.CloseWrite()
	}()
	back := make(chan []byte)
	go func() {
		b, _ := io.ReadAll(s)
		back <- b
	}()
	return sent, back
}

// A remote whose last packet was lost is there until it has been silent for long enough.
func await(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(defaultIdleTimeout + 15*time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not in time: " + what)
		}
	}
}
