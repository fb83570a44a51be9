//go:build !js

package websocket

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/kith-p2p/kith/internal/testkit"
)

const upgradeRequest = "GET / HTTP/1.1\r\nHost: example.test\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nOrigin: https://elsewhere.test\r\n\r\n"

// pair gives the two ends of a TCP connection.
func pair(t testing.TB) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	near.SetDeadline(time.Now().Add(10 * time.Second))
	return near, far
}

// accept runs the listener's part of the handshake on far.
func accept(ctx context.Context, far net.Conn) (*conn, error) {
	i := &incoming{listener: &listener{transport: &Transport{}}, raw: far}
	release := bound(ctx, far)
	defer release()
	ws, _, err := i.handshake(ctx)
	if err != nil {
		far.Close() // as Upgrade does
	}
	return ws, err
}

// standing gives a WebSocket as the listener has it, and the socket of a client
// that has done the handshake and writes frames by hand.
func standing(t testing.TB) (ws *conn, client net.Conn) {
	t.Helper()
	client, far := pair(t)
	io.WriteString(client, upgradeRequest)
	ws, err := accept(t.Context(), far)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.ReadResponse(bufio.NewReaderSize(client, 16), nil)
	if err != nil || r.StatusCode != http.StatusSwitchingProtocols || r.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Fatalf("answer %v, %v", r, err)
	}
	return ws, client
}

const (
	fin                      = 0x80
	opMore, opText, opBinary = 0, 1, 2
	opClose, opPing, opPong  = 8, 9, 10
)

// frame is one of a client, masked.
func frame(first byte, payload string) string {
	key := [4]byte{1, 2, 3, 4}
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	b = append(b, key[:]...)
	for i := range payload {
		b = append(b, payload[i]^key[i&3])
	}
	return string(b)
}

// What a client sends, and what is read of it: bytes, and then an error.
func TestFrames(t *testing.T) {
	long := strings.Repeat("0123456789", 20_000)
	for _, c := range []struct {
		name, sent, read string
		err              error  // is in the error's chain
		says             string // is in its text
	}{
		{"messages", frame(fin|opBinary, "one") + frame(fin|opBinary, "two"), "onetwo", io.EOF, ""},
		{"large", frame(fin|opBinary, long), long, io.EOF, ""},
		{"fragments", frame(opBinary, "a") + frame(opMore, "") + frame(opMore, "b") + frame(fin|opMore, "c") + frame(fin|opBinary, "d"), "abcd", io.EOF, ""},
		{"control between fragments", frame(opBinary, "a") + frame(fin|opPing, "x") + frame(fin|opPong, "") + frame(fin|opMore, "b"), "ab", io.EOF, ""},
		{"empty message", frame(fin|opBinary, "") + frame(fin|opBinary, "a"), "a", io.EOF, ""},
		{"goodbye", frame(fin|opBinary, "a") + frame(fin|opClose, "\x03\xe8"), "a", io.EOF, ""},
		{"goodbye without a code", frame(fin|opClose, ""), "", io.EOF, ""},
		{"goodbye with a reason", frame(fin|opClose, "\x03\xf3full"), "", nil, `1011 "full"`},
		{"goodbye with a bad code", frame(fin|opClose, "\x00\x01"), "", nil, "bad close code"},
		{"goodbye that is half a code", frame(fin|opClose, "\x03"), "", io.EOF, ""},
		{"end inside a frame", frame(fin|opBinary, "abcdef")[:9], "abc", io.ErrUnexpectedEOF, ""},
		{"end inside a message", frame(opBinary, "abc"), "abc", io.ErrUnexpectedEOF, ""},
		{"text", frame(fin|opBinary, "a") + frame(fin|opText, "b"), "a", nil, "text message"},
		{"not masked", "\x82\x01a", "", nil, "bad MASK"},
		{"reserved bits", frame(fin|0x40|opBinary, "a"), "", nil, "RSV1"},
		{"no such frame", frame(fin|3, "a"), "", nil, "bad opcode 3"},
		{"message inside a message", frame(opBinary, "a") + frame(fin|opBinary, "b"), "a", nil, "data before FIN"},
		{"nothing to continue", frame(fin|opMore, "a"), "", nil, "continuation after FIN"},
		{"long ping", frame(fin|opPing, long[:126]), "", nil, "len > 125"},
		{"ping in parts", frame(opPing, "a"), "", nil, "FIN not set"},
		{"longer than anything", "\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x02\x03\x04", "", nil, "limit"},
		{"as long as can be", "\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x01\x02\x03\x04\x60", "a", io.ErrUnexpectedEOF, ""},
		{"ping flood", strings.Repeat(frame(fin|opPing, ""), maxControl+1), "", nil, "more than 1000 control frames"},
		{"pong flood", strings.Repeat(frame(fin|opPong, ""), maxControl+1), "", nil, "more than 1000 control frames"},
		{"flood of nothing", strings.Repeat(frame(fin|opBinary, ""), maxControl+1), "", nil, "more than 1000 control frames"},
		{"many pings", strings.Repeat(frame(fin|opPing, "x"), maxControl) + frame(fin|opBinary, "a"), "a", io.EOF, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			ws, client := standing(t)
			go io.Copy(io.Discard, client)
			go func() {
				io.WriteString(client, c.sent)
				client.(*net.TCPConn).CloseWrite()
			}()
			var got bytes.Buffer
			buf := make([]byte, 70_000)
			var err error
			for {
				var n int
				if n, err = ws.Read(buf); err != nil {
					break
				}
				got.Write(buf[:n])
			}
			if got.String() != c.read {
				t.Errorf("read %d bytes %.20q, want %d", got.Len(), got.String(), len(c.read))
			}
			if c.err != nil && !errors.Is(err, c.err) || c.err == nil && (errors.Is(err, io.EOF) || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("%v, want %v %s", err, c.err, c.says)
			}
			for range 2000 { // the package would panic after 1000
				if _, again := ws.Read(buf); again != err {
					t.Fatalf("and then %v, instead of %v", again, err)
				}
			}
		})
	}
}

