package kith_test

import (
	"context"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kith-p2p/kith"
	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// Peers that fill windows nobody reads get the memory that there is for that, and no
// more; others' streams go on, and what the crowd held is back when it has gone.
func TestUnreadIsShared(t *testing.T) {
	for _, addr := range []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"} {
		t.Run(strings.Split(addr, "/")[3], func(t *testing.T) { shareUnread(t, addr) })
	}
}

func shareUnread(t *testing.T, addr string) {
	const streams, size = 20, 256 << 10
	crowd := 6 // 30 MiB in all
	if strings.Contains(addr, "quic") {
		crowd = 30 // most of their connections start with narrow windows
	}
	node := func(listen ...multiaddr.Addr) *kith.Node {
		n, err := kith.Start(t.Context(), kith.Config{
			Listen: append([]multiaddr.Addr{}, listen...),
			MDNS:   kith.MDNS{Off: true},
			Limits: host.Limits{Memory: 64 << 20},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { n.Close() })
		return n
	}
	server := node(multiaddr.MustParse(addr))
	server.Handle("/unread/1", func(ctx context.Context, s *host.Stream) error {
		<-ctx.Done()
		return nil
	})
	server.Handle("/echo/1", func(_ context.Context, s *host.Stream) error {
		_, err := io.Copy(s, s)
		return err
	})
	to := peer.AddrInfo{ID: server.ID(), Addrs: server.Addrs()}
	memory := func() (used, limit int) {
		for _, s := range server.Usage().Scopes {
			if s.Name == "StreamMemory" {
				return s.Used, s.Limit
			}
		}
		return
	}
	honest := node()
	if _, err := honest.Connect(t.Context(), to); err != nil {
		t.Fatal(err)
	}
	echo := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		s, err := honest.NewStream(ctx, server.ID(), "/echo/1")
		if err != nil {
			return err
		}
		defer s.Close()
		s.SetDeadline(time.Now().Add(20 * time.Second))
		go func() {
			s.Write(make([]byte, 64<<10))
			s.CloseWrite()
		}()
		n, err := io.Copy(io.Discard, s)
		if err == nil && n != 64<<10 {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	if err := echo(); err != nil {
		t.Fatal(err)
	}

	var ended atomic.Int32
	var hogs []*kith.Node
	for range crowd {
		hog := node()
		hogs = append(hogs, hog)
		if _, err := hog.Connect(t.Context(), to); err != nil {
			t.Fatal(err)
		}
		hog.Go(func(ctx context.Context) {
			defer ended.Add(1)
			for range streams {
				s, err := hog.NewStream(ctx, server.ID(), "/unread/1")
				if err != nil {
					return
				}
				s.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
				s.Write(make([]byte, size))
			}
		})
	}
	deadline := time.Now().Add(time.Minute)
	most, n := 0, 0
	for ; int(ended.Load()) < crowd || n < 50; n++ {
		if err := echo(); err != nil {
			t.Fatalf("the honest peer's stream %d: %v", n, err)
		}
		used, _ := memory()
		most = max(most, used)
		if time.Now().After(deadline) {
			break
		}
	}
	_, limit := memory()
	t.Logf("%d streams of the honest peer; at most %d KiB of %d taken", n, most>>10, limit>>10)
	if most > limit+limit/4 || most < limit/4 {
		t.Errorf("%d bytes were taken, the limit is %d", most, limit)
	}
	for _, hog := range hogs {
		hog.Close()
	}
	for deadline = time.Now().Add(time.Minute); ; {
		used, _ := memory()
		if used < limit/100 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes are still taken", used)
		}
		if err := echo(); err != nil {
			t.Fatal(err)
		}
	}
}
