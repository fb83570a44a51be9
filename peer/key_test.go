package peer

import (
	"bytes"
	"crypto/ecdsa"
	stded25519 "crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

func TestKeyVectors(t *testing.T) {
	for _, v := range keyVectors(t) {
		key := mustPrivate(t, v.Private)
		pub, err := UnmarshalPublicKey(v.Public)
		if err != nil {
			t.Errorf("%s: %v", v.Type, err)
			continue
		}
		if typ, err := ParseKeyType(v.Type); err != nil || key.Type() != typ || pub.Type() != typ {
			t.Errorf("%s: types %v and %v, %v", v.Type, key.Type(), pub.Type(), err)
		}
		if !bytes.Equal(key.Marshal(), v.Private) || !bytes.Equal(pub.Marshal(), v.Public) {
			t.Errorf("%s: encodes differently from the vector", v.Type)
		}
		if key.Public() != pub || !key.Public().Equal(pub) {
			t.Errorf("%s: the public half is %v, want %v", v.Type, key.Public(), pub)
		}
		if key.ID().String() != v.ID || pub.ID() != key.ID() {
			t.Errorf("%s: IDs %v and %v, want %s", v.Type, key.ID(), pub.ID(), v.ID)
		}
		if !bytes.HasSuffix(v.Public, pub.Raw()) || len(pub.Raw()) < len(v.Public)-5 {
			t.Errorf("%s: raw key % x", v.Type, pub.Raw())
		}
		msg := []byte(v.Message)
		if !pub.Verify(msg, v.Signature) {
			t.Errorf("%s: go-libp2p's signature is refused", v.Type)
		}
		sig, err := key.Sign(msg)
		if err != nil || !pub.Verify(msg, sig) {
			t.Errorf("%s: our signature: %v", v.Type, err)
		}
		if v.Deterministic && !bytes.Equal(sig, v.Signature) {
			t.Errorf("%s: signature % x, want % x", v.Type, sig, v.Signature)
		}
		if pub.Verify(append(msg, 0), sig) || pub.Verify(nil, sig) {
			t.Errorf("%s: a signature fits another message", v.Type)
		}
	}
}

func TestGenerateKey(t *testing.T) {
	for typ := RSA; typ <= ECDSA; typ++ {
		key, err := GenerateKey(typ)
		if err != nil {
			t.Fatal(err)
		}
		again := mustPrivate(t, key.Marshal())
		pub, err := UnmarshalPublicKey(key.Public().Marshal())
		if err != nil || key.Type() != typ || !key.Equal(again) || again.Public() != pub || pub.ID() != again.ID() {
			t.Errorf("%v: %v, then %v and %v, %v", typ, key, again, pub, err)
		}
		sig, err := again.Sign([]byte("m"))
		if err != nil || !key.Public().Verify([]byte("m"), sig) {
			t.Errorf("%v: signature after a round trip: %v", typ, err)
		}
		other, err := GenerateKey(Ed25519)
		if err != nil || key.Equal(other) || other.Public().Verify([]byte("m"), sig) {
			t.Errorf("%v: a key equals another one, %v", typ, err)
		}
	}
	if _, err := GenerateKey(ECDSA + 1); err == nil {
		t.Error("a key of an unknown type was made")
	}
}

func TestKeyType(t *testing.T) {
	for typ := RSA; typ <= ECDSA; typ++ {
		for _, name := range []string{typ.String(), strings.ToLower(typ.String()), strings.ToUpper(typ.String())} {
			if got, err := ParseKeyType(name); got != typ || err != nil {
				t.Errorf("ParseKeyType(%q) = %v, %v", name, got, err)
			}
		}
	}
	for _, name := range []string{"", "ed448", "KeyType(4)", strings.Repeat("x", 1<<20)} {
		if got, err := ParseKeyType(name); err == nil || len(err.Error()) > 1000 {
			t.Errorf("ParseKeyType(%.20q) = %v, %v", name, got, err != nil)
		}
	}
	if got := KeyType(9).String(); got != "KeyType(9)" {
		t.Errorf("unknown type prints as %q", got)
	}
}

func TestZeroKeys(t *testing.T) {
	var pub PublicKey
	var key PrivateKey
	if !pub.IsZero() || pub.Marshal() != nil || pub.Raw() != nil || !pub.ID().IsZero() || pub.Type() != 0 || pub.Verify(nil, nil) || pub.String() == "" {
		t.Errorf("the zero PublicKey is something: %v", pub)
	}
	if !key.IsZero() || key.Marshal() != nil || !key.ID().IsZero() || !key.Public().IsZero() || key.Type() != 0 || key.String() == "" {
		t.Errorf("the zero PrivateKey is something: %v", key)
	}
	if sig, err := key.Sign(nil); err == nil {
		t.Errorf("no key signed % x", sig)
	}
}

// Whatever bit of a signature is turned, it is refused.
func TestEveryBitOfASignatureCounts(t *testing.T) {
	msg := []byte("every bit counts")
	for typ, key := range vectorKeys(t) {
		sig, err := key.Sign(msg)
		if err != nil {
			t.Fatal(err)
		}
		for i := range len(sig) * 8 {
			sig[i/8] ^= 1 << (i % 8)
			if key.Public().Verify(msg, sig) {
				t.Errorf("%v: accepted with bit %d turned", typ, i)
			}
			sig[i/8] ^= 1 << (i % 8)
		}
		for n := range len(sig) {
			if key.Public().Verify(msg, sig[:n]) {
				t.Errorf("%v: the first %d bytes are accepted", typ, n)
			}
		}
		for _, tail := range []string{"\x00", "\x01", strings.Repeat("\x00", 4096)} {
			if key.Public().Verify(msg, append(bytes.Clone(sig), tail...)) {
				t.Errorf("%v: accepted with %d bytes behind", typ, len(tail))
			}
		}
		if !key.Public().Verify(msg, sig) {
			t.Errorf("%v: the signature itself is refused", typ)
		}
	}
}

// Whatever bit of a public key is turned, it is refused or is another peer's.
func TestEveryBitOfAPublicKeyCounts(t *testing.T) {
	msg := []byte("every bit counts")
	for typ, key := range vectorKeys(t) {
		sig, err := key.Sign(msg)
		if err != nil {
			t.Fatal(err)
		}
		b := key.Public().Marshal()
		for i := range len(b) * 8 {
			b[i/8] ^= 1 << (i % 8)
			pub, err := UnmarshalPublicKey(b)
			if err == nil && (pub.ID() == key.ID() || pub.Verify(msg, sig)) {
				t.Errorf("%v: the key with bit %d turned is %v, and verifies: %v", typ, i, pub, pub.Verify(msg, sig))
			}
			b[i/8] ^= 1 << (i % 8)
		}
	}
}

// A key has one encoding: everything else that protobuf allows is refused.
func TestPublicKeyIsCanonical(t *testing.T) {
	for typ, key := range vectorKeys(t) {
		good, data := key.Public().Marshal(), key.Public().Raw()
		head := good[:len(good)-len(data)] // 08 type 12 length
		length := head[3:]
		tag, field := []byte{0x08, byte(typ)}, concat([]byte{0x12}, length, data)
		longer := concat(length[:len(length)-1], []byte{length[len(length)-1] | 0x80, 0})
		for name, b := range map[string][]byte{
			"nothing":                  nil,
			"no type":                  field,
			"no data":                  tag,
			"empty data":               concat(tag, []byte{0x12, 0}),
			"other order":              concat(field, tag),
			"type twice":               concat(tag, tag, field),
			"data twice":               concat(tag, field, field),
			"an unknown field behind":  concat(good, []byte{0x18, 1}),
			"an unknown field before":  concat([]byte{0x18, 1}, good),
			"an unknown field between": concat(tag, []byte{0x18, 1}, field),
			"a byte behind":            concat(good, []byte{0}),
			"type in two bytes":        concat([]byte{0x08, byte(typ) | 0x80, 0}, field),
			"tag 1 in two bytes":       concat([]byte{0x88, 0, byte(typ)}, field),
			"tag 2 in two bytes":       concat(tag, []byte{0x92, 0}, field[1:]),
			"length in one byte more":  concat(tag, []byte{0x12}, longer, data),
			"length one too large":     concat(tag, []byte{0x12, length[0] + 1}, length[1:], data),
			"length of 2^63":           concat(tag, []byte{0x12, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1}, data),
			"data cut":                 concat(tag, wireBytes(2, data[:len(data)-1])),
			"data with a byte more":    concat(tag, wireBytes(2, concat(data, []byte{0}))),
			"unknown type":             concat([]byte{0x08, 4}, field),
			"type -1":                  concat([]byte{0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, field),
			"data as a varint":         concat(tag, []byte{0x10, 1}),
			"the private key":          key.Marshal(),
		} {
			if pub, err := UnmarshalPublicKey(b); err == nil {
				t.Errorf("%v, %s: accepted as %v", typ, name, pub)
			} else if !pub.IsZero() || !strings.HasPrefix(err.Error(), "peer: ") || len(err.Error()) > 300 {
				t.Errorf("%v, %s: %v and error %v", typ, name, pub, err)
			}
		}
		for other := RSA; other <= ECDSA; other++ {
			b := concat([]byte{0x08, byte(other)}, field)
			if pub, err := UnmarshalPublicKey(b); other != typ && err == nil {
				t.Errorf("%v key labelled %v: accepted as %v", typ, other, pub)
			}
		}
		for n := range len(good) {
			if _, err := UnmarshalPublicKey(good[:n]); err == nil {
				t.Errorf("%v: the first %d bytes are accepted", typ, n)
			}
		}
	}
}

// Each encoding of a point of small order is one whose signatures can be forged
// without a private key, as this test does, and none is taken for a key.
func TestEd25519SmallOrder(t *testing.T) {
	const sign = 0x80
	var points [][]byte
	for _, y := range ed25519SmallOrder {
		points = append(points, []byte(y), []byte(y))
		points[len(points)-1][31] |= sign
	}
	for _, low := range []byte{0xed, 0xee} { // 0 and 1 with the prime added
		y := []byte(ed25519Prime)
		y[0] = low
		points = append(points, y, bytes.Clone(y))
		points[len(points)-1][31] |= sign
	}
	if len(points) != 14 {
		t.Fatalf("%d encodings, want 14", len(points))
	}
	for _, point := range points {
		forged := false
		for i := range 1000 {
			// R is 0 and S is 0: valid where the hash is a multiple of the order.
			sig := make([]byte, stded25519.SignatureSize)
			sig[0] = 1
			if stded25519.Verify(point, fmt.Append(nil, i), sig) {
				forged = true
				break
			}
		}
		if !forged {
			t.Errorf("% x is not of small order", point)
		}
		if pub, err := UnmarshalPublicKey(joinKey(Ed25519, point)); err == nil {
			t.Errorf("% x is taken for a key: %v", point, pub)
		}
	}
}

// The encodings of y+p, for the y that have one, are refused, sign or not; those
// of y itself and of the largest coordinate are not.
func TestEd25519SecondForm(t *testing.T) {
	for low := 0xed; low <= 0xff; low++ {
		for _, high := range []byte{0x7f, 0xff} {
			b := bytes.Repeat([]byte{0xff}, 32)
			b[0], b[31] = byte(low), high
			if _, err := UnmarshalPublicKey(joinKey(Ed25519, b)); err == nil {
				t.Errorf("% x is accepted", b)
			}
		}
	}
	b := bytes.Repeat([]byte{0xff}, 32)
	b[0], b[31] = 0xeb, 0x7f // p-2
	if _, err := UnmarshalPublicKey(joinKey(Ed25519, b)); err != nil {
		t.Errorf("% x: %v", b, err)
	}
}

// S and S+L are the same scalar: only the one below L is accepted.
func TestEd25519SecondSignature(t *testing.T) {
	key := vectorKeys(t)[Ed25519]
	msg := []byte("malleable")
	sig, err := key.Sign(msg)
	if err != nil {
		t.Fatal(err)
	}
	order, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	s := new(big.Int).SetBytes(reversed(sig[32:]))
	copy(sig[32:], reversed(s.Add(s, order).FillBytes(make([]byte, 32))))
	if key.Public().Verify(msg, sig) {
		t.Error("S+L is accepted")
	}
}

func TestEd25519PrivateKey(t *testing.T) {
	good := vectorKeys(t)[Ed25519].Marshal()[4:]
	public := good[32:]
	legacy := concat(good, public)
	key, err := UnmarshalPrivateKey(joinKey(Ed25519, legacy))
	if err != nil || !bytes.Equal(key.Marshal(), joinKey(Ed25519, good)) {
		t.Errorf("key of 96 bytes: %v, %v", key, err)
	}
	legacy[95] ^= 1
	other := bytes.Clone(good)
	other[40] ^= 1
	for name, data := range map[string][]byte{
		"96 bytes that differ":       legacy,
		"a public half of another":   other,
		"96, both halves of another": concat(other, other[32:]),
		"the seed alone":             good[:32],
		"63 bytes":                   good[:63],
		"65 bytes":                   concat(good, []byte{0}),
	} {
		if key, err := UnmarshalPrivateKey(joinKey(Ed25519, data)); err == nil {
			t.Errorf("%s: accepted as %v", name, key)
		}
	}
}

func TestSecp256k1Keys(t *testing.T) {
	order := secp256k1.Params().N
	above := new(big.Int).Add(order, big.NewInt(1))
	for name, data := range map[string][]byte{
		"0":             make([]byte, 32),
		"the order":     order.Bytes(),
		"the order + 1": above.Bytes(),
		"2^256 - 1":     bytes.Repeat([]byte{0xff}, 32),
		"31 bytes":      bytes.Repeat([]byte{1}, 31),
		"33 bytes":      bytes.Repeat([]byte{1}, 33),
	} {
		if key, err := UnmarshalPrivateKey(joinKey(Secp256k1, data)); err == nil {
			t.Errorf("private key %s: accepted as %v", name, key)
		}
	}
	last := new(big.Int).Sub(order, big.NewInt(1))
	if _, err := UnmarshalPrivateKey(joinKey(Secp256k1, last.Bytes())); err != nil {
		t.Errorf("private key of the order - 1: %v", err)
	}

	good := vectorKeys(t)[Secp256k1].Public().Raw()
	parsed, err := secp256k1.ParsePubKey(good)
	if err != nil {
		t.Fatal(err)
	}
	uncompressed := parsed.SerializeUncompressed()
	hybrid := bytes.Clone(uncompressed)
	hybrid[0] = 6 | hybrid[64]&1
	if _, err := secp256k1.ParsePubKey(hybrid); err != nil {
		t.Fatal(err) // the library takes it, so that the test says something
	}
	overPrime := append([]byte{2}, secp256k1.Params().P.Bytes()...)
	noPoint := append([]byte{2}, make([]byte, 32)...)
	noPoint[32] = 5 // x = 5 is on the twist
	for name, data := range map[string][]byte{
		"uncompressed":     uncompressed,
		"hybrid":           hybrid,
		"prefix 04":        concat([]byte{4}, good[1:]),
		"prefix 00":        concat([]byte{0}, good[1:]),
		"x the prime":      overPrime,
		"x of no point":    noPoint,
		"infinity":         {0},
		"32 bytes":         good[1:],
		"33 zeros":         make([]byte, 33),
		"34 bytes":         concat(good, []byte{0}),
		"an Ed25519 point": vectorKeys(t)[Ed25519].Public().Raw(),
	} {
		if pub, err := UnmarshalPublicKey(joinKey(Secp256k1, data)); err == nil {
			t.Errorf("public key, %s: accepted as %v", name, pub)
		}
	}
}

func TestECDSAKeys(t *testing.T) {
	vector := vectorKeys(t)[ECDSA]
	good := vector.Public().Raw()
	public := map[string][]byte{
		"no point":         concat(good[:len(good)-1], []byte{good[len(good)-1] ^ 1}),
		"infinity":         concat(ecdsaHeader, []byte{0}),
		"zeros":            concat(ecdsaHeader, make([]byte, 65)),
		"the point alone":  good[len(ecdsaHeader):],
		"trailing byte":    concat(good, []byte{0}),
		"outer length BER": concat([]byte{0x30, 0x81, 0x59}, good[2:]),
	}
	point := good[len(ecdsaHeader):]
	compressed := elliptic.MarshalCompressed(elliptic.P256(), new(big.Int).SetBytes(point[1:33]), new(big.Int).SetBytes(point[33:]))
	header := bytes.Clone(ecdsaHeader)
	header[1], header[24] = 57, 34
	public["compressed"] = concat(header, compressed)
	hybrid := bytes.Clone(good)
	hybrid[len(ecdsaHeader)] = 6 | good[len(good)-1]&1
	public["hybrid"] = hybrid
	private := map[string][]byte{}
	for _, curve := range []elliptic.Curve{elliptic.P224(), elliptic.P384(), elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		name := curve.Params().Name
		if public[name], err = x509.MarshalPKIXPublicKey(&key.PublicKey); err != nil {
			t.Fatal(err)
		}
		if private[name], err = x509.MarshalECPrivateKey(key); err != nil {
			t.Fatal(err)
		}
	}
	for name, data := range public {
		if pub, err := UnmarshalPublicKey(joinKey(ECDSA, data)); err == nil {
			t.Errorf("public key, %s: accepted as %v", name, pub)
		}
	}

	sec1 := vector.Marshal()[3:]
	if sec1[0] != byte(len(sec1)-1) {
		t.Fatal("the vector has another length than this test takes it to have")
	}
	sec1 = sec1[1:]
	private["another public half"] = concat(sec1[:len(sec1)-1], []byte{sec1[len(sec1)-1] ^ 1})
	private["a damaged scalar"] = concat(sec1[:10], []byte{sec1[10] ^ 1}, sec1[11:])
	private["a byte behind"] = concat(sec1, []byte{0})
	private["zeros"] = concat(sec1[:7], make([]byte, 32), sec1[39:])
	private["long"] = concat(sec1, make([]byte, 1<<20))
	for name, data := range private {
		if key, err := UnmarshalPrivateKey(joinKey(ECDSA, data)); err == nil {
			t.Errorf("private key, %s: accepted as %v", name, key)
		}
	}
}

// Signatures of both ECDSA types are strict DER within range, and secp256k1 has
// one value of S where P-256 has two.
func TestECDSASignatureForms(t *testing.T) {
	msg := []byte("forms")
	keys := vectorKeys(t)
	for typ, order := range map[KeyType]*big.Int{
		Secp256k1: secp256k1.Params().N,
		ECDSA:     elliptic.P256().Params().N,
	} {
		pub := keys[typ].Public()
		sig, err := keys[typ].Sign(msg)
		if err != nil {
			t.Fatal(err)
		}
		r, s := splitDER(t, sig)
		if !pub.Verify(msg, joinDER(derInt(r), derInt(s))) {
			t.Errorf("%v: the signature itself is refused", typ)
		}
		otherS := new(big.Int).Sub(order, s)
		if got := pub.Verify(msg, joinDER(derInt(r), derInt(otherS))); got != (typ == ECDSA) {
			t.Errorf("%v: the other S is accepted: %v", typ, got)
		}
		zero, one := new(big.Int), big.NewInt(1)
		plus := func(x *big.Int) *big.Int { return new(big.Int).Add(x, order) }
		neg := func(x *big.Int) *big.Int { return new(big.Int).Neg(x) }
		R, S := derInt(r), derInt(s)
		good := joinDER(R, S)
		for name, bad := range map[string][]byte{
			"r = 0":                 joinDER(derInt(zero), S),
			"s = 0":                 joinDER(R, derInt(zero)),
			"both 0":                joinDER(derInt(zero), derInt(zero)),
			"both 1":                joinDER(derInt(one), derInt(one)),
			"r = n":                 joinDER(derInt(order), S),
			"s = n":                 joinDER(R, derInt(order)),
			"r + n":                 joinDER(derInt(plus(r)), S),
			"s + n":                 joinDER(R, derInt(plus(s))),
			"-r":                    joinDER(derInt(neg(r)), S),
			"-s":                    joinDER(R, derInt(neg(s))),
			"r with a zero before":  joinDER(pad(R), S),
			"s with a zero before":  joinDER(R, pad(S)),
			"r of no bytes":         joinDER([]byte{2, 0}, S),
			"s of no bytes":         joinDER(R, []byte{2, 0}),
			"r only":                joinDER(R),
			"three integers":        joinDER(R, S, S),
			"r as an octet string":  joinDER(concat([]byte{4}, R[1:]), S),
			"a set":                 concat([]byte{0x31}, good[1:]),
			"outer length BER":      concat([]byte{0x30, 0x81}, good[1:]),
			"inner length BER":      joinDER(concat([]byte{2, 0x81}, R[1:]), S),
			"indefinite length":     concat([]byte{0x30, 0x80}, good[2:], []byte{0, 0}),
			"length of 2^32":        concat([]byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff}, good[2:]),
			"a byte behind":         concat(good, []byte{0}),
			"a byte behind, inside": joinDER(R, S, []byte{0}),
			"r || s without DER":    concat(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))),
			"r of 1 MiB":            joinDER(derInt(new(big.Int).Lsh(one, 8<<20)), S),
			"zeros":                 make([]byte, 72),
			"nothing":               nil,
		} {
			if pub.Verify(msg, bad) {
				t.Errorf("%v: accepted with %s", typ, name)
			}
		}
	}
}

