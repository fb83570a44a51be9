package peer

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"github.com/kith-p2p/kith/internal/multibase"
)

func TestIDVectors(t *testing.T) {
	for _, v := range idVectors(t) {
		id, err := IDFromBytes(v.ID.Bytes)
		if err != nil {
			t.Errorf("%s: %v", v.Name, err)
			continue
		}
		if id.String() != v.ID.Base58 {
			t.Errorf("%s: base58 %s, want %s", v.Name, id, v.ID.Base58)
		}
		if id.CID() != v.ID.CID["base32"] {
			t.Errorf("%s: CID %s, want %s", v.Name, id.CID(), v.ID.CID["base32"])
		}
		texts := []string{v.ID.Base58}
		for _, text := range v.ID.CID {
			texts = append(texts, text)
		}
		if v.Text != "" {
			texts = append(texts, v.Text)
		}
		for _, text := range texts {
			if got, err := ParseID(text); got != id || err != nil {
				t.Errorf("%s: ParseID(%s) = %v, %v", v.Name, text, got, err)
			}
		}
		if v.Public == nil {
			continue
		}
		key, err := UnmarshalPublicKey(v.Public)
		if err != nil || key.ID() != id {
			t.Errorf("%s: ID of the key %v, %v, want %v", v.Name, key.ID(), err, id)
		}
		inlined, ok := id.PublicKey()
		if short := len(v.Public) <= maxInlineKey; ok != short || ok && inlined != key {
			t.Errorf("%s: PublicKey = %v, %v for an encoded key of %d bytes", v.Name, inlined, ok, len(v.Public))
		}
	}
}

func TestIDForms(t *testing.T) {
	id, err := ParseID("12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA")
	if err != nil {
		t.Fatal(err)
	}
	if got := id.ShortString(); got != "12*AJU5SA" {
		t.Errorf("ShortString = %q", got)
	}
	text, err := json.Marshal(map[ID]ID{id: id})
	if want := `{"` + id.String() + `":"` + id.String() + `"}`; err != nil || string(text) != want {
		t.Errorf("JSON %s, %v, want %s", text, err, want)
	}
	var back map[ID]ID
	if err := json.Unmarshal(text, &back); err != nil || back[id] != id {
		t.Errorf("JSON back: %v, %v", back, err)
	}
	bin, err := id.MarshalBinary()
	var again ID
	if err != nil || again.UnmarshalBinary(bin) != nil || again != id {
		t.Errorf("binary % x, %v, back %v", bin, err, again)
	}
	bin[5] ^= 1
	if again != id || !bytes.Equal(id.Bytes(), again.Bytes()) {
		t.Error("an ID changed with the bytes it was read from")
	}
	other, _ := ParseID("QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N")
	if id.Compare(other) != -1 || other.Compare(id) != 1 || id.Compare(id) != 0 {
		t.Error("Compare is not the order of the bytes")
	}
}

func TestZeroID(t *testing.T) {
	var id ID
	text, _ := id.MarshalText()
	bin, _ := id.MarshalBinary()
	if !id.IsZero() || id.String() != "" || id.ShortString() != "" || id.CID() != "" || id.Bytes() != nil || len(text) != 0 || len(bin) != 0 {
		t.Errorf("the zero ID has a form: %q %q %q % x %q % x", id.String(), id.ShortString(), id.CID(), id.Bytes(), text, bin)
	}
	if _, ok := id.PublicKey(); ok {
		t.Error("the zero ID has a key")
	}
	set, _ := ParseID("QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N")
	id = set
	if err := id.UnmarshalText(nil); err != nil || !id.IsZero() {
		t.Errorf("UnmarshalText of nothing: %v, %v", id, err)
	}
	id = set
	if err := id.UnmarshalBinary(nil); err != nil || !id.IsZero() {
		t.Errorf("UnmarshalBinary of nothing: %v, %v", id, err)
	}
	id = set
	if id.UnmarshalText([]byte("x")) == nil || id.UnmarshalBinary([]byte{1}) == nil || id != set {
		t.Errorf("a failed Unmarshal left %v", id)
	}
	if _, err := ParseID(""); err == nil {
		t.Error("ParseID accepts nothing")
	}
	if _, err := IDFromBytes(nil); err == nil {
		t.Error("IDFromBytes accepts nothing")
	}
}

func TestIDFromBytesRefuses(t *testing.T) {
	ed := idVectors(t)[0].ID.Bytes
	cut := func(b []byte, n int) []byte { return b[:len(b)-n] }
	set := func(b []byte, at int, v byte) []byte {
		b = bytes.Clone(b)
		b[at] = v
		return b
	}
	hash := append([]byte{0x12, 0x20}, make([]byte, 32)...)
	for name, b := range map[string][]byte{
		"only a code":               {0x12},
		"hash cut":                  cut(hash, 1),
		"hash too long":             append(bytes.Clone(hash), 0),
		"hash truncated to 20":      append([]byte{0x12, 0x14}, make([]byte, 20)...),
		"SHA-512":                   append([]byte{0x13, 0x40}, make([]byte, 64)...),
		"SHA-1":                     append([]byte{0x11, 0x14}, make([]byte, 20)...),
		"code in two bytes":         append([]byte{0x92, 0x00, 0x20}, make([]byte, 32)...),
		"length in two bytes":       append([]byte{0x12, 0xa0, 0x00}, make([]byte, 32)...),
		"identity of nothing":       {0, 0},
		"identity of anything":      append([]byte{0, 32}, make([]byte, 32)...),
		"identity of a URL":         append([]byte{0, 19}, "https://example.com"...),
		"inlined key cut":           cut(ed, 1),
		"inlined key of type RSA":   set(ed, 3, 0),
		"inlined key of type 4":     set(ed, 3, 4),
		"secp256k1 of 32 bytes":     set(ed, 3, 2),
		"inlined key, other field":  set(ed, 2, 0x10),
		"inlined key with a byte":   append(append([]byte{0, 37}, ed[2:]...), 0),
		"inlined, longer than 42":   append([]byte{0, 43, 8, 1, 0x12, 39}, make([]byte, 39)...),
		"inlined, type in two":      append([]byte{0, 37, 8, 0x81, 0}, ed[4:]...),
		"inlined, length in two":    append([]byte{0, 37, 8, 1, 0x12, 0xa0, 0}, ed[6:]...),
		"a CID instead of its hash": append([]byte{1, 0x72}, ed...),
	} {
		if id, err := IDFromBytes(b); err == nil {
			t.Errorf("%s: % x is accepted as %v", name, b, id)
		} else if !strings.HasPrefix(err.Error(), "peer: ") {
			t.Errorf("%s: error %q", name, err)
		}
	}
}

