package transporttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// A node is a transport with the identity that it was made for.
type node struct {
	host.Transport
	c   Case
	key peer.PrivateKey
	id  peer.ID
}

func (c Case) node(t testing.TB) *node {
	t.Helper()
	return c.nodeOf(t, peer.Ed25519)
}

func (c Case) nodeOf(t testing.TB, typ peer.KeyType) *node {
	t.Helper()
	key, err := peer.GenerateKey(typ)
	check(t, err)
	return &node{c.New(t, key), c, key, key.ID()}
}

// A listener authenticates what comes and gives it on.
type listener struct {
	host.TransportListener
	conns  chan *end  // buffered
	failed chan error // of upgrades; buffered
	ended  chan error // what Accept returned at its end
}

// listen listens until the test ends.
func (n *node) listen(t testing.TB, addr multiaddr.Addr) *listener {
	t.Helper()
	tl, err := n.Listen(addr)
	check(t, err)
	l := &listener{tl, make(chan *end, 1024), make(chan error, 1024), make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	var upgrading sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		cancel()
		upgrading.Wait()
		for {
			select {
			case e := <-l.conns:
				e.Mux.CloseWithCode(0)
				await(t, "the end of Serve", e.served)
			default:
				return
			}
		}
	})
	upgrading.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				l.ended <- err
				return
			}
			upgrading.Go(func() {
				ctx, cancel := context.WithTimeout(ctx, patience)
				defer cancel()
				tc, err := in.Upgrade(ctx, func(host.Stage) {})
				if err != nil {
					l.failed <- err
					return
				}
				l.conns <- serve(tc)
			})
		}
	})
	return l
}

// dial connects to addr, at which p must answer.
func (n *node) dial(ctx context.Context, addr multiaddr.Addr, p peer.ID) (*end, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tc, err := n.Dial(ctx, n.c.Dial(addr), p, func(host.Stage) {})
	if err != nil {
		return nil, err
	}
	return serve(tc), nil
}

// An end is one of the two ends of a connection, being served.
type end struct {
	host.TransportConn
	streams chan host.MuxedStream // that the remote opened
	served  chan struct{}         // closed when Serve has returned
	err     error                 // what it returned

	unechoed atomic.Pointer[error] // why the first echo failed, if one did
}

func serve(tc host.TransportConn) *end {
	e := &end{TransportConn: tc, streams: make(chan host.MuxedStream, 2048), served: make(chan struct{})}
	go func() {
		defer close(e.served)
		e.err = tc.Mux.Serve(func(s host.MuxedStream) {
			select {
			case e.streams <- s:
			default:
				s.Reset(0)
			}
		})
	}()
	return e
}

// closes ends the connection with the test.
func (e *end) closes(t testing.TB) *end {
	t.Cleanup(func() {
		if err := e.unechoed.Load(); err != nil && t.Failed() {
			t.Logf("the first echo that failed: %v", *err)
		}
		e.Mux.CloseWithCode(0)
		await(t, "the end of Serve", e.served)
	})
	return e
}

// connect makes two nodes and a connection between them, which ends with the test.
func (c Case) connect(t testing.TB) (near, far *end) {
	t.Helper()
	return c.connectAt(t, c.Listen(t)[0])
}

func (c Case) connectAt(t testing.TB, addr multiaddr.Addr) (near, far *end) {
	t.Helper()
	a, b := c.node(t), c.node(t)
	l := b.listen(t, addr)
	near, err := a.dial(t.Context(), l.Addr(), b.id)
	check(t, err)
	near.closes(t)
	return near, await(t, "the accepted connection", l.conns).closes(t)
}

// open opens a stream on e, of which other sees the other end.
func (e *end) open(t testing.TB, other *end) (here, there host.MuxedStream) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	here, err := e.Mux.OpenStream(ctx)
	check(t, err)
	// It may be with the first byte only that the other side learns of the stream.
	write(t, here, "!")
	there = await(t, "the stream that was opened", other.streams)
	read(t, there, "!")
	return here, there
}

// echo sends back what comes on the streams that the remote opens, until the
// connection ends.
func (e *end) echo() {
	go func() {
		for {
			select {
			case s := <-e.streams:
				go func() {
					if _, err := io.Copy(plain{s}, plain{s}); err != nil {
						e.unechoed.CompareAndSwap(nil, &err)
						s.Reset(0)
						return
					}
					s.Close()
				}()
			case <-e.served:
				return
			}
		}
	}()
}

