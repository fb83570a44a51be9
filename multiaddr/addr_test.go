package multiaddr

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
)

// vectors is ../testdata/vectors/multiaddr.json, which names its sources.
type vectors struct {
	Valid []struct {
		Text   string
		String string // canonical text, where Text is not
		Hex    string
	}
	InvalidText   []string
	InvalidBinary []struct{ Hex, Why string }
}

func loadVectors(t testing.TB) vectors {
	t.Helper()
	data, err := os.ReadFile("../testdata/vectors/multiaddr.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Valid) < 100 || len(v.InvalidText) < 100 || len(v.InvalidBinary) < 40 {
		t.Fatalf("vectors are missing: %d valid, %d invalid texts, %d invalid binaries", len(v.Valid), len(v.InvalidText), len(v.InvalidBinary))
	}
	return v
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestVectors(t *testing.T) {
	v := loadVectors(t)
	for _, vec := range v.Valid {
		canonical := vec.String
		if canonical == "" {
			canonical = vec.Text
		}
		b := unhex(t, vec.Hex)
		a, err := Parse(vec.Text)
		if err != nil {
			t.Errorf("Parse: %v", err)
			continue
		}
		if !bytes.Equal(a.Bytes(), b) || a.Len() != len(b) {
			t.Errorf("Parse(%q).Bytes() = %x (Len %d), want %x", vec.Text, a.Bytes(), a.Len(), b)
		}
		if a.String() != canonical {
			t.Errorf("Parse(%q).String() = %q, want %q", vec.Text, a.String(), canonical)
		}
		if fromBytes, err := FromBytes(b); err != nil || fromBytes != a {
			t.Errorf("FromBytes(%x) = %q, %v, want %q", b, fromBytes, err, a)
		}
		if again, err := Parse(canonical); err != nil || again != a {
			t.Errorf("Parse(%q) = %q, %v, want the same address", canonical, again, err)
		}
		checkParts(t, a)
	}
	for _, text := range v.InvalidText {
		if a, err := Parse(text); err == nil {
			t.Errorf("Parse(%q) = %q, want an error", text, a)
		} else if a != (Addr{}) || !strings.HasPrefix(err.Error(), "multiaddr: ") {
			t.Errorf("Parse(%q) = %q, %v, want a zero Addr and the prefix", text, a, err)
		}
	}
	for _, vec := range v.InvalidBinary {
		if a, err := FromBytes(unhex(t, vec.Hex)); err == nil || a != (Addr{}) {
			t.Errorf("FromBytes(%s) = %q, %v, want an error: %s", vec.Hex, a, err, vec.Why)
		}
	}
}

// checkParts checks that every way to take a apart and put it together agrees.
func checkParts(t *testing.T, a Addr) {
	t.Helper()
	var parts []Addr
	var text string
	for c := range a.Components() {
		parts = append(parts, c.Addr())
		text += c.String()
		made, err := NewComponent(c.Code(), c.Value())
		if err != nil || made != c {
			t.Errorf("NewComponent(%v, %q) = %v, %v", c.Code(), c.Value(), made, err)
		}
		if !bytes.HasSuffix(c.Addr().Bytes(), c.Bytes()) {
			t.Errorf("%v: Bytes() = %x is not the end of %x", c, c.Bytes(), c.Addr().Bytes())
		}
		if !a.Has(c.Code()) {
			t.Errorf("%q.Has(%v) is false", a, c.Code())
		}
	}
	if text != a.String() {
		t.Errorf("the components of %q print %q", a, text)
	}
	if joined := Join(parts...); joined != a {
		t.Errorf("Join(the components of %q) = %q", a, joined)
	}
	first, rest := a.SplitFirst()
	if c, ok := a.First(); c != first || ok == a.IsZero() || first.Addr().Encapsulate(rest) != a {
		t.Errorf("%q: SplitFirst() = %v, %q; First() = %v, %v", a, first, rest, c, ok)
	}
	init, last := a.SplitLast()
	if c, ok := a.Last(); c != last || ok == a.IsZero() || init.Encapsulate(last.Addr()) != a {
		t.Errorf("%q: SplitLast() = %q, %v; Last() = %v, %v", a, init, last, c, ok)
	}
	if !a.HasPrefix(init) || !a.HasPrefix(first.Addr()) || !a.HasPrefix(a) {
		t.Errorf("%q does not have its own prefixes", a)
	}
}

func TestTable(t *testing.T) {
	// The wire form of every protocol without a value, and of those that
	// go-multiaddr (and so the vectors) lacks. The codes are those of
	// protocols.csv, written out here a second time on purpose.
	for text, hex := range map[string]string{
		"/p2p-webrtc-star": "9302", "/p2p-webrtc-direct": "9402", "/p2p-stardust": "9502",
		"/webrtc-direct": "9802", "/webrtc": "9902", "/p2p-circuit": "a202", "/udt": "ad02", "/utp": "ae02",
		"/https": "bb03", "/tls": "c003", "/noise": "c603", "/quic": "cc03", "/quic-v1": "cd03", "/webtransport": "d103",
		"/ws": "dd03", "/wss": "de03", "/p2p-websocket-star": "df03", "/http": "e003", "/plaintextv2": "e1d8c103",
		// multiformats/rust-multiaddr 33f1de2c, tests/lib.rs
		"/p2p-webrtc-star/ip4/127.0.0.1/tcp/9090/ws/p2p/QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC": "9302047f000001062382dd03a503221220d52ebb89d85b02a284948203a62ff28389c57c9f42beec4ec20db76a68911c0b",
	} {
		a, err := Parse(text)
		if err != nil || a.String() != text || !bytes.Equal(a.Bytes(), unhex(t, hex)) {
			t.Errorf("Parse(%q) = %q (%x), %v, want %s", text, a, a.Bytes(), err, hex)
		}
		checkParts(t, a)
	}
	seen := map[string]bool{}
	for _, p := range protocols {
		if p.code.String() != p.name || lookup(uint64(p.code)).code != p.code || byName[p.name].code != p.code || seen[p.name] {
			t.Errorf("%d (%s) is not found by its code and its name", p.code, p.name)
		}
		seen[p.name] = true
		if (p.kind == kindNone) != (p.size == 0) {
			t.Errorf("%s: kind %d with size %d", p.name, p.kind, p.size)
		}
	}
	if !slices.IsSortedFunc(protocols[:], func(a, b protocol) int { return int(a.code) - int(b.code) }) {
		t.Error("the table is not in the order of the codes")
	}
	if got := Code(1234).String(); got != "unknown(1234)" {
		t.Errorf("Code(1234).String() = %q", got)
	}
	for _, code := range []uint64{0, 1, 5, uint64(Memory) + 1, uint64(PlaintextV2) + 1, 1 << 32, 1<<32 + 4, 1<<63 - 1} {
		if p := lookup(code); p != nil {
			t.Errorf("lookup(%d) = %s", code, p.name)
		}
	}
}

// Where Kith is stricter than go-multiaddr; interop/multiaddr_test.go has the
// reasons.
func TestHostileBinary(t *testing.T) {
	name := func(code Code, value string) []byte {
		return append(appendUvarint(appendUvarint(nil, uint64(code)), uint64(len(value))), value...)
	}
	long := strings.Repeat("x", MaxValueLen)
	for what, b := range map[string][]byte{
		"a newline in dns4":             name(DNS4, "a\nb"),
		"an escape character in sni":    name(SNI, "\x1b[2J"),
		"a DEL in unix":                 name(Unix, "/a\x7f"),
		"a C1 control in ip6zone":       name(IP6Zone, "a\u009b"),
		"dns that is not UTF-8":         name(DNS, "a\xff"),
		"dns that ends inside a rune":   name(DNS, "a\xe2\x82"),
		"a value that is too long":      name(DNSAddr, long+"x"),
		"a length near 2^63":            {0x35, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 'a'},
		"a length near 2^31":            {0x35, 0xff, 0xff, 0xff, 0xff, 0x07, 'a'},
		"too many components":           bytes.Repeat([]byte{0xdd, 0x03}, MaxLen/2+1),
		"an inlined key of 43 bytes":    name(P2P, "\x00\x2b"+long[:43]),
		"a certificate digest of 65":    name(CertHash, "\x13\x41"+long[:65]),
		"a multihash with a huge size":  name(CertHash, "\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7fabc"),
		"a multihash code of ten bytes": name(CertHash, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x01a"),
	} {
		if a, err := FromBytes(b); err == nil {
			t.Errorf("%s: FromBytes(%.40x…) = %.40q…, want an error", what, b, a)
		} else if len(err.Error()) > 500 {
			t.Errorf("%s: the error has %d bytes", what, len(err.Error()))
		}
	}
	for what, b := range map[string][]byte{
		"the longest value":              name(DNSAddr, long),
		"the most components":            bytes.Repeat([]byte{0xdd, 0x03}, MaxLen/2),
		"an inlined key of 42 bytes":     name(P2P, "\x00\x2a"+long[:42]),
		"a certificate digest of 64":     name(CertHash, "\x13\x40"+long[:64]),
		"the longest text for its bytes": append(name(HTTPPath, long), name(HTTPPath, long[:MaxLen-MaxValueLen-8])...),
		"an I2P destination":             name(Garlic64, long[:462]),
		"a name beyond ASCII":            name(DNS, "bücher\u00a0例え"),
	} {
		a, err := FromBytes(b)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if again, err := Parse(a.String()); err != nil || again != a {
			t.Errorf("%s: %.60q… is not read back: %v", what, a, err)
		}
		checkParts(t, a)
	}
}

func TestHostileText(t *testing.T) {
	for _, text := range []string{
		"/ip4/::ffff:192.0.2.1",              // not an IPv4 address
		"/ip6/192.0.2.1",                     // not an IPv6 address
		"/ip6/fe80::1%25eth0",                // a zone is a component
		"/onion/timaq4ygg2iegci\n7:80",       // newline inside base32
		"/onion/t\u0131maq4ygg2iegci7:80",    // dotless i, upper case is I
		"/onion/timaq4ygg2iegci7:80\n",       //
		"/certhash/\x00\x12",                 // the identity base is not text
		"/certhash/baaawcaaa",                // three more digits that stand for no byte
		"/certhash/baaawca",                  // one more digit
		"/certhash/maaa=",                    // padding in an unpadded base
		"/certhash/MAAA",                     // none in a padded one
		"/certhash/MAAA=====",                // too much of it
		"/certhash/caaawc===aaawc===",        // something behind it
		"/certhash/caaawc===========",        // a group of it
		"/certhash/z0",                       // not a digit of base58
		"/dns4/a\nb",                         //
		"/unix/a\x00b",                       //
		"/p2p/z1",                            // too short for a CID
		"/p2p/" + strings.Repeat("1", 129),   // longer than any peer ID
		"/p2p/Qm" + strings.Repeat("z", 300), // a number there is no room for
		"/p2p/1" + strings.Repeat("z", 127),  // nearly the largest number there is room for
		"/dns/" + strings.Repeat("x", MaxValueLen+1),
		"/http-path/" + strings.Repeat("%41", MaxValueLen+1),
		"/tcp/" + strings.Repeat("0", maxTextLen) + "1",
		strings.Repeat("/ws", MaxLen/2+1),
		strings.Repeat("/tcp/1", 1<<16),
		strings.Repeat("/", 1<<16),
	} {
		if a, err := Parse(text); err == nil {
			t.Errorf("Parse(%.60q…) = %.60q…, want an error", text, a)
		} else if len(err.Error()) > 600 {
			t.Errorf("Parse(%.60q…): the error has %d bytes", text, len(err.Error()))
		}
	}
}

func TestErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                          `multiaddr: the address is empty: want one such as /ip4/192.0.2.1/tcp/4001`,
		"192.0.2.1:80":              `multiaddr: "192.0.2.1:80" does not begin with a slash: want text such as /ip4/192.0.2.1/tcp/4001`,
		"/ip4/192.0.2.1/tpc/80":     `multiaddr: "/ip4/192.0.2.1/tpc/80": component 2 at byte 14: "tpc" is not the name of a protocol: want one such as ip4, dns, tcp, udp, p2p`,
		"/ip4/192.0.2.1/tcp":        `multiaddr: "/ip4/192.0.2.1/tcp": component 2 at byte 14: /tcp has no value: want a port, 0 to 65535`,
		"/ip4/192.0.2.1/tcp/http":   `multiaddr: "/ip4/192.0.2.1/tcp/http": component 2 at byte 14: /tcp/http: want a port, 0 to 65535`,
		"/ip4/example.com":          `multiaddr: "/ip4/example.com": component 1 at byte 0: /ip4/example.com: want an IPv4 address such as 192.0.2.1 (a host name goes into /dns4, an IPv6 address into /ip6)`,
		"/dns/a\x1bb":               `multiaddr: "/dns/a\x1bb": component 1 at byte 0: /dns/a\x1bb: want a name: UTF-8, not empty, without slashes and control characters`,
		strings.Repeat("/ws", 1025): `multiaddr: "` + strings.Repeat("/ws", 33) + `/": component 1025 at byte 3072: the address is longer than 2048 bytes`,
	} {
		if _, err := Parse(text); err == nil || err.Error() != want {
			t.Errorf("Parse(%.60q):\n got %v\nwant %s", text, err, want)
		}
	}
	for in, want := range map[string]string{
		"":                 `multiaddr: the address is empty: want one such as /ip4/192.0.2.1/tcp/4001`,
		"04c000020180":     `multiaddr: component 2 at byte 5: want a protocol code, an unsigned varint in its shortest form`,
		"04c0000201060f":   `multiaddr: component 2 at byte 5: /tcp: the value is cut short: want 2 bytes, have 1`,
		"04c00002013580":   `multiaddr: component 2 at byte 5: /dns: want the length of its value, an unsigned varint in its shortest form`,
		"04c000020101":     `multiaddr: component 2 at byte 5: no protocol has the code 1`,
		"3503612f62":       `multiaddr: component 1 at byte 0: /dns: the value of 3 bytes is bad: want a name: UTF-8, not empty, without slashes and control characters`,
		"9003022f61060050": `multiaddr: component 1 at byte 0: /unix extends to the end: 3 bytes are left`,
	} {
		if _, err := FromBytes(unhex(t, in)); err == nil || err.Error() != want {
			t.Errorf("FromBytes(%s):\n got %v\nwant %s", in, err, want)
		}
	}
	for _, test := range []struct {
		code  Code
		value string
		want  string
	}{
		{Code(5), "", `multiaddr: no protocol has the code 5`},
		{WS, "x", `multiaddr: /ws/x: want no value: this protocol has none`},
		{Unix, "run", `multiaddr: /unix/run: want a path such as /run/node.sock: UTF-8, without control characters, not ending in a slash`},
		{DNS, "a/b", `multiaddr: /dns/a/b: want a name: UTF-8, not empty, without slashes and control characters`},
	} {
		if c, err := NewComponent(test.code, test.value); err == nil || err.Error() != test.want || c != (Component{}) {
			t.Errorf("NewComponent(%d, %q) = %v\n got %v\nwant %s", test.code, test.value, c, err, test.want)
		}
	}
	defer func() {
		if err, ok := recover().(error); !ok || !errors.Is(err, errPort) {
			t.Errorf("MustParse panics with %v, want what Parse returns", err)
		}
	}()
	MustParse("/tcp/x")
}

