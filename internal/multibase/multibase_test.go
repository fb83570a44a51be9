package multibase

import (
	"bytes"
	stdbase32 "encoding/base32"
	stdbase64 "encoding/base64"
	"encoding/hex"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// The same bytes in every base, from the tests of the specification.
// https://github.com/multiformats/multibase/blob/master/tests/basic.csv
var yesManiBang = map[string]string{
	"base16":            "f796573206d616e692021",
	"base16upper":       "F796573206D616E692021",
	"base32":            "bpfsxgidnmfxgsibb",
	"base32upper":       "BPFSXGIDNMFXGSIBB",
	"base32hex":         "vf5in683dc5n6i811",
	"base32hexupper":    "VF5IN683DC5N6I811",
	"base32pad":         "cpfsxgidnmfxgsibb",
	"base32padupper":    "CPFSXGIDNMFXGSIBB",
	"base32hexpad":      "tf5in683dc5n6i811",
	"base32hexpadupper": "TF5IN683DC5N6I811",
	"base36":            "k2lcpzo5yikidynfl",
	"base36upper":       "K2LCPZO5YIKIDYNFL",
	"base58btc":         "z7paNL19xttacUY",
	"base64":            "meWVzIG1hbmkgIQ",
	"base64pad":         "MeWVzIG1hbmkgIQ==",
	"base64url":         "ueWVzIG1hbmkgIQ",
	"base64urlpad":      "UeWVzIG1hbmkgIQ==",
}

// The same, with two zero bytes in front.
// https://github.com/multiformats/multibase/blob/master/tests/two_leading_zeros.csv
var zerosYesManiBang = map[string]string{
	"base16":       "f0000796573206d616e692021",
	"base32":       "baaahszltebwwc3tjeaqq",
	"base32pad":    "caaahszltebwwc3tjeaqq====",
	"base32hex":    "v0007ipbj41mm2rj940gg",
	"base32hexpad": "t0007ipbj41mm2rj940gg====",
	"base36":       "k002lcpzo5yikidynfl",
	"base58btc":    "z117paNL19xttacUY",
	"base64":       "mAAB5ZXMgbWFuaSAh",
	"base64pad":    "MAAB5ZXMgbWFuaSAh",
	"base64url":    "uAAB5ZXMgbWFuaSAh",
	"base64urlpad": "UAAB5ZXMgbWFuaSAh",
}

// Letters of either case, where the alphabet has only one.
// https://github.com/multiformats/multibase/blob/master/tests/case_insensitivity.csv
var helloWorld = map[string]string{
	"base16":            "f68656c6c6f20776F726C64",
	"base16upper":       "F68656c6c6f20776F726C64",
	"base32":            "bnbswy3dpeB3W64TMMQ",
	"base32upper":       "Bnbswy3dpeB3W64TMMQ",
	"base32hex":         "vd1imor3f41RMUSJCCG",
	"base32hexupper":    "Vd1imor3f41RMUSJCCG",
	"base32pad":         "cnbswy3dpeB3W64TMMQ======",
	"base32padupper":    "Cnbswy3dpeB3W64TMMQ======",
	"base32hexpad":      "td1imor3f41RMUSJCCG======",
	"base32hexpadupper": "Td1imor3f41RMUSJCCG======",
	"base36":            "kfUvrsIvVnfRbjWaJo",
	"base36upper":       "KfUVrSIVVnFRbJWAJo",
}

func TestSpecification(t *testing.T) {
	for want, texts := range map[string]map[string]string{
		"yes mani !": yesManiBang, "\x00\x00yes mani !": zerosYesManiBang, "hello world": helloWorld,
	} {
		for name, text := range texts {
			if got, err := AppendDecode([]byte("x"), text); string(got) != "x"+want || err != nil {
				t.Errorf("%s: %s is %q, %v, want %q", name, text, got, err, want)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":                    "",
		"no such base":               "?aa",
		"the identity base":          "\x00aa",
		"base 2":                     "01100",
		"base58 as Flickr has it":    "Z7Pznk19XTTzBtx",
		"base58 in upper case":       "Zaa",
		"odd base16":                 "f0",
		"not of base16":              "f0g",
		"one digit of base32":        "ba",
		"three digits of base32":     "baaa",
		"six digits of base32":       "baaaaaa",
		"a line break":               "baa\n",
		"a dotless i":                "b\u0131a",
		"the base32 digit 1":         "b1a",
		"the base32hex digit w":      "vwa",
		"padding not due":            "baa======",
		"padding missing":            "caa",
		"padding in two groups":      "cmy======my======",
		"a group of padding":         "caaaaaaaa========",
		"base64 padding missing":     "MAA",
		"base64 padding too long":    "MAAA=====",
		"base64 padding too short":   "MAA=",
		"base64url digit in base64":  "m-_",
		"base64 digit in base64url":  "u+/",
		"the base58 digit 0":         "z0",
		"the base58 digit O":         "zO",
		"the base58 digit I":         "zI",
		"the base58 digit l":         "zl",
		"not ASCII in base58":        "zä",
		"a space in base36":          "k a",
		"a long number":              "z" + strings.Repeat("z", MaxNumberText+1),
		"a long number of zeros":     "z" + strings.Repeat("1", MaxNumberText+1),
		"a long number in base36":    "k" + strings.Repeat("z", 1<<20),
		"a late bad digit of base58": "z" + strings.Repeat("2", 60) + "0",
	} {
		b, err := AppendDecode([]byte("x"), text)
		if err == nil || b != nil {
			t.Errorf("%s: %.40q is %x, %v, want nil and an error", name, text, b, err)
		} else if !strings.HasPrefix(err.Error(), "multibase: ") || len(err.Error()) > 200 {
			t.Errorf("%s: error %q", name, err)
		}
	}
}

// The last digit may say more than there is, as it does in I2P's names.
func TestBitsLeftOver(t *testing.T) {
	for text, want := range map[string]string{"bab": "\x00", "maB": "\x68", "uaab": "\x69\xa6"} {
		if got, err := AppendDecode(nil, text); string(got) != want || err != nil {
			t.Errorf("%s is %q, %v, want %q", text, got, err, want)
		}
	}
}

func TestErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                             `multibase: the text is empty: want the character of a base first`,
		"?":                            `multibase: '?' does not name a base: want one of f b c v t k z m M u U`,
		"zaa0":                         `multibase: character '0' at offset 2 is not a digit of base58`,
		"baa9":                         `multibase: character '9' at offset 2 is not a digit of base32`,
		"baaa":                         `multibase: the last digit of 3 in base32 belongs to no byte`,
		"MAAA==":                       `multibase: base64 is filled up with = to a multiple of 4 characters, no further`,
		"z" + strings.Repeat("2", 129): `multibase: base58 text of 129 digits: want at most 128`,
	} {
		if _, err := AppendDecode(nil, text); err == nil || err.Error() != want {
			t.Errorf("%.40q:\n got %v\nwant %s", text, err, want)
		}
	}
}

// The encodings do what the standard library does, at every length, and
// appending leaves what is there.
func TestEncodings(t *testing.T) {
	i2p32 := stdbase32.NewEncoding(base32Digits).WithPadding(stdbase32.NoPadding)
	i2p64 := stdbase64.NewEncoding(base64Digits + "-~")
	rnd := rand.New(rand.NewPCG(3, 4))
	for n := range 70 {
		in := randomBytes(rnd, n)
		for _, c := range []struct {
			enc  Encoding
			want string
		}{
			{Base16, hex.EncodeToString(in)},
			{Base32, strings.ToLower(stdbase32.StdEncoding.WithPadding(stdbase32.NoPadding).EncodeToString(in))},
			{base32Pad, strings.ToLower(stdbase32.StdEncoding.EncodeToString(in))},
			{base32Hex, strings.ToLower(stdbase32.HexEncoding.WithPadding(stdbase32.NoPadding).EncodeToString(in))},
			{base32HexPad, strings.ToLower(stdbase32.HexEncoding.EncodeToString(in))},
			{base64, stdbase64.RawStdEncoding.EncodeToString(in)},
			{base64Pad, stdbase64.StdEncoding.EncodeToString(in)},
			{Base64URL, stdbase64.RawURLEncoding.EncodeToString(in)},
			{base64URLPad, stdbase64.URLEncoding.EncodeToString(in)},
			{I2PBase32, i2p32.EncodeToString(in)},
			{I2PBase64, i2p64.EncodeToString(in)},
		} {
			if got := string(c.enc.AppendEncode([]byte("x"), string(in))); got != "x"+c.want {
				t.Errorf("% x in %s is %q, want %q after an x", in, c.enc.name, got, c.want)
			}
			if back, err := c.enc.AppendDecode([]byte("x"), c.want); string(back) != "x"+string(in) || err != nil {
				t.Errorf("%s %q is % x, %v, want % x after an x", c.enc.name, c.want, back, err, in)
			}
		}
	}
	if b, err := I2PBase32.AppendDecode(nil, "MY"); err == nil {
		t.Errorf("I2P's base32 in upper case is read as % x", b)
	}
}

func TestBase58(t *testing.T) {
	// https://datatracker.ietf.org/doc/html/draft-msporny-base58-03#section-5,
	// and values around the word boundaries of the implementation.
	for text, in := range map[string]string{
		"":                  "",
		"1":                 "00",
		"2NEpo7TZRRrLZSi2U": "48656c6c6f20576f726c6421",
		"USm3fpXnKG5EUBx2ndxBDMPVciP5hGey2Jh4NDv6gmeo1LkMeiKrLJUUBk6Z": "54686520717569636b2062726f776e20666f78206a756d7073206f76657220746865206c617a7920646f672e",
		"11233QC4":    "0000287fb4cd",
		"jpXCZedGfVQ": "ffffffffffffffff",
	} {
		b, err := AppendDecodeBase58(nil, text)
		if err != nil || hex.EncodeToString(b) != in {
			t.Errorf("decode(%q) = %x, %v, want %s", text, b, err, in)
		}
		if got := AppendBase58(nil, string(b)); string(got) != text {
			t.Errorf("encode(%x) = %s, want %s", b, got, text)
		}
	}
	for n := range 92 { // every length, with zeros in front and all ones
		for zeros := range n + 1 {
			b := append(make([]byte, zeros), bytes.Repeat([]byte{0xff}, n-zeros)...)
			text := AppendBase58([]byte("1"), string(b))
			if got, err := AppendDecodeBase58([]byte("x"), string(text[1:])); err != nil || string(got) != "x"+string(b) {
				t.Fatalf("decode(%q) = %x, %v, want x and %x", text[1:], got, err, b)
			}
		}
	}
}

// The numbers are what big integers say, below and beyond what fits on the stack.
func TestNumbers(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		in := randomBytes(rnd, rnd.IntN(2*8*maxWords))
		clear(in[:rnd.IntN(len(in)+1)/3]) // leading zeros
		text := string(AppendBase58(nil, string(in)))
		if want := slowNumber(base58, in); text != want {
			t.Fatalf("% x in base58 is %s, want %s", in, text, want)
		}
		for _, base := range []number{base36, base58} {
			text := slowNumber(base, in)
			back, err := base.appendDecode(nil, text)
			if long := len(text) > MaxNumberText; long != (err != nil) || !long && !bytes.Equal(back, in) {
				t.Fatalf("%s in %s is % x, %v, want % x", text, base.name, back, err, in)
			}
		}
	}
}

