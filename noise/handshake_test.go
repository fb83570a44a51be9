package noise

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-p2p/kith/internal/wire"
	"github.com/kith-p2p/kith/peer"
)

var kinds = []peer.KeyType{peer.Ed25519, peer.Secp256k1, peer.ECDSA, peer.RSA}

func TestHandshake(t *testing.T) {
	for _, kindA := range kinds {
		for _, kindB := range kinds {
			t.Run(fmt.Sprintf("%v and %v", kindA, kindB), func(t *testing.T) {
				a, b := transport(t, kindA, "alice"), transport(t, kindB, "bob")
				ca, cb := net.Pipe()
				defer ca.Close()
				defer cb.Close()
				client, server, errA, errB := shake(a, b, ca, cb,
					Config{Remote: b.id, Muxers: []string{yamux}, CertHashes: [][]byte{{1}}},
					Config{Remote: a.id, Muxers: []string{yamux}, CertHashes: [][]byte{{2, 2}, {3}}})
				if errA != nil || errB != nil {
					t.Fatal(errA, errB)
				}
				if client.RemotePeer() != b.id || server.RemotePeer() != a.id {
					t.Errorf("peers are %v and %v", client.RemotePeer(), server.RemotePeer())
				}
				if client.RemoteKey().ID() != b.id || server.RemoteKey().ID() != a.id {
					t.Errorf("keys are of %v and %v", client.RemoteKey().ID(), server.RemoteKey().ID())
				}
				if client.Muxer() != yamux || server.Muxer() != yamux {
					t.Errorf("muxers are %q and %q", client.Muxer(), server.Muxer())
				}
				if got := client.CertHashes(); len(got) != 2 || !bytes.Equal(got[0], []byte{2, 2}) || !bytes.Equal(got[1], []byte{3}) {
					t.Errorf("certificate hashes are %x", got)
				}
				if got := server.CertHashes(); len(got) != 1 || !bytes.Equal(got[0], []byte{1}) {
					t.Errorf("certificate hashes are %x", got)
				}
				for _, way := range [][2]*Conn{{client, server}, {server, client}} {
					go way[0].Write([]byte("hello"))
					if got, err := way[1].ReadRecord(nil); string(got) != "hello" || err != nil {
						t.Errorf("got %q, %v", got, err)
					}
				}
			})
		}
	}
}

// One Transport serves many connections, and says the same of itself in each.
func TestTransportIsShared(t *testing.T) {
	static := alice(t).static.PublicKey()
	for range 2 {
		ca, cb := net.Pipe()
		client, server := connect(t, ca, cb, Config{})
		if client.RemotePeer() != bob(t).id || server.RemotePeer() != alice(t).id {
			t.Error("wrong peers")
		}
		ca.Close()
	}
	// Handshakes at the same time must not write into one another's payload.
	tr := &Transport{identity: make([]byte, 10, 100)}
	first, err := tr.payload(Config{Muxers: []string{"/first"}})
	if err != nil {
		t.Fatal(err)
	}
	was := slices.Clone(first)
	if _, err := tr.payload(Config{Muxers: []string{"/other"}}); err != nil || !bytes.Equal(first, was) {
		t.Errorf("a payload became %q, %v", first, err)
	}
	if !alice(t).static.PublicKey().Equal(static) {
		t.Error("the static key changed")
	}
	if _, err := New(peer.PrivateKey{}); err == nil {
		t.Error("New without a key")
	}
}

