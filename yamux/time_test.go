package yamux

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestKeepAlive has an idle session whose peer answers, then does not.
func TestKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newRawPeer(t, true, Config{})
		start := time.Now()
		for i := range uint32(100) {
			p.expect(frame(typePing, flagSYN, 0, i+1))
			p.send(frame(typePing, flagACK, 0, i+1))
			time.Sleep(time.Millisecond)
		}
		// It hears the answers, so the next ping comes 30 to 60 s later.
		if took := time.Since(start); took < 50*defaultKeepAlive || took > 200*defaultKeepAlive {
			t.Errorf("100 keepalives in %v", took)
		}
		if rtt := p.session.RTT(); rtt == 0 || rtt > time.Millisecond {
			t.Errorf("RTT = %v", rtt)
		}
		p.expect(frame(typePing, flagSYN, 0, 101))
		start = time.Now()
		p.expectError(CodeNormal, false, "keepalive")
		if took := time.Since(start); took != pongTimeout {
			t.Errorf("ended after %v", took)
		}
	})
}

// TestKeepAliveBusy has a peer that always has something to say: it is not
// asked, and anything counts as an answer.
func TestKeepAliveBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newRawPeer(t, true, Config{})
		for range 100 {
			time.Sleep(defaultKeepAlive - time.Second)
			p.send(credit(0, 7, 1))
		}
		p.expectQuiet() // so far it has asked for nothing
		p.expect(frame(typePing, flagSYN, 0, 1))
		time.Sleep(pongTimeout - time.Second)
		p.send(credit(0, 7, 1))
		time.Sleep(2 * time.Second)
		if err := p.session.Err(); err != nil {
			t.Error(err)
		}
	})
}

// TestIdleOff has a session without keepalive sleep for a day.
func TestIdleOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, plenty, 0, Config{KeepAlive: -1})
		writes := p.cc.writes.Load()
		time.Sleep(24 * time.Hour)
		near, far := p.open(t)
		mustWrite(t, far, "x")
		mustRead(t, near, "x")
		if n := p.cc.writes.Load() - writes; n != 1 {
			t.Errorf("%d writes", n)
		}
	})
}

// TestWriteTimeout has a peer that stops to read.
func TestWriteTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newRawPeer(t, true, Config{})
		p.link.in.max = 1000
		start := time.Now()
		var wg sync.WaitGroup
		for range 40 { // more than the queue takes
			st := mustOpen(t, p.session)
			wg.Go(func() {
				for {
					if _, err := st.Write(make([]byte, 20000)); err != nil {
						if !errors.Is(err, net.ErrClosed) {
							t.Errorf("Write = %v", err)
						}
						return
					}
				}
			})
		}
		p.expectError(CodeNormal, false, "did not read in time")
		wg.Wait()
		if took := time.Since(start); took > defaultWriteTimeout || took < defaultWriteTimeout*7/8 {
			t.Errorf("ended after %v", took)
		}
	})
}

// TestSlowConn has a connection of 8 KiB/s, which must not time out.
func TestSlowConn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, 4<<10, 500*time.Millisecond, Config{})
		near, far := p.open(t)
		const size = 1 << 20
		go func() {
			if _, err := near.Write(make([]byte, size)); err != nil {
				t.Errorf("Write = %v", err)
			}
			near.CloseWrite()
		}()
		if n, err := io.Copy(io.Discard, far); n != size || err != nil {
			t.Errorf("read %d bytes, %v", n, err)
		}
	})
}

// TestCloseWithheld closes a session whose peer takes nothing, with a flush
// under way and without.
func TestCloseWithheld(t *testing.T) {
	for _, writers := range []int{0, 1, 20} {
		synctest.Test(t, func(t *testing.T) {
			p := newRawPeer(t, true, Config{})
			p.link.in.max = 0
			var wg sync.WaitGroup
			for range writers {
				st := mustOpen(t, p.session)
				wg.Go(func() { st.Write(make([]byte, initialWindow)) })
			}
			synctest.Wait()
			start := time.Now()
			p.session.CloseWithCode(9)
			if took := time.Since(start); took > time.Second {
				t.Errorf("%d writers: Close took %v", writers, took)
			}
			wg.Wait()
			p.expectError(9, false, "closed")
		})
	}
}

// TestPeerLeaves has a peer end the session while a write to it waits.
func TestPeerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newRawPeer(t, true, Config{})
		p.link.in.max = 0
		st := mustOpen(t, p.session)
		wrote := make(chan error)
		go func() {
			_, err := st.Write(make([]byte, laterMax+1)) // less would not wait
			wrote <- err
		}()
		synctest.Wait()
		start := time.Now()
		p.send(frame(typeGoAway, 0, 0, 0x1006))
		p.expectError(0x1006, true, "")
		var end *SessionError
		if err := <-wrote; !errors.As(err, &end) || end.Code != 0x1006 {
			t.Errorf("Write = %v", err)
		}
		<-p.session.closed
		if took := time.Since(start); took != 0 {
			t.Errorf("it took %v", took)
		}
	})
}

