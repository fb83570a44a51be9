package pnet

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/crypto/salsa20"
)

// script is a connection of which one side is written down: what comes, and what
// went. It takes at most limit bytes of one Write, if that is not 0.
type script struct {
	net.Conn // nil: nothing else may be called
	in       io.Reader
	writes   [][]byte
	limit    int
	fail     error
}

func (s *script) Read(p []byte) (int, error) {
	if s.in == nil {
		return 0, io.EOF
	}
	return s.in.Read(p)
}

func (s *script) Write(p []byte) (int, error) {
	if s.limit > 0 && len(p) > s.limit {
		s.writes = append(s.writes, bytes.Clone(p[:s.limit]))
		return s.limit, os.ErrDeadlineExceeded
	}
	s.writes = append(s.writes, bytes.Clone(p))
	return len(p), s.fail
}

func (s *script) written() []byte { return bytes.Join(s.writes, nil) }

func (s *script) with(t testing.TB, key Key, nonce []byte) net.Conn {
	c := Protect(s, key).(*protected)
	copy(c.out.nonce[:], nonce)
	return c
}

func TestVectors(t *testing.T) {
	for _, v := range vectors(t) {
		key, plain, wire := mustKey(t, unhex(t, v.Key)), unhex(t, v.Plain), unhex(t, v.Wire)
		t.Run(v.Name, func(t *testing.T) {
			for _, step := range []int{len(plain), 1, 7, 64, 65} {
				s := new(script)
				conn := s.with(t, key, wire[:nonceLen])
				kept := bytes.Clone(plain)
				for rest := plain; len(rest) > 0; {
					n := min(step, len(rest))
					if m, err := conn.Write(rest[:n]); m != n || err != nil {
						t.Fatal(m, err)
					}
					rest = rest[n:]
				}
				if !bytes.Equal(s.written(), wire) {
					t.Errorf("written %d at a time: %x, want %x", step, s.written(), wire)
				}
				if !bytes.Equal(plain, kept) {
					t.Error("Write has changed its argument")
				}
			}
			for name, r := range map[string]io.Reader{
				"whole": bytes.NewReader(wire), "bytes": iotest.OneByteReader(bytes.NewReader(wire)),
				"halves": iotest.HalfReader(bytes.NewReader(wire)), "end with data": iotest.DataErrReader(bytes.NewReader(wire)),
			} {
				got, err := io.ReadAll(Protect(&script{in: r}, key))
				if err != nil || !bytes.Equal(got, plain) {
					t.Errorf("read as %s: %x, %v", name, got, err)
				}
			}
		})
	}
}

// Our nonce leaves with our first bytes, in one write; or alone before the first
// read, which the remote may wait for; and once.
func TestNonceIsSent(t *testing.T) {
	key := GenerateKey()
	s := &script{in: bytes.NewReader(make([]byte, 100))}
	c := Protect(s, key)
	c.Write([]byte("hello"))
	c.Read(make([]byte, 10))
	if len(s.writes) != 1 || len(s.writes[0]) != nonceLen+5 {
		t.Errorf("written %x", s.writes)
	}
	s = &script{in: bytes.NewReader(make([]byte, 100))}
	c = Protect(s, key)
	c.Read(make([]byte, 0))
	c.Write(nil)
	if len(s.writes) != 0 {
		t.Errorf("written %x for nothing", s.writes)
	}
	c.Read(make([]byte, 10))
	c.Write([]byte("hello"))
	if len(s.writes) != 2 || len(s.writes[0]) != nonceLen || len(s.writes[1]) != 5 {
		t.Errorf("written %x", s.writes)
	}
	one, other := new(script), new(script)
	Protect(one, key).Write([]byte("x"))
	Protect(other, key).Write([]byte("x"))
	if bytes.Equal(one.written(), other.written()) {
		t.Error("two connections have the same nonce")
	}
}

