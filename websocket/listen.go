//go:build !js

package websocket

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"time"

	gorilla "github.com/gorilla/websocket"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
)

const (
	// maxHead is the most that the head of an HTTP message may have, in bytes: that of
	// a browser has 600, and as much as servers allow for cookies.
	maxHead = 16 << 10
	// headStep is how much memory is there for a head before more has come.
	headStep = 1 << 10

	// maxServed is how many connections of one listener the user's handler can have
	// at a time; more are closed. About 16 KiB each, 4 MiB.
	maxServed = 256
	// A connection of the handler without a request, and one whose request does not
	// end, are closed after this.
	servedIdle    = time.Minute
	servedTimeout = 10 * time.Second

	// A listener that cannot take a connection, because files have run out for
	// example, tries again after a while that grows from the first to the second.
	acceptRetryMin = 5 * time.Millisecond
	acceptRetryMax = time.Second
)

var (
	errHeadSize = fmt.Errorf("the head of an HTTP message is larger than %d bytes", maxHead)
	errNoHTTP   = errors.New("the remote does not speak HTTP here")
	errServed   = errors.New("websocket: an HTTP request that asks for no WebSocket went to Config.Handler")
)

// Listen opens addr. Secure addresses need Config.TLS.
func (t *Transport) Listen(addr multiaddr.Addr) (host.TransportListener, error) {
	a, ok := parseListen(addr)
	if !ok {
		return nil, fmt.Errorf("websocket: %s cannot be listened on: want for example /ip4/0.0.0.0/tcp/4001/ws or /ip6/::/tcp/4001/tls/ws", addr)
	}
	if a.secure && t.serverTLS == nil {
		return nil, fmt.Errorf("websocket: listening on %s needs a certificate: set Config.TLS", addr)
	}
	ln, err := t.listen(netip.AddrPortFrom(a.ip, a.port), a.secure)
	if err != nil {
		return nil, err
	}
	l := &listener{transport: t, ln: ln, at: a, local: unmap(ln.Addr()), closed: make(chan struct{})}
	l.web = &http.Server{
		Handler:           t.handler,
		ReadHeaderTimeout: servedTimeout,
		IdleTimeout:       servedIdle,
		MaxHeaderBytes:    maxHead,
		ErrorLog:          log.New(io.Discard, "", 0),
	}
	return l, nil
}

func listenTCP(ap netip.AddrPort, _ bool) (net.Listener, error) {
	// Without the network's digit, Go would open IPv4 too for the unspecified IPv6 address.
	network := "tcp6"
	if ap.Addr().Is4() {
		network = "tcp4"
	}
	ln, err := net.Listen(network, ap.String())
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("websocket: port %d is taken by another process: choose another, or 0 for any free one: %w", ap.Port(), err)
	}
	if err != nil {
		return nil, fmt.Errorf("websocket: %w", err)
	}
	return ln, nil
}

type listener struct {
	transport *Transport
	ln        net.Listener
	at        address
	local     netip.AddrPort
	web       *http.Server // runs one goroutine per connection of the handler
	closed    chan struct{}

	// guarded by mu
	mu     sync.Mutex
	served int
	done   bool
}

func (l *listener) Accept() (host.Incoming, error) {
	for wait := acceptRetryMin; ; wait = min(2*wait, acceptRetryMax) {
		conn, err := l.ln.Accept()
		if err == nil {
			return &incoming{listener: l, raw: conn, remote: address{secure: l.at.secure}.over(unmap(conn.RemoteAddr()))}, nil
		}
		if errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		select {
		case <-l.closed:
			return nil, net.ErrClosed
		case <-time.After(wait):
		}
	}
}

func (l *listener) Addr() multiaddr.Addr { return l.at.over(l.local) }

// Close also ends what the handler serves.
func (l *listener) Close() error {
	l.mu.Lock()
	first := !l.done
	l.done = true
	l.mu.Unlock()
	if first {
		close(l.closed)
		l.web.Close()
	}
	return l.ln.Close()
}

// serve hands a connection to the handler, if there is room.
func (l *listener) serve(conn net.Conn) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done || l.served >= maxServed {
		conn.Close()
		return fmt.Errorf("websocket: no room for one more HTTP connection: there are %d", l.served)
	}
	l.served++
	one := &oneConn{conn: make(chan net.Conn, 1), addr: l.ln.Addr()}
	one.conn <- &servedConn{Conn: conn, left: func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.served--
	}}
	close(one.conn)
	go l.web.Serve(one)
	return errServed
}

// oneConn is a listener that has one connection to give.
type oneConn struct {
	conn chan net.Conn
	addr net.Addr
}

func (l *oneConn) Accept() (net.Conn, error) {
	if conn := <-l.conn; conn != nil {
		return conn, nil
	}
	return nil, io.EOF
}

func (l *oneConn) Close() error {
	if conn := <-l.conn; conn != nil { // the server was closed before it took it
		conn.Close()
	}
	return nil
}

func (l *oneConn) Addr() net.Addr { return l.addr }

type servedConn struct {
	net.Conn
	once sync.Once
	left func()
}

func (c *servedConn) Close() error {
	c.once.Do(c.left)
	return c.Conn.Close()
}

type incoming struct {
	listener *listener
	raw      net.Conn
	remote   multiaddr.Addr
}

func (i *incoming) RemoteAddr() multiaddr.Addr { return i.remote }

// Close resets instead of closing: nothing waits to be sent to a stranger, and
// the kernel keeps no state for one.
func (i *incoming) Close() error {
	if c, ok := i.raw.(*net.TCPConn); ok {
		c.SetLinger(0)
	}
	return i.raw.Close()
}

