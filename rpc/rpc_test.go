package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/testkit"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/rpc"
)

type numbers struct{ A, B int }

var add = rpc.Method[numbers, int]{Protocol: "/calc/add/1"}

func TestCall(t *testing.T) {
	client, server := testkit.Pair(t)
	add.Serve(server, func(_ context.Context, from peer.ID, n numbers) (int, error) {
		if from != client.ID() {
			t.Errorf("the call comes from %s, not %s", from, client.ID())
		}
		return n.A + n.B, nil
	})
	for range 3 {
		sum, err := add.Call(t.Context(), client, server.ID(), numbers{1, 2})
		if sum != 3 || err != nil {
			t.Fatalf("got %d, %v; want 3", sum, err)
		}
	}
}

func TestCodecs(t *testing.T) {
	client, server := testkit.Pair(t)
	upper := rpc.Method[[]byte, []byte]{Protocol: "/upper/1", Codec: rpc.Raw}
	upper.Serve(server, func(_ context.Context, _ peer.ID, b []byte) ([]byte, error) {
		return []byte(strings.ToUpper(string(b))), nil
	})
	if got, err := upper.Call(t.Context(), client, server.ID(), []byte("kith")); string(got) != "KITH" || err != nil {
		t.Errorf("raw: got %q, %v", got, err)
	}
	if got, err := upper.Call(t.Context(), client, server.ID(), nil); len(got) != 0 || err != nil {
		t.Errorf("raw, no bytes: got %q, %v", got, err)
	}

	// A pointer type is decoded into a new value, not into a pointer to a pointer.
	swap := rpc.Method[*numbers, *numbers]{Protocol: "/swap/1"}
	swap.Serve(server, func(_ context.Context, _ peer.ID, n *numbers) (*numbers, error) { return &numbers{n.B, n.A}, nil })
	if got, err := swap.Call(t.Context(), client, server.ID(), &numbers{1, 2}); err != nil || *got != (numbers{2, 1}) {
		t.Errorf("pointers: got %v, %v", got, err)
	}

	wrong := rpc.Method[int, int]{Protocol: "/upper/1", Codec: rpc.Raw}
	if _, err := wrong.Call(t.Context(), client, server.ID(), 1); err == nil || !strings.Contains(err.Error(), "choose another Codec") {
		t.Errorf("raw of an int: %v", err)
	}
	text := rpc.Method[string, string]{Protocol: "/calc/add/1"}
	add.Serve(server, func(context.Context, peer.ID, numbers) (int, error) { return 0, nil })
	if _, err := text.Call(t.Context(), client, server.ID(), "x"); rpc.CodeOf(err) != rpc.InvalidArgument {
		t.Errorf("a request that is no number: %v", err)
	}
	if _, err := (rpc.Method[numbers, string]{Protocol: "/calc/add/1"}).Call(t.Context(), client, server.ID(), numbers{}); err == nil || !strings.Contains(err.Error(), "the response") {
		t.Errorf("a response that is no text: %v", err)
	}
}

func TestErrors(t *testing.T) {
	client, server := testkit.Pair(t)
	secret := errors.New("the password is swordfish")
	find := rpc.Method[string, string]{Protocol: "/find/1"}
	find.Serve(server, func(ctx context.Context, _ peer.ID, what string) (string, error) {
		switch what {
		case "typed":
			return "", fmt.Errorf("wrapped: %w", &rpc.Error{Code: rpc.NotFound, Text: "no such thing", Details: []byte{1, 2}})
		case "own":
			return "", rpc.Errorf(123, "of this program")
		case "long":
			return "", &rpc.Error{Code: rpc.Aborted, Text: strings.Repeat("x", 1<<20), Details: make([]byte, 1<<20)}
		case "panic":
			panic("no")
		case "late":
			return "", context.DeadlineExceeded
		}
		return "", secret
	})
	call := func(what string) error {
		_, err := find.Call(t.Context(), client, server.ID(), what)
		return err
	}

	var e *rpc.Error
	if err := call("typed"); !errors.As(err, &e) || e.Code != rpc.NotFound || e.Text != "no such thing" || string(e.Details) != "\x01\x02" {
		t.Errorf("typed: %v", err)
	}
	if err := call("own"); rpc.CodeOf(err) != 123 {
		t.Errorf("a code of the program: %v", err)
	}
	if err := call("long"); !errors.As(err, &e) || e.Code != rpc.Aborted || len(e.Text) != 4<<10 || len(e.Details) != 32<<10 {
		t.Errorf("long: %d bytes of text, %d of details", len(e.Text), len(e.Details))
	}
	if err := call("late"); !errors.Is(err, context.DeadlineExceeded) || rpc.CodeOf(err) != rpc.DeadlineExceeded {
		t.Errorf("late: %v", err)
	}
	if err := call("secret"); rpc.CodeOf(err) != rpc.Internal || strings.Contains(err.Error(), "swordfish") {
		t.Errorf("an error that is the server's own: %v", err)
	}
	if err := call("panic"); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("panic: %v", err)
	}
	if err := call("typed"); rpc.CodeOf(err) != rpc.NotFound {
		t.Errorf("after a panic: %v", err)
	}
	nobody := rpc.Method[string, string]{Protocol: "/nobody/1"}
	if _, err := nobody.Call(t.Context(), client, server.ID(), ""); rpc.CodeOf(err) != rpc.Unimplemented {
		t.Errorf("a method that nobody serves: %v", err)
	}
	if _, err := find.Call(t.Context(), client, testkit.Key(t).ID(), ""); rpc.CodeOf(err) != rpc.Unavailable {
		t.Errorf("a peer that nobody knows: %v", err)
	}
}

