package noise

import (
	"encoding/binary"
	"net"
	"sync"
	"time"

	"github.com/kith-p2p/kith/peer"
)

const (
	lengthLen = 2 // the length before a message, in bytes

	// maxMessage is the longest message, in bytes, without its length.
	// https://github.com/libp2p/specs/blob/master/noise/README.md#wire-format
	maxMessage   = 65535
	maxPlaintext = maxMessage - tagLen

	// batch is how much plaintext is sealed before it is written: what fits
	// into the largest block.
	batch = recordsPerBlock * maxPlaintext
)

// A Conn is an authenticated and encrypted connection. It is a net.Conn, with
// one restriction: of Read and ReadRecord only one call may be under way at a
// time.
type Conn struct {
	// fixed by the handshake
	conn       net.Conn
	remote     peer.ID
	remoteKey  peer.PublicKey
	muxer      string
	certHashes [][]byte

	// owned by the reader
	in      inbox
	opener  cipherState
	rest    []byte // of the current record: what Read has not returned
	readErr error  // why nothing will be read any more

	// guarded by writeMu
	writeMu  sync.Mutex
	sealer   cipherState
	writeErr error // why nothing can be written any more
}

func newConn(conn net.Conn) *Conn {
	c := &Conn{conn: conn}
	c.in.init(conn)
	return c
}

// RemotePeer returns who is at the other end, as it has proved.
func (c *Conn) RemotePeer() peer.ID { return c.remote }

// RemoteKey returns the identity key of the peer.
func (c *Conn) RemoteKey() peer.PublicKey { return c.remoteKey }

// Muxer returns the muxer that the handshake chose, or "" if one of the sides
// did not take part in the choice.
func (c *Conn) Muxer() string { return c.muxer }

// CertHashes returns the multihashes of WebTransport certificates that the peer
// sent in the handshake.
func (c *Conn) CertHashes() [][]byte { return c.certHashes }

// Read fills p from the current record, or the next one. See ReadRecord for the
// errors.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(c.rest) == 0 {
		record, err := c.ReadRecord(nil)
		if err != nil {
			return 0, err
		}
		c.rest = record
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// ReadRecord returns the next run of bytes: the rest of a record that Read
// began, or the next record. It is never empty, is at most 65519 bytes long,
// may be written to, and is valid until the next call of Read, ReadRecord or
// Close.
//
// If take is not nil, it is asked for memory as soon as a record of n bytes
// is there to be decrypted: the record is then returned at the start of that
// memory, which the caller keeps. If take returns nil, and for the rest of a
// record, it lies in memory of the Conn. Decrypting to another place costs no
// more than in place, and spares the caller a copy.
//
// The error is io.EOF when the connection ended between two records, and
// io.ErrUnexpectedEOF when it ended inside of one. A record that is not
// authentic closes the connection.
func (c *Conn) ReadRecord(take func(n int) []byte) ([]byte, error) {
	if len(c.rest) > 0 {
		rest := c.rest
		c.rest = nil
		return rest, nil
	}
	for c.readErr == nil {
		msg, err := c.in.frame(maxMessage)
		if err != nil {
			return nil, err
		}
		to := msg
		if n := len(msg) - tagLen; take != nil && n > 0 {
			if taken := take(n); taken != nil {
				to = taken
			}
		}
		record, err := c.opener.open(to[:0], msg, nil)
		if err != nil {
			c.readErr = err
			c.conn.Close()
			break
		}
		if len(record) > 0 { // an empty record is allowed, and not the end
			return record, nil
		}
	}
	return nil, c.readErr
}

// Ready tells, between two calls of ReadRecord, whether the next one is sure to
// return at once.
func (c *Conn) Ready() bool { return len(c.rest) > 0 || c.readErr != nil || c.in.ready() }

// Write sends p in as few records and system calls as possible. After an error,
// as that of a deadline, a part of a record may have been sent: nothing more
// can be written.
func (c *Conn) Write(p []byte) (int, error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	written := 0
	for written < len(p) && c.writeErr == nil {
		chunk := p[written:min(len(p), written+batch)]
		if c.writeErr = c.writeChunk(chunk); c.writeErr == nil {
			written += len(chunk)
		}
	}
	return written, c.writeErr
}

// writeChunk seals p, of at most batch bytes, and writes it at once.
func (c *Conn) writeChunk(p []byte) (err error) {
	block := takeBlock(lengthLen + len(p) + tagLen) // more than one record takes the largest
	defer block.release()
	out := block.b[:0]
	for len(p) > 0 {
		n := min(len(p), maxPlaintext)
		out = binary.BigEndian.AppendUint16(out, uint16(n+tagLen))
		if out, err = c.sealer.seal(out, p[:n], nil); err != nil {
			c.conn.Close()
			return err
		}
		p = p[n:]
	}
	_, err = c.conn.Write(out)
	return err
}

// Close closes the connection beneath, and ends the calls that wait.
func (c *Conn) Close() error { return c.conn.Close() }

// LocalAddr returns the local address of the connection beneath.
func (c *Conn) LocalAddr() net.Addr { return c.conn.LocalAddr() }

// RemoteAddr returns the remote address of the connection beneath.
func (c *Conn) RemoteAddr() net.Addr { return c.conn.RemoteAddr() }

// SetDeadline sets both deadlines. See SetReadDeadline and SetWriteDeadline.
func (c *Conn) SetDeadline(t time.Time) error { return c.conn.SetDeadline(t) }

// SetReadDeadline sets when calls of Read and ReadRecord end. Reading can go on
// with a later deadline.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.conn.SetReadDeadline(t) }

// SetWriteDeadline sets when calls of Write end. A Write that it has cut short
// was the last.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.conn.SetWriteDeadline(t) }