func TestChooseMuxer(t *testing.T) {
	for _, c := range []struct {
		initiator, responder []string
		want                 string
		fails                bool
	}{
		{nil, nil, "", false},
		{[]string{"/a"}, nil, "", false},
		{nil, []string{"/a"}, "", false},
		{[]string{"/a"}, []string{"/a"}, "/a", false},
		{[]string{"/a", "/b"}, []string{"/b", "/a"}, "/a", false},
		{[]string{"/x", "/b"}, []string{"/b", "/a"}, "/b", false},
		{[]string{"/a"}, []string{"/b"}, "", true},
	} {
		ca, cb := net.Pipe()
		client, server, errA, errB := shake(alice(t), bob(t), ca, cb, Config{Muxers: c.initiator}, Config{Muxers: c.responder})
		ca.Close()
		cb.Close()
		if c.fails {
			if errA == nil || errB == nil || !strings.Contains(errA.Error(), "no muxer in common") {
				t.Errorf("%q and %q: %v, %v", c.initiator, c.responder, errA, errB)
			}
			if _, err := chooseMuxer(c.initiator, c.responder); err == nil {
				t.Errorf("%q and %q: the responder would agree", c.initiator, c.responder)
			}
			continue
		}
		if errA != nil || errB != nil {
			t.Errorf("%q and %q: %v, %v", c.initiator, c.responder, errA, errB)
		} else if client.Muxer() != c.want || server.Muxer() != c.want {
			t.Errorf("%q and %q: chose %q and %q, want %q", c.initiator, c.responder, client.Muxer(), server.Muxer(), c.want)
		}
	}
}

func TestMismatch(t *testing.T) {
	carol := transport(t, peer.Ed25519, "carol").id
	var mismatch *peer.MismatchError

	ca, cb := net.Pipe()
	_, _, errA, errB := shake(alice(t), bob(t), ca, cb, Config{Remote: carol}, Config{})
	if !errors.As(errA, &mismatch) || *mismatch != (peer.MismatchError{Want: carol, Got: bob(t).id}) {
		t.Errorf("initiator: %v", errA)
	}
	if !errors.Is(errB, io.ErrUnexpectedEOF) { // alice has not said who she is
		t.Errorf("responder that was not wanted: %v", errB)
	}

	ca, cb = net.Pipe()
	_, _, _, errB = shake(alice(t), bob(t), ca, cb, Config{}, Config{Remote: carol})
	if !errors.As(errB, &mismatch) || *mismatch != (peer.MismatchError{Want: carol, Got: alice(t).id}) {
		t.Errorf("responder: %v", errB)
	}
	if text := mismatch.Error(); !strings.Contains(text, carol.String()) || !strings.Contains(text, alice(t).id.String()) {
		t.Error(text)
	}
}

func TestPrologue(t *testing.T) {
	for _, c := range []struct {
		a, b string
		ok   bool
	}{{"x", "x", true}, {"x", "", false}, {"", "x", false}, {"x", "y", false}} {
		ca, cb := net.Pipe()
		_, _, errA, errB := shake(alice(t), bob(t), ca, cb, Config{Prologue: []byte(c.a)}, Config{Prologue: []byte(c.b)})
		ca.Close()
		cb.Close()
		if c.ok != (errA == nil) || c.ok != (errB == nil) {
			t.Errorf("prologues %q and %q: %v, %v", c.a, c.b, errA, errB)
		}
	}
}

// A meddler changes the n-th message that its owner writes.
type meddler struct {
	net.Conn
	n      int
	change func([]byte) []byte
	cut    bool // close after the changed message
}

func (m *meddler) Write(p []byte) (int, error) {
	if m.n--; m.n != 0 {
		return m.Conn.Write(p)
	}
	if _, err := m.Conn.Write(m.change(slices.Clone(p))); err != nil {
		return 0, err
	}
	if m.cut {
		m.Conn.Close()
	}
	return len(p), nil
}

// meddle runs a handshake in which message number is changed on its way.
func meddle(t *testing.T, number int, cut bool, change func([]byte) []byte) (errA, errB error) {
	ca, cb := net.Pipe()
	defer ca.Close()
	defer cb.Close()
	var a, b net.Conn = ca, cb
	if number == 2 {
		b = &meddler{cb, 1, change, cut}
	} else {
		a = &meddler{ca, (number + 1) / 2, change, cut}
	}
	cfg := Config{Muxers: []string{yamux}}
	_, _, errA, errB = shake(alice(t), bob(t), a, b, cfg, cfg)
	return errA, errB
}