// The caller's time goes with the call, over any transport.
func TestDeadlineIsCarried(t *testing.T) {
	client, server := testkit.Pair(t)
	left := rpc.Method[int, time.Duration]{Protocol: "/left/1"}
	left.Serve(server, func(ctx context.Context, _ peer.ID, _ int) (time.Duration, error) {
		deadline, ok := ctx.Deadline()
		if !ok {
			return 0, rpc.Errorf(rpc.NotFound, "no deadline")
		}
		return time.Until(deadline), nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if got, err := left.Call(ctx, client, server.ID(), 0); err != nil || got <= 0 || got > 20*time.Second {
		t.Errorf("of 20 s the server has %v, %v", got, err)
	}
	if got, err := left.Call(t.Context(), client, server.ID(), 0); err != nil || got <= 20*time.Second || got > rpc.DefaultTimeout {
		t.Errorf("without a deadline the server has %v, %v; want at most %v", got, err, rpc.DefaultTimeout)
	}
	// The server's bound holds whatever a caller gives.
	brief := left
	brief.Timeout = time.Second
	brief.Serve(server, func(ctx context.Context, _ peer.ID, _ int) (time.Duration, error) {
		deadline, _ := ctx.Deadline()
		return time.Until(deadline), nil
	})
	if got, err := left.Call(ctx, client, server.ID(), 0); err != nil || got > time.Second {
		t.Errorf("the server allows a second and gives %v, %v", got, err)
	}
}

// hang serves calls that end with their context alone, and tells why it did.
func hang(h *host.Host) (rpc.Method[string, string], chan error) {
	m := rpc.Method[string, string]{Protocol: "/hang/1"}
	ended := make(chan error, 100)
	m.Serve(h, func(ctx context.Context, _ peer.ID, _ string) (string, error) {
		ended <- nil
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return "", ctx.Err()
	})
	return m, ended
}

func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := testkit.Pair(t)
		m, ended := hang(server)

		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("changed my mind")
		got := make(chan error, 1)
		go func() {
			_, err := m.Call(ctx, client, server.ID(), "")
			got <- err
		}()
		<-ended
		cancel(why)
		if err := <-got; !errors.Is(err, why) {
			t.Errorf("the caller's error is %v", err)
		}
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the handler's context ended with %v", err)
		}

		ctx, stop := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer stop()
		if _, err := m.Call(ctx, client, server.ID(), ""); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after its time the caller's error is %v", err)
		}
		<-ended
		if err := <-ended; !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
			t.Errorf("after its time the handler's context ended with %v", err)
		}

		go func() {
			_, err := m.Call(t.Context(), client, server.ID(), "")
			got <- err
		}()
		<-ended
		client.ConnsTo(server.ID())[0].Close()
		if err := <-got; rpc.CodeOf(err) != rpc.Unavailable {
			t.Errorf("when the connection ends the caller's error is %v", err)
		}
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("when the connection ends the handler's context ends with %v", err)
		}
	})
}

func TestMessageLimits(t *testing.T) {
	client, server := testkit.Pair(t)
	small := rpc.Method[[]byte, []byte]{Protocol: "/double/1", Codec: rpc.Raw, MaxRequest: 1000, MaxResponse: 1500}
	small.Serve(server, func(_ context.Context, _ peer.ID, b []byte) ([]byte, error) { return append(b, b...), nil })
	large := small
	large.MaxRequest, large.MaxResponse = 10<<20, 10<<20
	tiny := small
	tiny.MaxResponse = 10

	if _, err := small.Call(t.Context(), client, server.ID(), make([]byte, 1001)); rpc.CodeOf(err) != rpc.ResourceExhausted {
		t.Errorf("a request that the caller may not send: %v", err)
	}
	if _, err := large.Call(t.Context(), client, server.ID(), make([]byte, 8<<20)); rpc.CodeOf(err) != rpc.ResourceExhausted || !strings.Contains(err.Error(), "limit of 1000") {
		t.Errorf("a request that the server does not take: %v", err)
	}
	if _, err := large.Call(t.Context(), client, server.ID(), make([]byte, 2000)); rpc.CodeOf(err) != rpc.ResourceExhausted {
		t.Errorf("a request that the server does not take: %v", err)
	}
	if _, err := small.Call(t.Context(), client, server.ID(), make([]byte, 1000)); rpc.CodeOf(err) != rpc.ResourceExhausted && rpc.CodeOf(err) != rpc.Internal {
		t.Errorf("a response that the server may not send: %v", err)
	}
	if _, err := tiny.Call(t.Context(), client, server.ID(), make([]byte, 100)); err == nil || !strings.Contains(err.Error(), "MaxResponse") {
		t.Errorf("a response that the caller does not take: %v", err)
	}
	if got, err := small.Call(t.Context(), client, server.ID(), make([]byte, 750)); len(got) != 1500 || err != nil {
		t.Errorf("what is just allowed: %d bytes, %v", len(got), err)
	}
}

