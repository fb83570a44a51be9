package peer

import (
	"encoding/binary"
	"fmt"
)

const (
	base58Alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
	base36Alphabet = "0123456789abcdefghijklmnopqrstuvwxyz"
)

var (
	base58Digits = digitTable(base58Alphabet)
	base36Digits = digitTable(base36Alphabet)
)

// Both conversions work on limbs of 32 bits, most significant first, and move
// five digits at a time: 58^5 is the largest power that leaves a remainder and a
// limb together within 64 bits. The size suits the longest CID of a peer ID.
const (
	maxLimbs   = 12
	limbDigits = 5
)

// appendBase58 appends the base58 text of in, which has at most 4*maxLimbs bytes.
func appendBase58(b []byte, in string) []byte {
	zeros := 0
	for zeros < len(in) && in[zeros] == 0 {
		b = append(b, base58Alphabet[0])
		zeros++
	}
	var limbs [maxLimbs]uint32
	for i := zeros; i < len(in); i++ {
		at := len(in) - 1 - i
		limbs[maxLimbs-1-at/4] |= uint32(in[i]) << (at % 4 * 8)
	}
	first := maxLimbs - (len(in)-zeros+3)/4

	const power = 58 * 58 * 58 * 58 * 58
	var text [maxLimbs*6 + limbDigits]byte // a limb takes fewer than six digits
	at := len(text)
	for first < maxLimbs {
		var rest uint64
		for i := first; i < maxLimbs; i++ {
			v := rest<<32 | uint64(limbs[i])
			limbs[i], rest = uint32(v/power), v%power
		}
		for range limbDigits {
			at--
			text[at] = base58Alphabet[rest%58]
			rest /= 58
		}
		for first < maxLimbs && limbs[first] == 0 {
			first++
		}
	}
	for at < len(text) && text[at] == base58Alphabet[0] {
		at++
	}
	return append(b, text[at:]...)
}

// decodeBase reads s as a number in the given base, and leading zero digits as
// zero bytes. It takes as many digits as 4*maxLimbs bytes hold.
func decodeBase(s string, digits *[256]uint8, base uint64) ([]byte, error) {
	zeros := 0
	for zeros < len(s) && digits[s[zeros]] == 0 {
		zeros++
	}
	if zeros > 4*maxLimbs {
		return nil, errTooLong
	}
	var limbs [maxLimbs]uint32
	for at := zeros; at < len(s); {
		power, add := uint64(1), uint64(0)
		for n := 0; n < limbDigits && at < len(s); n, at = n+1, at+1 {
			d := digits[s[at]]
			if d == noDigit {
				return nil, fmt.Errorf("character %q at offset %d is not of the alphabet", s[at], at)
			}
			power, add = power*base, add*base+uint64(d)
		}
		for i := maxLimbs - 1; i >= 0; i-- {
			add += uint64(limbs[i]) * power
			limbs[i], add = uint32(add), add>>32
		}
		if add != 0 {
			return nil, errTooLong
		}
	}
	out := make([]byte, zeros+4*maxLimbs)
	for i, limb := range limbs {
		binary.BigEndian.PutUint32(out[zeros+4*i:], limb)
	}
	skip := zeros
	for skip < len(out) && out[skip] == 0 {
		skip++
	}
	return out[skip-zeros:], nil
}

const noDigit = 0xff

func digitTable(alphabet string) *[256]uint8 {
	var t [256]uint8
	for i := range t {
		t[i] = noDigit
	}
	for i := range len(alphabet) {
		t[alphabet[i]] = uint8(i)
	}
	return &t
}
