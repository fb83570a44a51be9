package interop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/kith-p2p/kith"
	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/interop/internal/peercmd"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// TestMigration lets Kith move from TCP to QUIC while go-libp2p, which keeps both connections, has streams on the one over TCP. They go on
// beyond the time after which Kith ends a connection that nobody uses; when they have ended, it does.
func TestMigration(t *testing.T) {
	t.Parallel()
	const linger = 3 * time.Second
	n, err := kith.Start(t.Context(), kith.Config{
		MDNS:    kith.MDNS{Off: true},
		Listen:  []multiaddr.Addr{},
		Migrate: host.Migrate{After: time.Millisecond, Linger: linger, Better: func(_, _ host.MigratePath) bool { return true }},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	release := make(chan struct{})
	accepted := make(chan *host.Stream, 1)
	n.Handle(peercmd.EchoProtocol, func(_ context.Context, s *host.Stream) error {
		held := make([]byte, 4)
		if _, err := io.ReadFull(s, held); err != nil {
			return err
		}
		if _, err := s.Write(held); err != nil {
			return err
		}
		accepted <- s
		<-release
		return nil
	})
	server := goPeer.run(t, "listen", "--listen=/ip4/127.0.0.1/tcp/0")
	serving := await[peercmd.Listening](t, server)
	info, err := peer.ParseAddrInfo(serving.Addrs[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Connect(t.Context(), info); err != nil {
		t.Fatal(err)
	}
	open := func() *host.Stream {
		s, err := n.NewStream(t.Context(), info.ID, peercmd.EchoProtocol)
		if err != nil {
			t.Fatal(err)
		}
		s.SetDeadline(time.Now().Add(peerTimeout))
		checkEcho(t, s, 0)
		return s
	}
	over := func(s *host.Stream, code multiaddr.Code) bool { return s.Conn().RemoteAddr().Has(code) }

	old := open()
	server.do(t, "hold", n.ID().String())
	held := <-accepted
	if !over(old, multiaddr.TCP) || !over(held, multiaddr.TCP) {
		t.Fatalf("streams over %s and %s", old.Conn(), held.Conn())
	}
	server.do(t, "listen", "/ip4/127.0.0.1/udp/0/quic-v1")
	var fresh *host.Stream
	for limit := time.Now().Add(eventTimeout); fresh == nil; time.Sleep(10 * time.Millisecond) {
		if s := open(); over(s, multiaddr.QUICV1) {
			fresh = s
		} else {
			s.Close()
		}
		if time.Now().After(limit) {
			t.Fatal("no new stream goes over QUIC")
		}
	}
	// go-libp2p may open streams on either.
	server.do(t, "hold", n.ID().String())
	<-accepted

	// Bytes go both ways on our old stream, while go-libp2p's is silent for longer than Kith waits.
	until := time.Now().Add(linger + 3*time.Second)
	for i := 1; time.Now().Before(until); i++ {
		checkEcho(t, old, i)
		checkEcho(t, fresh, i)
	}
	if conns := n.ConnsTo(info.ID); len(conns) != 2 {
		t.Fatalf("while there are streams on both, %v are left", conns)
	}
	close(release)
	for range 2 {
		if ended := await[peercmd.Released](t, server); ended.Error != io.EOF.Error() {
			t.Errorf("a stream of go-libp2p's ended with %q", ended.Error)
		}
	}
	if err := old.CloseWrite(); err != nil {
		t.Error(err)
	}
	if rest, err := io.ReadAll(old); len(rest) > 0 || err != nil {
		t.Errorf("our old stream ended with %q, %v", rest, err)
	}
	old.Close()
	select {
	case <-old.Conn().Done():
	case <-time.After(eventTimeout):
		t.Errorf("the connection over TCP does not end: %v", n.ConnsTo(info.ID))
	}
	checkEcho(t, fresh, 0)
	if conns := n.ConnsTo(info.ID); len(conns) != 1 || !conns[0].RemoteAddr().Has(multiaddr.QUICV1) {
		t.Errorf("%v are left", conns)
	}
}

// checkEcho sends some bytes, the n-th time, and wants them back.
func checkEcho(t *testing.T, s *host.Stream, n int) {
	t.Helper()
	sent := bytes.Repeat(fmt.Appendf(nil, "%09d ", n), 1000)
	wrote := make(chan error, 1)
	go func() {
		_, err := s.Write(sent)
		wrote <- err
	}()
	got := make([]byte, len(sent))
	_, err := io.ReadFull(s, got)
	if err := errors.Join(err, <-wrote); err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("over %s, echo %d: %v", s.Conn(), n, err)
	}
}
