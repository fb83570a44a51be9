package interop

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/kith-p2p/kith/multiaddr"
	ref "github.com/multiformats/go-multiaddr"
)

// TestMultiaddrVectors checks that the golden vectors, which Kith's own tests
// use, are what go-multiaddr does. They contain its whole table of addresses.
func TestMultiaddrVectors(t *testing.T) {
	data, err := os.ReadFile("../testdata/vectors/multiaddr.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct {
		Valid         []struct{ Text, String, Hex string }
		InvalidText   []string
		InvalidBinary []struct{ Hex, Why string }
	}
	if err := json.Unmarshal(data, &vectors); err != nil {
		t.Fatal(err)
	}
	for _, v := range vectors.Valid {
		if v.String == "" {
			v.String = v.Text
		}
		want, err := hex.DecodeString(v.Hex)
		if err != nil {
			t.Fatal(err)
		}
		r, err := ref.NewMultiaddr(v.Text)
		if err != nil || !bytes.Equal(r.Bytes(), want) || r.String() != v.String {
			t.Errorf("go-multiaddr reads %q as %q (%x), %v, want %q (%x)", v.Text, r, r.Bytes(), err, v.String, want)
		}
		compareMultiaddrText(t, v.Text)
		compareMultiaddrText(t, v.String)
		compareMultiaddrBytes(t, want)
		compareMultiaddrParts(t, v.String)
	}
	for _, text := range vectors.InvalidText {
		if r, err := ref.NewMultiaddr(text); err == nil {
			t.Errorf("go-multiaddr reads %q as %q, want an error", text, r)
		}
		compareMultiaddrText(t, text)
	}
	for _, v := range vectors.InvalidBinary {
		b, err := hex.DecodeString(v.Hex)
		if err != nil {
			t.Fatal(err)
		}
		if r, err := ref.NewMultiaddrBytes(b); err == nil {
			t.Errorf("go-multiaddr reads %s as %q, want an error: %s", v.Hex, r, v.Why)
		}
		compareMultiaddrBytes(t, b)
	}
}

