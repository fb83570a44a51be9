package memory

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

func TestPipe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newPipe(address(1), address(2))
		sent := bytes.Repeat([]byte("kith"), window) // four windows
		go func() {
			a.Write(sent)
			a.Close()
		}()
		got, err := io.ReadAll(b)
		if err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%d bytes of %d, %v", len(got), len(sent), err)
		}
		if _, err := b.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("writing to a closed end: %v", err)
		}
		if _, err := a.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("writing after Close: %v", err)
		}
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("reading after Close: %v", err)
		}
		if a.LocalAddr().String() != "/memory/1" || a.RemoteAddr().String() != "/memory/2" || a.LocalAddr().Network() != "memory" {
			t.Errorf("addresses %s and %s", a.LocalAddr(), a.RemoteAddr())
		}
	})
}

func TestPipeDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newPipe(address(1), address(2))
		defer a.Close()
		defer b.Close()
		start := time.Now()
		a.SetReadDeadline(start.Add(time.Second))
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("reading: %v after %v", err, time.Since(start))
		}
		a.SetWriteDeadline(start.Add(2 * time.Second))
		if n, err := a.Write(make([]byte, window+1)); n != window || !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != 2*time.Second {
			t.Errorf("writing: %d, %v after %v", n, err, time.Since(start))
		}
		// A deadline in the past ends a read that waits already; none lets it go on.
		a.SetDeadline(time.Time{})
		waiting := make(chan error)
		go func() {
			_, err := a.Read(make([]byte, 1))
			waiting <- err
		}()
		synctest.Wait()
		a.SetReadDeadline(time.Now().Add(-time.Second))
		if err := <-waiting; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a read that waited: %v", err)
		}
		a.SetDeadline(time.Time{})
		go b.Write([]byte("x"))
		if _, err := a.Read(make([]byte, 1)); err != nil {
			t.Errorf("reading without a deadline: %v", err)
		}
	})
}

func TestListen(t *testing.T) {
	n := new(Network)
	transport := &Transport{network: n}
	l, err := transport.Listen(address(7))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := transport.Listen(address(7)); err == nil {
		t.Error("an address was opened twice")
	}
	any, err := transport.Listen(address(0))
	if err != nil || any.Addr() == address(0) || any.Addr() == l.Addr() {
		t.Errorf("any free address: %v, %v", any.Addr(), err)
	}
	var ends []net.Conn
	for range backlog {
		c, err := n.dial(7)
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, c)
	}
	if _, err := n.dial(7); err == nil {
		t.Error("more connections wait than the backlog allows")
	}
	l.Close()
	if _, err := ends[0].Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("a connection that waited for a listener that closed: %v", err)
	}
	if _, err := n.dial(7); err == nil {
		t.Error("a closed listener was dialed")
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v", err)
	}
}