// A message of any size is one frame, with no more than one system call for each
// largeWrite of it; a client reads the same whatever it asks for.
func TestWrite(t *testing.T) {
	ws, client := standing(t)
	for _, n := range []int{1, 125, 126, smallWrite, smallWrite + 1, directLen, 1 << 16, 300_000, 1 << 20} {
		sent := bytes.Repeat([]byte{byte(n), 7}, n)[:n]
		go ws.Write(sent)
		var head [2]byte
		io.ReadFull(client, head[:])
		size := int(head[1])
		if size == 126 {
			var b [2]byte
			io.ReadFull(client, b[:])
			size = int(binary.BigEndian.Uint16(b[:]))
		} else if size == 127 {
			var b [8]byte
			io.ReadFull(client, b[:])
			size = int(binary.BigEndian.Uint64(b[:]))
		}
		if head[0] != fin|opBinary || size != n {
			t.Fatalf("a message of %d bytes is a frame %#x of %d", n, head[0], size)
		}
		got := make([]byte, n)
		if _, err := io.ReadFull(client, got); err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("a message of %d bytes: %v, or other bytes", n, err)
		}
	}
	if n, err := ws.Write(nil); n != 0 || err != nil {
		t.Errorf("writing nothing: %d, %v", n, err)
	}
}

// Both our own ends agree, whatever pieces are written and read.
func TestPieces(t *testing.T) {
	near, far := pair(t)
	near.SetDeadline(time.Time{})
	accepted := make(chan *conn)
	go func() {
		ws, err := accept(t.Context(), far)
		if err != nil {
			t.Error(err)
		}
		accepted <- ws
	}()
	transport, err := New(Config{Upgrader: nothing})
	if err != nil {
		t.Fatal(err)
	}
	dialed, err := transport.handshake(t.Context(), near, address{ip: unmap(near.RemoteAddr()).Addr(), port: 1})
	if err != nil {
		t.Fatal(err)
	}
	listened := <-accepted
	sent := bytes.Repeat([]byte("0123456789abcdefg"), 100_000)
	for _, dir := range [][2]net.Conn{{dialed, listened}, {listened, dialed}} {
		go func() {
			for rest, n := sent, 1; len(rest) > 0; n = n*3 + 1 {
				m := min(n%400_000, len(rest))
				dir[0].Write(rest[:m])
				rest = rest[m:]
			}
			if dir[0] == net.Conn(listened) {
				dir[0].Close()
			}
		}()
		got := make([]byte, len(sent))
		r := io.Reader(dir[1])
		if dir[1] == net.Conn(listened) {
			r = iotest.HalfReader(r)
		}
		if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("%v, or other bytes", err)
		}
	}
	if _, err := dialed.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after Close of the other end: %v", err)
	}
	if _, err := listened.Read(make([]byte, 1)); err == nil {
		t.Error("read after Close")
	}
	if _, err := listened.Write(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("writing after Close: %v", err)
	}
}