// TestMultiaddrDifferences lists every difference to go-multiaddr that is on
// purpose, and checks that it still is one.
func TestMultiaddrDifferences(t *testing.T) {
	component := func(code int, value string) string {
		b := append(ref.CodeToVarint(code), ref.CodeToVarint(len(value))...)
		return string(append(b, value...))
	}
	long := strings.Repeat("x", 1025)
	onion := "timaq4ygg2iegci"
	garlic32 := "566niximlxdzpanmn4qouucvua3k7neniwss47li5r6ugoertzuq"
	garlic64 := strings.Repeat("A", 515)
	for _, d := range []struct {
		text, binary string // one of them
		kith, ref    string // what is read, as text; "": refused
		reason       string
	}{
		// Kith knows more.
		{text: "/p2p-webrtc-star", kith: "/p2p-webrtc-star", reason: "in protocols.csv, and known to js-libp2p and rust-libp2p"},
		{text: "/p2p-websocket-star", kith: "/p2p-websocket-star", reason: "in protocols.csv, and known to js-libp2p and rust-libp2p"},
		{text: "/p2p-stardust", kith: "/p2p-stardust", reason: "in protocols.csv, and known to js-libp2p and rust-libp2p"},

		// Bounds, so that a stranger's address is small.
		{binary: component(ref.P_DNS, long), ref: "/dns/" + long, reason: "a value has at most 1024 bytes"},
		{binary: strings.Repeat("\xdd\x03", 1025), ref: strings.Repeat("/ws", 1025), reason: "an address has at most 2048 bytes"},
		{binary: component(ref.P_P2P, "\x00\x2b"+long[:43]), ref: "/p2p/1F8mUynzrCASia7b6utTpYNBonyYyVMmgkRY13NGpv5NDsikQ1dUw8isphyQs", reason: "peer-ids: a key of more than 42 bytes is hashed; rust-libp2p refuses this too"},
		{binary: component(ref.P_CERTHASH, "\x13\x41"+long[:65]), ref: "/certhash/uE0F4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eA", reason: "no hash of a certificate is longer than 64 bytes; rust-libp2p refuses this too"},

		// Names that cannot be shown or looked up. js-libp2p and rust-libp2p read
		// these values as UTF-8: rust refuses others, js changes them.
		{binary: component(ref.P_DNS4, "a\nb"), ref: "/dns4/a\nb", reason: "control characters would reach logs and terminals"},
		{binary: component(ref.P_SNI, "\x1b[2J"), ref: "/sni/\x1b[2J", reason: "control characters would reach logs and terminals"},
		{binary: component(ref.P_IP6ZONE, "a\u009b"), ref: "/ip6zone/a\u009b", reason: "control characters would reach logs and terminals"},
		{binary: component(ref.P_UNIX, "/a\x7f"), ref: "/unix/a\x7f", reason: "control characters would reach logs and terminals"},
		{binary: component(ref.P_DNSADDR, "a\xff"), ref: "/dnsaddr/a\xff", reason: "not UTF-8: JSON would change the address"},

		// Text that says something else than it seems to.
		{text: "/ip4/::ffff:192.0.2.1", ref: "/ip4/192.0.2.1", reason: "not an IPv4 address; js-libp2p and rust-libp2p refuse it"},
		{text: "/ip6/192.0.2.1", ref: "/ip6/::ffff:192.0.2.1", reason: "not an IPv6 address; js-libp2p and rust-libp2p refuse it"},
		{text: "/onion/" + onion + "\n7:80", ref: "/onion/" + onion + "7:80", reason: "a line break inside base32"},
		{text: "/onion/t\u0131maq4ygg2iegci7:80", ref: "/onion/" + onion + "7:80", reason: "a dotless i, which Unicode turns into I"},
		{text: "/garlic32/" + garlic32 + "====", ref: "/garlic32/" + garlic32, reason: "I2P names are not padded; rust-libp2p refuses it"},
		{text: "/garlic64/" + garlic64 + "A\n", ref: "/garlic64/" + garlic64 + "A", reason: "a line break inside base64"},
		{text: "/certhash/uAA\nFh", ref: "/certhash/uAAFh", reason: "a line break inside base64"},
		{text: "/certhash/baabwcytdaaa", ref: "/certhash/uAANhYmM", reason: "three more digits than the bytes have"},

		// Bases that nobody uses for these values.
		{text: "/certhash/0000000000000000101100001", ref: "/certhash/uAAFh", reason: "base 2"},
		{text: "/certhash/Z176", ref: "/certhash/uAAFh", reason: "base 58 as Flickr has it"},
		{text: "/certhash/\x00\x00\x01a", ref: "/certhash/uAAFh", reason: "no encoding at all"},

		// protocols/http-path.md: an RFC 3986 path segment. go-multiaddr takes the
		// rules of form data, where a plus is a space. js-libp2p and rust-libp2p
		// do as Kith does, and all three read %20 and %2B alike.
		{text: "/http-path/a+b", kith: "/http-path/a%2Bb", ref: "/http-path/a+b", reason: "a plus is a plus"},
		{text: "/http-path/a%20b", kith: "/http-path/a%20b", ref: "/http-path/a+b", reason: "a space is written as %20"},
	} {
		var k multiaddr.Addr
		var r ref.Multiaddr
		var kerr, rerr error
		if d.text != "" {
			k, kerr = multiaddr.Parse(d.text)
			r, rerr = ref.NewMultiaddr(d.text)
		} else {
			k, kerr = multiaddr.FromBytes([]byte(d.binary))
			r, rerr = ref.NewMultiaddrBytes([]byte(d.binary))
		}
		if k.String() != d.kith || (kerr == nil) != (d.kith != "") {
			t.Errorf("%s: Kith reads %.60q%.60q as %q, %v, want %q", d.reason, d.text, d.binary, k, kerr, d.kith)
		}
		if r.String() != d.ref || (rerr == nil) != (d.ref != "") {
			t.Errorf("%s: go-multiaddr reads %.60q%.60q as %q, %v, want %q", d.reason, d.text, d.binary, r, rerr, d.ref)
		}
		// The excuses of the other tests must know it.
		if d.text != "" {
			compareMultiaddrText(t, d.text)
		} else {
			compareMultiaddrBytes(t, []byte(d.binary))
		}
	}
}

