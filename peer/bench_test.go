package peer

import (
	"bytes"
	"testing"
)

func BenchmarkSign(b *testing.B) {
	msg := bytes.Repeat([]byte{7}, 200)
	for typ, key := range vectorKeys(b) {
		b.Run(typ.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := key.Sign(msg); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	msg := bytes.Repeat([]byte{7}, 200)
	for typ, key := range vectorKeys(b) {
		sig, err := key.Sign(msg)
		if err != nil {
			b.Fatal(err)
		}
		pub := key.Public()
		b.Run(typ.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !pub.Verify(msg, sig) {
					b.Fatal("refused")
				}
			}
		})
	}
}

func BenchmarkUnmarshalPublicKey(b *testing.B) {
	for typ, key := range vectorKeys(b) {
		proto := key.Public().Marshal()
		b.Run(typ.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := UnmarshalPublicKey(proto); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// What a remote can make us spend on a key that is refused.
func BenchmarkRefuseRSA(b *testing.B) {
	one := []byte{2, 1, 1}
	for name, data := range map[string][]byte{
		"1Mbit":    spki(rsaAlgorithm, derInt(modulus(1<<20)), []byte{2, 3, 1, 0, 1}),
		"8192bits": spki(rsaAlgorithm, derInt(modulus(8192)), one),
	} {
		proto := joinKey(RSA, data)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := UnmarshalPublicKey(proto); err == nil {
					b.Fatal("accepted")
				}
			}
		})
	}
}

func BenchmarkVerifyLargestRSA(b *testing.B) {
	pub, err := UnmarshalPublicKey(joinKey(RSA, spki(rsaAlgorithm, derInt(modulus(8192)), []byte{2, 3, 1, 0, 1})))
	if err != nil {
		b.Fatal(err)
	}
	sig := bytes.Repeat([]byte{7}, 1024)
	b.ReportAllocs()
	for b.Loop() {
		pub.Verify(nil, sig)
	}
}

func BenchmarkParseID(b *testing.B) {
	v := idVectors(b)[0].ID
	for name, text := range map[string]string{"base58": v.Base58, "base32": v.CID["base32"], "base36": v.CID["base36"]} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ParseID(text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkIDFromBytes(b *testing.B) {
	raw := idVectors(b)[0].ID.Bytes
	b.ReportAllocs()
	for b.Loop() {
		if _, err := IDFromBytes(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkIDString(b *testing.B) {
	id := vectorKeys(b)[Ed25519].ID()
	b.ReportAllocs()
	for b.Loop() {
		if id.String() == "" {
			b.Fatal("empty")
		}
	}
}

func BenchmarkPublicKeyID(b *testing.B) {
	for typ, key := range vectorKeys(b) {
		pub := key.Public()
		b.Run(typ.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if pub.ID().IsZero() {
					b.Fatal("zero")
				}
			}
		})
	}
}

func BenchmarkOpenRecord(b *testing.B) {
	for typ, key := range vectorKeys(b) {
		sealed, err := testRecord(b, key).Seal(key)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(typ.String(), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(sealed)))
			for b.Loop() {
				if _, err := OpenRecord(sealed); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkSealRecord(b *testing.B) {
	key := vectorKeys(b)[Ed25519]
	r := testRecord(b, key)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Seal(key); err != nil {
			b.Fatal(err)
		}
	}
}
