//go:build !js

package websocket

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	gorilla "github.com/gorilla/websocket"
)

const (
	// readBuffer is what a connection keeps for the headers of frames and for control
	// frames, in bytes; payload goes past it when more is asked for.
	readBuffer = 512

	// largeWrite is the payload of one frame: the most that Noise writes at once (four
	// full messages), so that all of it is one frame, one mask and one system call.
	// The memory is shared, and taken while a write goes on.
	largeWrite = 4*65537 + 64
	// smallWrite is how much a listener copies in front of the rest of a frame; it
	// does not mask, and leaves the rest where it is.
	smallWrite = 1 << 10

	// maxControl is how many control frames and empty messages a remote may send in
	// controlSpan: others ping every few seconds, and each ping costs us an answer.
	maxControl  = 1000
	controlSpan = 10 * time.Second

	// farewellTimeout is how long Close tries to send a close frame to a remote that
	// does not read.
	farewellTimeout = 100 * time.Millisecond
)

// The pools of package gorilla; each has buffers of one size.
var largeWrites, smallWrites sync.Pool

// A conn is a WebSocket as a net.Conn: each Write is a binary message, and to Read
// it makes no difference where a message ends. A Read that a deadline has cut
// short was the last.
type conn struct {
	*socket // addresses and deadlines
	ws      *gorilla.Conn
	gathers bool // a message larger than smallWrite is written in several parts

	// guarded by readMu
	readMu    sync.Mutex
	message   io.Reader // nil: between messages
	readErr   error
	control   int // control frames and empty messages since spanStart
	spanStart time.Time

	writeMu   sync.Mutex
	closeOnce sync.Once
	closeErr  error
}

// newConn wraps ws, which runs on socket, directly or with TLS between them.
func newConn(ws *gorilla.Conn, socket *socket, gathers bool) *conn {
	c := &conn{socket: socket, ws: ws, gathers: gathers}
	ws.SetPingHandler(func(data string) error {
		if err := c.countControl(); err != nil {
			return err
		}
		// A remote that does not read fails by the deadline of writes.
		err := ws.WriteControl(gorilla.PongMessage, []byte(data), time.Now().Add(controlSpan))
		if errors.Is(err, gorilla.ErrCloseSent) {
			return nil
		}
		return err
	})
	ws.SetPongHandler(func(string) error { return c.countControl() })
	ws.SetCloseHandler(func(int, string) error { return nil }) // Close answers
	return c
}

// countControl is called by the reader.
func (c *conn) countControl() error {
	if now := time.Now(); now.Sub(c.spanStart) >= controlSpan {
		c.spanStart, c.control = now, 0
	}
	if c.control++; c.control > maxControl {
		return fmt.Errorf("websocket: the remote sent more than %d control frames and empty messages in %v", maxControl, controlSpan)
	}
	return nil
}

func (c *conn) Read(p []byte) (int, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	empty := false
	for c.readErr == nil {
		if c.message == nil {
			typ, message, err := c.ws.NextReader()
			switch {
			case err != nil:
				c.readErr = c.failure(err, false)
			case typ != gorilla.BinaryMessage:
				c.readErr = errors.New("websocket: the remote sent a text message: libp2p's are binary")
			default:
				c.message, empty = message, true
			}
			continue
		}
		n, err := c.message.Read(p)
		if err == io.EOF {
			c.message, err = nil, nil
			if n == 0 && empty {
				c.readErr = c.countControl()
			}
		}
		if err != nil {
			c.readErr = c.failure(err, true)
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, c.readErr
}

// failure says what a net.Conn would.
func (c *conn) failure(err error, inside bool) error {
	var closed *gorilla.CloseError
	var timeout net.Error
	switch {
	case errors.As(err, &closed):
		switch {
		case closed.Code == gorilla.CloseAbnormalClosure && inside:
			return io.ErrUnexpectedEOF
		case closed.Code == gorilla.CloseAbnormalClosure, closed.Code == gorilla.CloseNormalClosure,
			closed.Code == gorilla.CloseGoingAway, closed.Code == gorilla.CloseNoStatusReceived:
			return io.EOF
		}
		return fmt.Errorf("websocket: the remote closed the connection: code %d %q", closed.Code, closed.Text)
	case errors.As(err, &timeout) && timeout.Timeout():
		// The package hides what it was.
		return fmt.Errorf("websocket: %w", os.ErrDeadlineExceeded)
	case errors.Is(err, gorilla.ErrCloseSent):
		return fmt.Errorf("websocket: %w", net.ErrClosed)
	}
	return fmt.Errorf("websocket: %w", err)
}

func (c *conn) Write(p []byte) (int, error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	gathers := c.gathers && len(p) > smallWrite
	if gathers {
		c.socket.cork()
	}
	err := c.ws.WriteMessage(gorilla.BinaryMessage, p)
	if gathers {
		if failed := c.socket.uncork(); err == nil {
			err = failed
		}
	}
	if err != nil {
		return 0, c.failure(err, true)
	}
	return len(p), nil
}

// Close tells the remote and closes. It takes no longer than farewellTimeout, twice.
func (c *conn) Close() error {
	c.closeOnce.Do(func() {
		until := time.Now().Add(farewellTimeout)
		c.socket.SetWriteDeadline(until) // also of a write that goes on
		c.ws.WriteControl(gorilla.CloseMessage, gorilla.FormatCloseMessage(gorilla.CloseNormalClosure, ""), until)
		c.closeErr = c.socket.Close()
	})
	return c.closeErr
}

// under is what package gorilla runs on: TCP or TLS, without the deadlines that it
// would set, and with a bound on what is read until the handshake is over.
type under struct {
	net.Conn
	start  []byte // what was read before, for those to come
	budget int    // bytes that may still be read; -1: any number
}

func (u *under) Read(p []byte) (int, error) {
	if len(u.start) > 0 {
		n := copy(p, u.start)
		if u.start = u.start[n:]; len(u.start) == 0 {
			u.start = nil
		}
		return n, nil
	}
	if u.budget < 0 {
		return u.Conn.Read(p)
	}
	if u.budget == 0 {
		return 0, errHeadSize
	}
	n, err := u.Conn.Read(p[:min(len(p), u.budget)])
	u.budget -= n
	return n, err
}

func (*under) SetDeadline(time.Time) error      { return nil }
func (*under) SetReadDeadline(time.Time) error  { return nil }
func (*under) SetWriteDeadline(time.Time) error { return nil }
