package noise

import (
	"context"
	"crypto/ecdh"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/kith-p2p/kith/internal/wire"
	"github.com/kith-p2p/kith/peer"
)

const yamux = "/yamux/1.0.0"

var transports sync.Map // of transportID to *Transport: RSA keys take long to make

type transportID struct {
	kind peer.KeyType
	name string
}

// transport returns the Transport of a test identity, always the same one.
func transport(t testing.TB, kind peer.KeyType, name string) *Transport {
	t.Helper()
	id := transportID{kind, name}
	if tr, ok := transports.Load(id); ok {
		return tr.(*Transport)
	}
	key, err := peer.GenerateKey(kind)
	if err != nil {
		t.Fatal(err)
	}
	tr, err := New(key)
	if err != nil {
		t.Fatal(err)
	}
	got, _ := transports.LoadOrStore(id, tr)
	return got.(*Transport)
}

func alice(t testing.TB) *Transport { return transport(t, peer.Ed25519, "alice") }
func bob(t testing.TB) *Transport   { return transport(t, peer.Ed25519, "bob") }

// shake runs both sides of a handshake. A side that fails closes its conn.
func shake(a, b *Transport, ca, cb net.Conn, cfgA, cfgB Config) (client, server *Conn, errA, errB error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if server, errB = b.Server(context.Background(), cb, cfgB); errB != nil {
			cb.Close()
		}
	}()
	if client, errA = a.Client(context.Background(), ca, cfgA); errA != nil {
		ca.Close()
	}
	<-done
	return client, server, errA, errB
}

// connect runs a handshake that must succeed.
func connect(t testing.TB, ca, cb net.Conn, cfg Config) (client, server *Conn) {
	t.Helper()
	client, server, errA, errB := shake(alice(t), bob(t), ca, cb, cfg, cfg)
	if errA != nil || errB != nil {
		t.Fatalf("handshake: %v, %v", errA, errB)
	}
	return client, server
}

func pipe(t testing.TB) (client, server *Conn) {
	t.Helper()
	ca, cb := net.Pipe()
	t.Cleanup(func() { ca.Close(); cb.Close() })
	return connect(t, ca, cb, Config{})
}

// tcpPair returns both ends of a connection on the loopback interface.
func tcpPair(t testing.TB) (dialed, accepted *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

// A script is a connection whose other end says in, whatever it hears.
type script struct {
	in     io.Reader
	out    []byte
	writes int
	closed bool
}

func (s *script) Read(p []byte) (int, error) { return s.in.Read(p) }

func (s *script) Write(p []byte) (int, error) {
	if s.closed {
		return 0, net.ErrClosed
	}
	s.writes++
	s.out = append(s.out, p...)
	return len(p), nil
}

func (s *script) Close() error                     { s.closed = true; return nil }
func (s *script) LocalAddr() net.Addr              { return nil }
func (s *script) RemoteAddr() net.Addr             { return nil }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// established returns a Conn as after a handshake, with a key that is known.
func established(s *script) *Conn {
	c := newConn(s)
	c.sealer, c.opener = knownCipher(), knownCipher()
	return c
}

func knownCipher() cipherState {
	c, err := newCipherState(make([]byte, keyLen))
	if err != nil {
		panic(err)
	}
	return c
}

// fixedKey is an X25519 key that is the same in every run.
func fixedKey(label string) *ecdh.PrivateKey {
	seed := sha256.Sum256([]byte(label))
	key, err := ecdh.X25519().NewPrivateKey(seed[:])
	if err != nil {
		panic(err)
	}
	return key
}

// A rogue runs handshakes by the book, except that it says what it likes of
// itself.
type rogue struct {
	static   ecdh.KeyExchanger
	early    []byte // the payload of message 1
	payload  []byte // of message 2 or 3
	prologue []byte
	through  func(net.Conn) net.Conn // what its connection goes through; nil: nothing
}

func (r rogue) client(conn net.Conn) error {
	x := newXX(true, r.prologue, r.static, fixedKey("ephemeral of the rogue"))
	c := newConn(conn)
	if err := c.send(1, x.write1, r.early); err != nil {
		return err
	}
	msg, err := c.receive(2)
	if err != nil {
		return err
	}
	if _, err := x.read2(msg); err != nil {
		return err
	}
	return c.send(3, x.write3, r.payload)
}

func (r rogue) server(conn net.Conn) error {
	x := newXX(false, r.prologue, r.static, fixedKey("ephemeral of the rogue"))
	c := newConn(conn)
	msg, err := c.receive(1)
	if err != nil {
		return err
	}
	if _, err := x.read1(msg); err != nil {
		return err
	}
	if err := c.send(2, x.write2, r.payload); err != nil {
		return err
	}
	if msg, err = c.receive(3); err != nil {
		return err
	}
	_, err = x.read3(msg)
	return err
}

// meet runs a handshake of tr with the rogue, in either role, and returns tr's
// side of it.
func (r rogue) meet(tr *Transport, initiator bool, cfg Config) (*Conn, error) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer theirs.Close()
		conn := theirs
		if r.through != nil {
			conn = r.through(theirs)
		}
		if initiator {
			r.server(conn)
		} else {
			r.client(conn)
		}
	}()
	c, err := tr.run(context.Background(), ours, cfg, initiator)
	ours.Close()
	<-done
	return c, err
}

// identityOf is what key says of itself and of static.
func identityOf(t testing.TB, key peer.PrivateKey, static *ecdh.PrivateKey) []byte {
	t.Helper()
	sig, err := key.Sign(signedBytes(static.PublicKey().Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	b := wire.AppendBytesField(nil, fieldIdentityKey, key.Public().Marshal())
	return wire.AppendBytesField(b, fieldIdentitySig, sig)
}

func isEOF(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }
