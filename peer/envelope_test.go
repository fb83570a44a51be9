package peer

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/kith-p2p/kith/internal/wire"
)

const testDomain = "kith-test"

var testType = []byte{0, 1}

// about opens envelopes whose payload is a peer ID.
func about(payload []byte) (ID, error) { return IDFromBytes(payload) }

func seal(t testing.TB, key PrivateKey, domain string, payload []byte) []byte {
	t.Helper()
	b, err := SealEnvelope(key, domain, testType, payload)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestEnvelopeVectors(t *testing.T) {
	var file recordVectors
	readVectors(t, "peer-records.json", &file)
	if len(file.Envelopes) < 3 {
		t.Fatalf("only %d envelopes", len(file.Envelopes))
	}
	for i, v := range file.Envelopes {
		key := mustPrivate(t, v.Private)
		b, err := SealEnvelope(key, v.Domain, v.PayloadType, v.Payload)
		if err != nil || !bytes.Equal(b, v.Envelope) {
			t.Errorf("envelope %d: % x, %v, want % x", i, b, err, v.Envelope)
		}
		signer, payload, err := OpenEnvelope(v.Envelope, v.Domain, v.PayloadType, func(p []byte) (ID, error) {
			if !bytes.Equal(p, v.Payload) {
				t.Errorf("envelope %d: payload % x", i, p)
			}
			return key.ID(), nil
		})
		if err != nil || signer != key.ID() || !bytes.Equal(payload, v.Payload) {
			t.Errorf("envelope %d: %v, % x, %v", i, signer, payload, err)
		}
	}
}

func TestEnvelopeOfEachKeyType(t *testing.T) {
	for typ, key := range vectorKeys(t) {
		b := seal(t, key, testDomain, key.ID().Bytes())
		signer, payload, err := OpenEnvelope(b, testDomain, testType, about)
		if err != nil || signer != key.ID() || !bytes.Equal(payload, key.ID().Bytes()) {
			t.Errorf("%v: %v, % x, %v", typ, signer, payload, err)
		}
	}
}

// A valid signature is not enough: the payload has to be about its signer.
func TestEnvelopeSignerIsSubject(t *testing.T) {
	keys := vectorKeys(t)
	for typ, key := range keys {
		for other, victim := range keys {
			b := seal(t, key, testDomain, victim.ID().Bytes())
			signer, payload, err := OpenEnvelope(b, testDomain, testType, about)
			if other == typ {
				if err != nil {
					t.Errorf("%v about itself: %v", typ, err)
				}
				continue
			}
			if err == nil || !signer.IsZero() || payload != nil {
				t.Errorf("%v about %v: %v, % x, %v", typ, other, signer, payload, err)
			}
		}
		b := seal(t, key, testDomain, key.ID().Bytes())
		if _, _, err := OpenEnvelope(b, testDomain, testType, func([]byte) (ID, error) { return ID{}, nil }); err == nil {
			t.Errorf("%v: a payload about nobody is accepted", typ)
		}
		own := errors.New("no subject")
		if _, payload, err := OpenEnvelope(b, testDomain, testType, func([]byte) (ID, error) { return key.ID(), own }); !errors.Is(err, own) || payload != nil {
			t.Errorf("%v: the error of the subject function is lost: %v", typ, err)
		}
	}
}

// Until the signature is known to be right, nobody gets to see the payload.
func TestEnvelopeIsVerifiedFirst(t *testing.T) {
	never := func([]byte) (ID, error) {
		t.Error("the payload of a bad envelope was looked at")
		return ID{}, nil
	}
	for typ, key := range vectorKeys(t) {
		good := seal(t, key, testDomain, key.ID().Bytes())
		for name, open := range map[string]func() error{
			"other domain":  func() error { _, _, err := OpenEnvelope(good, "kith-other", testType, never); return err },
			"longer domain": func() error { _, _, err := OpenEnvelope(good, testDomain+"\x02", testType, never); return err },
			"no domain":     func() error { _, _, err := OpenEnvelope(good, "", testType, never); return err },
			"other type":    func() error { _, _, err := OpenEnvelope(good, testDomain, []byte{0, 2}, never); return err },
			"no type":       func() error { _, _, err := OpenEnvelope(good, testDomain, nil, never); return err },
		} {
			if err := open(); err == nil || !strings.HasPrefix(err.Error(), "peer: ") {
				t.Errorf("%v, %s: %v", typ, name, err)
			}
		}
		for i := range len(good) * 8 {
			bad := bytes.Clone(good)
			bad[i/8] ^= 1 << (i % 8)
			if signer, payload, err := OpenEnvelope(bad, testDomain, testType, never); err == nil || !signer.IsZero() || payload != nil {
				t.Errorf("%v: opened with bit %d turned", typ, i)
			}
		}
		for n := range len(good) {
			if _, _, err := OpenEnvelope(good[:n], testDomain, testType, never); err == nil {
				t.Errorf("%v: the first %d bytes are opened", typ, n)
			}
		}
	}
}

// The three parts that are signed cannot flow into one another.
func TestEnvelopePartsAreSeparate(t *testing.T) {
	key := vectorKeys(t)[Ed25519]
	accept := func([]byte) (ID, error) { return key.ID(), nil }
	b, err := SealEnvelope(key, "domain", []byte("type"), []byte("payload"))
	if err != nil {
		t.Fatal(err)
	}
	for _, parts := range [][3]string{{"domaint", "ype", "payload"}, {"domai", "ntype", "payload"}, {"domain", "typep", "ayload"}} {
		moved := bytes.Replace(b, wireBytes(2, []byte("type")), wireBytes(2, []byte(parts[1])), 1)
		moved = bytes.Replace(moved, wireBytes(3, []byte("payload")), wireBytes(3, []byte(parts[2])), 1)
		if _, _, err := OpenEnvelope(moved, parts[0], []byte(parts[1]), accept); err == nil {
			t.Errorf("opened as %q", parts)
		}
	}
}

func TestEnvelopeFields(t *testing.T) {
	key := vectorKeys(t)[Ed25519]
	payload := key.ID().Bytes()
	sig, err := key.Sign(signedBytes(testDomain, testType, payload))
	if err != nil {
		t.Fatal(err)
	}
	k, ty, p, s := wireBytes(1, key.Public().Marshal()), wireBytes(2, testType), wireBytes(3, payload), wireBytes(5, sig)
	longKey := concat(key.Public().Marshal()[:3], []byte{0xa0, 0}, key.Public().Raw())
	for name, c := range map[string]struct {
		b    []byte
		open bool
	}{
		"as sealed":               {concat(k, ty, p, s), true},
		"in another order":        {concat(s, p, ty, k), true},
		"with later fields":       {concat([]byte{4<<3 | 2, 1, 7}, k, ty, p, s, []byte{6 << 3, 1}), true},
		"nothing":                 {nil, false},
		"no key":                  {concat(ty, p, s), false},
		"no type":                 {concat(k, p, s), false},
		"no payload":              {concat(k, ty, s), false},
		"no signature":            {concat(k, ty, p), false},
		"empty signature":         {concat(k, ty, p, wireBytes(5, nil)), false},
		"signature in field 4":    {concat(k, ty, p, wireBytes(4, sig)), false},
		"key twice":               {concat(k, k, ty, p, s), false},
		"type twice":              {concat(k, ty, ty, p, s), false},
		"payload twice":           {concat(k, ty, p, p, s), false},
		"signature twice":         {concat(k, ty, p, s, s), false},
		"empty payload before":    {concat(k, ty, wireBytes(3, nil), p, s), false},
		"empty key":               {concat(wireBytes(1, nil), ty, p, s), false},
		"key not canonical":       {concat(wireBytes(1, longKey), ty, p, s), false},
		"payload as a varint":     {concat(k, ty, []byte{3 << 3, 1}, s), false},
		"not protobuf":            {concat(k, ty, p, s, []byte{0xff}), false},
		"a group":                 {concat(k, ty, p, s, []byte{7<<3 | 3, 7<<3 | 4}), false},
		"padded up to the limit":  {padTo(concat(k, ty, p, s), MaxEnvelopeLen), true},
		"padded above the limit":  {padTo(concat(k, ty, p, s), MaxEnvelopeLen+1), false},
		"a length of four GiB":    {concat(k, ty, p, s, []byte{9<<3 | 2, 0xff, 0xff, 0xff, 0xff, 0x0f}), false},
		"a length of 2^63 and up": {concat(k, ty, p, s, []byte{9<<3 | 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}), false},
	} {
		if _, _, err := OpenEnvelope(c.b, testDomain, testType, about); (err == nil) != c.open {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSealEnvelopeRefuses(t *testing.T) {
	key := vectorKeys(t)[Ed25519]
	if b, err := SealEnvelope(PrivateKey{}, testDomain, testType, nil); err == nil {
		t.Errorf("sealed without a key: % x", b)
	}
	if b, err := SealEnvelope(key, "", testType, nil); err == nil {
		t.Errorf("sealed without a domain: % x", b)
	}
	const overhead = 2 + 36 + 4 + 3 + 66 // key, type, the payload's head, signature
	if _, err := SealEnvelope(key, testDomain, testType, make([]byte, MaxEnvelopeLen-overhead)); err != nil {
		t.Errorf("largest payload: %v", err)
	}
	if b, err := SealEnvelope(key, testDomain, testType, make([]byte, MaxEnvelopeLen-overhead+1)); err == nil {
		t.Errorf("sealed %d bytes", len(b))
	}
}

func FuzzOpenEnvelope(f *testing.F) {
	for _, key := range vectorKeys(f) {
		f.Add(seal(f, key, testDomain, key.ID().Bytes()), testDomain, testType)
	}
	f.Fuzz(func(t *testing.T, data []byte, domain string, payloadType []byte) {
		var named ID
		signer, payload, err := OpenEnvelope(data, domain, payloadType, func(p []byte) (id ID, err error) {
			named, err = IDFromBytes(p)
			return named, err
		})
		if err != nil {
			if !signer.IsZero() || payload != nil {
				t.Fatalf("%v and % x and %v", signer, payload, err)
			}
			return
		}
		if signer != named || !bytes.Equal(payload, named.Bytes()) {
			t.Fatalf("%v signed % x about %v", signer, payload, named)
		}
	})
}

// padTo makes msg n bytes long with an unknown field.
func padTo(msg []byte, n int) []byte {
	body := n - len(msg) - 1
	body -= wire.UvarintLen(uint64(body))
	padded := append(bytes.Clone(msg), wireBytes(9, make([]byte, body))...)
	if len(padded) != n {
		panic(fmt.Sprintf("%d bytes, want %d", len(padded), n))
	}
	return padded
}