// plain keeps io.Copy from finding more than it needs to.
type plain struct{ io.ReadWriter }

// roundTrip has msg echoed on a new stream.
func (e *end) roundTrip(ctx context.Context, msg string) error {
	s, err := e.Mux.OpenStream(ctx)
	if err != nil {
		return fmt.Errorf("opening: %w", err)
	}
	defer s.Close()
	s.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(s, msg); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	if err := s.CloseWrite(); err != nil {
		return fmt.Errorf("closing the writing side: %w", err)
	}
	got, err := io.ReadAll(s)
	if err != nil {
		return fmt.Errorf("reading: %w", err)
	}
	if string(got) != msg {
		return fmt.Errorf("%q came back for %q", got, msg)
	}
	return nil
}

// A result is that of a read, of a write, or of sending or receiving much.
type result struct {
	n   int
	err error
}

// reads is one Read in a goroutine.
func reads(s io.Reader) <-chan result {
	return async(func() result {
		n, err := s.Read(make([]byte, 1024))
		return result{n, err}
	})
}

// writes is one Write in a goroutine.
func writes(s io.Writer, p []byte) <-chan result {
	return async(func() result {
		n, err := s.Write(p)
		return result{n, err}
	})
}

func async[T any](f func() T) <-chan T {
	done := make(chan T, 1)
	go func() { done <- f() }()
	return done
}

// content is bytes that can be told from all others by their position.
func content(seed byte) io.Reader { return rand.NewChaCha8([32]byte{seed}) }

// send writes n bytes of content.
func send(s io.Writer, seed byte, n int) error {
	from, buf := content(seed), make([]byte, 64<<10)
	for n > 0 {
		p := buf[:min(n, len(buf))]
		from.Read(p)
		m, err := s.Write(p)
		if err != nil {
			return fmt.Errorf("writing with %d bytes left: %w", n-m, err)
		}
		if m != len(p) {
			return fmt.Errorf("a write of %d bytes tells of %d", len(p), m)
		}
		n -= m
	}
	return nil
}