// However a private key is printed, nothing of it shows.
func TestPrivateKeyIsNotPrinted(t *testing.T) {
	for typ, key := range vectorKeys(t) {
		wrapped := struct {
			Shown  PrivateKey
			hidden PrivateKey
		}{key, key}
		secret := key.Marshal()[5:]
		public := key.Public().Marshal()
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%08b"} {
			for _, v := range []any{key, &key, wrapped, &wrapped, []PrivateKey{key}, map[int]PrivateKey{1: key}} {
				out := fmt.Sprintf(verb, v)
				for at := 0; at+8 <= len(secret); at++ {
					part := secret[at : at+8]
					if bytes.Contains(public, part) {
						continue // the public half is part of the encoding
					}
					for _, form := range []string{
						string(part), hex.EncodeToString(part), strings.ToUpper(hex.EncodeToString(part)),
						base64.StdEncoding.EncodeToString(part[:6]), strings.Trim(fmt.Sprint(part), "[]"),
					} {
						if strings.Contains(out, form) {
							t.Fatalf("%v: %s of %T shows bytes of the key", typ, verb, v)
						}
					}
				}
			}
		}
		if out := fmt.Sprint(key); !strings.Contains(out, key.ID().String()) || fmt.Sprintf("%#v", key) != out {
			t.Errorf("%v prints as %q", typ, out)
		}
	}
}

