package noise

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/kith-p2p/kith/internal/wire"
	"github.com/kith-p2p/kith/peer"
)

// fuzzIdentity is the identity of the rogue that fuzzing plays, the same in
// every run.
func fuzzIdentity() []byte {
	private := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	key, err := peer.UnmarshalPrivateKey(append([]byte{8, 1, 0x12, 64}, private...))
	if err != nil {
		panic(err)
	}
	sig, err := key.Sign(signedBytes(fixedKey("rogue").PublicKey().Bytes()))
	if err != nil {
		panic(err)
	}
	b := wire.AppendBytesField(nil, fieldIdentityKey, key.Public().Marshal())
	return wire.AppendBytesField(b, fieldIdentitySig, sig)
}

// FuzzHandshakeInitiator and FuzzHandshakeResponder meet a peer that says
// payload of itself and keeps to Noise, except that its n-th message is xored
// with mask from byte at on, cut, and the last. If raw is set, payload is all
// that it sends.
func FuzzHandshakeInitiator(f *testing.F) { fuzzHandshake(f, true) }

func FuzzHandshakeResponder(f *testing.F) { fuzzHandshake(f, false) }

func fuzzHandshake(f *testing.F, initiator bool) {
	identity := fuzzIdentity()
	muxers := wire.AppendBytesField(slices.Clone(identity), fieldExtensions, wire.AppendStringField(nil, fieldStreamMuxers, yamux))
	for _, p := range [][]byte{nil, identity, muxers, identity[:50], append([]byte{0x0a, 0}, identity...)} {
		f.Add(false, p, uint8(0), uint16(0), []byte(nil), uint16(0))
		f.Add(false, p, uint8(1), uint16(3), []byte{1}, uint16(0))
		f.Add(false, p, uint8(2), uint16(10), []byte{0x80, 0xff}, uint16(40))
	}
	f.Add(true, append([]byte{0, 32}, make([]byte, 32)...), uint8(0), uint16(0), []byte(nil), uint16(0))
	f.Add(true, []byte{0, 32, 9}, uint8(0), uint16(0), []byte(nil), uint16(0))
	f.Add(true, append([]byte{0, 200}, pattern(200)...), uint8(0), uint16(0), []byte(nil), uint16(0))
	f.Add(true, []byte{0xff, 0xff, 1}, uint8(0), uint16(0), []byte(nil), uint16(0))
	tr := alice(f)
	cfg := Config{Muxers: []string{yamux}}
	f.Fuzz(func(t *testing.T, raw bool, payload []byte, n uint8, at uint16, mask []byte, cut uint16) {
		if raw {
			s := &script{in: bytes.NewReader(payload)}
			if _, err := tr.run(t.Context(), s, cfg, initiator); err == nil {
				t.Fatal("a handshake with a peer that cannot answer")
			}
			return
		}
		if len(payload) > maxMessage-200 {
			return
		}
		changed := false
		r := rogue{static: fixedKey("rogue"), payload: payload, through: func(conn net.Conn) net.Conn {
			return &meddler{conn, int(n), func(p []byte) []byte {
				was := slices.Clone(p)
				for i, m := range mask {
					if int(at)+i < len(p) {
						p[int(at)+i] ^= m
					}
				}
				if cut > 0 && int(cut) < len(p) {
					p = p[:cut]
				}
				changed = !bytes.Equal(p, was)
				return p
			}, true}
		}}
		c, err := r.meet(tr, initiator, cfg)
		if err == nil && changed {
			t.Fatal("a handshake in which a message was changed")
		}
		if err == nil && (!honest(payload) || c.RemotePeer() != c.RemoteKey().ID() || c.Muxer() != "" && c.Muxer() != yamux) {
			t.Fatalf("accepted %x", payload)
		}
		if err != nil && n == 0 && bytes.Equal(payload, identity) {
			t.Fatal(err)
		}
	})
}

// honest reports, in a second way, whether a payload contains a key and its
// signature of the rogue's static key.
func honest(b []byte) bool {
	var key, sig []byte
	for len(b) > 0 {
		f, rest, err := wire.NextField(b)
		if err != nil {
			return false
		}
		switch f.Num {
		case 1:
			key = f.Bytes
		case 2:
			sig = f.Bytes
		}
		b = rest
	}
	k, err := peer.UnmarshalPublicKey(key)
	return err == nil && k.Verify(append([]byte("noise-libp2p-static-key:"), fixedKey("rogue").PublicKey().Bytes()...), sig)
}