// deaf is a connection whose writes end only with Close.
type deaf struct{ *link }

func (deaf) SetWriteDeadline(time.Time) error { return nil }

func TestCloseDeaf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, _ := newLink(0, 0)
		s := New(deaf{near}, true, Config{})
		st := mustOpen(t, s)
		go st.Write([]byte("x"))
		synctest.Wait()
		start := time.Now()
		s.Close()
		if took := time.Since(start); took > time.Second {
			t.Errorf("Close took %v", took)
		}
	})
}

// TestNothingLeft makes sure that a finished session leaves no goroutine (the
// bubble would wait for it) and no timer (it would fire in this one).
func TestNothingLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, plenty, 0, Config{})
		near, _ := p.open(t)
		near.SetDeadline(time.Now().Add(time.Hour))
		go near.Read(make([]byte, 1))
		go near.Write(make([]byte, 2*initialWindow))
		synctest.Wait()
		p.close()
		<-p.ended
		<-p.ended
		for _, timer := range []*time.Timer{near.canRead.sleepers.timer, near.canWrite.sleepers.timer, p.client.ping.keepAlive, p.server.ping.keepAlive} {
			if timer.Stop() {
				t.Error("a timer is left")
			}
		}
	})
}

func TestPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rtt = 2 * time.Millisecond
		p := newPair(t, plenty, rtt/2, Config{})
		if got := p.client.RTT(); got != 0 {
			t.Errorf("RTT = %v before it was measured", got)
		}
		var wg sync.WaitGroup
		for range 10 { // share one
			wg.Go(func() {
				if got, err := p.client.Ping(t.Context()); got != rtt || err != nil {
					t.Errorf("Ping = %v, %v", got, err)
				}
			})
		}
		wg.Wait()
		start, writes := time.Now(), p.cc.writes.Load()
		for time.Since(start) < 10*time.Second { // as fast as one can: the peer must not mind
			if got, err := p.client.Ping(t.Context()); got > rtt || err != nil {
				t.Fatalf("Ping = %v, %v", got, err)
			}
			time.Sleep(time.Millisecond)
		}
		if n := p.cc.writes.Load() - writes; n > 500 {
			t.Errorf("%d pings in 10 s", n)
		}
		if got := p.client.RTT(); got < rtt*9/10 || got > rtt {
			t.Errorf("RTT = %v", got)
		}
	})
}

// TestWindowGrowth moves data over a link with 100 ms of round trip, which the
// initial window would slow down to 2.5 MiB/s.
func TestWindowGrowth(t *testing.T) {
	move := func(t *testing.T, cfg Config, size int64) (took time.Duration, window uint32) {
		p := newPair(t, 64<<20, 50*time.Millisecond, cfg)
		near, far := p.open(t)
		go func() {
			near.Write(make([]byte, size))
			near.CloseWrite()
		}()
		start := time.Now()
		if n, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{far}, make([]byte, 64<<10)); n != size || err != nil {
			t.Errorf("read %d bytes, %v", n, err)
		}
		return time.Since(start), far.window
	}
	synctest.Test(t, func(t *testing.T) {
		took, window := move(t, Config{}, 64<<20)
		if window != defaultMaxWindow || took > 2*time.Second {
			t.Errorf("64 MiB took %v, window %d", took, window)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		_, window := move(t, Config{MaxWindow: 3 << 20}, 16<<20)
		if window != 3<<20 {
			t.Errorf("window %d, want no more than MaxWindow", window)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		_, window := move(t, Config{Budget: 1 << 20}, 16<<20)
		if window != 1<<20+initialWindow {
			t.Errorf("window %d, want no more than the budget", window)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		took, window := move(t, Config{MaxWindow: -1}, 8<<20)
		if window != initialWindow || took < 3*time.Second {
			t.Errorf("took %v, window %d, want none to grow", took, window)
		}
	})
}

// TestWindowStays has a reader that is slow: its window need not grow.
func TestWindowStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, 64<<20, time.Millisecond, Config{})
		near, far := p.open(t)
		go func() {
			near.Write(make([]byte, 4<<20))
			near.CloseWrite()
		}()
		buf := make([]byte, 32<<10)
		for {
			if _, err := far.Read(buf); err != nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if far.window != initialWindow {
			t.Errorf("window %d", far.window)
		}
	})
}

