package memory

import (
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/kith-p2p/kith/multiaddr"
)

// window is how much one direction holds that was not read yet, in bytes: about
// what a kernel keeps for a TCP connection on one machine.
const window = 256 << 10

// A pipe is one end of a connection. Unlike net.Pipe it has a buffer, so that
// two ends that both write first do not wait for each other.
type pipe struct {
	in, out       *direction
	local, remote multiaddr.Addr
}

func newPipe(a, b multiaddr.Addr) (*pipe, *pipe) {
	ab, ba := newDirection(), newDirection()
	return &pipe{in: ba, out: ab, local: a, remote: b}, &pipe{in: ab, out: ba, local: b, remote: a}
}

func (p *pipe) Read(b []byte) (int, error)  { return p.in.read(b) }
func (p *pipe) Write(b []byte) (int, error) { return p.out.write(b) }

// Close lets the other end read what was written, and fails its writes.
func (p *pipe) Close() error {
	p.out.close(false)
	p.in.close(true)
	return nil
}

func (p *pipe) LocalAddr() net.Addr  { return addr{p.local} }
func (p *pipe) RemoteAddr() net.Addr { return addr{p.remote} }

func (p *pipe) SetDeadline(t time.Time) error {
	p.SetReadDeadline(t)
	return p.SetWriteDeadline(t)
}

func (p *pipe) SetReadDeadline(t time.Time) error {
	p.in.setDeadline(&p.in.reading, t)
	return nil
}

func (p *pipe) SetWriteDeadline(t time.Time) error {
	p.out.setDeadline(&p.out.writing, t)
	return nil
}

type addr struct{ multiaddr.Addr }

func (addr) Network() string { return "memory" }

// A direction carries bytes from one end to the other.
type direction struct {
	mu      sync.Mutex
	changed sync.Cond
	buf     []byte
	ended   bool // the writer has closed
	deaf    bool // the reader has closed
	reading deadline
	writing deadline
}

type deadline struct {
	passed bool
	timer  *time.Timer
}

func newDirection() *direction {
	d := new(direction)
	d.changed.L = &d.mu
	return d
}

func (d *direction) read(b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		switch {
		case d.deaf:
			return 0, net.ErrClosed
		case d.reading.passed:
			return 0, os.ErrDeadlineExceeded
		case len(d.buf) > 0 || len(b) == 0:
			n := copy(b, d.buf)
			if d.buf = d.buf[n:]; len(d.buf) == 0 {
				d.buf = nil
			}
			d.changed.Broadcast()
			return n, nil
		case d.ended:
			return 0, io.EOF
		}
		d.changed.Wait()
	}
}

func (d *direction) write(b []byte) (n int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		switch {
		case d.ended:
			return n, net.ErrClosed
		case d.deaf:
			return n, io.ErrClosedPipe
		case d.writing.passed:
			return n, os.ErrDeadlineExceeded
		}
		if room := window - len(d.buf); room > 0 {
			m := min(room, len(b)-n)
			d.buf = append(d.buf, b[n:n+m]...)
			n += m
			d.changed.Broadcast()
		}
		if n == len(b) {
			return n, nil
		}
		d.changed.Wait()
	}
}

// close is called by the reader (deaf) or the writer.
func (d *direction) close(deaf bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if deaf {
		d.deaf = true
		d.buf = nil
		d.reading.stop()
	} else {
		d.ended = true
		d.writing.stop()
	}
	d.changed.Broadcast()
}

func (d *direction) setDeadline(dl *deadline, t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	dl.stop()
	dl.passed = !t.IsZero() && !t.After(time.Now())
	if !t.IsZero() && !dl.passed {
		var timer *time.Timer
		timer = time.AfterFunc(time.Until(t), func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			if dl.timer == timer {
				dl.passed = true
				d.changed.Broadcast()
			}
		})
		dl.timer = timer
	}
	d.changed.Broadcast()
}

func (dl *deadline) stop() {
	if dl.timer != nil {
		dl.timer.Stop()
		dl.timer = nil
	}
}