// messageLen returns the length of a handshake message between alice and bob,
// with its prefix.
func messageLen(t *testing.T, number int) (n int) {
	meddle(t, number, false, func(p []byte) []byte { n = len(p); return p })
	if n == 0 {
		t.Fatal("no message", number)
	}
	return n
}

func TestTampered(t *testing.T) {
	for number := 1; number <= 3; number++ {
		for i := range messageLen(t, number) {
			// With another length a side might wait for more: end it.
			errA, errB := meddle(t, number, i < lengthLen, func(p []byte) []byte { p[i] ^= 1; return p })
			if errB == nil || errA == nil && number < 3 {
				t.Errorf("byte %d of message %d was changed: %v, %v", i, number, errA, errB)
			}
		}
	}
}

func TestTruncatedHandshake(t *testing.T) {
	for number := 1; number <= 3; number++ {
		for i := range messageLen(t, number) {
			errA, errB := meddle(t, number, true, func(p []byte) []byte { return p[:i] })
			reader := errB
			if number == 2 {
				reader = errA
			}
			if !errors.Is(reader, io.ErrUnexpectedEOF) {
				t.Errorf("message %d ended after %d bytes: %v", number, i, reader)
			}
		}
	}
}

// Parts of the encrypted payload cannot be taken out: whoever shortens a
// message consistently, for example to take the list of muxers away, ends the
// handshake.
func TestStrippedMuxers(t *testing.T) {
	extension := len(yamux) + 4
	for number := 2; number <= 3; number++ {
		for _, at := range []int{0, tagLen} { // the end of the payload, with the tag or before it
			errA, errB := meddle(t, number, false, func(p []byte) []byte {
				end := len(p) - at
				p = slices.Delete(p, end-extension, end)
				binary.BigEndian.PutUint16(p, uint16(len(p)-lengthLen))
				return p
			})
			if errB == nil || errA == nil && number < 3 {
				t.Errorf("message %d without its muxers: %v, %v", number, errA, errB)
			}
		}
	}
	// Nor can a man in the middle say what bob says of himself, but for the
	// muxers: bob's signature is of another static key.
	for _, initiator := range []bool{true, false} {
		middle := rogue{static: fixedKey("middle"), payload: bob(t).identity}
		c, err := middle.meet(alice(t), initiator, Config{Muxers: []string{yamux}})
		if err == nil || !strings.Contains(err.Error(), "not signed") {
			t.Errorf("man in the middle, initiator %t: %v, %v", initiator, c, err)
		}
	}
}

func TestOversized(t *testing.T) {
	tooLong := binary.BigEndian.AppendUint16(nil, maxHandshakeMessage+1)
	for _, initiator := range []bool{true, false} {
		s := &script{in: bytes.NewReader(append(tooLong, make([]byte, 5000)...))}
		_, err := alice(t).run(t.Context(), s, Config{}, initiator)
		if err == nil || !strings.Contains(err.Error(), "over the limit") {
			t.Errorf("message of %d bytes, initiator %t: %v", maxHandshakeMessage+1, initiator, err)
		}
	}
	// An RSA key of the largest size and a full list of usual muxers fit.
	sig, key := make([]byte, 1024), make([]byte, 1074)
	ours := wire.AppendBytesField(wire.AppendBytesField(nil, 1, key), 2, sig)
	big := &Transport{identity: ours}
	if _, err := big.payload(Config{Muxers: slices.Repeat([]string{yamux}, maxMuxers)}); err != nil {
		t.Error(err)
	}
	for _, cfg := range []Config{
		{Muxers: slices.Repeat([]string{yamux}, maxMuxers+1)},
		{CertHashes: slices.Repeat([][]byte{{1}}, maxCertHashes+1)},
		{Muxers: slices.Repeat([]string{strings.Repeat("x", 50)}, maxMuxers)},
	} {
		s := &script{in: bytes.NewReader(nil)}
		if _, err := alice(t).Client(t.Context(), s, cfg); err == nil || s.writes > 0 {
			t.Errorf("%d muxers, %d hashes: %v after %d writes", len(cfg.Muxers), len(cfg.CertHashes), err, s.writes)
		}
	}
}