func TestPrivateKeyTruncated(t *testing.T) {
	for typ, key := range vectorKeys(t) {
		b := key.Marshal()
		for n := range len(b) {
			if _, err := UnmarshalPrivateKey(b[:n]); err == nil {
				t.Errorf("%v: the first %d bytes are accepted", typ, n)
			}
		}
		if _, err := UnmarshalPrivateKey(append(b, 0)); err == nil {
			t.Errorf("%v: accepted with a byte behind", typ)
		}
	}
}

func FuzzUnmarshalPublicKey(f *testing.F) {
	for _, v := range keyVectors(f) {
		f.Add([]byte(v.Public), []byte(v.Message), []byte(v.Signature))
	}
	f.Fuzz(func(t *testing.T, b, msg, sig []byte) {
		key, err := UnmarshalPublicKey(b)
		if err != nil {
			if !key.IsZero() {
				t.Fatalf("% x: %v and %v", b, key, err)
			}
			return
		}
		if !bytes.Equal(key.Marshal(), b) || !bytes.Equal(joinKey(key.Type(), key.Raw()), b) {
			t.Fatalf("% x encodes again as % x", b, key.Marshal())
		}
		if id, err := ParseID(key.ID().String()); id != key.ID() || err != nil {
			t.Fatalf("% x has the ID %v, which is %v, %v", b, key.ID(), id, err)
		}
		if inlined, ok := key.ID().PublicKey(); ok != (len(b) <= maxInlineKey) || ok && inlined != key {
			t.Fatalf("% x is not found in its ID", b)
		}
		key.Verify(msg, sig)
	})
}

func FuzzUnmarshalPrivateKey(f *testing.F) {
	for _, v := range keyVectors(f) {
		f.Add([]byte(v.Private))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		key, err := UnmarshalPrivateKey(b)
		if err != nil {
			if !key.IsZero() {
				t.Fatalf("%v and %v", key, err)
			}
			return
		}
		again, err := UnmarshalPrivateKey(key.Marshal())
		if err != nil || !again.Equal(key) || !bytes.Equal(again.Marshal(), key.Marshal()) {
			t.Fatalf("%v becomes %v, %v", key, again, err)
		}
		sig, err := key.Sign(b)
		if err != nil || !again.Public().Verify(b, sig) {
			t.Fatalf("%v cannot verify itself: %v", key, err)
		}
	})
}

func concat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func reversed(b []byte) []byte {
	out := make([]byte, len(b))
	for i, c := range b {
		out[len(b)-1-i] = c
	}
	return out
}
