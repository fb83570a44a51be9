package hostile

import (
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// pipeBuffer is how much of what one end of a pipe has written can wait, in bytes.
const pipeBuffer = 64 << 10

// A pipe is one end of a connection in memory, with a bounded buffer in each
// direction as a socket has it.
type pipe struct {
	in, out       *lane
	local, remote netip.AddrPort
}

func newPipe(a, b netip.AddrPort) (near, far *pipe) {
	ab, ba := newLane(), newLane()
	return &pipe{ba, ab, a, b}, &pipe{ab, ba, b, a}
}

func (p *pipe) Read(b []byte) (int, error)  { return p.in.read(b) }
func (p *pipe) Write(b []byte) (int, error) { return p.out.write(b) }

func (p *pipe) Close() error {
	p.out.end(&p.out.written)
	p.in.end(&p.in.deaf)
	return nil
}

func (p *pipe) LocalAddr() net.Addr  { return net.TCPAddrFromAddrPort(p.local) }
func (p *pipe) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(p.remote) }

func (p *pipe) SetDeadline(t time.Time) error {
	p.SetReadDeadline(t)
	return p.SetWriteDeadline(t)
}

func (p *pipe) SetReadDeadline(t time.Time) error {
	p.in.until(&p.in.reading, t)
	return nil
}

func (p *pipe) SetWriteDeadline(t time.Time) error {
	p.out.until(&p.out.writing, t)
	return nil
}

// A lane is one direction of a pipe.
type lane struct {
	mu               sync.Mutex
	changed          *sync.Cond
	buf              []byte
	written, deaf    bool // its writer, its reader has closed
	reading, writing limit
}

// A limit is a deadline.
type limit struct {
	at    time.Time
	timer *time.Timer
}

func (l limit) passed() bool { return !l.at.IsZero() && !time.Now().Before(l.at) }

func newLane() *lane {
	l := new(lane)
	l.changed = sync.NewCond(&l.mu)
	return l
}

func (l *lane) read(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		switch {
		case l.deaf:
			return 0, net.ErrClosed
		case l.reading.passed():
			return 0, os.ErrDeadlineExceeded
		case len(l.buf) > 0:
			n := copy(b, l.buf)
			l.buf = append(l.buf[:0], l.buf[n:]...)
			l.changed.Broadcast()
			return n, nil
		case l.written:
			return 0, io.EOF
		}
		l.changed.Wait()
	}
}

func (l *lane) write(b []byte) (n int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		switch {
		case l.written:
			return n, net.ErrClosed
		case l.deaf:
			return n, io.ErrClosedPipe
		case l.writing.passed():
			return n, os.ErrDeadlineExceeded
		}
		m := min(len(b)-n, pipeBuffer-len(l.buf))
		l.buf = append(l.buf, b[n:n+m]...)
		l.changed.Broadcast()
		if n += m; n == len(b) {
			return n, nil
		}
		l.changed.Wait()
	}
}

func (l *lane) end(how *bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	*how = true
	if l.deaf {
		l.buf = nil
	}
	l.changed.Broadcast()
	if l.deaf && l.written {
		l.reading.stop()
		l.writing.stop()
	}
}

func (l *lane) until(d *limit, t time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d.stop()
	d.at = t
	l.changed.Broadcast()
	if !t.IsZero() {
		d.timer = time.AfterFunc(time.Until(t), func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.changed.Broadcast()
		})
	}
}

func (d *limit) stop() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}