func TestJoin(t *testing.T) {
	tcp, ws, unix := MustParse("/tcp/80"), MustParse("/ws"), MustParse("/unix/a")
	for _, test := range []struct {
		in   []Addr
		want string
	}{
		{nil, ""},
		{[]Addr{{}, {}}, ""},
		{[]Addr{tcp}, "/tcp/80"},
		{[]Addr{{}, tcp, {}, ws, {}}, "/tcp/80/ws"},
		{[]Addr{tcp, unix}, "/tcp/80/unix/a"},
		{[]Addr{unix, {}}, "/unix/a"},
		{[]Addr{unix, tcp}, ""}, // would be read back as /unix/a/tcp/80
		{[]Addr{tcp, unix, {}, ws}, ""},
		{slices.Repeat([]Addr{ws}, MaxLen/2), strings.Repeat("/ws", MaxLen/2)},
		{slices.Repeat([]Addr{ws}, MaxLen/2+1), ""},
	} {
		if got := Join(test.in...); got.String() != test.want {
			t.Errorf("Join(%.10q) = %.60q, want %.60q", test.in, got, test.want)
		}
	}
}

func TestDecapsulate(t *testing.T) {
	// The first eleven are from go-multiaddr v0.16.1, TestDecapsulate.
	for _, test := range []struct{ a, b, want string }{
		{"/ip4/1.2.3.4/tcp/1234", "/ip4/1.2.3.4", ""},
		{"/ip4/1.2.3.4", "/ip4/1.2.3.4/tcp/1234", "/ip4/1.2.3.4"},
		{"/ip4/1.2.3.5/tcp/1234", "/ip4/5.3.2.1", "/ip4/1.2.3.5/tcp/1234"},
		{"/ip4/1.2.3.5/udp/1234/quic-v1", "/udp/1234", "/ip4/1.2.3.5"},
		{"/ip4/1.2.3.6/udp/1234/quic-v1", "/udp/1234/quic-v1", "/ip4/1.2.3.6"},
		{"/ip4/1.2.3.7/tcp/1234", "/ws", "/ip4/1.2.3.7/tcp/1234"},
		{"/dnsaddr/wss.com/tcp/4001", "/ws", "/dnsaddr/wss.com/tcp/4001"},
		{"/dnsaddr/wss.com/tcp/4001/ws", "/wss", "/dnsaddr/wss.com/tcp/4001/ws"},
		{"/dnsaddr/wss.com/ws", "/wss", "/dnsaddr/wss.com/ws"},
		{"/dnsaddr/wss.com/ws", "/dnsaddr/wss.com", ""},
		{"/dnsaddr/wss.com/tcp/4001/wss", "/wss", "/dnsaddr/wss.com/tcp/4001"},
		{"/tcp/1/ws/tcp/1/ws/tcp/1", "/tcp/1/ws", "/tcp/1/ws"}, // the last one
		{"/tcp/1/tcp/1", "/tcp/1", "/tcp/1"},
		{"/tcp/1", "", "/tcp/1"},
		{"", "/tcp/1", ""},
		{"/ip4/6.0.80.1", "/tcp/80", "/ip4/6.0.80.1"}, // the bytes of /tcp/80 inside a value
	} {
		a, _ := Parse(test.a)
		b, _ := Parse(test.b)
		if got := a.Decapsulate(b); got.String() != test.want {
			t.Errorf("%q.Decapsulate(%q) = %q, want %q", test.a, test.b, got, test.want)
		}
	}
}

