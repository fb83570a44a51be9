package multiaddr

import (
	"errors"
	"fmt"
	"strings"
)

const (
	// MaxLen is the longest address accepted, in bytes of its binary form. The
	// longest in use (a relayed WebTransport address with two certificate
	// hashes and two peer IDs, or an I2P destination) has about 500, and a
	// whole identify message has 8 KiB for all the addresses of a peer.
	MaxLen = 2048
	// MaxValueLen is the longest value of one component, in bytes. The longest
	// in use are an I2P destination (387 to 462 bytes) and an HTTP path.
	MaxValueLen = 1024
)

// An Addr is a network address: a sequence of components, outermost last. Addrs
// can be compared with == and used as map keys. The zero Addr has no components;
// it stands for "no address".
type Addr struct {
	s string // canonical binary form
}

// Parse reads the text form of an address, such as
// /dns4/example.com/tcp/443/tls/ws. Slashes at the end are ignored.
func Parse(s string) (Addr, error) {
	var buf [192]byte
	b, err := appendAddr(buf[:0], s)
	if err != nil {
		return Addr{}, err
	}
	return Addr{string(b)}, nil
}

// MustParse is Parse for addresses written in source code: it panics where
// Parse returns an error.
func MustParse(s string) Addr {
	a, err := Parse(s)
	if err != nil {
		panic(err)
	}
	return a
}

// FromBytes decodes the binary form of an address. It checks every value, and
// keeps no reference to b. An empty b is an error.
func FromBytes(b []byte) (Addr, error) {
	if err := validate(b); err != nil {
		return Addr{}, err
	}
	return Addr{string(b)}, nil
}

// Bytes returns the binary form, nil for the zero Addr.
func (a Addr) Bytes() []byte { return a.AppendTo(nil) }

// AppendTo appends the binary form to b.
func (a Addr) AppendTo(b []byte) []byte { return append(b, a.s...) }

// Clone returns a that shares no memory with what it was made of: a part of an
// address keeps the whole of it in memory.
func (a Addr) Clone() Addr { return Addr{strings.Clone(a.s)} }

// Len returns the length of the binary form in bytes.
func (a Addr) Len() int { return len(a.s) }

// IsZero reports whether a is the zero Addr.
func (a Addr) IsZero() bool { return a.s == "" }

// String returns the text form, "" for the zero Addr. Parse reads it back.
func (a Addr) String() string {
	var buf [256]byte
	return string(a.appendText(buf[:0]))
}

// Compare orders addresses by their binary form. The result is -1, 0 or 1.
func (a Addr) Compare(b Addr) int { return strings.Compare(a.s, b.s) }

// HasPrefix reports whether a begins with the components of b.
func (a Addr) HasPrefix(b Addr) bool {
	// Component encodings are prefix-free, so bytes suffice.
	return strings.HasPrefix(a.s, b.s)
}

// Join returns the components of all addrs in order. It returns the zero Addr
// when they do not make an address: longer than MaxLen, or with something
// behind a unix path, which extends to the end.
func Join(addrs ...Addr) Addr {
	var parts [8]string
	list, n := parts[:0], 0
	for _, a := range addrs {
		if a.s == "" {
			continue
		}
		if len(list) > 0 && endsInPath(list[len(list)-1]) {
			return Addr{}
		}
		list, n = append(list, a.s), n+len(a.s)
	}
	if n > MaxLen {
		return Addr{}
	}
	return Addr{strings.Join(list, "")}
}

// Encapsulate returns a with b behind it: Join(a, b).
func (a Addr) Encapsulate(b Addr) Addr { return Join(a, b) }

// Decapsulate returns what is in front of the last place where b occurs in a,
// and a itself where b does not occur or is zero. Only whole components match.
func (a Addr) Decapsulate(b Addr) Addr {
	last := len(a.s)
	for rest := a.s; b.s != "" && rest != ""; _, rest = cut(rest) {
		if strings.HasPrefix(rest, b.s) {
			last = len(a.s) - len(rest)
		}
	}
	return Addr{a.s[:last]}
}

// AppendText implements [encoding.TextAppender]. The error is always nil.
func (a Addr) AppendText(b []byte) ([]byte, error) { return a.appendText(b), nil }

// MarshalText implements [encoding.TextMarshaler]. The zero Addr is empty text.
func (a Addr) MarshalText() ([]byte, error) { return a.appendText(nil), nil }

// UnmarshalText implements [encoding.TextUnmarshaler]. Empty text is the zero
// Addr.
func (a *Addr) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*a = Addr{}
		return nil
	}
	parsed, err := Parse(string(text))
	if err == nil {
		*a = parsed
	}
	return err
}

// MarshalBinary implements [encoding.BinaryMarshaler].
func (a Addr) MarshalBinary() ([]byte, error) { return a.Bytes(), nil }

