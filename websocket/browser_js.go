package websocket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall/js"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/upgrade"
)

const (
	// maxBuffered is how many bytes the browser may hold that are not sent, before
	// Write waits: a few frames of the muxer.
	maxBuffered = 1 << 20
	// bufferedPoll is how often Write looks then; the browser tells nobody.
	bufferedPoll = 5 * time.Millisecond
	// maxUnread bounds the bytes of messages that nobody has read; the browser cannot
	// be told to wait, so with more the connection is closed. The muxer reads at once,
	// and its windows bound what a remote that keeps its rules has under way.
	maxUnread = 64 << 20
)

// Config describes a Transport.
type Config struct {
	Upgrader *upgrade.Upgrader // required
}

// Transport is the WebSocket transport of a page in a browser. It implements
// host.Transport.
type Transport struct{ upgrader *upgrade.Upgrader }

// New makes the transport.
func New(cfg Config) (*Transport, error) {
	if cfg.Upgrader == nil {
		return nil, errors.New("websocket: Config.Upgrader is missing: make one with upgrade.New")
	}
	return &Transport{cfg.Upgrader}, nil
}

var _ host.Transport = (*Transport)(nil)

// CanDial tells whether addr is a WebSocket address that a browser can dial: one
// whose certificate is for what it connects to.
func (t *Transport) CanDial(addr multiaddr.Addr) bool {
	a, ok := parse(addr)
	return ok && a.port != 0
}

// CanListen is false.
func (t *Transport) CanListen(multiaddr.Addr) bool { return false }

// Listen fails: a page in a browser cannot listen.
func (t *Transport) Listen(addr multiaddr.Addr) (host.TransportListener, error) {
	return nil, fmt.Errorf("websocket: %s cannot be listened on: a page in a browser can only dial", addr)
}

// Dial connects to addr, at which p must answer.
func (t *Transport) Dial(ctx context.Context, addr multiaddr.Addr, p peer.ID, progress func(host.Stage)) (host.TransportConn, error) {
	a, ok := parse(addr)
	if !ok {
		return host.TransportConn{}, badAddress(addr)
	}
	tc, _, err := t.upgrader.Dial(ctx, p, func(ctx context.Context) (net.Conn, error) { return open(ctx, a) }, progress)
	// What the connection's own end is called, a browser does not tell.
	tc.RemoteAddr = addr
	return tc, err
}

// url is how a browser is told the address. It has no way to name whose
// certificate is expected: that must be the host, so where the address has a name
// for it, it is dialed by that.
func (a address) url() string {
	scheme, to := "ws", a.host()
	if a.secure {
		scheme, to = "wss", a.serverName()
	}
	path := ""
	if p := a.path.Value(); p != "" {
		path = strings.ReplaceAll(p, "%2F", "/")
	}
	return scheme + "://" + net.JoinHostPort(to, strconv.Itoa(int(a.port))) + "/" + path
}

// A conn is a WebSocket of the browser as a net.Conn.
type conn struct {
	ws    js.Value
	to    string
	funcs []js.Func

	// guarded by mu
	mu          sync.Mutex
	changed     sync.Cond // of unread, err, deadlines
	unread      [][]byte
	size        int // bytes in unread
	isOpen      bool
	err         error // why nothing more comes, after unread
	closed      bool  // by Close
	read, write deadline
}