func TestCallsAreBounded(t *testing.T) {
	client, server := testkit.Pair(t)
	m := rpc.Method[int, int]{Protocol: "/slow/1", CallsPerPeer: 3}
	begun, release := make(chan int, 10), make(chan struct{})
	m.Serve(server, func(_ context.Context, _ peer.ID, n int) (int, error) {
		begun <- n
		<-release
		return n, nil
	})
	var calls sync.WaitGroup
	for n := range 3 {
		calls.Go(func() {
			if got, err := m.Call(t.Context(), client, server.ID(), n); got != n || err != nil {
				t.Errorf("call %d: %d, %v", n, got, err)
			}
		})
	}
	for range 3 {
		<-begun
	}
	if _, err := m.Call(t.Context(), client, server.ID(), 4); rpc.CodeOf(err) != rpc.ResourceExhausted || !strings.Contains(err.Error(), "CallsPerPeer") {
		t.Errorf("the fourth call at once: %v", err)
	}
	close(release)
	calls.Wait()
	if _, err := m.Call(t.Context(), client, server.ID(), 5); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestStreams(t *testing.T) {
	for _, transport := range transports {
		t.Run(transport.name, func(t *testing.T) {
			client, server := transport.pair(t)
			sum := rpc.Method[int, int]{Protocol: "/sum/1"}
			sum.ServeStream(server, func(ctx context.Context, s *rpc.ServerStream[int, int]) error {
				total := 0
				for {
					n, err := s.Recv()
					if err == io.EOF {
						return nil
					}
					if err != nil {
						return err
					}
					if n < 0 {
						return rpc.Errorf(rpc.OutOfRange, "%d is negative", n)
					}
					total += n
					if err := s.Send(total); err != nil {
						return err
					}
				}
			})
			s, err := sum.Open(t.Context(), client, server.ID())
			if err != nil {
				t.Fatal(err)
			}
			const n = 1000
			go func() {
				for i := range n {
					if err := s.Send(i); err != nil {
						t.Error(err)
					}
				}
				s.CloseSend()
			}()
			total := 0
			for i := range n {
				total += i
				if got, err := s.Recv(); got != total || err != nil {
					t.Fatalf("response %d: %d, %v; want %d", i, got, err, total)
				}
			}
			for range 2 {
				if _, err := s.Recv(); err != io.EOF {
					t.Fatalf("after the last: %v", err)
				}
			}

			s, err = sum.Open(t.Context(), client, server.ID())
			if err != nil {
				t.Fatal(err)
			}
			s.Send(1)
			s.Send(-1)
			if got, err := s.Recv(); got != 1 || err != nil {
				t.Fatalf("before the error: %d, %v", got, err)
			}
			if _, err := s.Recv(); rpc.CodeOf(err) != rpc.OutOfRange {
				t.Errorf("want the server's error, got %v", err)
			}
			if err := s.CloseSend(); err == nil {
				if err := s.Send(1); err == nil {
					t.Error("Send after CloseSend is no error")
				}
			}
		})
	}
}

// A server can have things to say to who asks nothing, and learns when the caller leaves.
func TestServerStream(t *testing.T) {
	client, server := testkit.Pair(t)
	ticks := rpc.Method[struct{}, int]{Protocol: "/ticks/1"}
	ended := make(chan error, 1)
	ticks.ServeStream(server, func(ctx context.Context, s *rpc.ServerStream[struct{}, int]) error {
		for i := range 3 {
			if err := s.Send(i); err != nil {
				return err
			}
		}
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return nil
	})
	s, err := ticks.Open(t.Context(), client, server.ID())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if got, err := s.Recv(); got != i || err != nil {
			t.Fatalf("tick %d: %d, %v", i, got, err)
		}
	}
	s.Close()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the handler's context ended with %v", err)
	}
}

func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := testkit.Pair(t)
		m := rpc.Method[int, int]{Protocol: "/idle/1", Idle: 20 * time.Millisecond}
		m.ServeStream(server, func(ctx context.Context, s *rpc.ServerStream[int, int]) error {
			_, err := s.Recv()
			return err
		})
		patient := m
		patient.Idle = time.Minute
		s, err := patient.Open(t.Context(), client, server.ID())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); rpc.CodeOf(err) != rpc.DeadlineExceeded {
			t.Errorf("the server waits for a caller that is silent: %v", err)
		}
		patient.ServeStream(server, func(ctx context.Context, s *rpc.ServerStream[int, int]) error {
			<-ctx.Done()
			return nil
		})
		if s, err = m.Open(t.Context(), client, server.ID()); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); err == nil || !strings.Contains(err.Error(), "Method.Idle") {
			t.Errorf("the caller waits for a server that is silent: %v", err)
		}
	})
}