// A handshake message cannot make us hold more than has arrived of it.
func TestHalfOpenHoldsLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		c := newConn(ours)
		done := make(chan error)
		go func() { _, err := c.receive(1); done <- err }()
		theirs.Write(binary.BigEndian.AppendUint16(nil, maxHandshakeMessage))
		synctest.Wait()
		if c.in.block != nil {
			t.Error("a block is held for two bytes")
		}
		theirs.Close()
		if err := <-done; !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Error(err)
		}
	})
}

func TestEarlyData(t *testing.T) {
	r := rogue{static: fixedKey("s"), early: []byte("x"), payload: identityOf(t, testKey(t), fixedKey("s"))}
	if _, err := r.meet(alice(t), false, Config{}); err == nil || !strings.Contains(err.Error(), "message 1 has 33 bytes") {
		t.Errorf("message 1 with a payload: %v", err)
	}
	for n := range keyLen {
		s := &script{in: bytes.NewReader(append([]byte{0, byte(n)}, make([]byte, n)...))}
		if _, err := alice(t).Server(t.Context(), s, Config{}); err == nil || s.writes > 0 {
			t.Errorf("message 1 of %d bytes: %v", n, err)
		}
	}
}

func testKey(t testing.TB) peer.PrivateKey {
	t.Helper()
	key, err := peer.GenerateKey(peer.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Whatever a peer says of itself by the book, but for what it is and may say.
func TestFalseIdentity(t *testing.T) {
	static := fixedKey("static")
	public := static.PublicKey().Bytes()
	key, other := testKey(t), testKey(t)
	sign := func(k peer.PrivateKey, msg string) []byte {
		sig, err := k.Sign([]byte(msg))
		if err != nil {
			t.Fatal(err)
		}
		return sig
	}
	fields := func(kv ...any) (b []byte) {
		for i := 0; i < len(kv); i += 2 {
			b = wire.AppendBytesField(b, kv[i].(int), kv[i+1].([]byte))
		}
		return b
	}
	marshalled := key.Public().Marshal()
	good := sign(key, signaturePrefix+string(public))
	flipped := slices.Clone(good)
	flipped[0] ^= 1
	ecdsa, err := peer.GenerateKey(peer.ECDSA)
	if err != nil {
		t.Fatal(err)
	}
	ecdsaSig := sign(ecdsa, signaturePrefix+string(public))
	muxers := func(n int) (b []byte) {
		for range n {
			b = wire.AppendStringField(b, fieldStreamMuxers, yamux)
		}
		return b
	}
	hashes := func(n int) (b []byte) {
		for range n {
			b = wire.AppendBytesField(b, fieldCertHashes, []byte{1})
		}
		return b
	}

	for _, c := range []struct {
		name    string
		payload []byte
		ok      bool
	}{
		{"good", fields(1, marshalled, 2, good), true},
		{"good, fields in another order", fields(2, good, 1, marshalled), true},
		{"good, with fields that nobody knows", wire.AppendVarintField(fields(1, marshalled, 2, good, 3, []byte("data"), 1025, []byte("x")), 9, 1), true},
		{"good, with unknown extensions", fields(1, marshalled, 2, good, 4, fields(3, []byte("x"))), true},
		{"good, with a hundred muxers", fields(1, marshalled, 2, good, 4, muxers(maxMuxers)), true},
		{"good, with 32 hashes", fields(1, marshalled, 2, good, 4, hashes(maxCertHashes)), true},
		{"nothing", nil, false},
		{"no key", fields(2, good), false},
		{"no signature", fields(1, marshalled), false},
		{"empty key", fields(1, []byte{}, 2, good), false},
		{"empty signature", fields(1, marshalled, 2, []byte{}), false},
		{"signed by another key", fields(1, marshalled, 2, sign(other, signaturePrefix+string(public))), false},
		{"another key", fields(1, other.Public().Marshal(), 2, good), false},
		{"signature of another static key", fields(1, marshalled, 2, sign(key, signaturePrefix+string(fixedKey("x").PublicKey().Bytes()))), false},
		{"signature without prefix", fields(1, marshalled, 2, sign(key, string(public))), false},
		{"signature with the prefix of TLS", fields(1, marshalled, 2, sign(key, "libp2p-tls-handshake:"+string(public))), false},
		{"signature with a longer prefix", fields(1, marshalled, 2, sign(key, signaturePrefix+" "+string(public))), false},
		{"changed signature", fields(1, marshalled, 2, flipped), false},
		{"longer signature", fields(1, marshalled, 2, append(slices.Clone(good), 0)), false},
		{"shorter signature", fields(1, marshalled, 2, good[:63]), false},
		{"signature with S plus the order", fields(1, marshalled, 2, plusOrder(good)), false},
		{"ECDSA signature with a byte more", fields(1, ecdsa.Public().Marshal(), 2, append(slices.Clone(ecdsaSig), 0)), false},
		{"key with an unknown field", fields(1, wire.AppendVarintField(slices.Clone(marshalled), 3, 1), 2, good), false},
		{"key in another order", fields(1, slices.Concat(marshalled[2:], marshalled[:2]), 2, good), false},
		{"key of an unknown type", fields(1, append([]byte{8, 4}, marshalled[2:]...), 2, good), false},
		{"key of small order", fields(1, append(slices.Clone(marshalled[:4]), append([]byte{1}, make([]byte, 31)...)...), 2, append([]byte{1}, make([]byte, 63)...)), false},
		{"key twice", fields(1, marshalled, 2, good, 1, marshalled), false},
		{"signature twice", fields(1, marshalled, 2, flipped, 2, good), false},
		{"extensions twice", fields(1, marshalled, 2, good, 4, muxers(1), 4, muxers(1)), false},
		{"key as a number", wire.AppendVarintField(fields(2, good), 1, 1), false},
		{"extensions as a number", wire.AppendVarintField(fields(1, marshalled, 2, good), 4, 1), false},
		{"muxer as a number", fields(1, marshalled, 2, good, 4, wire.AppendVarintField(nil, 2, 1)), false},
		{"101 muxers", fields(1, marshalled, 2, good, 4, muxers(maxMuxers+1)), false},
		{"33 hashes", fields(1, marshalled, 2, good, 4, hashes(maxCertHashes+1)), false},
		{"broken extensions", fields(1, marshalled, 2, good, 4, []byte{0x12, 5}), false},
		{"broken protobuf", append(fields(1, marshalled, 2, good), 0x0a), false},
		{"not protobuf", []byte("GET / HTTP/1.1"), false},
	} {
		for _, initiator := range []bool{true, false} {
			conn, err := rogue{static: static, payload: c.payload}.meet(alice(t), initiator, Config{})
			if c.ok {
				if err != nil || conn.RemotePeer() != key.ID() {
					t.Errorf("%s, initiator %t: %v", c.name, initiator, err)
				}
			} else if err == nil || isEOF(err) || errors.Is(err, errDecrypt) {
				t.Errorf("%s, initiator %t: %v", c.name, initiator, err)
			}
		}
	}
}

// plusOrder makes an Ed25519 signature into the second one that a sloppy
// verifier would accept, by adding the group's order to S.
func plusOrder(sig []byte) []byte {
	order := []byte{
		0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
		0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
	}
	sig = slices.Clone(sig)
	carry := 0
	for i, b := range order {
		sum := int(sig[32+i]) + int(b) + carry
		sig[32+i], carry = byte(sum), sum>>8
	}
	return sig
}

// Someone who knows alice's payload, as every peer of hers does, is not alice.
func TestReplayedIdentity(t *testing.T) {
	for _, initiator := range []bool{true, false} {
		thief := rogue{static: publicOnly{fixedKey("thief"), alice(t).static.PublicKey()}, payload: alice(t).identity}
		if _, err := thief.meet(bob(t), initiator, Config{Remote: alice(t).id}); !errors.Is(err, errDecrypt) {
			t.Errorf("initiator %t: %v", initiator, err)
		}
	}
}

func TestContext(t *testing.T) {
	for _, initiator := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			// A peer that takes what we say and says nothing.
			silent := func() net.Conn {
				ours, theirs := net.Pipe()
				go io.Copy(io.Discard, theirs)
				t.Cleanup(func() { ours.Close(); theirs.Close() })
				return ours
			}
			start := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			_, err := alice(t).run(ctx, silent(), Config{}, initiator)
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 3*time.Second {
				t.Errorf("deadline: %v after %v", err, time.Since(start))
			}

			reason := errors.New("changed my mind")
			canceled, cancelCause := context.WithCancelCause(t.Context())
			go func() {
				synctest.Wait()
				cancelCause(reason)
			}()
			if _, err := alice(t).run(canceled, silent(), Config{}, initiator); !errors.Is(err, reason) {
				t.Errorf("cancel: %v", err)
			}
			if _, err := alice(t).run(canceled, silent(), Config{}, initiator); !errors.Is(err, reason) {
				t.Errorf("canceled before: %v", err)
			}

			// The conn's own deadline is not ctx's doing.
			conn := silent()
			conn.SetDeadline(time.Now().Add(time.Second))
			if _, err := alice(t).run(t.Context(), conn, Config{}, initiator); !errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("deadline of the conn: %v", err)
			}
		})
	}
}