func FuzzAppendDecode(f *testing.F) {
	for _, texts := range []map[string]string{yesManiBang, zerosYesManiBang} {
		for _, text := range texts {
			f.Add(text)
		}
	}
	f.Add("z1" + strings.Repeat("z", MaxNumberText-1))
	f.Add("k" + strings.Repeat("z", MaxNumberText))
	f.Fuzz(func(t *testing.T, text string) {
		b, err := AppendDecode(nil, text)
		if err != nil {
			if b != nil {
				t.Fatalf("%q is % x and %v", text, b, err)
			}
			return
		}
		again := []byte{text[0]}
		switch text[0] {
		case 'k', 'K':
			again = append(again, slowNumber(base36, b)...)
		case 'z':
			again = AppendBase58(again, string(b))
			if slow := "z" + slowNumber(base58, b); string(again) != slow {
				t.Fatalf("% x in base58 is %s, want %s", b, again, slow)
			}
		default:
			enc := map[byte]Encoding{
				'f': Base16, 'F': Base16, 'b': Base32, 'B': Base32, 'c': base32Pad, 'C': base32Pad,
				'v': base32Hex, 'V': base32Hex, 't': base32HexPad, 'T': base32HexPad,
				'm': base64, 'M': base64Pad, 'u': Base64URL, 'U': base64URLPad,
			}[text[0]]
			again = enc.AppendEncode(again, string(b))
		}
		if back, err := AppendDecode(nil, string(again)); err != nil || !bytes.Equal(back, b) || len(again) != len(text) {
			t.Fatalf("%q is % x, which is %q, which is % x, %v", text, b, again, back, err)
		}
	})
}