// Two sides that both wait for the other's nonce are not ours: each of these sends
// its own, and both get what the other says.
func TestBothReadFirst(t *testing.T) {
	key := GenerateKey()
	a, b := tcpPair(t)
	a, b = Protect(a, key), Protect(b, key)
	var wg sync.WaitGroup
	for _, c := range []net.Conn{a, b} {
		reading := make(chan struct{})
		wg.Go(func() {
			close(reading)
			buf := make([]byte, 5)
			if _, err := io.ReadFull(c, buf); err != nil || string(buf) != "hello" {
				t.Errorf("read %q, %v", buf, err)
			}
		})
		<-reading
	}
	for _, c := range []net.Conn{a, b} {
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
}

// A write that stops in the middle, also of the nonce, can be continued.
func TestShortWrites(t *testing.T) {
	key, plain := GenerateKey(), []byte("the quick brown fox jumps over the lazy dog, and again over the lazy dog, until it is not lazy")
	for limit := 1; limit < 80; limit++ {
		s := &script{limit: limit}
		c := Protect(s, key)
		if limit%2 == 0 {
			c.Read(make([]byte, 1)) // the nonce is begun here
		}
		for rest := plain; len(rest) > 0; {
			n, err := c.Write(rest)
			if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) || n == len(rest) != (err == nil) {
				t.Fatal(n, err)
			}
			rest = rest[n:]
		}
		got, err := io.ReadAll(Protect(&script{in: bytes.NewReader(s.written())}, key))
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("limit %d: %q, %v", limit, got, err)
		}
	}
}

// The nonce may come in pieces, with deadlines that pass in between.
func TestReadContinues(t *testing.T) {
	v := vectors(t)[3]
	wire, plain := unhex(t, v.Wire), unhex(t, v.Plain)
	c := Protect(&script{in: iotest.TimeoutReader(iotest.OneByteReader(bytes.NewReader(wire)))}, mustKey(t, unhex(t, v.Key)))
	var got []byte
	failed := 0
	for buf := make([]byte, 100); len(got) < len(plain); {
		n, err := c.Read(buf)
		got = append(got, buf[:n]...)
		if err != nil {
			failed++
			if !errors.Is(err, iotest.ErrTimeout) {
				t.Fatal(err)
			}
		}
	}
	if !bytes.Equal(got, plain) || failed != 1 {
		t.Errorf("%x after %d failures, want %x", got, failed, plain)
	}
}

func TestTruncatedNonce(t *testing.T) {
	for n := range nonceLen + 1 {
		s := &script{in: bytes.NewReader(make([]byte, n))}
		want := io.ErrUnexpectedEOF
		if n == 0 || n == nonceLen {
			want = io.EOF
		}
		if m, err := Protect(s, GenerateKey()).Read(make([]byte, 10)); m != 0 || err != want {
			t.Errorf("after %d bytes: %d, %v, want %v", n, m, err, want)
		}
	}
}

// That our nonce cannot be sent any more does not keep us from reading what has come.
func TestRemoteReadsNoMore(t *testing.T) {
	v := vectors(t)[0]
	s := &script{in: bytes.NewReader(unhex(t, v.Wire)), fail: io.ErrClosedPipe}
	got, err := io.ReadAll(Protect(s, mustKey(t, unhex(t, v.Key))))
	if err != nil || hex.EncodeToString(got) != v.Plain {
		t.Errorf("%x, %v", got, err)
	}
}

