package p2ptls

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/kith-p2p/kith/peer"
)

// pipePair is a connection over memory, where every write waits for its reader.
func pipePair(t *testing.T) (c, s *Conn) {
	t.Helper()
	cc, sc := net.Pipe()
	t.Cleanup(func() { cc.Close(); sc.Close() })
	return handshakes(t, newTransport(t, peer.Ed25519), newTransport(t, peer.Ed25519), cc, sc, Config{})
}

func random(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// choppy gives at most n bytes a read.
type choppy struct {
	net.Conn
	n int
}

func (c choppy) Read(p []byte) (int, error) { return c.Conn.Read(p[:min(len(p), c.n)]) }

// Whatever pieces the network makes, and whatever pieces are read, the bytes are
// the same.
func TestTransfer(t *testing.T) {
	client, server := newTransport(t, peer.Ed25519), newTransport(t, peer.Ed25519)
	all := []int{1, 100, smallBuffer, maxPlaintext - 1, maxPlaintext, maxPlaintext + 1, 64 << 10, 64<<10 + 12, largeBuffer, 300_000}
	for _, chop := range []int{1, recordHeader - 1, recordHeader, recordHeader + 1, smallBuffer, fullRecord, 1 << 20} {
		t.Run(fmt.Sprint(chop), func(t *testing.T) {
			sizes := all
			if chop < 100 {
				sizes = all[:6] // it takes its time
			}
			cc, sc := tcpPair(t)
			c, s := handshakes(t, client, server, choppy{cc, chop}, choppy{sc, chop}, Config{})
			var want []byte
			for _, n := range sizes {
				want = append(want, random(n)...)
			}
			send := func(conn *Conn) {
				rest := want
				for _, n := range sizes {
					if m, err := conn.Write(rest[:n]); m != n || err != nil {
						t.Errorf("Write of %d bytes: %d, %v", n, m, err)
					}
					rest = rest[n:]
				}
			}
			var sending sync.WaitGroup
			sending.Go(func() { send(c) })
			sending.Go(func() { send(s) })

			var reading sync.WaitGroup
			reading.Go(func() {
				var got []byte
				for i := 0; len(got) < len(want); i++ {
					if i%3 == 2 { // Read may follow ReadRecord, and the other way round
						b := make([]byte, 1+i*977%20_000)
						n, err := s.Read(b)
						if n == 0 || err != nil {
							t.Errorf("Read: %d, %v", n, err)
							return
						}
						got = append(got, b[:n]...)
						continue
					}
					record, err := s.ReadRecord(nil)
					if len(record) == 0 || len(record) > plainBuffer || err != nil {
						t.Errorf("ReadRecord: %d bytes, %v", len(record), err)
						return
					}
					got = append(got, record...)
				}
				if !bytes.Equal(got, want) {
					t.Error("the server has read something else")
				}
			})
			got := make([]byte, len(want))
			if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
				t.Errorf("the client has read something else, %v", err)
			}
			reading.Wait()
			sending.Wait()
		})
	}
}