func TestQueries(t *testing.T) {
	a := MustParse("/ip4/127.0.0.1/utp/tcp/5555/udp/1234/tls/utp/tcp/6/ipfs/QmbHVEEepCi7rn7VL7Exxpd2Ci9NNB6ifvqwhsrbRMgQFP")
	for code, want := range map[Code]string{
		IP4: "127.0.0.1", UTP: "", TLS: "", TCP: "5555", UDP: "1234", P2P: "QmbHVEEepCi7rn7VL7Exxpd2Ci9NNB6ifvqwhsrbRMgQFP",
	} {
		if got, ok := a.Value(code); got != want || !ok || !a.Has(code) {
			t.Errorf("Value(%v) = %q, %v, want %q", code, got, ok, want)
		}
	}
	if got, ok := a.Value(IP6); got != "" || ok || a.Has(IP6) {
		t.Errorf("Value(ip6) = %q, %v, want none", got, ok)
	}
	if a.HasPrefix(MustParse("/ip4/127.0.0.2")) || !a.HasPrefix(MustParse("/ip4/127.0.0.1/utp")) || !a.HasPrefix(Addr{}) {
		t.Error("HasPrefix is wrong")
	}
	if c := MustParse("/tcp/80").Compare(MustParse("/tcp/443")); c != -1 {
		t.Errorf("Compare = %d, want -1: binary order", c)
	}

	var zero Addr
	checkParts(t, zero)
	if zero.String() != "" || zero.Bytes() != nil || zero.Len() != 0 || !zero.IsZero() || zero.Has(0) {
		t.Error("the zero Addr is not empty")
	}
	var none Component
	if none.String() != "" || none.Value() != "" || none.Code() != 0 || len(none.Bytes()) != 0 || !none.Addr().IsZero() {
		t.Error("the zero Component is not empty")
	}
}