// A conn without deadlines is closed when ctx ends.
func TestContextWithoutDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		go io.Copy(io.Discard, theirs)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := alice(t).Client(ctx, noDeadlines{ours}, Config{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

type noDeadlines struct{ net.Conn }

func (c noDeadlines) SetDeadline(time.Time) error { return errors.ErrUnsupported }
func (c noDeadlines) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if errors.Is(err, io.ErrClosedPipe) {
		err = net.ErrClosed
	}
	return n, err
}

// A ctx that ends with the handshake's last message ends the handshake: the
// conn's deadline is then in the past.
func TestContextAtLastMessage(t *testing.T) {
	ca, cb := net.Pipe()
	defer ca.Close()
	defer cb.Close()
	reason := errors.New("too late")
	ctx, cancel := context.WithCancelCause(t.Context())
	go bob(t).Server(t.Context(), cb, Config{})
	canceling := &meddler{ca, 2, func(p []byte) []byte { return p }, false}
	c, err := alice(t).Client(ctx, afterWrite{canceling, func() {
		if canceling.n == 0 {
			cancel(reason)
		}
	}}, Config{})
	if c != nil || !errors.Is(err, reason) {
		t.Errorf("%v, %v", c, err)
	}
}

type afterWrite struct {
	net.Conn
	do func()
}

func (c afterWrite) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.do()
	return n, err
}

