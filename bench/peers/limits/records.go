package main

import (
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"io"
	"net"

	"golang.org/x/crypto/chacha20poly1305"
)

const (
	// maxPlaintext is what fits in a record of Noise besides the tag.
	maxPlaintext = 1<<16 - 1 - chacha20poly1305.Overhead
	// readBuffer has room for two records and more, so that one read gets what is there.
	readBuffer = 256 << 10
)

// records are those of Noise after its handshake: two bytes of length, then
// ChaCha20-Poly1305. A write of at most maxPlaintext is one record and one system
// call, and is encrypted once from where it lies; a read into a buffer of a record's
// size is decrypted to where it is wanted.
type records struct {
	*net.TCPConn

	seal      cipher.AEAD
	sealNonce nonce
	out       []byte

	open      cipher.AEAD
	openNonce nonce
	in        []byte // what was received and not read
	buf       []byte
	clear     []byte // what was decrypted and not read
}

// newRecords uses keys that everybody knows: it is the work that is measured.
func newRecords(c *net.TCPConn, client bool) *records {
	r := &records{TCPConn: c, out: make([]byte, 0, 2+1<<16), buf: make([]byte, readBuffer)}
	var up, down [chacha20poly1305.KeySize]byte
	up[0], down[0] = 1, 2
	if !client {
		up, down = down, up
	}
	// The size of the key is the only thing that can be wrong.
	r.seal, _ = chacha20poly1305.New(up[:])
	r.open, _ = chacha20poly1305.New(down[:])
	return r
}

// A nonce counts records.
type nonce [chacha20poly1305.NonceSize]byte

// next gives the nonce of the next record, which is valid until the call after.
func (n *nonce) next() []byte {
	count := n[4:]
	binary.LittleEndian.PutUint64(count, binary.LittleEndian.Uint64(count)+1)
	return n[:]
}

func (r *records) Write(p []byte) (written int, err error) {
	for len(p) > 0 {
		part := p[:min(len(p), maxPlaintext)]
		out := binary.BigEndian.AppendUint16(r.out[:0], uint16(len(part)+chacha20poly1305.Overhead))
		out = r.seal.Seal(out, r.sealNonce.next(), part, nil)
		if _, err := r.TCPConn.Write(out); err != nil {
			return written, err
		}
		written += len(part)
		p = p[len(part):]
	}
	return written, nil
}

func (r *records) Read(p []byte) (int, error) {
	if len(r.clear) == 0 {
		record, err := r.record()
		if err != nil {
			return 0, err
		}
		if len(p) >= len(record)-chacha20poly1305.Overhead {
			plain, err := r.open.Open(p[:0], r.openNonce.next(), record, nil)
			return len(plain), err
		}
		if r.clear, err = r.open.Open(record[:0], r.openNonce.next(), record, nil); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.clear)
	r.clear = r.clear[n:]
	return n, nil
}

// record gives the next one, which is in the buffer until the next call.
func (r *records) record() ([]byte, error) {
	for {
		if len(r.in) >= 2 {
			size := 2 + int(binary.BigEndian.Uint16(r.in))
			if size < 2+chacha20poly1305.Overhead {
				return nil, fmt.Errorf("a record of %d bytes", size-2)
			}
			if len(r.in) >= size {
				record := r.in[2:size]
				r.in = r.in[size:]
				return record, nil
			}
		}
		// What is left of the buffer may be too short for the rest.
		have := copy(r.buf, r.in)
		n, err := r.TCPConn.Read(r.buf[have:])
		r.in = r.buf[:have+n]
		if n == 0 && err != nil {
			if err == io.EOF && have > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}
