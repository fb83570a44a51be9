package multibase

import (
	"fmt"
	"math/bits"
	"slices"
)

const (
	// MaxNumberText is the longest text in base36 or base58, in digits: the
	// longest value of an address, a multihash with a digest of 64 bytes, has 92
	// in base58 and 103 in base36.
	MaxNumberText = 128

	// maxWords is the room for the number that such a text is: 128 digits of
	// base58 are 750 bits.
	maxWords = 12
)

// A number is a base in which all digits together are one number, the first
// digit the most significant, and a zero digit in front stands for a zero byte.
type number struct{ *alphabet }

var (
	base36 = number{newAlphabet("base36", "0123456789abcdefghijklmnopqrstuvwxyz", anyCase)}
	base58 = number{newAlphabet("base58", "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz", exact)}
)

// AppendDecodeBase58 appends the bytes that base58 text stands for, which has at
// most MaxNumberText digits. On an error it returns nil.
// https://datatracker.ietf.org/doc/html/draft-msporny-base58-03
func AppendDecodeBase58(b []byte, text string) ([]byte, error) {
	return base58.appendDecode(b, text)
}

func (a number) appendDecode(b []byte, text string) ([]byte, error) {
	if len(text) > MaxNumberText {
		return nil, fmt.Errorf("multibase: %s text of %d digits: want at most %d", a.name, len(text), MaxNumberText)
	}
	at := 0
	for ; at < len(text) && text[at] == a.digits[0]; at++ {
		b = append(b, 0)
	}
	base := uint64(len(a.digits))
	var words [maxWords]uint64 // least significant first
	n := 0
	for at < len(text) {
		// Ten digits at a time: 58^10 < 2^64.
		carry, power := uint64(0), uint64(1)
		for range min(10, len(text)-at) {
			v := a.value[text[at]]
			if v == noDigit {
				return nil, a.badDigit(text, at)
			}
			carry, power, at = carry*base+uint64(v), power*base, at+1
		}
		for i := range words[:n] {
			hi, lo := bits.Mul64(words[i], power)
			sum, over := bits.Add64(lo, carry, 0)
			words[i], carry = sum, hi+over
		}
		if carry != 0 {
			words[n] = carry
			n++
		}
	}
	for i := n - 1; i >= 0; i-- {
		shift := 56
		if i == n-1 {
			shift = (bits.Len64(words[i]) - 1) &^ 7
		}
		for ; shift >= 0; shift -= 8 {
			b = append(b, byte(words[i]>>shift))
		}
	}
	return b, nil
}

// AppendBase58 appends the base58 text of v. It takes quadratic time.
func AppendBase58(b []byte, v string) []byte {
	zero := base58.digits[0]
	for v != "" && v[0] == 0 {
		b, v = append(b, zero), v[1:]
	}
	var room [maxWords]uint64
	words := room[:] // most significant first
	n := (len(v) + 7) / 8
	if n > maxWords {
		words = make([]uint64, n)
	}
	words = words[:n]
	for i := range len(v) {
		word := &words[n-1-(len(v)-1-i)/8]
		*word = *word<<8 | uint64(v[i])
	}
	// The digits come least significant first, ten with each division.
	const tenDigits = 58 * 58 * 58 * 58 * 58 * 58 * 58 * 58 * 58 * 58
	start := len(b)
	for len(words) > 0 {
		rest := uint64(0)
		for i := range words {
			words[i], rest = bits.Div64(rest, words[i], tenDigits)
		}
		for range 10 {
			b, rest = append(b, base58.digits[rest%58]), rest/58
		}
		for len(words) > 0 && words[0] == 0 {
			words = words[1:]
		}
	}
	for len(b) > start && b[len(b)-1] == zero {
		b = b[:len(b)-1]
	}
	slices.Reverse(b[start:])
	return b
}