// TestMultiaddrRandom compares Kith and go-multiaddr on random addresses, and on
// the same with some bytes changed.
func TestMultiaddrRandom(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	mutate := func(b []byte) []byte {
		b = slices.Clone(b)
		for range 1 + rng.IntN(3) {
			at := rng.IntN(len(b) + 1)
			switch rng.IntN(4) {
			case 0:
				b = slices.Insert(b, at, byte(rng.IntN(256)))
			case 1:
				b = slices.Insert(b, at, "/0=:%+AaZz\n"[rng.IntN(11)])
			case 2:
				b = slices.Delete(b, at, min(at+1+rng.IntN(3), len(b)))
			case 3:
				if at < len(b) {
					b[at] ^= 1 << rng.IntN(8)
				}
			}
		}
		return b
	}
	var read, refused int
	for range 20_000 {
		text := randomMultiaddr(rng)
		r, err := ref.NewMultiaddr(text)
		if err != nil {
			t.Fatalf("the generator made %q: %v", text, err)
		}
		compareMultiaddrText(t, text)
		compareMultiaddrBytes(t, r.Bytes())
		compareMultiaddrText(t, string(mutate([]byte(text))))
		b := mutate(r.Bytes())
		compareMultiaddrBytes(t, b)
		if _, err := multiaddr.FromBytes(b); err != nil {
			refused++
		} else {
			read++
		}
		if t.Failed() {
			return
		}
	}
	if read < 2000 || refused < 2000 {
		t.Errorf("of the changed addresses %d were read and %d refused: the test does not test", read, refused)
	}
}

func FuzzMultiaddrText(f *testing.F) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 100 {
		f.Add(randomMultiaddr(rng))
	}
	f.Fuzz(func(t *testing.T, text string) { compareMultiaddrText(t, text) })
}

func FuzzMultiaddrBytes(f *testing.F) {
	rng := rand.New(rand.NewPCG(5, 6))
	for range 100 {
		f.Add(ref.StringCast(randomMultiaddr(rng)).Bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) { compareMultiaddrBytes(t, b) })
}

func compareMultiaddrText(t *testing.T, text string) {
	t.Helper()
	k, kerr := multiaddr.Parse(text)
	r, rerr := ref.NewMultiaddr(text)
	switch {
	case kerr == nil && rerr == nil:
		if !bytes.Equal(k.Bytes(), r.Bytes()) && !hasMultiaddrPlus(text) {
			t.Errorf("%q is %x for Kith and %x for go-multiaddr", text, k.Bytes(), r.Bytes())
		}
		compareMultiaddrStrings(t, k)
	case kerr != nil && rerr == nil:
		if multiaddrExcuse(r) == "" && multiaddrTextExcuse(text, r) == "" {
			t.Errorf("%q is %q (%x) for go-multiaddr, but Kith: %v", text, r, r.Bytes(), kerr)
		}
	case kerr == nil && rerr != nil:
		if !isMultiaddrStar(k) {
			t.Errorf("%q is %q (%x) for Kith, but go-multiaddr: %v", text, k, k.Bytes(), rerr)
		}
	}
}

func compareMultiaddrBytes(t *testing.T, b []byte) {
	t.Helper()
	k, kerr := multiaddr.FromBytes(b)
	r, rerr := ref.NewMultiaddrBytes(b)
	switch {
	case kerr == nil && rerr == nil:
		compareMultiaddrStrings(t, k)
	case kerr != nil && rerr == nil:
		if multiaddrExcuse(r) == "" {
			t.Errorf("%x is %q for go-multiaddr, but Kith: %v", b, r, kerr)
		}
	case kerr == nil && rerr != nil:
		if !isMultiaddrStar(k) {
			t.Errorf("%x is %q for Kith, but go-multiaddr: %v", b, k, rerr)
		}
	}
}

