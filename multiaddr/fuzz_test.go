package multiaddr

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func FuzzParse(f *testing.F) {
	v := loadVectors(f)
	for _, vec := range v.Valid {
		f.Add(vec.Text)
	}
	for _, text := range v.InvalidText {
		f.Add(text)
	}
	for _, text := range []string{
		"/p2p-stardust", "/p2p/z5A", "/p2p/BAfZBAjA2222", "/certhash/\x00\x12", "/http-path/a+b", "/onion/222222222222222=:1",
		"/garlic32/222222222222222222222222222222222222222222222\r\r\r\r\r\r\r", "/sni//sni/0", "/unix//", "/ip6/::1%",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := Parse(text)
		if err != nil {
			if a != (Addr{}) {
				t.Fatalf("Parse(%q) = %q with the error %v", text, a, err)
			}
			return
		}
		checkAddr(t, a)
	})
}

func FuzzFromBytes(f *testing.F) {
	v := loadVectors(f)
	for _, vec := range v.Valid {
		f.Add(unhex(f, vec.Hex))
	}
	for _, vec := range v.InvalidBinary {
		f.Add(unhex(f, vec.Hex))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := FromBytes(b)
		if err != nil {
			if a != (Addr{}) {
				t.Fatalf("FromBytes(%x) = %q with the error %v", b, a, err)
			}
			return
		}
		if string(a.Bytes()) != string(b) {
			t.Fatalf("FromBytes(%x).Bytes() = %x", b, a.Bytes())
		}
		checkAddr(t, a)
	})
}

// checkAddr checks what holds for every Addr.
func checkAddr(t *testing.T, a Addr) {
	t.Helper()
	if a.IsZero() || a.Len() > MaxLen {
		t.Fatalf("%q has %d bytes", a, a.Len())
	}
	text := a.String()
	if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || 0x7f <= r && r < 0xa0 }) {
		t.Fatalf("%q cannot be shown", text)
	}
	if again, err := Parse(text); err != nil || again != a {
		t.Fatalf("Parse(%q) = %q, %v", text, again, err)
	}
	if again, err := FromBytes(a.Bytes()); err != nil || again != a {
		t.Fatalf("FromBytes(%x) = %q, %v", a.Bytes(), again, err)
	}
	if a.Decapsulate(a) != (Addr{}) {
		t.Fatalf("%q without itself is %q", a, a.Decapsulate(a))
	}
	if ap, code, ok := a.AddrPort(); ok && !a.HasPrefix(FromAddrPort(code, ap)) {
		t.Fatalf("%q does not begin with its %v", a, ap)
	}
	checkParts(t, a)
}