// UnmarshalBinary implements [encoding.BinaryUnmarshaler]. Empty data is the
// zero Addr.
func (a *Addr) UnmarshalBinary(data []byte) error {
	if len(data) == 0 {
		*a = Addr{}
		return nil
	}
	decoded, err := FromBytes(data)
	if err == nil {
		*a = decoded
	}
	return err
}

func (a Addr) appendText(b []byte) []byte {
	for c := range a.Components() {
		b = c.appendText(b)
	}
	return b
}

var (
	errEmpty    = errors.New("multiaddr: the address is empty: want one such as /ip4/192.0.2.1/tcp/4001")
	errAddrLong = fmt.Errorf("the address is longer than %d bytes", MaxLen)
)

// appendAddr appends the binary form of the address s.
func appendAddr(b []byte, s string) ([]byte, error) {
	text := strings.TrimRight(s, "/")
	if text == "" {
		return nil, errEmpty
	}
	if text[0] != '/' {
		return nil, fmt.Errorf("multiaddr: %.100q does not begin with a slash: want text such as /ip4/192.0.2.1/tcp/4001", s)
	}
	rest := text
	for n := 1; rest != ""; n++ {
		at := len(text) - len(rest)
		var name, value string
		name, rest = cutText(rest)
		p := byName[name]
		if p == nil {
			return nil, fmt.Errorf("multiaddr: %.100q: component %d at byte %d: %.32q is not the name of a protocol: want one such as ip4, dns, tcp, udp, p2p",
				s, n, at, name)
		}
		if p.size != 0 {
			if rest == "" {
				return nil, fmt.Errorf("multiaddr: %.100q: component %d at byte %d: /%s has no value: %w", s, n, at, name, p.kind.want())
			}
			if p.kind == kindPath {
				value, rest = rest, ""
			} else {
				value, rest = cutText(rest)
			}
		}
		var err error
		if b, err = p.appendComponent(b, value); err != nil {
			return nil, fmt.Errorf("multiaddr: %.100q: component %d at byte %d: /%s/%s: %w", s, n, at, name, quoteless(value), err)
		}
		if len(b) > MaxLen {
			return nil, fmt.Errorf("multiaddr: %.100q: component %d at byte %d: %w", s, n, at, errAddrLong)
		}
	}
	return b, nil
}

// cutText cuts the text "/x/y/z" into "x" and "/y/z".
func cutText(s string) (element, rest string) {
	if i := strings.IndexByte(s[1:], '/'); i >= 0 {
		return s[1 : 1+i], s[1+i:]
	}
	return s[1:], ""
}

// validate reports whether b is the binary form of an address: whole
// components of known protocols in canonical form.
func validate(b []byte) error {
	if len(b) == 0 {
		return errEmpty
	}
	if len(b) > MaxLen {
		return fmt.Errorf("multiaddr: %w: it has %d", errAddrLong, len(b))
	}
	for n, at := 1, 0; at < len(b); n++ {
		code, k := uvarint(b[at:])
		if k == 0 {
			return fmt.Errorf("multiaddr: component %d at byte %d: want a protocol code, an unsigned varint in its shortest form", n, at)
		}
		p := lookup(code)
		if p == nil {
			return fmt.Errorf("multiaddr: component %d at byte %d: no protocol has the code %d", n, at, code)
		}
		value, size := at+k, uint64(p.size)
		if p.size < 0 {
			if size, k = uvarint(b[value:]); k == 0 {
				return fmt.Errorf("multiaddr: component %d at byte %d: /%s: want the length of its value, an unsigned varint in its shortest form", n, at, p.name)
			}
			value += k
		}
		if size > uint64(len(b)-value) {
			return fmt.Errorf("multiaddr: component %d at byte %d: /%s: the value is cut short: want %d bytes, have %d", n, at, p.name, size, len(b)-value)
		}
		end := value + int(size)
		if err := p.check(b[value:end]); err != nil {
			return fmt.Errorf("multiaddr: component %d at byte %d: /%s: the value of %d bytes is bad: %w", n, at, p.name, size, err)
		}
		if p.kind == kindPath && end < len(b) {
			return fmt.Errorf("multiaddr: component %d at byte %d: /%s extends to the end: %d bytes are left", n, at, p.name, len(b)-end)
		}
		at = end
	}
	return nil
}

func endsInPath(s string) bool {
	for s != "" {
		var c Component
		if c, s = cut(s); lookup(uint64(c.code)).kind == kindPath {
			return true
		}
	}
	return false
}

// uvarint decodes the unsigned varint at the start of b. Its length n is 0
// when there is none: cut short, longer than nine bytes, not the shortest form.
func uvarint[T string | []byte](b T) (v uint64, n int) {
	for i := range min(len(b), 9) {
		c := b[i]
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			if c == 0 && i > 0 {
				return 0, 0
			}
			return v, i + 1
		}
	}
	return 0, 0
}

func appendUvarint(b []byte, v uint64) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}