// TestBudgetComesBack makes sure that what a window has grown by can be used by
// the next stream.
func TestBudgetComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, 64<<20, 10*time.Millisecond, Config{Budget: 2 << 20})
		for range 5 {
			near, far := p.open(t)
			go func() {
				near.Write(make([]byte, 8<<20))
				near.Close()
			}()
			io.Copy(io.Discard, far)
			far.Close()
			if far.window < 2<<20 {
				t.Errorf("window %d", far.window)
			}
		}
		if p.server.grown != 0 {
			t.Errorf("windows of %d bytes are not given back", p.server.grown)
		}
	})
}

func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, plenty, 0, Config{})
		near, far := p.open(t)
		expectTimeout := func(what string, after time.Duration, f func() (int, error)) {
			t.Helper()
			start := time.Now()
			_, err := f()
			var timeout net.Error
			if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() {
				t.Errorf("%s = %v, want a timeout", what, err)
			}
			if took := time.Since(start); took != after {
				t.Errorf("%s took %v, want %v", what, took, after)
			}
		}
		read := func() (int, error) { return near.Read(make([]byte, 1)) }
		write := func() (int, error) { return near.Write(make([]byte, initialWindow)) }

		near.SetReadDeadline(time.Now().Add(5 * time.Second))
		expectTimeout("Read", 5*time.Second, read)
		expectTimeout("Read after the deadline", 0, read)
		mustWrite(t, far, "data")
		synctest.Wait()
		expectTimeout("Read after the deadline, with data", 0, read)
		near.SetReadDeadline(time.Time{})
		mustRead(t, near, "data")

		// A deadline that moves while a Read waits: nearer, then away, then back.
		near.SetReadDeadline(time.Now().Add(time.Hour))
		time.AfterFunc(1*time.Second, func() { near.SetReadDeadline(time.Now().Add(time.Second)) })
		expectTimeout("Read, deadline moved nearer", 2*time.Second, read)
		near.SetReadDeadline(time.Now().Add(time.Second))
		time.AfterFunc(time.Second/2, func() { near.SetReadDeadline(time.Time{}) })
		time.AfterFunc(5*time.Second, func() { near.SetReadDeadline(time.Now().Add(time.Second)) })
		expectTimeout("Read, deadline removed and set", 6*time.Second, read)
		near.SetReadDeadline(time.Now().Add(time.Second))
		time.AfterFunc(time.Second/2, func() { near.SetReadDeadline(time.Now()) })
		expectTimeout("Read, cancelled", time.Second/2, read)
		near.SetDeadline(time.Unix(1, 0))
		expectTimeout("Read in 1970", 0, read)
		expectTimeout("Write in 1970", 0, write)

		near.SetDeadline(time.Now().Add(3 * time.Second))
		expectTimeout("Write without credit", 3*time.Second, write)
		near.SetDeadline(time.Time{})
		go io.Copy(io.Discard, far)
		if _, err := write(); err != nil {
			t.Errorf("Write without deadline: %v", err)
		}
	})
}

// TestDeadlineFullConn has a Write with a deadline while the connection takes
// nothing, as the first to find that out, and behind others.
func TestDeadlineFullConn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newRawPeer(t, true, Config{})
		p.link.in.max = 1 // the session's Conn.Write waits
		for range 8 {
			st := mustOpen(t, p.session)
			st.SetWriteDeadline(time.Now().Add(time.Second))
			start := time.Now()
			_, err := st.Write(make([]byte, initialWindow))
			if took := time.Since(start); took > time.Second {
				t.Errorf("Write returned after %v: %v", took, err)
			}
			st.Reset(0)
		}
		start := time.Now()
		p.session.Close()
		if took := time.Since(start); took > time.Second {
			t.Errorf("Close took %v", took)
		}
	})
}

// TestWriteFailure has a peer that says why, and is gone before we read it.
func TestWriteFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newRawPeer(t, true, Config{})
		synctest.Wait() // until it listens
		st := mustOpen(t, p.session)
		p.link.in.set(func() { p.link.in.broken = true }) // the next Conn.Write fails
		go func() {
			time.Sleep(lastWords / 2)
			p.send(frame(typeGoAway, 0, 0, 0x1007))
		}()
		st.Write([]byte("x"))
		p.expectError(0x1007, true, "")
	})
	synctest.Test(t, func(t *testing.T) {
		p := newRawPeer(t, true, Config{})
		synctest.Wait() // until it listens
		st := mustOpen(t, p.session)
		p.link.in.set(func() { p.link.in.broken = true })
		start := time.Now()
		var end *SessionError
		if _, err := st.Write(make([]byte, laterMax+1)); !errors.As(err, &end) {
			t.Errorf("Write = %v", err)
		}
		p.expectError(CodeNormal, false, "write: ")
		if took := time.Since(start); took != lastWords {
			t.Errorf("ended after %v", took)
		}
	})
}
