package peer

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"runtime"
	"strings"
	"testing"
)

// The AlgorithmIdentifier of rsaEncryption, and that of RSASSA-PSS.
var (
	rsaAlgorithm = []byte("\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00")
	pssAlgorithm = []byte("\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a\x05\x00")
)

func spki(algorithm, modulus, exponent []byte) []byte {
	return joinDER(algorithm, der(3, concat([]byte{0}, joinDER(modulus, exponent))))
}

// modulus returns a number of exactly this many bits, odd and otherwise random.
func modulus(bits uint) *big.Int {
	n := new(big.Int).Lsh(big.NewInt(1), bits-1)
	fill := make([]byte, 0, bits/8+sha256.Size)
	for uint(len(fill)) < bits/8 {
		h := sha256.Sum256(fill[max(0, len(fill)-32):])
		fill = append(fill, h[:]...)
	}
	low := new(big.Int).SetBytes(fill[:bits/8])
	low.Rsh(low, 2)
	return n.Or(n, low.SetBit(low, 0, 1))
}

func TestRSARange(t *testing.T) {
	e := derInt(big.NewInt(65537))
	for _, bits := range []uint{2048, 2049, 3072, 4096, 8191, 8192} {
		b := joinKey(RSA, spki(rsaAlgorithm, derInt(modulus(bits)), e))
		if pub, err := UnmarshalPublicKey(b); err != nil || !bytes.Equal(pub.Marshal(), b) {
			t.Errorf("%d bits: %v", bits, err)
		}
	}
	for _, exponent := range []int64{3, 5, 17, 257, 65535} {
		if _, err := UnmarshalPublicKey(joinKey(RSA, spki(rsaAlgorithm, derInt(modulus(2048)), derInt(big.NewInt(exponent))))); err != nil {
			t.Errorf("exponent %d: %v", exponent, err)
		}
	}
	largest := spki(rsaAlgorithm, derInt(modulus(rsaMaxBits)), e)
	if len(largest) != rsaMaxPublic {
		t.Errorf("a key of %d bits takes %d bytes, not %d", rsaMaxBits, len(largest), rsaMaxPublic)
	}
}