func TestDeadlines(t *testing.T) {
	ws, client := standing(t)
	ws.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	var err error
	for err == nil { // until the buffers of the system are full
		_, err = ws.Write(make([]byte, 1<<20))
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("writing: %v", err)
	}
	ws.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := ws.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("reading: %v", err)
	}
	if took := testkit.Took(func() { ws.Close() }); took > time.Second {
		t.Errorf("Close took %v although the remote does not read", took)
	}
	client.Close()
}

// Requests that are refused, and what they are answered.
func TestBadRequests(t *testing.T) {
	header := func(old, new string) string { return strings.Replace(upgradeRequest, old, new, 1) }
	for _, c := range []struct {
		name, request string
		answer        int // 0: none
		says          string
	}{
		{"rubbish", "\x00\x01\x02\r\n\r\n", 0, "does not speak HTTP"},
		{"TLS", "\x16\x03\x01", 0, "does not speak HTTP"},
		{"no version", "GET /\r\n\r\n", 400, "HTTP request"},
		{"bad header", header("Host:", "Host"), 400, "HTTP request"},
		{"version 12", header("13", "12"), 400, "unsupported version"},
		{"no key", header("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""), 400, "Sec-WebSocket-Key"},
		{"short key", header("dGhlIHNhbXBsZSBub25jZQ==", "AAAA"), 400, "Sec-WebSocket-Key"},
		{"method", header("GET", "POST"), 405, "not GET"},
		{"in a hurry", upgradeRequest + frame(fin|opBinary, "x"), 400, "before the WebSocket stood"},
		{"10 MB", header("Origin:", "X: "+strings.Repeat("x", 10<<20)+"\r\nOrigin:"), 431, "larger than 16384"},
		{"many headers", header("Origin:", strings.Repeat("X: y\r\n", 1<<20)+"\r\nOrigin:"), 431, "larger than 16384"},
		{"cut short", upgradeRequest[:len(upgradeRequest)-2], 0, "unexpected EOF"},
		{"nothing", "", 0, "unexpected EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, far := pair(t)
			request := []byte(c.request)
			go func() {
				client.Write(request)
				client.(*net.TCPConn).CloseWrite()
			}()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := accept(t.Context(), far)
			runtime.ReadMemStats(&after)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("accepted, or not with the reason: %v", err)
			}
			if grown := after.TotalAlloc - before.TotalAlloc; grown > 1<<20 {
				t.Errorf("it took %d bytes of memory", grown)
			}
			// What the client has not sent yet resets the connection, and can overtake the answer.
			r, err := http.ReadResponse(bufio.NewReader(client), nil)
			if c.answer == 0 && err == nil || c.answer > 0 && err == nil && r.StatusCode != c.answer {
				t.Errorf("answered %v, want %d", r, c.answer)
			}
			if err != nil && c.answer > 0 && c.answer != 431 && c.name != "in a hurry" {
				t.Errorf("no answer: %v", err)
			}
		})
	}
}

// A client that is silent, or slow, is given up when ctx ends.
func TestSlowRequests(t *testing.T) {
	for _, request := range []string{"", upgradeRequest[:20], upgradeRequest[:len(upgradeRequest)-1]} {
		client, far := pair(t)
		io.WriteString(client, request)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		_, err := accept(ctx, far)
		if err == nil || !errors.Is(cause(ctx, err), context.DeadlineExceeded) {
			t.Errorf("after %d bytes of a request: %v", len(request), err)
		}
		cancel()
	}
}

