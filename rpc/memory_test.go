package rpc_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/testkit"
	"github.com/kith-p2p/kith/memory"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/rpc"
)

func streamMemory(h *host.Host) int {
	for _, s := range h.Usage().Scopes {
		if s.Name == "StreamMemory" {
			return s.Used
		}
	}
	return -1
}

// untilBelow waits until a host holds less than n bytes for streams.
func untilBelow(t *testing.T, h *host.Host, n int) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for streamMemory(h) >= n {
		select {
		case <-again.C:
		case <-deadline:
			t.Fatalf("%d bytes are still taken", streamMemory(h))
		}
	}
}

// refusedHere tells whether err says that this host had no memory, and what to do: as it
// is told who asks for some, or after its muxer was the first to find none.
func refusedHere(err error) bool {
	var full *host.LimitError
	var reset *host.StreamError
	typed := errors.As(err, &full) && full.Scope == "PeerStreamMemory" || errors.As(err, &reset) && !reset.Remote
	return typed && rpc.CodeOf(err) == rpc.ResourceExhausted && strings.Contains(err.Error(), "raise Limits.Memory")
}

// Requests and responses are taken from the memory of who receives them, and of who
// answers, before they are made; who refuses, and who is refused, learns why.
func TestMessagesAreCharged(t *testing.T) {
	const mib, large = 1 << 20, 700 << 10 // a peer gets half of the memory
	network := new(memory.Network)
	small := testkit.Host(t, network, host.Config{Limits: host.Limits{StreamMemory: mib}})
	big := testkit.Host(t, network, host.Config{})
	testkit.Connect(t, big, small)

	repeat := rpc.Method[[]byte, []byte]{Protocol: "/repeat/1", Codec: rpc.Raw}
	for _, h := range []*host.Host{small, big} {
		repeat.Serve(h, func(_ context.Context, _ peer.ID, req []byte) ([]byte, error) {
			return append(req, make([]byte, int(req[0])<<10)...), nil
		})
	}
	kib := func(request, answer int) []byte {
		b := make([]byte, request<<10|1)
		b[0] = byte(answer)
		return b
	}
	if got, err := repeat.Call(t.Context(), big, small.ID(), kib(100, 100)); err != nil || len(got) != 200<<10|1 {
		t.Fatalf("what there is room for: %d bytes, %v", len(got), err)
	}
	for name, req := range map[string][]byte{"request": kib(700, 0), "answer": kib(300, 250)} {
		_, err := repeat.Call(t.Context(), big, small.ID(), req)
		var told *rpc.Error
		if errors.As(err, &told) && !strings.Contains(told.Text, "try again later") || rpc.CodeOf(err) != rpc.ResourceExhausted {
			t.Errorf("the caller whose %s was refused learns: %v", name, err)
		}
	}
	// The caller's own host may have no room for the answer.
	_, err := repeat.Call(t.Context(), small, big.ID(), kib(300, 250))
	if !refusedHere(err) {
		t.Errorf("the caller that refused says: %v", err)
	}

	untilBelow(t, small, 20<<10)

	// A handler learns what its host has refused, and the caller that it did.
	seen := make(chan error, 1)
	collect := rpc.Method[[]byte, []byte]{Protocol: "/collect/1", Codec: rpc.Raw}
	collect.ServeStream(small, func(_ context.Context, s *rpc.ServerStream[[]byte, []byte]) error {
		for {
			_, err := s.Recv()
			if err == nil {
				err = s.Send(nil)
			}
			if err != nil {
				seen <- err
				return err
			}
		}
	})
	s, err := collect.Open(t.Context(), big, small.ID())
	if err != nil {
		t.Fatal(err)
	}
	for range 40 { // one after the other there is room for
		if err := s.Send(make([]byte, 30<<10)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	s.Send(make([]byte, large))
	if err := <-seen; !refusedHere(err) {
		t.Errorf("the handler gets: %v", err)
	}
	if _, err := s.Recv(); rpc.CodeOf(err) != rpc.ResourceExhausted {
		t.Errorf("the caller of the stream gets: %v", err)
	}
	// 16 KiB are what the muxer may keep of its own.
	untilBelow(t, small, 20<<10)
	untilBelow(t, big, 20<<10)
}

// Who holds most of the memory by calls loses some to who needs little.
func TestCallsAreShared(t *testing.T) {
	network := new(memory.Network)
	server := testkit.Host(t, network, host.Config{Limits: host.Limits{StreamMemory: 2 << 20}})
	begun := make(chan struct{}, 10)
	hold := rpc.Method[[]byte, []byte]{Protocol: "/hold/1", Codec: rpc.Raw}
	hold.Serve(server, func(ctx context.Context, _ peer.ID, _ []byte) ([]byte, error) {
		begun <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	})
	echo := rpc.Method[[]byte, []byte]{Protocol: "/echo/1", Codec: rpc.Raw}
	echo.Serve(server, func(_ context.Context, _ peer.ID, b []byte) ([]byte, error) { return b, nil })

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var calls sync.WaitGroup
	ended := make(chan error, 100)
	for range 4 {
		hog := testkit.Host(t, network, host.Config{})
		testkit.Connect(t, hog, server)
		calls.Go(func() {
			for ctx.Err() == nil {
				_, err := hold.Call(ctx, hog, server.ID(), make([]byte, 450<<10))
				select {
				case ended <- err:
				default:
				}
			}
		})
	}
	for range 3 {
		<-begun
	}
	honest := testkit.Host(t, network, host.Config{})
	testkit.Connect(t, honest, server)
	for i := range 20 {
		if _, err := echo.Call(t.Context(), honest, server.ID(), make([]byte, 20<<10)); err != nil {
			t.Fatalf("the honest peer's call %d: %v", i, err)
		}
	}
	if err := <-ended; rpc.CodeOf(err) != rpc.ResourceExhausted {
		t.Errorf("the call of one that holds much ended with: %v", err)
	}
	stop()
	calls.Wait()
	untilBelow(t, server, 5*20<<10)
}