func FuzzPayload(f *testing.F) {
	identity := fuzzIdentity()
	f.Add([]byte(nil))
	f.Add(identity)
	for _, cfg := range []Config{{Muxers: []string{yamux, "/b"}}, {CertHashes: [][]byte{{1}, {}}}, {Muxers: []string{""}, CertHashes: [][]byte{{0}}}} {
		b, err := (&Transport{identity: identity}).payload(cfg)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(append(b, 0x1a, 3, 1, 2, 3))
		f.Add(append(b, b...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parsePayload(b)
		if err != nil {
			return
		}
		if len(p.muxers) > maxMuxers || len(p.certHashes) > maxCertHashes {
			t.Fatalf("%d muxers, %d hashes", len(p.muxers), len(p.certHashes))
		}
		// What was understood survives being written and read again.
		var again []byte
		if p.key != nil {
			again = wire.AppendBytesField(again, fieldIdentityKey, p.key)
		}
		if p.sig != nil {
			again = wire.AppendBytesField(again, fieldIdentitySig, p.sig)
		}
		var extensions []byte
		for _, h := range p.certHashes {
			extensions = wire.AppendBytesField(extensions, fieldCertHashes, h)
		}
		for _, m := range p.muxers {
			extensions = wire.AppendStringField(extensions, fieldStreamMuxers, m)
		}
		q, err := parsePayload(wire.AppendBytesField(again, fieldExtensions, extensions))
		if err != nil || !bytes.Equal(p.key, q.key) || !bytes.Equal(p.sig, q.sig) || !slices.Equal(p.muxers, q.muxers) ||
			!slices.EqualFunc(p.certHashes, q.certHashes, bytes.Equal) {
			t.Fatalf("%+v became %+v, %v", p, q, err)
		}
	})
}

// FuzzTransport reads stream as records, and compares with the plainest way of
// reading them. A first byte that is even stands for a stream of well-sealed
// records, whose lengths are the bytes that follow, with one bit of it changed.
func FuzzTransport(f *testing.F) {
	f.Add(records([]byte("one"), nil, []byte("two")), uint16(0), uint32(0))
	f.Add(records([]byte("one"), nil, []byte("two")), uint16(1), uint32(0))
	f.Add([]byte{2, 0, 10, 200, 0, 0, 255, 255, 255}, uint16(321), uint32(0))
	f.Add([]byte{2, 1, 1, 1, 1}, uint16(7), uint32(99))
	f.Add([]byte{0, 255, 255, 255, 255, 255, 255}, uint16(0), uint32(17))
	f.Add([]byte{0xff, 0xff, 1, 2, 3}, uint16(0), uint32(0))
	f.Add([]byte{1, 0, 1}, uint16(0), uint32(0))
	f.Fuzz(func(t *testing.T, in []byte, step uint16, flip uint32) {
		stream := in
		if len(in) > 0 && in[0]%2 == 0 {
			var plaintexts [][]byte
			for _, n := range in[1:min(len(in), 12)] {
				plaintexts = append(plaintexts, pattern(int(n)*int(n)))
			}
			stream = records(plaintexts...)
			if flip > 0 && len(stream) > 0 {
				stream[int(flip)%len(stream)] ^= 1
			}
		}

		var want [][]byte
		var wantErr error
		aead, _ := chacha20poly1305.New(make([]byte, 32))
		for rest, n := stream, uint64(0); ; n++ {
			if len(rest) == 0 {
				wantErr = io.EOF
				break
			}
			if len(rest) < 2 || len(rest)-2 < int(binary.BigEndian.Uint16(rest)) {
				wantErr = io.ErrUnexpectedEOF
				break
			}
			size := int(binary.BigEndian.Uint16(rest))
			nonce := make([]byte, 12)
			binary.LittleEndian.PutUint64(nonce[4:], n)
			p, err := aead.Open(nil, nonce, rest[2:2+size], nil)
			if err != nil {
				wantErr = errDecrypt
				break
			}
			if len(p) > 0 {
				want = append(want, p)
			}
			rest = rest[2+size:]
		}

		var r io.Reader = bytes.NewReader(stream)
		if step > 0 {
			r = stepReader{r, int(step)}
		}
		c := established(&script{in: r})
		for i, w := range want {
			if got, err := c.ReadRecord(nil); err != nil || !bytes.Equal(got, w) {
				t.Fatalf("record %d: %d bytes, %v; want %d", i, len(got), err, len(w))
			}
		}
		if got, err := c.ReadRecord(nil); err != wantErr {
			t.Fatalf("at the end: %d bytes, %v; want %v", len(got), err, wantErr)
		}
	})
}