func open(ctx context.Context, a address) (_ net.Conn, err error) {
	class := js.Global().Get("WebSocket")
	if class.IsUndefined() {
		return nil, errors.New("websocket: there is no WebSocket object here: this is for browsers")
	}
	// The browser refuses some addresses by an exception.
	defer func() {
		if thrown := recover(); thrown != nil {
			err = fmt.Errorf("websocket: %s: %v", a.url(), thrown)
		}
	}()
	c := &conn{to: a.url()}
	c.changed.L = &c.mu
	c.ws = class.New(c.to)
	c.ws.Set("binaryType", "arraybuffer")
	c.on("open", func(js.Value) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.isOpen = true
	})
	c.on("message", c.receive)
	c.on("error", func(js.Value) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.isOpen && c.err == nil {
			c.err = io.EOF // not everywhere is it followed by a close
		}
	})
	c.on("close", func(event js.Value) {
		err := io.EOF
		if code := event.Get("code").Int(); code != 1000 && code != 1001 && code != 1005 {
			err = fmt.Errorf("websocket: the connection to %s ended: code %d %s", c.to, code, event.Get("reason").String())
		}
		c.end(err)
	})
	stop := context.AfterFunc(ctx, func() { c.end(context.Cause(ctx)) })
	defer stop()
	c.mu.Lock()
	for !c.isOpen && c.err == nil {
		c.changed.Wait()
	}
	err = c.err
	c.mu.Unlock()
	if err == io.EOF || err != nil && ctx.Err() == nil {
		// A page is not told more, so that it cannot explore networks.
		err = fmt.Errorf("websocket: %s cannot be reached, or its certificate is not accepted; the browser's console tells more: %w", c.to, err)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// on has f called in the browser's loop. It must not block.
func (c *conn) on(event string, f func(event js.Value)) {
	fn := js.FuncOf(func(_ js.Value, args []js.Value) any {
		f(args[0])
		c.changed.Broadcast()
		return nil
	})
	c.funcs = append(c.funcs, fn)
	c.ws.Call("addEventListener", event, fn)
}

func (c *conn) receive(event js.Value) {
	data := event.Get("data")
	if data.Type() == js.TypeString {
		c.end(errors.New("websocket: the remote sent a text message: libp2p's are binary"))
		c.ws.Call("close")
		return
	}
	from := js.Global().Get("Uint8Array").New(data)
	c.mu.Lock()
	defer c.mu.Unlock()
	n := from.Length()
	if n == 0 || c.err != nil {
		return
	}
	if c.size+n > maxUnread {
		c.err = fmt.Errorf("websocket: more than %d bytes wait to be read", maxUnread)
		c.ws.Call("close")
		return
	}
	b := make([]byte, n)
	js.CopyBytesToGo(b, from)
	c.unread = append(c.unread, b)
	c.size += n
}

func (c *conn) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
	c.changed.Broadcast()
}

func (c *conn) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.closed:
			return 0, fmt.Errorf("websocket: %w", net.ErrClosed)
		case c.read.passed:
			return 0, fmt.Errorf("websocket: %w", os.ErrDeadlineExceeded)
		case len(p) == 0:
			return 0, nil
		case len(c.unread) > 0:
			n := copy(p, c.unread[0])
			c.size -= n
			if c.unread[0] = c.unread[0][n:]; len(c.unread[0]) == 0 {
				c.unread[0] = nil
				c.unread = c.unread[1:]
			}
			return n, nil
		case c.err != nil:
			return 0, c.err
		}
		c.changed.Wait()
	}
}

// Write gives p to the browser, which has no bound of its own: when it has much
// that is not sent, Write waits.
func (c *conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.closed:
			return 0, fmt.Errorf("websocket: %w", net.ErrClosed)
		case c.err != nil:
			return 0, fmt.Errorf("websocket: the connection has ended: %w", c.err)
		case c.write.passed:
			return 0, fmt.Errorf("websocket: %w", os.ErrDeadlineExceeded)
		case len(p) == 0:
			return 0, nil
		}
		if c.ws.Get("bufferedAmount").Int() <= maxBuffered {
			break
		}
		c.mu.Unlock()
		time.Sleep(bufferedPoll)
		c.mu.Lock()
	}
	to := js.Global().Get("Uint8Array").New(len(p))
	js.CopyBytesToJS(to, p)
	c.ws.Call("send", to)
	return len(p), nil
}

// Close tells the browser to close, which it does when it has sent what was
// written.
func (c *conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	c.unread, c.size = nil, 0
	c.read.set(c, time.Time{})
	c.write.set(c, time.Time{})
	c.changed.Broadcast()
	for i, event := range []string{"open", "message", "error", "close"} {
		c.ws.Call("removeEventListener", event, c.funcs[i])
		c.funcs[i].Release()
	}
	c.ws.Call("close")
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return addr("") }
func (c *conn) RemoteAddr() net.Addr { return addr(c.to) }

type addr string

func (addr) Network() string  { return "websocket" }
func (a addr) String() string { return string(a) }

func (c *conn) SetDeadline(t time.Time) error {
	c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read.set(c, t)
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.write.set(c, t)
	return nil
}

// A deadline is guarded by the mutex of its conn.
type deadline struct {
	timer  *time.Timer
	turn   int // of set: a timer that was too late to be stopped does nothing
	passed bool
}

func (d *deadline) set(c *conn, t time.Time) {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.turn++
	d.passed = false
	if t.IsZero() || c.closed {
		return
	}
	turn, left := d.turn, time.Until(t)
	if left <= 0 {
		d.passed = true
		c.changed.Broadcast()
		return
	}
	d.timer = time.AfterFunc(left, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if d.turn == turn {
			d.passed = true
			c.changed.Broadcast()
		}
	})
}