// compareMultiaddrStrings checks that both print k alike, and that each reads
// back what the other printed.
func compareMultiaddrStrings(t *testing.T, k multiaddr.Addr) {
	t.Helper()
	r, err := ref.NewMultiaddrBytes(k.Bytes())
	if err != nil {
		t.Errorf("go-multiaddr does not read %q from %x: %v", k, k.Bytes(), err)
		return
	}
	kText, rText := k.String(), r.String()
	if kText != rText && strings.ReplaceAll(kText, "%20", "+") != rText {
		t.Errorf("%x is printed %q by Kith and %q by go-multiaddr", k.Bytes(), kText, rText)
	}
	if again, err := ref.NewMultiaddr(kText); err != nil || !again.Equal(r) {
		t.Errorf("go-multiaddr reads %q as %q, %v", kText, again, err)
	}
	if again, err := multiaddr.Parse(rText); err != nil || again != k && !hasMultiaddrPlus(rText) {
		t.Errorf("Kith reads %q as %q, %v", rText, again, err)
	}
}

// compareMultiaddrParts compares components, their values, and joining and
// cutting.
func compareMultiaddrParts(t *testing.T, text string) {
	t.Helper()
	k, err := multiaddr.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	r := ref.StringCast(text)
	parts := slices.Collect(k.Components())
	if len(parts) != len(r) {
		t.Fatalf("%q has %d components for Kith and %d for go-multiaddr", text, len(parts), len(r))
	}
	for i, c := range parts {
		if int(c.Code()) != r[i].Code() || c.Code().String() != r[i].Protocol().Name || c.String() != r[i].String() ||
			c.Value() != r[i].Value() || !bytes.Equal(c.Bytes(), r[i].RawValue()) {
			t.Errorf("component %d of %q is %q (%q, %x) for Kith and %q (%q, %x) for go-multiaddr",
				i+1, text, c, c.Value(), c.Bytes(), r[i].String(), r[i].Value(), r[i].RawValue())
		}
		if got, want := k.Decapsulate(c.Addr()), r.Decapsulate(&r[i]); got.String() != want.String() {
			t.Errorf("%q without %q is %q for Kith and %q for go-multiaddr", text, c, got, want)
		}
		if got, want := multiaddr.MustParse("/tcp/1").Encapsulate(k), ref.StringCast("/tcp/1").Encapsulate(r); got.String() != want.String() {
			t.Errorf("/tcp/1 with %q is %q for Kith and %q for go-multiaddr", text, got, want)
		}
	}
}

// multiaddrExcuse says why Kith may refuse what go-multiaddr reads.
func multiaddrExcuse(r ref.Multiaddr) string {
	if len(r.Bytes()) > multiaddr.MaxLen {
		return "long address"
	}
	for _, c := range r {
		v := c.RawValue()
		switch code := c.Code(); {
		case len(v) > multiaddr.MaxValueLen:
			return "long value"
		case slices.Contains([]int{ref.P_DNS, ref.P_DNS4, ref.P_DNS6, ref.P_DNSADDR, ref.P_SNI, ref.P_IP6ZONE, ref.P_UNIX}, code):
			if !utf8.Valid(v) || bytes.ContainsFunc(v, unicode.IsControl) {
				return "name that cannot be shown"
			}
		case code == ref.P_P2P && v[0] == 0 && len(v) > 44:
			return "long inlined key"
		case code == ref.P_CERTHASH && len(v) > 66:
			return "long certificate hash"
		}
	}
	return ""
}

// multiaddrTextExcuse says why Kith may refuse text that go-multiaddr reads as r.
func multiaddrTextExcuse(text string, r ref.Multiaddr) string {
	elements := strings.Split(strings.TrimRight(text, "/"), "/")[1:]
	for _, c := range r {
		elements = elements[1:]
		if c.Protocol().Size == 0 || c.Protocol().Path {
			continue
		}
		value := elements[0]
		elements = elements[1:]
		partial := func(digits int) bool { return digits%8 == 1 || digits%8 == 3 || digits%8 == 6 }
		switch c.Code() {
		case ref.P_IP4, ref.P_IP6:
			if strings.Contains(value, ":") == (c.Code() == ref.P_IP4) {
				return "address of the other family"
			}
		case ref.P_ONION, ref.P_ONION3, ref.P_GARLIC64, ref.P_GARLIC32:
			if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) {
				return "characters outside the alphabet"
			}
			if strings.Contains(value, "=") {
				return "padding"
			}
		case ref.P_P2P, ref.P_CERTHASH:
			switch {
			case strings.ContainsAny(value, "\r\n"):
				return "line break"
			case !strings.ContainsRune("fFbBcCvVtTkKzmMuU", rune(value[0])) && !(c.Code() == ref.P_P2P && (value[0] == '1' || value[0] == 'Q')):
				return "unusual base"
			case strings.Contains(value, "="), strings.ContainsRune("bBvV", rune(value[0])) && partial(len(value)-1):
				return "digits or padding that stand for nothing"
			}
		}
	}
	return ""
}