// Upgrade also does the handshakes of TLS and WebSocket, so that ctx bounds them
// too. A connection that asks for no WebSocket is the handler's from then on.
func (i *incoming) Upgrade(ctx context.Context, progress func(host.Stage)) (host.TransportConn, error) {
	release := bound(ctx, i.raw)
	ws, rest, err := i.handshake(ctx)
	if !release() && err == nil {
		err = context.Canceled // cause knows better
	}
	if errors.Is(err, errServed) {
		return host.TransportConn{}, i.listener.serve(rest)
	}
	if err != nil {
		i.raw.Close()
		return host.TransportConn{}, fmt.Errorf("websocket: %w", cause(ctx, err))
	}
	tc, err := i.listener.transport.upgrader.Inbound(ctx, ws, progress)
	if err != nil {
		return tc, err
	}
	tc.LocalAddr = address{secure: i.listener.at.secure}.over(unmap(i.raw.LocalAddr()))
	tc.RemoteAddr = i.remote
	return tc, nil
}

// handshake does what lies between TCP and the first message. With errServed, rest
// is a connection whose first request is still to be answered.
func (i *incoming) handshake(ctx context.Context) (ws *conn, rest net.Conn, err error) {
	socket := newSocket(i.raw)
	below := &under{Conn: socket, budget: -1}
	secure := i.listener.at.secure
	if secure {
		secured := tls.Server(socket, i.listener.transport.serverTLS)
		if err := secured.HandshakeContext(ctx); err != nil {
			return nil, nil, fmt.Errorf("TLS: %w", err)
		}
		below.Conn = secured
	}
	data, end, err := readHead(below)
	if errors.Is(err, errHeadSize) {
		answer(below, http.StatusRequestHeaderFieldsTooLarge, nil, nil)
	}
	if err != nil {
		return nil, nil, err
	}
	request, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(data[:end])))
	if err != nil {
		answer(below, http.StatusBadRequest, nil, nil)
		return nil, nil, fmt.Errorf("reading the HTTP request: %w", err)
	}
	if !gorilla.IsWebSocketUpgrade(request) {
		below.start = data
		// What the handler does with deadlines is its own.
		return nil, &plain{below}, errServed
	}
	if end < len(data) {
		answer(below, http.StatusBadRequest, nil, nil)
		return nil, nil, errors.New("the remote sent data before the WebSocket stood")
	}
	u := gorilla.Upgrader{
		ReadBufferSize: readBuffer, WriteBufferSize: smallWrite, WriteBufferPool: &smallWrites,
		// See doc.go: there is nothing here for which one site needs protection from another.
		CheckOrigin: func(*http.Request) bool { return true },
	}
	if secure {
		u.WriteBufferSize, u.WriteBufferPool = largeWrite, &largeWrites
	}
	w := &responder{conn: below, header: make(http.Header), status: http.StatusOK}
	upgraded, err := u.Upgrade(w, request, nil)
	if err != nil {
		if !w.hijacked {
			answer(below, w.status, w.header, w.body.Bytes())
		}
		return nil, nil, err
	}
	return newConn(upgraded, socket, true), nil, nil
}

// readHead reads the head of an HTTP request and what has come with it. The head
// ends at data[end].
func readHead(r io.Reader) (data []byte, end int, err error) {
	data = make([]byte, 0, headStep)
	for {
		n, err := r.Read(data[len(data):min(cap(data), maxHead)])
		from := max(len(data)-3, 0) // the end can have begun before
		data = data[:len(data)+n]
		if len(data) > 0 && (data[0] < 'A' || data[0] > 'Z') {
			return nil, 0, errNoHTTP // TLS, for example: no line's end may ever come
		}
		if at := bytes.Index(data[from:], []byte("\r\n\r\n")); at >= 0 {
			return data, from + at + 4, nil
		}
		switch {
		case len(data) >= maxHead:
			return nil, 0, errHeadSize
		case err != nil:
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, 0, fmt.Errorf("reading the HTTP request: %w", err)
		case len(data) == cap(data):
			data = append(make([]byte, 0, min(2*cap(data), maxHead)), data...)
		}
	}
}

// answer tells the client why not. It does not wait for it.
func answer(conn net.Conn, status int, header http.Header, body []byte) {
	response := http.Response{
		StatusCode: status, ProtoMajor: 1, ProtoMinor: 1, Header: header, Close: true,
		Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
	}
	response.Write(conn)
}

// responder is what package gorilla answers a request with.
type responder struct {
	conn     net.Conn
	header   http.Header
	status   int
	body     bytes.Buffer // of a refusal
	hijacked bool
}

func (w *responder) Header() http.Header         { return w.header }
func (w *responder) WriteHeader(status int)      { w.status = status }
func (w *responder) Write(p []byte) (int, error) { return w.body.Write(p) }

func (w *responder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.hijacked = true
	// The sizes are those of the answer; package gorilla has buffers of its own.
	return w.conn, bufio.NewReadWriter(bufio.NewReaderSize(w.conn, 16), bufio.NewWriterSize(w.conn, 256)), nil
}

// plain is a connection with its deadlines.
type plain struct{ *under }

func (c *plain) SetDeadline(t time.Time) error      { return c.under.Conn.SetDeadline(t) }
func (c *plain) SetReadDeadline(t time.Time) error  { return c.under.Conn.SetReadDeadline(t) }
func (c *plain) SetWriteDeadline(t time.Time) error { return c.under.Conn.SetWriteDeadline(t) }