// Other texts of the same ID, which go-libp2p and multiaddr read too.
func TestParseIDVariants(t *testing.T) {
	v := idVectors(t)[0].ID
	id, err := IDFromBytes(v.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	cid := append([]byte(cidPrefix), v.Bytes...)
	b32, b36 := v.CID["base32"], v.CID["base36"]
	for name, text := range map[string]string{
		"base32 in upper case": strings.ToUpper(b32),
		"base32 in both cases": "b" + strings.ToUpper(b32[1:]),
		"base36 in upper case": strings.ToUpper(b36),
		"base58":               "z" + string(multibase.AppendBase58(nil, string(cid))),
		"base64":               "m" + base64.RawStdEncoding.EncodeToString(cid),
		"base64url":            "u" + base64.RawURLEncoding.EncodeToString(cid),
	} {
		if got, err := ParseID(text); got != id || err != nil {
			t.Errorf("%s: ParseID(%s) = %v, %v, want %v", name, text, got, err, id)
		}
	}
}

func TestParseIDRefuses(t *testing.T) {
	v := idVectors(t)[0].ID
	b58, b32, b36 := v.Base58, v.CID["base32"], v.CID["base36"]
	mh := hex.EncodeToString(v.Bytes)
	for name, text := range map[string]string{
		"space before":          " " + b58,
		"newline after":         b58 + "\n",
		"cut":                   b58[:len(b58)-1],
		"a character more":      b58 + "1",
		"a 1 before":            "1" + b58,
		"character 0":           b58[:20] + "0" + b58[21:],
		"character l":           b58[:20] + "l" + b58[21:],
		"not ASCII":             b58[:20] + "ä" + b58[21:],
		"lower case":            strings.ToLower(b58),
		"base32 cut":            b32[:len(b32)-1],
		"base32 with a newline": b32[:20] + "\n" + b32[20:],
		"base32 padded":         b32 + "======",
		"base36 cut":            b36[:len(b36)-1],
		"base36, a zero before": "k0" + b36[1:],
		"only a base":           "k",
		"hex, odd":              "f0172" + mh + "0",
		"CIDv0 with a base":     "zQmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
		"version 2":             "f0272" + mh,
		"codec raw":             "f0155" + mh,
		"codec dag-pb":          "f0170" + mh,
		"no hash":               "f0172",
		"base64, padded":        "mAXIAJAgBEiAe0ej64sShRLi+j9S0e/PTs0uHHDys9gEPDkLUdPziFg==",
		"a path":                "/p2p/" + b58,
		"long":                  strings.Repeat("1", 1<<20),
		"long base36":           "k" + strings.Repeat("z", 1<<20),
		"96 ones":               strings.Repeat("1", 96),
		"96 last digits":        "Qm" + strings.Repeat("z", 94),
	} {
		id, err := ParseID(text)
		if err == nil {
			t.Errorf("%s: accepted as %v", name, id)
			continue
		}
		if !strings.HasPrefix(err.Error(), "peer: ") || len(err.Error()) > 1000 {
			t.Errorf("%s: error of %d bytes: %.100s", name, len(err.Error()), err)
		}
		if id.UnmarshalText([]byte(text)) == nil {
			t.Errorf("%s: accepted by UnmarshalText", name)
		}
	}
}

func FuzzParseID(f *testing.F) {
	for _, v := range idVectors(f) {
		f.Add(v.ID.Base58)
		for _, text := range v.ID.CID {
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseID(s)
		if err != nil {
			if !id.IsZero() {
				t.Fatalf("ParseID(%q) = %v and %v", s, id, err)
			}
			return
		}
		for _, text := range []string{id.String(), id.CID()} {
			if again, err := ParseID(text); again != id || err != nil {
				t.Fatalf("ParseID(%q) = %v, but ParseID(%q) = %v, %v", s, id, text, again, err)
			}
		}
		if again, err := IDFromBytes(id.Bytes()); again != id || err != nil {
			t.Fatalf("ParseID(%q) = %v, but from its bytes %v, %v", s, id, again, err)
		}
	})
}

func FuzzIDFromBytes(f *testing.F) {
	for _, v := range idVectors(f) {
		f.Add([]byte(v.ID.Bytes))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		id, err := IDFromBytes(b)
		if err != nil {
			return
		}
		if !bytes.Equal(id.Bytes(), b) {
			t.Fatalf("% x became % x", b, id.Bytes())
		}
		if again, err := ParseID(id.String()); again != id || err != nil {
			t.Fatalf("% x prints as %v, which is %v, %v", b, id, again, err)
		}
		if key, ok := id.PublicKey(); ok && key.ID() != id {
			t.Fatalf("the key in %v has the ID %v", id, key.ID())
		}
	})
}