// A Write of several goroutines at a time stays in one piece.
func TestConcurrentWrites(t *testing.T) {
	cc, sc := tcpPair(t)
	c, s := handshakes(t, newTransport(t, peer.Ed25519), newTransport(t, peer.Ed25519), cc, sc, Config{})
	const writers, size = 4, 100_000
	for i := range writers {
		go func() {
			for range 10 {
				if _, err := c.Write(bytes.Repeat([]byte{byte(i)}, size)); err != nil {
					t.Error(err)
				}
				if _, err := c.Write(bytes.Repeat([]byte{byte(i)}, size/100)); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	got := make([]byte, writers*10*(size+size/100))
	if _, err := io.ReadFull(s, got); err != nil {
		t.Fatal(err)
	}
	for len(got) > 0 {
		run := len(got) - len(bytes.TrimLeft(got, string(got[:1])))
		if run%(size/100) != 0 {
			t.Fatalf("a run of %d bytes", run)
		}
		got = got[run:]
	}
}

// How many writes to the network one Write is, and how few reads from it bulk data
// takes when the reader is the slower side.
func TestSystemCalls(t *testing.T) {
	cc, sc := tcpPair(t)
	c, s := handshakes(t, newTransport(t, peer.Ed25519), newTransport(t, peer.Ed25519), cc, sc, Config{})
	sink := &script{}
	counting := &countingConn{Conn: sink}
	c.socket.conn = counting
	for _, w := range []struct{ size, writes int }{
		{1, 1}, {maxPlaintext, 1}, {64 << 10, 1}, {64<<10 + 12, 1}, {128 << 10, 1}, {1 << 20, 8}, {1<<20 + 1, 9},
	} {
		counting.writes.Store(0)
		if n, err := c.Write(make([]byte, w.size)); n != w.size || err != nil {
			t.Fatal(n, err)
		}
		if got := counting.writes.Load(); int(got) != w.writes {
			t.Errorf("Write of %d bytes: %d writes, want %d", w.size, got, w.writes)
		}
	}
	// All of that, more than 2 MiB, is there when the reading begins.
	reading := &countingConn{Conn: &script{in: sink.wrote}}
	s.socket.conn = reading
	for got := 0; got < 2<<20; {
		record, err := s.ReadRecord(nil)
		if err != nil {
			t.Fatal(err)
		}
		got += len(record)
	}
	if n := reading.reads.Load(); n > 24 {
		t.Errorf("%d reads for 2 MiB, want at most 24", n)
	}
}

// Between records a connection that is read holds neither a large buffer nor one
// for plaintext.
func TestIdleHoldsNoBuffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := pipePair(t)
		got := 0
		go func() {
			for {
				record, err := s.ReadRecord(nil)
				if err != nil {
					return
				}
				got += len(record)
			}
		}()
		const size = 1 << 20
		if _, err := c.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // the reader waits, too
		if got != size {
			t.Errorf("%d bytes were read, want %d", got, size)
		}
		if s.socket.large != nil || unsafe.SliceData(s.socket.buf) != &s.socket.small[0] || s.plain != nil || c.socket.out != nil {
			t.Error("an idle connection holds a buffer")
		}
		c.Close()
	})
}

// A peer that is not through the handshake gets no large buffer, whatever length it
// announces.
func TestHandshakeHoldsNoBuffers(t *testing.T) {
	hello := append([]byte{handshakeType, 3, 1, 0x40, 0}, make([]byte, 3*smallBuffer)...)
	s := newSocket(&script{in: hello})
	if n, err := io.Copy(io.Discard, s); int(n) != len(hello) || err != io.ErrUnexpectedEOF {
		t.Errorf("%d, %v", n, err)
	}
	if s.large != nil {
		t.Error("there is a large buffer")
	}
}

// After a write that has failed nothing is sent, also not by the same Write.
func TestWriteFails(t *testing.T) {
	c, _ := pipePair(t)
	broken := &countingConn{Conn: failing{}}
	c.socket.conn = broken
	for _, size := range []int{1 << 20, 1 << 20, 1} {
		if _, err := c.Write(make([]byte, size)); !errors.Is(err, errFailing) {
			t.Errorf("Write: %v", err)
		}
	}
	if n := broken.writes.Load(); n != 1 {
		t.Errorf("%d writes, want 1", n)
	}
}

type failing struct{ net.Conn }

var errFailing = errors.New("no network")

func (failing) Write([]byte) (int, error) { return 0, errFailing }