// receive reads to the end and compares with n bytes of content.
func receive(s io.Reader, seed byte, n int) error {
	want, buf, expected := content(seed), make([]byte, 64<<10), make([]byte, 64<<10)
	for at := 0; ; {
		m, err := s.Read(buf)
		if m < 0 || m > len(buf) {
			return fmt.Errorf("a read into %d bytes tells of %d", len(buf), m)
		}
		want.Read(expected[:m])
		if at+m > n {
			return fmt.Errorf("more than the %d bytes that were sent", n)
		}
		if !bytes.Equal(buf[:m], expected[:m]) {
			return fmt.Errorf("other bytes than were sent, between %d and %d", at, at+m)
		}
		at += m
		if err == io.EOF {
			if at != n {
				return fmt.Errorf("the end after %d of %d bytes", at, n)
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading after %d of %d bytes: %w", at, n, err)
		}
	}
}

const (
	// quiet is how long a write waits until it counts as blocked for good.
	quiet = 150 * time.Millisecond
	// fillMax is more than any stream takes that nobody reads.
	fillMax = 256 << 20
)

// fill writes content until nothing more goes, and tells how much went.
func fill(t testing.TB, s host.MuxedStream, seed byte) int {
	t.Helper()
	r := await(t, "a stream that nobody reads is full", filling(s, seed))
	if r.err != nil {
		t.Fatalf("writing to who does not read, after %d bytes: %v", r.n, r.err)
	}
	return r.n
}

// fillBoth fills two streams at the same time, with the content of 1 and of 2.
func fillBoth(t testing.TB, a, b host.MuxedStream) (int, int) {
	t.Helper()
	other := filling(b, 2)
	n := fill(t, a, 1)
	r := await(t, "the other stream that nobody reads is full", other)
	if r.err != nil {
		t.Fatalf("writing to who does not read, after %d bytes: %v", r.n, r.err)
	}
	return n, r.n
}

func filling(s host.MuxedStream, seed byte) <-chan result {
	return async(func() result {
		r := flood(s, seed, 0, func() { s.SetWriteDeadline(time.Now().Add(quiet)) })
		if errors.Is(r.err, os.ErrDeadlineExceeded) {
			r.err = s.SetWriteDeadline(time.Time{})
		}
		return r
	})
}

// flood writes content from a byte on, until a write fails, and tells of the byte
// after the last.
func flood(s io.Writer, seed byte, at int, before func()) result {
	from, buf := content(seed), make([]byte, 32<<10)
	io.CopyN(io.Discard, from, int64(at))
	for at < fillMax {
		from.Read(buf)
		before()
		n, err := s.Write(buf)
		at += n
		if err != nil {
			return result{at, err}
		}
	}
	return result{at, errors.New("a stream takes without end what nobody reads")}
}

// floods is flood in a goroutine. After a fill it waits, at once or after some more
// that was only slow.
func floods(s io.Writer, seed byte, at int) <-chan result {
	return async(func() result { return flood(s, seed, at, func() {}) })
}

// blocked fails a test whose read or write has returned.
func blocked(t testing.TB, what string, done <-chan result) {
	t.Helper()
	select {
	case r := <-done:
		t.Fatalf("%s did not wait: %d, %v", what, r.n, r.err)
	case <-time.After(quiet / 5):
	}
}

// wantReset checks the error of a stream that one side has reset.
func (c Case) wantReset(t testing.TB, what string, err error, code uint32, remote bool) {
	t.Helper()
	var coded interface {
		ErrorCode() uint32
		IsRemote() bool
	}
	switch {
	case err == nil || err == io.EOF:
		t.Errorf("%s of a stream that was reset: %v", what, err)
	case errors.Is(err, net.ErrClosed):
		t.Errorf("%s of a stream that was reset, not closed: %v", what, err)
	case !errors.As(err, &coded):
		t.Errorf("%s of a stream that was reset: an error without ErrorCode and IsRemote: %v (%T)", what, err, err)
	case coded.IsRemote() != remote:
		t.Errorf("%s of a stream that was reset: %v: by the remote: %v, want %v", what, err, coded.IsRemote(), remote)
	case coded.ErrorCode() != code && !(c.NoCodes && remote):
		t.Errorf("%s of a stream that was reset: %v: code %#x, want %#x", what, err, coded.ErrorCode(), code)
	}
}

// wantTimeout checks the error of a read or a write whose deadline has passed.
func wantTimeout(t testing.TB, what string, err error) {
	t.Helper()
	var timeout interface{ Timeout() bool }
	if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("%s after its deadline: %v (%T), want os.ErrDeadlineExceeded and a Timeout method", what, err, err)
	}
}

// wantDead checks the error of what is used after its connection ended.
func wantDead(t testing.TB, what string, err error) {
	t.Helper()
	if !errors.Is(err, net.ErrClosed) {
		t.Errorf("%s on a connection that ended: %v (%T), want net.ErrClosed", what, err, err)
	}
}

// write writes all of msg within patience.
func write(t testing.TB, s io.Writer, msg string) {
	t.Helper()
	if r := await(t, "a write", writes(s, []byte(msg))); r.err != nil || r.n != len(msg) {
		t.Fatalf("writing %q: %d, %v", msg, r.n, r.err)
	}
}

// read reads msg within patience.
func read(t testing.TB, s io.Reader, msg string) {
	t.Helper()
	buf := make([]byte, len(msg))
	r := await(t, "a read", async(func() result {
		n, err := io.ReadFull(s, buf)
		return result{n, err}
	}))
	if r.err != nil || string(buf) != msg {
		t.Fatalf("read %q, %v; want %q", buf[:r.n], r.err, msg)
	}
}

// readEnd reads io.EOF within patience.
func readEnd(t testing.TB, s io.Reader) {
	t.Helper()
	if r := await(t, "the end of a stream", reads(s)); r.n != 0 || r.err != io.EOF {
		t.Fatalf("read %d bytes, %v; want the end", r.n, r.err)
	}
}

// await waits for what should be there soon.
func await[T any](t testing.TB, what string, ch <-chan T) T {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case v := <-ch:
		return v
	case <-timer.C:
		t.Fatalf("not within %v: %s\n%s", patience, what, stacks())
		panic("unreachable")
	}
}

// until waits for cond to hold.
func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	look := time.NewTicker(2 * time.Millisecond)
	defer look.Stop()
	for !cond() {
		select {
		case <-look.C:
		case <-deadline.C:
			t.Fatalf("not within %v: %s\n%s", patience, what, stacks())
		}
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