func TestMarshal(t *testing.T) {
	type config struct {
		Listen []Addr
		Seen   map[Addr]int
		None   Addr
	}
	in := config{
		Listen: []Addr{MustParse("/ip4/0.0.0.0/udp/4001/quic-v1"), MustParse("/dns/bücher.example/tcp/1")},
		Seen:   map[Addr]int{MustParse("/unix/a b"): 1},
	}
	text, err := json.Marshal(in)
	const want = `{"Listen":["/ip4/0.0.0.0/udp/4001/quic-v1","/dns/bücher.example/tcp/1"],"Seen":{"/unix/a b":1},"None":""}`
	if err != nil || string(text) != want {
		t.Fatalf("Marshal = %s, %v\nwant %s", text, err, want)
	}
	var out config
	if err := json.Unmarshal(text, &out); err != nil || !slices.Equal(out.Listen, in.Listen) || out.Seen[MustParse("/unix/a b")] != 1 || out.None != (Addr{}) {
		t.Errorf("Unmarshal = %v, %v, want %v", out, err, in)
	}

	a := in.Listen[0]
	b, err := a.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	var decoded Addr
	if err := decoded.UnmarshalBinary(b); err != nil || decoded != a {
		t.Errorf("UnmarshalBinary = %q, %v, want %q", decoded, err, a)
	}
	b[0] = 0xff // must not be seen by decoded, and is no address
	if err := decoded.UnmarshalBinary(b); err == nil || decoded != a {
		t.Errorf("UnmarshalBinary of bad data = %q, %v, want an error and no change", decoded, err)
	}
	if err := decoded.UnmarshalText([]byte("/tcp")); err == nil || decoded != a {
		t.Errorf("UnmarshalText of bad text = %q, %v, want an error and no change", decoded, err)
	}
	appended, _ := a.AppendText([]byte("to "))
	if string(appended) != "to "+a.String() || string(a.AppendTo([]byte("x"))) != "x"+string(a.Bytes()) {
		t.Errorf("AppendText = %q, AppendTo = %x", appended, a.AppendTo([]byte("x")))
	}
	if err := decoded.UnmarshalBinary(nil); err != nil || !decoded.IsZero() {
		t.Errorf("UnmarshalBinary(nil) = %q, %v, want the zero Addr", decoded, err)
	}
}