func hasMultiaddrPlus(text string) bool {
	return strings.Contains(text, "/http-path/") && strings.Contains(text, "+")
}

func isMultiaddrStar(k multiaddr.Addr) bool {
	return k.Has(multiaddr.P2PWebRTCStar) || k.Has(multiaddr.P2PWebSocketStar) || k.Has(multiaddr.P2PStardust)
}

// randomMultiaddr returns an address that both read.
func randomMultiaddr(rng *rand.Rand) string {
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	name := func() string {
		const letters = "abcxyzABZ0129-_.%: ~é€"
		var s strings.Builder
		for range 1 + rng.IntN(40) {
			s.WriteRune([]rune(letters)[rng.IntN(utf8.RuneCountInString(letters))])
		}
		return s.String()
	}
	// A value is made from its binary form where that is easier.
	value := func(code int, v []byte) string {
		b := ref.CodeToVarint(code)
		if ref.ProtocolWithCode(code).Size < 0 {
			b = append(b, ref.CodeToVarint(len(v))...)
		}
		m, err := ref.NewMultiaddrBytes(append(b, v...))
		if err != nil {
			panic(err)
		}
		return m.String()
	}
	port := func() []byte { return append(random(1), 1+byte(rng.IntN(255))) }
	bases := []func([]byte) string{
		func(b []byte) string { return "f" + hex.EncodeToString(b) },
		func(b []byte) string { return "F" + strings.ToUpper(hex.EncodeToString(b)) },
	}
	var s strings.Builder
	for range 1 + rng.IntN(6) {
		p := ref.Protocols[rng.IntN(len(ref.Protocols))]
		switch p.Code {
		case ref.P_UNIX:
			continue // only at the end
		case ref.P_IP6ZONE, ref.P_DNS, ref.P_DNS4, ref.P_DNS6, ref.P_DNSADDR, ref.P_SNI:
			fmt.Fprintf(&s, "/%s/%s", p.Name, name())
		case ref.P_HTTP_PATH:
			s.WriteString(value(p.Code, random(1+rng.IntN(60))))
		case ref.P_P2P:
			id := append([]byte{0x12, 0x20}, random(32)...)
			if rng.IntN(2) == 0 {
				n := rng.IntN(43)
				id = append([]byte{0, byte(n)}, random(n)...)
			}
			if rng.IntN(3) == 0 {
				fmt.Fprintf(&s, "/p2p/%s", bases[rng.IntN(len(bases))](append([]byte{1, 0x72}, id...)))
			} else {
				s.WriteString(value(p.Code, id))
			}
		case ref.P_CERTHASH:
			n := rng.IntN(65)
			hash := append([]byte{byte(rng.IntN(128)), byte(n)}, random(n)...)
			if rng.IntN(3) == 0 {
				fmt.Fprintf(&s, "/certhash/%s", bases[rng.IntN(len(bases))](hash))
			} else {
				s.WriteString(value(p.Code, hash))
			}
		case ref.P_ONION:
			s.WriteString(value(p.Code, append(random(10), port()...)))
		case ref.P_ONION3:
			s.WriteString(value(p.Code, append(random(35), port()...)))
		case ref.P_GARLIC32:
			s.WriteString(value(p.Code, random([]int{32, 35, 36, 37, 38, 39, 40}[rng.IntN(7)])))
		case ref.P_GARLIC64:
			s.WriteString(value(p.Code, random(386+rng.IntN(77))))
		default:
			s.WriteString(value(p.Code, random(p.Size/8)))
		}
	}
	if s.Len() == 0 || rng.IntN(8) == 0 {
		fmt.Fprintf(&s, "/unix/%s/%s.sock", name(), name())
	}
	return s.String()
}
