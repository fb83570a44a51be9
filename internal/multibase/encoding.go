package multibase

import (
	"fmt"
	"math/bits"
	"strings"
)

// An Encoding is a base whose number of digits is a power of two, so that each
// digit stands for the same number of bits. It does not change.
type Encoding struct {
	*alphabet
	width int // of a digit, in bits
	group int // the text is filled up with = to a multiple of this many characters
}

// The encodings that have a use of their own, besides AppendDecode.
var (
	// Base16 is RFC 4648's, in lower case; upper case is read too.
	Base16 = unpadded(newAlphabet("base16", "0123456789abcdef", anyCase))
	// Base32 is RFC 4648's without padding, in lower case; upper case is read too.
	Base32 = unpadded(newAlphabet("base32", base32Digits, anyCase))
	// Base64URL is RFC 4648's for URLs, without padding.
	Base64URL = unpadded(newAlphabet("base64url", base64Digits+"-_", exact))

	// I2PBase32 is the base of I2P's host names: Base32 in lower case only.
	// https://geti2p.net/spec/b32encrypted
	I2PBase32 = unpadded(newAlphabet("I2P's base32", base32Digits, exact))
	// I2PBase64 is the base of I2P's destinations: base64 with padding and an
	// alphabet of its own. https://geti2p.net/spec/common-structures#destination
	I2PBase64 = padded(unpadded(newAlphabet("I2P's base64", base64Digits+"-~", exact)), 4)
)

var (
	base32Pad    = padded(Base32, 8)
	base32Hex    = unpadded(newAlphabet("base32hex", "0123456789abcdefghijklmnopqrstuv", anyCase))
	base32HexPad = padded(base32Hex, 8)
	base64       = unpadded(newAlphabet("base64", base64Digits+"+/", exact))
	base64Pad    = padded(base64, 4)
	base64URLPad = padded(Base64URL, 4)
)

const (
	base32Digits = "abcdefghijklmnopqrstuvwxyz234567"
	base64Digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789" // the last two differ
)

func unpadded(a *alphabet) Encoding {
	return Encoding{a, bits.Len(uint(len(a.digits))) - 1, 1}
}

func padded(e Encoding, group int) Encoding {
	e.group = group
	return e
}

// AppendEncode appends the text of v.
func (e Encoding) AppendEncode(b []byte, v string) []byte {
	start := len(b)
	mask := uint16(len(e.digits) - 1)
	var acc uint16
	var have int
	for i := range len(v) {
		acc = acc<<8 | uint16(v[i])
		for have += 8; have >= e.width; {
			have -= e.width
			b = append(b, e.digits[acc>>have&mask])
		}
	}
	if have > 0 {
		b = append(b, e.digits[acc<<(e.width-have)&mask])
	}
	for (len(b)-start)%e.group != 0 {
		b = append(b, '=')
	}
	return b
}

// AppendDecode appends the bytes that text stands for. Bits left over at the end
// are dropped, but never a whole digit: the names of I2P have such bits. On an
// error it returns nil.
func (e Encoding) AppendDecode(b []byte, text string) ([]byte, error) {
	if e.group > 1 {
		unfilled := strings.TrimRight(text, "=")
		if len(text)%e.group != 0 || len(text)-len(unfilled) >= e.group {
			return nil, fmt.Errorf("multibase: %s is filled up with = to a multiple of %d characters, no further", e.name, e.group)
		}
		text = unfilled
	}
	var acc uint16
	var have int
	for i := range len(text) {
		v := e.value[text[i]]
		if v == noDigit {
			return nil, e.badDigit(text, i)
		}
		acc = acc<<e.width | uint16(v)
		if have += e.width; have >= 8 {
			have -= 8
			b = append(b, byte(acc>>have))
		}
	}
	if have >= e.width {
		return nil, fmt.Errorf("multibase: the last digit of %d in %s belongs to no byte", len(text), e.name)
	}
	return b, nil
}