// Servers that are none, or wish us ill.
func TestBadAnswers(t *testing.T) {
	good := func(req *http.Request) string {
		return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + acceptKey(req) + "\r\n"
	}
	for _, c := range []struct {
		name   string
		answer func(*http.Request) string
		says   string
	}{
		{"a web server", func(*http.Request) string { return "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" }, "200 OK"},
		{"elsewhere", func(*http.Request) string { return "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n" }, "302 Found"},
		{"no HTTP", func(*http.Request) string { return "\x13/multistream/1.0.0\n\r\n\r\n" }, "malformed"},
		{"nothing", func(*http.Request) string { return "" }, "EOF"},
		{"wrong key", func(r *http.Request) string { return strings.Replace(good(r), "Accept: ", "Accept: x", 1) + "\r\n" }, "101"},
		{"compression", func(r *http.Request) string {
			return good(r) + "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n\r\n"
		}, "not offered"},
		{"10 MB", func(r *http.Request) string { return good(r) + "X: " + strings.Repeat("x", 10<<20) + "\r\n\r\n" }, "larger than 16384"},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, far := pair(t)
			go func() {
				defer far.Close()
				req, err := http.ReadRequest(bufio.NewReader(far))
				if err == nil {
					io.WriteString(far, c.answer(req))
				}
			}()
			transport, err := New(Config{Upgrader: nothing})
			if err != nil {
				t.Fatal(err)
			}
			_, err = transport.handshake(t.Context(), client, address{name: "example.test", port: 80})
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want %q", err, c.says)
			}
		})
	}
}

func FuzzReadHead(f *testing.F) {
	f.Add([]byte(upgradeRequest), 7)
	f.Add([]byte("A\r\n\r\nrest"), 1)
	f.Add([]byte("A\r\n\r\r\n\r\n"), 3)
	f.Add(bytes.Repeat([]byte("x"), maxHead+1), 4000)
	f.Fuzz(func(t *testing.T, sent []byte, step int) {
		if step <= 0 {
			return
		}
		left := sent
		data, end, err := readHead(readerFunc(func(p []byte) (int, error) {
			if len(left) == 0 {
				return 0, io.EOF
			}
			n := copy(p[:min(step, len(p))], left)
			left = left[n:]
			return n, nil
		}))
		at := bytes.Index(sent, []byte("\r\n\r\n"))
		if len(sent) > 0 && (sent[0] < 'A' || sent[0] > 'Z') {
			at = -1
		}
		switch {
		case err == nil && (at < 0 || end != at+4 || !bytes.HasPrefix(sent, data) || len(data) < end || len(data) > maxHead):
			t.Errorf("the head of %q ends at %d, and not in %d bytes at %d", sent, at, len(data), end)
		case err != nil && at >= 0 && at+4 <= maxHead:
			t.Errorf("%q: %v", sent, err)
		case len(sent)-len(left) > maxHead:
			t.Errorf("%d bytes were read", len(sent)-len(left))
		}
	})
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// Frames from a remote: no panic, and an end.
func FuzzFrames(f *testing.F) {
	for _, s := range []string{
		frame(fin|opBinary, "one") + frame(fin|opPing, "x") + frame(fin|opClose, "\x03\xe8"),
		frame(opBinary, "a") + frame(fin|opMore, "b"), "\x82\x01a", "\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x01\x02\x03\x04",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		ws, client := standing(t)
		go io.Copy(io.Discard, client)
		client.Write(sent)
		client.(*net.TCPConn).CloseWrite()
		n, err := io.Copy(io.Discard, ws)
		if n > int64(len(sent)) {
			t.Errorf("%d bytes were read of %d: %v", n, len(sent), err)
		}
	})
}

func ExampleTransport_CanDial() {
	transport, _ := New(Config{Upgrader: nothing})
	for _, a := range []string{"/ip4/192.0.2.0/tcp/1234/ws", "/dns/example.com/wss", "/ip4/192.0.2.0/tcp/1234"} {
		fmt.Println(transport.CanDial(must(a)))
	}
	// Output:
	// true
	// true
	// false
}

// acceptKey is what a server answers. https://datatracker.ietf.org/doc/html/rfc6455#section-1.3
func acceptKey(req *http.Request) string {
	sum := sha1.Sum([]byte(req.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}