// After the handshake its ctx has no say, and the conn has its own deadlines.
func TestContextAfterHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, cb := net.Pipe()
		defer ca.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		got := make(chan *Conn)
		go func() {
			c, err := bob(t).Server(ctx, cb, Config{})
			if err != nil {
				t.Error(err)
			}
			got <- c
		}()
		client, err := alice(t).Client(ctx, ca, Config{})
		if err != nil {
			t.Fatal(err)
		}
		server := <-got
		cancel()
		synctest.Wait()
		go client.Write([]byte("late"))
		if p, err := server.ReadRecord(nil); string(p) != "late" || err != nil {
			t.Errorf("%q, %v", p, err)
		}
	})
}

// Errors that the caller's conn returns can be told, as upgrade needs it.
func TestErrorsOfConn(t *testing.T) {
	fault := errors.New("refused by multistream")
	for _, initiator := range []bool{true, false} {
		_, err := alice(t).run(t.Context(), faultyConn{&script{}, fault}, Config{}, initiator)
		if !errors.Is(err, fault) {
			t.Errorf("initiator %t: %v", initiator, err)
		}
	}
	s := &script{closed: true}
	if _, err := alice(t).Client(t.Context(), s, Config{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("cannot write: %v", err)
	}
}

type faultyConn struct {
	*script
	err error
}

func (c faultyConn) Read([]byte) (int, error) { return 0, c.err }

// The initiator writes before it reads, and each message is one Write.
func TestOneWriteAMessage(t *testing.T) {
	ca, cb := net.Pipe()
	defer ca.Close()
	a, b := &countingConn{Conn: ca}, &countingConn{Conn: cb}
	connect(t, a, b, Config{Muxers: []string{yamux}})
	if a.writes.Load() != 2 || b.writes.Load() != 1 {
		t.Errorf("%d and %d writes, want 2 and 1", a.writes.Load(), b.writes.Load())
	}
	s := &script{in: bytes.NewReader(nil)}
	if _, err := alice(t).Client(t.Context(), s, Config{}); err == nil || len(s.out) != lengthLen+keyLen {
		t.Errorf("the initiator wrote %d bytes before it read: %v", len(s.out), err)
	}
}

// What the initiator sends right behind its last message belongs to the
// connection.
func TestDataBehindHandshake(t *testing.T) {
	for _, socket := range []bool{true, false} {
		ca, cb := tcpPair(t)
		done := make(chan error, 1)
		go func() {
			c, err := alice(t).Client(t.Context(), ca, Config{})
			if err == nil {
				_, err = c.Write(bytes.Repeat([]byte("data"), 10_000))
			}
			done <- err
		}()
		cfg := Config{}
		if socket {
			cfg.TCP = cb
		}
		// Message 3 and the records come together.
		server, err := bob(t).Server(t.Context(), &lateConn{Conn: cb, after: done}, cfg)
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 40_000)
		if _, err := io.ReadFull(server, buf); err != nil || !bytes.Equal(buf, bytes.Repeat([]byte("data"), 10_000)) {
			t.Errorf("from the socket %t: data differs: %v", socket, err)
		}
	}
}

