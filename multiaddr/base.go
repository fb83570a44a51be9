package multiaddr

import (
	"math/bits"
	"strings"
)

// An alphabet is a text encoding of bytes. With 2^k digits each stands for k
// bits (appendBits); with another number of digits the text is one number
// (appendNumber).
type alphabet struct {
	digits string
	value  [256]uint8 // of a digit, or noDigit
}

const noDigit = 0xff

var (
	base16    = newAlphabet("0123456789abcdef", anyCase)
	base32    = newAlphabet("abcdefghijklmnopqrstuvwxyz234567", anyCase)
	base32Hex = newAlphabet("0123456789abcdefghijklmnopqrstuv", anyCase)
	base36    = newAlphabet("0123456789abcdefghijklmnopqrstuvwxyz", anyCase)
	base58    = newAlphabet("123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz", exact)
	base64    = newAlphabet("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", exact)
	base64URL = newAlphabet("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", exact)
	i2pBase64 = newAlphabet("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-~", exact)
	i2pBase32 = newAlphabet("abcdefghijklmnopqrstuvwxyz234567", exact)
)

const (
	exact   = false
	anyCase = true
)

func newAlphabet(digits string, anyCase bool) *alphabet {
	a := &alphabet{digits: digits}
	for i := range a.value {
		a.value[i] = noDigit
	}
	for i := range len(digits) {
		c := digits[i]
		a.value[c] = uint8(i)
		if anyCase && 'a' <= c && c <= 'z' {
			a.value[c-'a'+'A'] = uint8(i)
		}
	}
	return a
}

// appendMultibase appends the bytes that text stands for, whose first character
// names the base. https://github.com/multiformats/multibase
func appendMultibase(b []byte, text string) ([]byte, bool) {
	if text == "" {
		return nil, false
	}
	switch body := text[1:]; text[0] {
	case 'f', 'F':
		return base16.appendBits(b, body)
	case 'b', 'B':
		return base32.appendBits(b, body)
	case 'c', 'C':
		return base32.appendPadded(b, body, 8)
	case 'v', 'V':
		return base32Hex.appendBits(b, body)
	case 't', 'T':
		return base32Hex.appendPadded(b, body, 8)
	case 'k', 'K':
		return base36.appendNumber(b, body)
	case 'z':
		return base58.appendNumber(b, body)
	case 'm':
		return base64.appendBits(b, body)
	case 'M':
		return base64.appendPadded(b, body, 4)
	case 'u':
		return base64URL.appendBits(b, body)
	case 'U':
		return base64URL.appendPadded(b, body, 4)
	}
	return nil, false
}

// appendBits appends the bytes of text whose digits stand for a number of bits
// each. Bits left over at the end are dropped, but never a whole digit.
func (a *alphabet) appendBits(b []byte, text string) ([]byte, bool) {
	width := bits.Len(uint(len(a.digits))) - 1
	var acc uint16
	var have int
	for i := range len(text) {
		v := a.value[text[i]]
		if v == noDigit {
			return nil, false
		}
		acc = acc<<width | uint16(v)
		if have += width; have >= 8 {
			have -= 8
			b = append(b, byte(acc>>have))
		}
	}
	return b, have < width
}

// appendPadded is appendBits for text that is filled up with = to a multiple of
// group characters.
func (a *alphabet) appendPadded(b []byte, text string, group int) ([]byte, bool) {
	body := strings.TrimRight(text, "=")
	if len(text)%group != 0 || len(text)-len(body) >= group {
		return nil, false
	}
	return a.appendBits(b, body)
}

// appendBitsText is the inverse of appendBits.
func (a *alphabet) appendBitsText(b []byte, v string) []byte {
	width := bits.Len(uint(len(a.digits))) - 1
	mask := uint16(len(a.digits) - 1)
	var acc uint16
	var have int
	for i := range len(v) {
		acc = acc<<8 | uint16(v[i])
		for have += 8; have >= width; {
			have -= width
			b = append(b, a.digits[acc>>have&mask])
		}
	}
	if have > 0 {
		b = append(b, a.digits[acc<<(width-have)&mask])
	}
	return b
}

const (
	// maxNumberText bounds the quadratic work of appendNumber: a multihash with
	// a digest of 64 bytes has 92 characters in base58, 103 in base36.
	maxNumberText = 128
	// maxBase58Len bounds appendBase58: the longest peer ID.
	maxBase58Len = maxInlineKey + 2
)

// appendNumber appends the bytes of the number that text is. Each zero at the
// front stands for a zero byte.
func (a *alphabet) appendNumber(b []byte, text string) ([]byte, bool) {
	if len(text) > maxNumberText {
		return nil, false
	}
	for text != "" && text[0] == a.digits[0] {
		b, text = append(b, 0), text[1:]
	}
	base := uint64(len(a.digits))
	var number [12]uint64 // least significant first; 128 digits of base58 are 750 bits
	n := 0
	for text != "" {
		// Ten digits at a time: 58^10 < 2^64.
		carry, power := uint64(0), uint64(1)
		for range min(10, len(text)) {
			v := a.value[text[0]]
			if v == noDigit {
				return nil, false
			}
			carry, power, text = carry*base+uint64(v), power*base, text[1:]
		}
		for i := range number[:n] {
			hi, lo := bits.Mul64(number[i], power)
			sum, over := bits.Add64(lo, carry, 0)
			number[i], carry = sum, hi+over
		}
		if carry != 0 {
			number[n] = carry
			n++
		}
	}
	for i := n - 1; i >= 0; i-- {
		shift := 56
		if i == n-1 {
			shift = (bits.Len64(number[i]) - 1) &^ 7
		}
		for ; shift >= 0; shift -= 8 {
			b = append(b, byte(number[i]>>shift))
		}
	}
	return b, true
}

// appendBase58 appends the base58 of v, which has at most maxBase58Len bytes. It
// is the inverse of base58.appendNumber.
func appendBase58(b []byte, v string) []byte {
	digits := base58.digits
	for v != "" && v[0] == 0 {
		b, v = append(b, digits[0]), v[1:]
	}
	var number [(maxBase58Len + 7) / 8]uint64 // most significant first
	n := (len(v) + 7) / 8
	for i := range len(v) {
		word := &number[n-1-(len(v)-1-i)/8]
		*word = *word<<8 | uint64(v[i])
	}
	const tenDigits = 58 * 58 * 58 * 58 * 58 * 58 * 58 * 58 * 58 * 58
	var text [70]byte // 44 bytes are 61 digits: seven times ten
	at := len(text)
	for first := 0; first < n; {
		rem := uint64(0)
		for i := first; i < n; i++ {
			number[i], rem = bits.Div64(rem, number[i], tenDigits)
		}
		for range 10 {
			at--
			text[at], rem = digits[rem%58], rem/58
		}
		for first < n && number[first] == 0 {
			first++
		}
	}
	for at < len(text) && text[at] == digits[0] {
		at++
	}
	return append(b, text[at:]...)
}