// A deadline interrupts a read in the middle of a record, and the next goes on.
func TestReadDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := pipePair(t)
		raw := c.socket.conn
		sink := &script{}
		c.socket.conn = sink
		want := random(50_000)
		c.Write(want)
		sealed := sink.wrote

		var got []byte
		for _, n := range []int{3, 2, 5000, 14_000, len(sealed)} {
			n = min(n, len(sealed))
			go raw.Write(sealed[:n])
			sealed = sealed[n:]
			start := time.Now()
			s.SetReadDeadline(start.Add(time.Second))
			var record []byte
			var err error
			for err == nil && len(got) < len(want) {
				got = append(got, record...)
				record, err = s.ReadRecord(nil)
			}
			if len(got) == len(want) {
				break
			}
			var timeout net.Error
			if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() || time.Since(start) != time.Second {
				t.Fatalf("%v after %v", err, time.Since(start))
			}
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%d bytes were read, want %d", len(got), len(want))
		}
	})
}

func TestWriteDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, size := range []int{100, 100_000} {
			c, _ := pipePair(t)
			c.SetDeadline(time.Now().Add(time.Second))
			if _, err := c.Write(make([]byte, size)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%d bytes: %v", size, err)
			}
			c.SetDeadline(time.Time{})
			if _, err := c.Write([]byte{1}); err == nil {
				t.Errorf("%d bytes: a broken connection can write", size)
			}
		}
	})
}

func TestClose(t *testing.T) {
	t.Run("end", func(t *testing.T) {
		c, s := pipePair(t)
		go func() {
			c.Write([]byte("last words"))
			c.Close()
		}()
		got, err := io.ReadAll(s)
		if string(got) != "last words" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		if _, err := s.ReadRecord(nil); err != io.EOF {
			t.Errorf("after the end: %v, want io.EOF", err)
		}
	})
	t.Run("truncated", func(t *testing.T) {
		c, s := pipePair(t)
		go func() {
			c.Write([]byte("last words"))
			c.socket.conn.Close()
		}()
		got, err := io.ReadAll(s)
		if string(got) != "last words" || err != io.ErrUnexpectedEOF {
			t.Errorf("%q, %v", got, err)
		}
	})
	t.Run("twice", func(t *testing.T) {
		c, s := pipePair(t)
		go io.Copy(io.Discard, s)
		for range 2 {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
		if _, err := c.Write([]byte{1}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Write after Close: %v", err)
		}
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("Read after Close works")
		}
	})
	// A peer that reads nothing delays Close by closeTimeout and no more, and
	// whatever waits comes back.
	for name, waits := range map[string]func(c *Conn){
		"silent peer": func(*Conn) {},
		"in Read":     func(c *Conn) { c.Read(make([]byte, 1)) },
		"in Write":    func(c *Conn) { c.Write([]byte{1}) },
		"in flush":    func(c *Conn) { c.Write(make([]byte, 100_000)) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _ := pipePair(t)
				go waits(c)
				synctest.Wait()
				start := time.Now()
				var both sync.WaitGroup
				both.Go(func() { c.Close() })
				both.Go(func() { c.Close() })
				both.Wait()
				if d := time.Since(start); d > closeTimeout {
					t.Errorf("Close took %v", d)
				}
				// synctest fails if anything still waits
			})
		})
	}
}

// A record that was changed on the way ends the connection: what comes later is
// not read, however good.
func TestTamperedRecord(t *testing.T) {
	c, s := pipePair(t)
	sink := &script{}
	c.socket.conn = sink
	c.Write([]byte("one"))
	c.Write([]byte("two"))
	two := len(sink.wrote)
	c.Write([]byte("three"))
	sink.wrote[two-1] ^= 1
	s.socket.conn = &script{in: sink.wrote}
	if record, err := s.ReadRecord(nil); string(record) != "one" || err != nil {
		t.Fatalf("%q, %v", record, err)
	}
	for range 3 {
		_, err := s.ReadRecord(nil)
		wantError(t, err, "bad record MAC")
	}
	for _, name := range []string{"left out", "twice"} {
		c, s := pipePair(t)
		sink := &script{}
		c.socket.conn = sink
		c.Write([]byte("one"))
		in := bytes.Repeat(sink.wrote, 2)
		if name == "left out" {
			c.Write([]byte("two"))
			in = sink.wrote[len(in)/2:]
		}
		s.socket.conn = &script{in: in}
		_, err := io.ReadAll(s)
		wantError(t, err, "bad record MAC")
	}
}