// lateConn waits with its second read until the peer is done.
type lateConn struct {
	net.Conn
	reads int
	after chan error
}

func (c *lateConn) Read(p []byte) (int, error) {
	if c.reads++; c.reads == 2 {
		if err := <-c.after; err != nil {
			return 0, err
		}
	}
	return c.Conn.Read(p)
}

func TestCheckCertHashes(t *testing.T) {
	refusal := errors.New("not this one")
	ca, cb := net.Pipe()
	var seen [][]byte
	_, _, errA, errB := shake(alice(t), bob(t), ca, cb,
		Config{CheckCertHashes: func(hashes [][]byte) error { seen = hashes; return refusal }},
		Config{CertHashes: [][]byte{{2, 2}, {3}}})
	if len(seen) != 2 || !bytes.Equal(seen[0], []byte{2, 2}) || !bytes.Equal(seen[1], []byte{3}) {
		t.Errorf("asked about %x", seen)
	}
	if !errors.Is(errA, refusal) {
		t.Errorf("initiator: %v", errA)
	}
	if !errors.Is(errB, io.ErrUnexpectedEOF) { // alice has not said who she is
		t.Errorf("responder: %v", errB)
	}

	// It decides over a peer that is known, also when there are no hashes, and on either side.
	for _, accept := range []bool{true, false} {
		ca, cb = net.Pipe()
		asked := 0
		client, server, errA, errB := shake(alice(t), bob(t), ca, cb, Config{}, Config{CheckCertHashes: func(hashes [][]byte) error {
			asked++
			if len(hashes) > 0 {
				t.Errorf("hashes %x from nowhere", hashes)
			}
			if accept {
				return nil
			}
			return refusal
		}})
		if asked != 1 || errA != nil || client == nil || accept != (errB == nil) || accept != (server != nil) {
			t.Errorf("accept=%v: asked %d times, %v, %v", accept, asked, errA, errB)
		}
	}

	// Somebody else than expected is not asked about.
	ca, cb = net.Pipe()
	_, _, errA, _ = shake(alice(t), bob(t), ca, cb, Config{Remote: alice(t).id, CheckCertHashes: func([][]byte) error {
		t.Error("asked about a stranger's hashes")
		return nil
	}}, Config{})
	if mismatch := (*peer.MismatchError)(nil); !errors.As(errA, &mismatch) {
		t.Error(errA)
	}
}
