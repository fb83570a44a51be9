//go:build unix

package noise

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// try lets the inbox read what there is, without waiting, and reports whether
// there was anything.
func try(t *testing.T, c *Conn) (got bool) {
	t.Helper()
	if err := c.in.socket.Read(func(fd uintptr) bool {
		got = c.in.tryRead(fd)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return got
}

// While a socket has nothing the connection holds no block, or one that fits
// the part of a record that has arrived.
func TestSocketHoldsNoBlock(t *testing.T) {
	a, b := tcpPair(t)
	client, server := connect(t, a, b, Config{})
	if server.in.socket == nil {
		t.Fatal("the socket is not used")
	}
	if try(t, server) || server.in.block != nil {
		t.Error("a block is held while nothing has arrived")
	}
	client.Write([]byte("hello"))
	if p, err := server.ReadRecord(nil); string(p) != "hello" || err != nil {
		t.Fatalf("%q, %v", p, err)
	}
	if b := server.in.block; b == nil || len(b.b) != recordsPerBlock*fullRecord {
		t.Error("data was not read into a large block")
	}
	if try(t, server) || server.in.block != nil {
		t.Error("a block is held after all has been read")
	}

	// Records that arrive in parts. They are sealed by hand, to be cut.
	data := pattern(maxPlaintext)
	s := &script{}
	client.conn = s
	type part struct{ until, held int }
	for _, parts := range [][]part{
		{{1, smallLen}, {160, smallLen}, {161, 8 << 10}, {4 << 10, 8 << 10}, {4<<10 + 1, fullRecord}, {60_000, fullRecord}},
		{{1000, 8 << 10}},
		{{10_000, fullRecord}},
		{{1000, 8 << 10}, {50_000, fullRecord}},
	} {
		s.out = nil
		if _, err := client.Write(data); err != nil {
			t.Fatal(err)
		}
		sent := 0
		for _, p := range parts {
			a.Write(s.out[sent:p.until])
			sent = p.until
			for server.in.w-server.in.r < sent {
				try(t, server)
			}
			if try(t, server) {
				t.Fatal("more has arrived than was sent")
			}
			if len(server.in.buf) != p.held {
				t.Errorf("for %d bytes of a record %d are held, want %d", sent, len(server.in.buf), p.held)
			}
		}
		a.Write(s.out[sent:])
		if p, err := server.ReadRecord(nil); !bytes.Equal(p, data) || err != nil {
			t.Errorf("%d bytes, %v", len(p), err)
		}
	}
}

// A conn that wraps the socket is left out once the handshake is done.
func TestSocketBeneathWrapper(t *testing.T) {
	a, b := tcpPair(t)
	wrapped := &readCounter{Conn: b}
	client, server, errA, errB := shake(alice(t), bob(t), a, wrapped, Config{}, Config{TCP: b})
	if errA != nil || errB != nil {
		t.Fatal(errA, errB)
	}
	during := wrapped.n.Load()
	go client.Write([]byte("hello"))
	if p, err := server.ReadRecord(nil); string(p) != "hello" || err != nil || wrapped.n.Load() != during {
		t.Errorf("%q, %v, %d reads of the wrapper", p, err, wrapped.n.Load()-during)
	}
	a, b = tcpPair(t)
	if _, server := connect(t, a, &readCounter{Conn: b}, Config{}); server.in.socket != nil {
		t.Error("the socket beneath a wrapper is used unasked")
	}
}

func TestSocketErrors(t *testing.T) {
	a, b := tcpPair(t)
	client, server := connect(t, a, b, Config{})
	server.SetReadDeadline(time.Now().Add(-time.Second))
	if _, err := server.ReadRecord(nil); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("deadline: %v", err)
	}
	server.SetReadDeadline(time.Time{})
	client.Write([]byte("hello"))
	if p, err := server.ReadRecord(nil); string(p) != "hello" || err != nil {
		t.Errorf("after a deadline: %q, %v", p, err)
	}
	a.Write([]byte{0, 20, 1})
	a.CloseWrite()
	if _, err := server.ReadRecord(nil); err != io.ErrUnexpectedEOF {
		t.Errorf("end inside of a record: %v", err)
	}
	done := make(chan error)
	go func() { _, err := client.ReadRecord(nil); done <- err }()
	client.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}

	a, b = tcpPair(t)
	client, _ = connect(t, a, b, Config{})
	b.Close()
	if _, err := client.ReadRecord(nil); err != io.EOF {
		t.Errorf("end between two records: %v", err)
	}
	a, b = tcpPair(t)
	_, server = connect(t, a, b, Config{})
	server.Write([]byte("unread"))
	a.SetLinger(0)
	a.Close() // resets
	var reset *os.SyscallError
	if _, err := server.ReadRecord(nil); !errors.As(err, &reset) {
		t.Errorf("reset: %v", err)
	}
}