func BenchmarkAppendBase58(b *testing.B) {
	v := string(bytes.Repeat([]byte{0xab}, 38))
	var buf [64]byte
	b.ReportAllocs()
	for b.Loop() {
		AppendBase58(buf[:0], v)
	}
}

func BenchmarkAppendDecodeBase58(b *testing.B) {
	text := string(AppendBase58(nil, string(bytes.Repeat([]byte{0xab}, 38))))
	var buf [64]byte
	b.ReportAllocs()
	for b.Loop() {
		if _, err := AppendDecodeBase58(buf[:0], text); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendDecode(b *testing.B) {
	for name, text := range yesManiBang {
		b.Run(name, func(b *testing.B) {
			var buf [64]byte
			b.ReportAllocs()
			for b.Loop() {
				if _, err := AppendDecode(buf[:0], text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// slowNumber writes in as big integers do.
func slowNumber(base number, in []byte) string {
	var text []byte
	radix := big.NewInt(int64(len(base.digits)))
	for n, digit := new(big.Int).SetBytes(in), new(big.Int); n.Sign() > 0; {
		n.DivMod(n, radix, digit)
		text = append(text, base.digits[digit.Int64()])
	}
	for _, c := range in {
		if c != 0 {
			break
		}
		text = append(text, base.digits[0])
	}
	slices.Reverse(text)
	return string(text)
}

func randomBytes(rnd *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rnd.UintN(256))
	}
	return b
}