func TestRSARefuses(t *testing.T) {
	n, e := derInt(modulus(2048)), derInt(big.NewInt(65537))
	good := spki(rsaAlgorithm, n, e)
	if _, err := UnmarshalPublicKey(joinKey(RSA, good)); err != nil {
		t.Fatal(err)
	}
	number := func(v int64) []byte { return derInt(big.NewInt(v)) }
	power := func(k uint) []byte { return derInt(new(big.Int).Lsh(big.NewInt(1), k)) }
	even := modulus(2048)
	even.SetBit(even, 0, 0)
	for name, data := range map[string][]byte{
		"512 bits":             spki(rsaAlgorithm, derInt(modulus(512)), e),
		"1024 bits":            spki(rsaAlgorithm, derInt(modulus(1024)), e),
		"2047 bits":            spki(rsaAlgorithm, derInt(modulus(2047)), e),
		"8193 bits":            spki(rsaAlgorithm, derInt(modulus(8193)), e),
		"16k bits":             spki(rsaAlgorithm, derInt(modulus(16<<10)), e),
		"64k bits":             spki(rsaAlgorithm, derInt(modulus(64<<10)), e),
		"1M bits":              spki(rsaAlgorithm, derInt(modulus(1<<20)), e),
		"even modulus":         spki(rsaAlgorithm, derInt(even), e),
		"modulus 2^2047":       spki(rsaAlgorithm, power(2047), e),
		"modulus 2^8191":       spki(rsaAlgorithm, power(8191), e),
		"modulus 0":            spki(rsaAlgorithm, number(0), e),
		"modulus 1":            spki(rsaAlgorithm, number(1), e),
		"negative modulus":     spki(rsaAlgorithm, derInt(new(big.Int).Neg(modulus(2048))), e),
		"exponent 0":           spki(rsaAlgorithm, n, number(0)),
		"exponent 1":           spki(rsaAlgorithm, n, number(1)),
		"exponent -1":          spki(rsaAlgorithm, n, number(-1)),
		"exponent -65537":      spki(rsaAlgorithm, n, number(-65537)),
		"exponent 2":           spki(rsaAlgorithm, n, number(2)),
		"exponent 65536":       spki(rsaAlgorithm, n, number(65536)),
		"exponent 65539":       spki(rsaAlgorithm, n, number(65539)),
		"exponent 2^31-1":      spki(rsaAlgorithm, n, number(1<<31-1)),
		"exponent 2^31":        spki(rsaAlgorithm, n, power(31)),
		"exponent 2^32+65537":  spki(rsaAlgorithm, n, number(1<<32+65537)),
		"exponent 2^63":        spki(rsaAlgorithm, n, power(63)),
		"exponent 2^64+65537":  spki(rsaAlgorithm, n, derInt(new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), 64), big.NewInt(65537)))),
		"exponent of the size": spki(rsaAlgorithm, n, n),
		"modulus padded":       spki(rsaAlgorithm, concat([]byte{2, 0x82, 1, 2, 0}, n[4:]), e),
		"exponent padded":      spki(rsaAlgorithm, n, pad(e)),
		"other algorithm":      spki(pssAlgorithm, n, e),
		"no NULL":              spki(joinDER(rsaAlgorithm[2:13]), n, e),
		"a byte behind":        concat(good, []byte{0}),
		"byte in the string":   joinDER(rsaAlgorithm, der(3, concat([]byte{0}, joinDER(n, e), []byte{0}))),
		"third integer":        joinDER(rsaAlgorithm, der(3, concat([]byte{0}, joinDER(n, e, e)))),
		"unused bits":          joinDER(rsaAlgorithm, der(3, concat([]byte{1}, joinDER(n, e)))),
		"third element":        joinDER(rsaAlgorithm, der(3, concat([]byte{0}, joinDER(n, e))), e),
		"length in BER":        concat([]byte{0x30, 0x83, 0}, good[2:]),
		"PKCS #1":              joinDER(n, e),
		"nothing":              nil,
	} {
		b := joinKey(RSA, data)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := UnmarshalPublicKey(b)
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		if !strings.HasPrefix(err.Error(), "peer: ") || len(err.Error()) > 200 {
			t.Errorf("%s: error of %d bytes: %.200s", name, len(err.Error()), err)
		}
		// What is too long is not even looked at.
		if cost := after.TotalAlloc - before.TotalAlloc; cost > 16<<10 {
			t.Errorf("%s: refusing %d bytes allocated %d", name, len(b), cost)
		}
	}
}

