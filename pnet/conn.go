package pnet

import (
	"crypto/rand"
	"encoding/binary"
	"io"
	"net"
	"sync"

	//lint:ignore SA1019 its replacement cannot continue a key stream
	"golang.org/x/crypto/salsa20/salsa"
)

const (
	// nonceLen is the length of a nonce in bytes.
	// https://github.com/libp2p/specs/blob/master/pnet/Private-Networks-PSK-V1.md#algorithm
	nonceLen = 24

	blockLen = 64 // of Salsa20, in bytes

	// writeLen is how much is encrypted and sent with one call, in bytes: enough that
	// the call costs little beside what it moves.
	writeLen = 64 << 10
)

// Protect gives a connection in the private network of key, which must not be the
// zero Key. It sends nothing yet and reads nothing. From the first Read or Write on,
// nobody else may use conn, which must take 24 bytes without waiting for its reader.
//
// Read and Write can be called at the same time, and each from several goroutines.
func Protect(conn net.Conn, key Key) net.Conn {
	c := &protected{Conn: conn, key: key}
	c.out.nonce = newNonce()
	return c
}

type protected struct {
	net.Conn
	key Key

	in  reading
	out writing
}

type reading struct {
	mu    sync.Mutex
	nonce [nonceLen]byte // the remote's
	heard int            // how much of it is there
	keystream
}

type writing struct {
	mu    sync.Mutex
	nonce [nonceLen]byte // ours
	sent  int            // how much of it is on its way
	keystream
}

func (c *protected) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	in := &c.in
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.heard < nonceLen {
		c.greet()
		for in.heard < nonceLen {
			n, err := c.Conn.Read(in.nonce[in.heard:])
			in.heard += n
			if in.heard == nonceLen {
				break
			}
			if err == io.EOF && in.heard > 0 {
				err = io.ErrUnexpectedEOF
			}
			if err != nil {
				return 0, err
			}
		}
		in.keystream = newKeystream(c.key, &in.nonce)
	}
	n, err := c.Conn.Read(p)
	in.xor(p[:n], p[:n])
	return n, err
}

// greet sends our nonce if nothing was written yet: the remote may wait for it. If
// somebody writes just now, it is on its way. An error does not matter here: a Write
// goes on where it stopped, and if the connection has ended, Read tells.
func (c *protected) greet() {
	out := &c.out
	if !out.mu.TryLock() {
		return
	}
	defer out.mu.Unlock()
	if out.sent < nonceLen {
		n, _ := c.Conn.Write(out.nonce[out.sent:])
		out.sent += n
	}
}

func (c *protected) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	out := &c.out
	out.mu.Lock()
	defer out.mu.Unlock()
	if out.pos == 0 {
		out.keystream = newKeystream(c.key, &out.nonce)
	}
	buf := writeBufs.Get().(*[writeLen]byte)
	defer writeBufs.Put(buf)
	written := 0
	for written < len(p) {
		head := copy(buf[:], out.nonce[out.sent:])
		body := min(len(p)-written, len(buf)-head)
		at := out.pos
		out.xor(buf[head:], p[written:written+body])
		n, err := c.Conn.Write(buf[:head+body])
		out.sent += min(n, head)
		n = max(n-head, 0)
		out.pos = at + uint64(n) // what was not sent is encrypted anew, if it ever comes again
		written += n
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

var writeBufs = sync.Pool{New: func() any { return new([writeLen]byte) }}

// newNonce gives a random nonce that does not begin like a TLS record or a request
// of HTTP: where TCP shares its port with WebSocket, connections are told apart
// by their first bytes. One in 7,000 is given up for that.
func newNonce() (nonce [nonceLen]byte) {
	for {
		rand.Read(nonce[:])
		if !resembles(nonce[:]) {
			return nonce
		}
	}
}

func resembles(b []byte) bool {
	if b[0] == 0x16 && b[1] == 0x03 { // handshake, TLS 1
		return true
	}
	for _, c := range b[:4] { // "GET ", "POST", "PRI "…
		if c != ' ' && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return true
}

// A keystream is XSalsa20 at one place of its stream.
type keystream struct {
	key   [32]byte
	nonce [8]byte
	pos   uint64 // in bytes
}

func newKeystream(key Key, nonce *[nonceLen]byte) keystream {
	s := keystream{nonce: [8]byte(nonce[16:])}
	salsa.HSalsa20(&s.key, (*[16]byte)(nonce[:16]), key.secret(), &salsa.Sigma)
	return s
}

// xor puts src under the next bytes of the stream into dst, which is as long or
// longer, and is src itself or does not overlap it.
func (s *keystream) xor(dst, src []byte) {
	if len(src) == 0 {
		return
	}
	var counter [16]byte
	copy(counter[:], s.nonce[:])
	// The rest of a block that was begun is computed again rather than kept.
	if skip := s.pos % blockLen; skip > 0 {
		var block [blockLen]byte
		n := copy(block[skip:], src)
		binary.LittleEndian.PutUint64(counter[8:], s.pos/blockLen)
		salsa.XORKeyStream(block[:], block[:], &counter, &s.key)
		copy(dst, block[skip:][:n])
		dst, src = dst[n:], src[n:]
		s.pos += uint64(n)
	}
	binary.LittleEndian.PutUint64(counter[8:], s.pos/blockLen)
	salsa.XORKeyStream(dst[:len(src)], src, &counter, &s.key)
	s.pos += uint64(len(src))
}