// Deadlines and Close end a Read and a Write that wait.
func TestUnblock(t *testing.T) {
	for name, end := range map[string]func(net.Conn) error{
		"deadline": func(c net.Conn) error { return c.SetDeadline(time.Unix(1, 0)) },
		"close":    net.Conn.Close,
	} {
		a, _ := tcpPair(t)
		c := Protect(a, GenerateKey())
		ended := make(chan error)
		go func() {
			_, err := c.Read(make([]byte, 1))
			ended <- err
		}()
		go func() {
			for {
				if _, err := c.Write(make([]byte, 1<<20)); err != nil {
					ended <- err
					return
				}
			}
		}()
		if err := end(c); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, net.ErrClosed) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// Several writers at once do not mix up the key stream.
func TestManyWriters(t *testing.T) {
	key := GenerateKey()
	a, b := tcpPair(t)
	near, far := Protect(a, key), Protect(b, key)
	const writers, each = 8, 300
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for range each {
				if _, err := near.Write(bytes.Repeat([]byte{byte('a' + i)}, 10)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	go func() {
		wg.Wait()
		a.(*net.TCPConn).CloseWrite() // Close would reset: near has not read far's nonce
	}()
	counts := make(map[string]int)
	for buf := make([]byte, 10); ; {
		if _, err := io.ReadFull(far, buf); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		counts[string(buf)]++
	}
	for i := range writers {
		if word := string(bytes.Repeat([]byte{byte('a' + i)}, 10)); counts[word] != each {
			t.Errorf("%s came %d times, want %d", word, counts[word], each)
		}
	}
}

func TestNonceResemblesNothing(t *testing.T) {
	for text, want := range map[string]bool{
		"GET / HTTP/1.1": true, "POST /": true, "PUT /": true, "PRI * HTTP/2.0": true, "OPTIONS": true,
		"\x16\x03\x01\x02\x00\x01": true, "\x16\x03\x03": true, "\x16\x02\x01\x01": false,
		"get / HTTP": false, "\x13/multistream": false, "GE\x00T": false,
	} {
		nonce := make([]byte, nonceLen)
		copy(nonce, text)
		if resembles(nonce) != want {
			t.Errorf("%q is taken for another protocol: %v, want %v", text, !want, want)
		}
	}
}

// FuzzRead takes anything apart in any pieces: it is what x/crypto makes of the
// whole, or a defined error.
func FuzzRead(f *testing.F) {
	f.Add([]byte{}, uint8(1))
	f.Add(make([]byte, 23), uint8(5))
	f.Add(make([]byte, 24), uint8(5))
	f.Add(bytes.Repeat([]byte("\x13/multistream/1.0.0\n"), 30), uint8(63))
	f.Add(bytes.Repeat([]byte("GET / HTTP/1.1\r\n"), 30), uint8(200))
	raw := bytes.Repeat([]byte{7}, KeyLen)
	key := mustKey(f, raw)
	f.Fuzz(func(t *testing.T, wire []byte, step uint8) {
		c := Protect(&script{in: bytes.NewReader(wire)}, key)
		var got []byte
		var err error
		for buf, n := make([]byte, int(step)+1), 0; err == nil; {
			n, err = c.Read(buf)
			got = append(got, buf[:n]...)
		}
		if len(wire) < nonceLen {
			if len(got) > 0 || (err == io.EOF) != (len(wire) == 0) {
				t.Fatalf("%d bytes and %v", len(got), err)
			}
			return
		}
		want := make([]byte, len(wire)-nonceLen)
		salsa20.XORKeyStream(want, wire[nonceLen:], wire[:nonceLen], (*[KeyLen]byte)(raw))
		if !bytes.Equal(got, want) || err != io.EOF {
			t.Fatalf("%x, %v, want %x", got, err, want)
		}
	})
}

func tcpPair(t testing.TB) (near, far net.Conn) {
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
	return near, far
}

// hole takes and gives everything at once: what is measured is the cipher.
type hole struct{ net.Conn }

func (hole) Write(p []byte) (int, error) { return len(p), nil }
func (hole) Read(p []byte) (int, error)  { return len(p), nil }

func BenchmarkWrite(b *testing.B) { benchmark(b, net.Conn.Write) }
func BenchmarkRead(b *testing.B)  { benchmark(b, net.Conn.Read) }

func benchmark(b *testing.B, op func(net.Conn, []byte) (int, error)) {
	for _, size := range []int{64, 1 << 10, 64 << 10, 256 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			c, buf := Protect(hole{}, GenerateKey()), make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := op(c, buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