// PKCS #1 v1.5 has one signature for a key and a message. Everything near it is
// refused: another padding, hash or structure, and numbers from the modulus up.
func TestRSASignatureForms(t *testing.T) {
	key := vectorKeys(t)[RSA]
	parsed, err := x509.ParsePKCS1PrivateKey(key.Marshal()[5:])
	if err != nil {
		t.Fatal(err)
	}
	msg := []byte("forms")
	sig, err := key.Sign(msg)
	if err != nil {
		t.Fatal(err)
	}
	size := parsed.Size()
	hash := sha256.Sum256(msg)
	info := concat([]byte("\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20"), hash[:])
	raise := func(em []byte) []byte { // signs whatever it is given
		m := new(big.Int).SetBytes(em)
		return m.Exp(m, parsed.D, parsed.N).FillBytes(make([]byte, size))
	}
	padded := func(block byte, fill byte, info []byte) []byte {
		return concat([]byte{0, block}, bytes.Repeat([]byte{fill}, size-3-len(info)), []byte{0}, info)
	}
	if !bytes.Equal(raise(padded(1, 0xff, info)), sig) {
		t.Fatal("the test does not make the signature that Sign makes")
	}
	plusN := new(big.Int).SetBytes(sig)
	plusN.Add(plusN, parsed.N)
	short := concat([]byte{0, 1}, bytes.Repeat([]byte{0xff}, 8), []byte{0}, info)
	for name, bad := range map[string][]byte{
		"block type 2":           raise(padded(2, 0xff, info)),
		"block type 0":           raise(padded(0, 0xff, info)),
		"padding of 00":          raise(padded(1, 0, info)),
		"no NULL":                raise(padded(1, 0xff, concat([]byte("\x30\x2f\x30\x0b\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x04\x20"), hash[:]))),
		"BER length":             raise(padded(1, 0xff, concat([]byte{0x30, 0x81, 0x31}, info[2:]))),
		"the hash alone":         raise(padded(1, 0xff, hash[:])),
		"SHA-512 named":          raise(padded(1, 0xff, bytes.Replace(info, []byte{4, 2, 1, 5}, []byte{4, 2, 3, 5}, 1))),
		"garbage behind":         raise(concat(short, bytes.Repeat([]byte{7}, size-len(short)))),
		"garbage in the NULL":    raise(padded(1, 0xff, concat([]byte("\x30\x33\x30\x0f\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x02\x07\x07\x04\x20"), hash[:]))),
		"the modulus added":      plusN.Bytes(),
		"a zero before":          concat([]byte{0}, sig),
		"the modulus":            parsed.N.Bytes(),
		"0":                      make([]byte, size),
		"1":                      concat(make([]byte, size-1), []byte{1}),
		"the modulus - 1":        new(big.Int).Sub(parsed.N, big.NewInt(1)).Bytes(),
		"bytes, one for each 1k": bytes.Repeat([]byte{1}, 1<<20),
		"nothing":                nil,
	} {
		if key.Public().Verify(msg, bad) {
			t.Errorf("accepted: %s", name)
		}
	}
}

func TestRSAPrivateRefuses(t *testing.T) {
	vectors := keyVectors(t)
	key, err := x509.ParsePKCS1PrivateKey(vectors[len(vectors)-1].Private[5:])
	if err != nil {
		t.Fatal(err)
	}
	structure := func(change func(n []*big.Int)) []byte {
		n := []*big.Int{big.NewInt(0), key.N, big.NewInt(int64(key.E)), key.D, key.Primes[0], key.Primes[1],
			key.Precomputed.Dp, key.Precomputed.Dq, key.Precomputed.Qinv}
		change(n)
		var parts [][]byte
		for _, v := range n {
			parts = append(parts, derInt(v))
		}
		return joinDER(parts...)
	}
	if _, err := UnmarshalPrivateKey(joinKey(RSA, structure(func([]*big.Int) {}))); err != nil {
		t.Fatal(err)
	}
	add := func(i int, by int64) []byte {
		return structure(func(n []*big.Int) { n[i] = new(big.Int).Add(n[i], big.NewInt(by)) })
	}
	small, err := asn1.Marshal(struct{ V, N, E, D, P, Q, Dp, Dq, Qi int }{0, 3233, 17, 413, 61, 53, 53, 49, 38})
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"version 2":       add(0, 2),
		"another modulus": add(1, 2),
		"another e":       add(2, 2),
		"another d":       add(3, 2),
		"another prime":   add(4, 2),
		"another qinv":    add(8, 1),
		"negative d":      structure(func(n []*big.Int) { n[3] = new(big.Int).Neg(n[3]) }),
		"61 and 53":       small,
		"PKCS #8":         pkcs8,
		"public key":      x509.MarshalPKCS1PublicKey(&rsa.PublicKey{N: key.N, E: key.E}),
		"long":            concat(structure(func([]*big.Int) {}), make([]byte, 1<<20)),
	} {
		if key, err := UnmarshalPrivateKey(joinKey(RSA, data)); err == nil {
			t.Errorf("%s: accepted as %v", name, key)
		}
	}
}