// What a peer can send after the handshake that is no data: crypto/tls bounds it,
// and this test tells when it no longer does.
func TestPostHandshakeMessages(t *testing.T) {
	const keyUpdate, newSessionTicket, certificateRequest = 24, 4, 13
	update := []byte{keyUpdate, 0, 0, 1, 0}
	updateBoth := []byte{keyUpdate, 0, 0, 1, 1}
	read := func(s *Conn, want string) error {
		record, err := s.ReadRecord(nil)
		if err == nil && string(record) != want {
			err = fmt.Errorf("read %q, want %q", record, want)
		}
		return err
	}
	t.Run("16 updates between data", func(t *testing.T) {
		s, _, raw, seal := rogueClient(t)
		go func() {
			for range 3 {
				for range 16 {
					raw.Write(seal.record(handshakeType, update))
					seal.update(t)
				}
				raw.Write(seal.record(dataType, []byte("data")))
			}
		}()
		for range 3 {
			if err := read(s, "data"); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("our keys, too", func(t *testing.T) {
		s, c, raw, seal := rogueClient(t)
		go func() {
			raw.Write(seal.record(handshakeType, updateBoth))
			seal.update(t)
			raw.Write(seal.record(dataType, []byte("data")))
		}()
		done := make(chan error)
		go func() { done <- read(s, "data") }()
		go func() {
			if err := <-done; err != nil {
				t.Error(err)
			}
			s.Write([]byte("with new keys"))
		}()
		got := make([]byte, 13)
		if _, err := io.ReadFull(c, got); err != nil || string(got) != "with new keys" {
			t.Errorf("%q, %v", got, err)
		}
	})
	flood := func(name, want string, send func(write func(typ byte, msg []byte), seal *sealer)) {
		t.Run(name, func(t *testing.T) {
			s, _, raw, seal := rogueClient(t)
			go io.Copy(io.Discard, raw) // our alert
			go send(func(typ byte, msg []byte) { raw.Write(seal.record(typ, msg)) }, seal)
			for range 2 { // it lasts
				_, err := s.ReadRecord(nil)
				wantError(t, err, want)
			}
		})
	}
	flood("17 updates", "too many", func(write func(byte, []byte), seal *sealer) {
		for range 17 {
			write(handshakeType, update)
			seal.update(t)
		}
	})
	flood("17 empty records", "too many", func(write func(byte, []byte), _ *sealer) {
		for range 17 {
			write(dataType, nil)
		}
	})
	flood("two updates in a record", "handshake buffer not empty", func(write func(byte, []byte), _ *sealer) {
		write(handshakeType, append(update, update...))
	})
	flood("a ticket from a client", "session ticket from a client", func(write func(byte, []byte), _ *sealer) {
		ticket := append([]byte{newSessionTicket, 0, 0, 14}, make([]byte, 14)...)
		ticket[4+8] = 0  // nonce
		ticket[4+10] = 1 // length of the ticket
		write(handshakeType, ticket)
	})
	flood("an unexpected message", "unexpected handshake message", func(write func(byte, []byte), _ *sealer) {
		write(handshakeType, []byte{certificateRequest, 0, 0, 3, 0, 0, 0})
	})
	flood("a huge message", "exceeds maximum", func(write func(byte, []byte), _ *sealer) {
		write(handshakeType, append([]byte{newSessionTicket, 0xff, 0, 0}, make([]byte, 1000)...))
	})
	flood("a fatal alert", "internal error", func(write func(byte, []byte), _ *sealer) {
		write(alertType, []byte{2, 80})
	})
}

// A peer asks for new keys and does not read the answer, so the reader is stuck in
// a write. Close still comes back. (Without synctest: a mutex is waited for.)
func TestCloseWhileAnswering(t *testing.T) {
	s, _, raw, seal := rogueClient(t)
	reading := make(chan error)
	go func() {
		_, err := s.ReadRecord(nil)
		reading <- err
	}()
	if _, err := raw.Write(seal.record(handshakeType, []byte{24, 0, 0, 1, 1})); err != nil {
		t.Fatal(err)
	}
	for s.socket.writeMu.TryLock() { // until the answer is being written
		s.socket.writeMu.Unlock()
		runtime.Gosched()
	}
	s.Close()
	if err := <-reading; err == nil {
		t.Error("ReadRecord has read something")
	}
}

const (
	alertType     = 21
	handshakeType = 22
	dataType      = 23
)

// rogueClient connects a server of ours with a client whose records the test
// makes itself. client still reads.
func rogueClient(t *testing.T) (s *Conn, client *tls.Conn, raw net.Conn, seal *sealer) {
	t.Helper()
	cc, sc := net.Pipe()
	t.Cleanup(func() { cc.Close(); sc.Close() })
	us, them := newTransport(t, peer.Ed25519), newTransport(t, peer.Ed25519)
	config := them.config(trusting, []string{"libp2p"})
	var log strings.Builder
	config.KeyLogWriter = &log
	client = tls.Client(cc, config)
	done := make(chan error)
	go func() { done <- client.Handshake() }()
	s, err := us.Server(context.Background(), sc, Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(log.String()) {
		if f := strings.Fields(line); f[0] == "CLIENT_TRAFFIC_SECRET_0" {
			secret, err := hex.DecodeString(f[2])
			if err != nil {
				t.Fatal(err)
			}
			seal = &sealer{chacha: client.ConnectionState().CipherSuite == tls.TLS_CHACHA20_POLY1305_SHA256, secret: secret}
			seal.derive(t)
			return s, client, cc, seal
		}
	}
	t.Fatal("no traffic secret")
	return
}

// A sealer makes records of TLS 1.3 with SHA-256.
// https://datatracker.ietf.org/doc/html/rfc8446#section-7.3
type sealer struct {
	chacha bool
	secret []byte
	aead   cipher.AEAD
	iv     []byte
	seq    uint64
}

func (s *sealer) expand(tb testing.TB, label string, n int) []byte {
	info := binary.BigEndian.AppendUint16(nil, uint16(n))
	info = append(info, byte(len("tls13 "+label)))
	info = append(info, "tls13 "+label+"\x00"...)
	out, err := hkdf.Expand(sha256.New, s.secret, string(info), n)
	if err != nil {
		tb.Error(err)
	}
	return out
}

func (s *sealer) derive(tb testing.TB) {
	var err error
	if s.chacha {
		s.aead, err = chacha20poly1305.New(s.expand(tb, "key", 32))
	} else {
		var block cipher.Block
		block, err = aes.NewCipher(s.expand(tb, "key", 16))
		if err == nil {
			s.aead, err = cipher.NewGCM(block)
		}
	}
	if err != nil {
		tb.Error(err)
	}
	s.iv = s.expand(tb, "iv", 12)
	s.seq = 0
}

// update goes on with the keys that follow a KeyUpdate.
func (s *sealer) update(tb testing.TB) {
	s.secret = s.expand(tb, "traffic upd", sha256.Size)
	s.derive(tb)
}

func (s *sealer) record(typ byte, msg []byte) []byte {
	plain := append(bytes.Clone(msg), typ)
	head := []byte{dataType, 3, 3}
	head = binary.BigEndian.AppendUint16(head, uint16(len(plain)+16))
	nonce := bytes.Clone(s.iv)
	for i := range 8 {
		nonce[11-i] ^= byte(s.seq >> (8 * i))
	}
	s.seq++
	return s.aead.Seal(head, nonce, plain, head)
}
