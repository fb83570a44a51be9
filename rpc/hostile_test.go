package rpc_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/testkit"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/rpc"
)

// What a caller says that does not know the protocol, or does not want to.
func TestHostileCallers(t *testing.T) {
	client, server := testkit.Pair(t)
	m := rpc.Method[[]byte, []byte]{Protocol: "/echo/1", Codec: rpc.Raw, MaxRequest: 100}
	m.Serve(server, func(_ context.Context, _ peer.ID, b []byte) ([]byte, error) { return b, nil })
	for _, bad := range []struct{ name, says, want string }{
		{"nothing", "", ""},
		{"another protocol", "GET / HTTP/1.1\r\n\r\n", ""},
		{"a frame without a kind", "\x00", ""},
		{"a message before the call", "\x02\x02x", ""},
		{"a damaged call", "\x03\x01\x0a\x09", ""},
		{"no request", "\x01\x01\x01\x03", "\x04\x04\x08\x03"},
		{"two requests", "\x01\x01\x02\x02x\x02\x02x\x01\x03", "\x04\x04\x08\x03"},
		{"a request over the limit", "\x01\x01\xff\xff\x7f", "\x04\x04\x08\x08"},
		{"half a request", "\x01\x01\x05\x02x", "\x03\x04\x08\x01"},
		{"the good one", "\x01\x01\x02\x02x\x01\x03", "\x02\x02x\x01\x04"},
		{"a good one that ends with its direction", "\x01\x01\x02\x02x", "\x02\x02x\x01\x04"},
	} {
		s, err := client.NewStream(t.Context(), server.ID(), "/echo/1")
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(s, bad.says)
		s.CloseWrite()
		got, err := io.ReadAll(s)
		if len(bad.want) == 4 && bad.want[0] == 4 { // the text is not looked at
			if len(got) < 4 || string(got[1:4]) != bad.want[1:] {
				t.Errorf("%s: answered with %q, %v", bad.name, got, err)
			}
		} else if string(got) != bad.want || (bad.want == "") != (err != nil) {
			t.Errorf("%s: answered with %q, %v; want %q", bad.name, got, err, bad.want)
		}
		s.Close()
	}
}

// More after the last word ends the call.
func TestDataAfterEnd(t *testing.T) {
	client, server := testkit.Pair(t)
	m, ended := hang(server)
	s, err := client.NewStream(t.Context(), server.ID(), m.Protocol)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(s, "\x01\x01\x03\x02\"\"\x01\x03")
	<-ended
	io.WriteString(s, "\x02\x02x")
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the handler's context ended with %v", err)
	}
	var reset *host.StreamError
	if _, err := io.ReadAll(s); !errors.As(err, &reset) || reset.Code != host.CodeProtocolViolation {
		t.Errorf("the caller reads %v", err)
	}
}

// What a server says that does not know the protocol, or does not want to.
func TestHostileServers(t *testing.T) {
	client, server := testkit.Pair(t)
	m := rpc.Method[[]byte, []byte]{Protocol: "/echo/1", Codec: rpc.Raw, MaxResponse: 100, Timeout: 5 * time.Second}
	var says string
	server.Handle("/echo/1", func(_ context.Context, s *host.Stream) error {
		_, err := io.WriteString(s, says)
		return err
	})
	for _, bad := range []struct{ name, says string }{
		{"nothing", ""},
		{"another protocol", "HTTP/1.1 400 Bad Request\r\n\r\n"},
		{"a frame without a kind", "\x00"},
		{"a result without a response", "\x01\x04"},
		{"two responses", "\x02\x02x\x02\x02x\x01\x04"},
		{"a response without a result", "\x02\x02x"},
		{"a response over the limit", "\xff\x7f\x02"},
		{"a length and nothing else", "\xff\xff\xff\x7f"},
		{"a damaged result", "\x02\x02x\x03\x04\x0a\x09"},
		{"a caller's frame", "\x01\x03"},
	} {
		says = bad.says
		got, err := m.Call(t.Context(), client, server.ID(), []byte("x"))
		if err == nil || errors.Is(err, context.DeadlineExceeded) || len(got) > 0 {
			t.Errorf("%s: %q, %v", bad.name, got, err)
		}
	}
	says = "\x02\x02x\x01\x04"
	if got, err := m.Call(t.Context(), client, server.ID(), []byte("x")); string(got) != "x" || err != nil {
		t.Errorf("the good one: %q, %v", got, err)
	}
}

// A server that says nothing costs a caller its time and no more.
func TestSilentServer(t *testing.T) {
	client, server := testkit.Pair(t)
	server.Handle("/echo/1", func(ctx context.Context, s *host.Stream) error {
		_, err := io.Copy(io.Discard, s)
		return err
	})
	m := rpc.Method[[]byte, []byte]{Protocol: "/echo/1", Codec: rpc.Raw, Timeout: 20 * time.Millisecond}
	if _, err := m.Call(t.Context(), client, server.ID(), []byte("x")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}
