package multibase

import (
	"errors"
	"fmt"
)

// AppendDecode appends the bytes that text stands for, whose first character
// names the base. On an error it returns nil.
// https://github.com/multiformats/multibase/blob/master/multibase.csv
func AppendDecode(b []byte, text string) ([]byte, error) {
	if text == "" {
		return nil, errors.New("multibase: the text is empty: want the character of a base first")
	}
	switch digits := text[1:]; text[0] {
	case 'f', 'F':
		return Base16.AppendDecode(b, digits)
	case 'b', 'B':
		return Base32.AppendDecode(b, digits)
	case 'c', 'C':
		return base32Pad.AppendDecode(b, digits)
	case 'v', 'V':
		return base32Hex.AppendDecode(b, digits)
	case 't', 'T':
		return base32HexPad.AppendDecode(b, digits)
	case 'k', 'K':
		return base36.appendDecode(b, digits)
	case 'z':
		return base58.appendDecode(b, digits)
	case 'm':
		return base64.AppendDecode(b, digits)
	case 'M':
		return base64Pad.AppendDecode(b, digits)
	case 'u':
		return Base64URL.AppendDecode(b, digits)
	case 'U':
		return base64URLPad.AppendDecode(b, digits)
	}
	return nil, fmt.Errorf("multibase: %q does not name a base: want one of f b c v t k z m M u U", text[0])
}

// An alphabet is the digits of a base.
type alphabet struct {
	name   string
	digits string
	value  [256]uint8 // of a digit, or noDigit
}

const noDigit = 0xff

// Whether the case of a letter matters.
const (
	exact   = false
	anyCase = true
)

func newAlphabet(name, digits string, anyCase bool) *alphabet {
	a := &alphabet{name: name, digits: digits}
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

func (a *alphabet) badDigit(text string, at int) error {
	return fmt.Errorf("multibase: character %q at offset %d is not a digit of %s", text[at], at, a.name)
}
