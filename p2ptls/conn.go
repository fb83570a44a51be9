package p2ptls

import (
	"crypto/tls"
	"net"
	"sync"
	"time"

	"github.com/kith-p2p/kith/peer"
)

// plainBuffer is how much ReadRecord returns at most: four full records, a
// muxer's frame of 64 KiB in one run.
const plainBuffer = 4 * maxPlaintext

type plainBuf [plainBuffer]byte

var plainBufs = sync.Pool{New: func() any { return new(plainBuf) }}

// A Conn is an authenticated and encrypted connection. It is a net.Conn: all its
// methods may be called at the same time.
//
// Errors of the network and of crypto/tls are returned as they are, so that a
// net.Error can be told. A connection that ends without the peer's close_notify
// gives io.ErrUnexpectedEOF; one that was closed gives io.EOF.
type Conn struct {
	tls    *tls.Conn
	socket *socket
	key    peer.PublicKey
	id     peer.ID
	muxer  string

	// guarded by readMu
	readMu sync.Mutex
	more   bool      // crypto/tls may hold decrypted bytes
	err    error     // of crypto/tls: the end of reading
	plain  *plainBuf // what ReadRecord returned last; nil: nothing

	writeMu sync.Mutex // one Write at a time, so that each is sent when it returns
}

// RemotePeer returns who the peer has proved to be.
func (c *Conn) RemotePeer() peer.ID { return c.id }

// RemoteKey returns the key that the peer has proved to hold.
func (c *Conn) RemoteKey() peer.PublicKey { return c.key }

// Muxer returns the muxer agreed on in the handshake, or "" when the muxer has
// to be negotiated on the connection.
func (c *Conn) Muxer() string { return c.muxer }

// Read reads what has arrived, up to len(p) bytes.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.readMu.Lock()
	defer c.readMu.Unlock()
	c.release()
	for {
		n, err := c.decrypt(p)
		if n > 0 || err != errDrained {
			return n, err
		}
		if err := c.socket.fill(); err != nil {
			return 0, err
		}
	}
}

// ReadRecord returns the next run of decrypted bytes, never empty and at most
// 64 KiB. It is valid until the next call of Read, ReadRecord or Close. While
// ReadRecord waits the connection holds no large buffer.
//
// It does not use take: crypto/tls decrypts each record in a buffer of its own.
func (c *Conn) ReadRecord(take func(n int) []byte) ([]byte, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	for {
		if c.more || c.err != nil || !c.socket.drained() {
			if c.plain == nil {
				c.plain = plainBufs.Get().(*plainBuf)
			}
			n, err := c.decrypt(c.plain[:])
			if n > 0 {
				return c.plain[:n], nil
			}
			if err != errDrained {
				c.release()
				return nil, err
			}
		}
		c.release()
		if err := c.socket.fill(); err != nil {
			return nil, err
		}
	}
}

// Ready always returns false: crypto/tls does not say whether it has a whole
// record, so that the next ReadRecord does not wait.
func (c *Conn) Ready() bool { return false }

// decrypt fills p from the records that are there, and does not wait: the error
// is errDrained when there is none.
func (c *Conn) decrypt(p []byte) (int, error) {
	n := 0
	for n < len(p) && c.err == nil {
		m, err := c.tls.Read(p[n:])
		n += m
		if err == errDrained {
			break
		}
		c.err = err // not all of them last in crypto/tls, but here they do
		if n > 0 && c.socket.drained() {
			break // as crypto/tls would only find out
		}
	}
	c.more = n == len(p)
	switch {
	case n > 0:
		return n, nil
	case c.err != nil:
		return 0, c.err
	}
	return 0, errDrained
}

// release is called with readMu held.
func (c *Conn) release() {
	if c.plain != nil {
		plainBufs.Put(c.plain)
		c.plain = nil
	}
}

// Write sends p, in as few writes to the network as possible. A Write that has
// failed, or passed its deadline, ends the writing for good.
func (c *Conn) Write(p []byte) (int, error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	if len(p) <= maxPlaintext {
		return c.tls.Write(p)
	}
	c.socket.cork()
	n, err := c.tls.Write(p)
	if uncorked := c.socket.uncork(); uncorked != nil {
		return 0, uncorked
	}
	return n, err
}

// Close tells the peer that nothing follows and closes the connection, which
// ends the calls that wait. It takes at most half a second, whatever the peer
// does. A Write that is under way is broken off, and the peer not told.
func (c *Conn) Close() error {
	if !c.socket.finish() {
		return nil
	}
	if !c.writeMu.TryLock() {
		return c.socket.Close()
	}
	c.writeMu.Unlock() // crypto/tls refuses the next Write
	c.tls.Close()      // that the peer could not be told is no error of Close
	return c.socket.closeErr
}

// LocalAddr returns the address of the connection beneath.
func (c *Conn) LocalAddr() net.Addr { return c.socket.LocalAddr() }

// RemoteAddr returns the address of the connection beneath.
func (c *Conn) RemoteAddr() net.Addr { return c.socket.RemoteAddr() }

// SetDeadline sets the deadlines of reads and writes; zero is none.
func (c *Conn) SetDeadline(t time.Time) error { return c.socket.SetDeadline(t) }

// SetReadDeadline sets the deadline of reads, which can go on after it.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.socket.SetReadDeadline(t) }

// SetWriteDeadline sets the deadline of writes, which cannot go on after it.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.socket.SetWriteDeadline(t) }
