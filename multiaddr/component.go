package multiaddr

import (
	"fmt"
	"iter"
)

// A Component is one part of an address: a protocol and, for most, its value.
// Components can be compared with ==. The zero Component is none.
type Component struct {
	s    string // binary form: code, length where the value has no fixed one, value
	code Code
	at   uint8 // where the value begins in s
}

// NewComponent returns the component of protocol c with the value that is
// written as text in an address: "4001", "example.com". It is "" for protocols
// without a value.
func NewComponent(c Code, value string) (Component, error) {
	p := lookup(uint64(c))
	if p == nil {
		return Component{}, fmt.Errorf("multiaddr: no protocol has the code %d", uint32(c))
	}
	var buf [128]byte
	b, err := p.appendComponent(buf[:0], value)
	if err != nil {
		return Component{}, fmt.Errorf("multiaddr: /%s/%s: %w", p.name, quoteless(value), err)
	}
	component, _ := cut(string(b))
	return component, nil
}

// Code returns the protocol.
func (c Component) Code() Code { return c.code }

// Value returns the value as text, "" where the protocol has none.
func (c Component) Value() string {
	if len(c.s) == int(c.at) {
		return ""
	}
	var buf [128]byte
	return string(lookup(uint64(c.code)).appendText(buf[:0], c.s[c.at:]))
}

// Bytes returns the value in binary, without its code and length: the port as
// two bytes, the peer ID as a multihash, the name as it is.
func (c Component) Bytes() []byte { return []byte(c.s[c.at:]) }

// Addr returns the address that has only this component.
func (c Component) Addr() Addr { return Addr{c.s} }

// String returns the component as it is written in an address: /tcp/4001.
func (c Component) String() string {
	var buf [128]byte
	return string(c.appendText(buf[:0]))
}

func (c Component) appendText(b []byte) []byte {
	if c.s == "" {
		return b
	}
	p := lookup(uint64(c.code))
	b = append(append(b, '/'), p.name...)
	if p.size == 0 {
		return b
	}
	if p.kind != kindPath { // a path brings its own slash
		b = append(b, '/')
	}
	return p.appendText(b, c.s[c.at:])
}

// Components returns the components in order. It does not allocate.
func (a Addr) Components() iter.Seq[Component] {
	return func(yield func(Component) bool) {
		for rest := a.s; rest != ""; {
			var c Component
			if c, rest = cut(rest); !yield(c) {
				return
			}
		}
	}
}

// First returns the first component. It is false for the zero Addr.
func (a Addr) First() (Component, bool) {
	c, _ := cut(a.s)
	return c, a.s != ""
}

// Last returns the last component. It is false for the zero Addr.
func (a Addr) Last() (Component, bool) {
	_, c := a.SplitLast()
	return c, a.s != ""
}

// Has reports whether a has a component of protocol c.
func (a Addr) Has(c Code) bool {
	_, ok := a.find(c)
	return ok
}

// Value returns the text of the value of the first component of protocol c,
// and whether there is one.
func (a Addr) Value(c Code) (string, bool) {
	component, ok := a.find(c)
	return component.Value(), ok
}

// SplitFirst returns the first component and the rest. Both are zero for the
// zero Addr.
func (a Addr) SplitFirst() (Component, Addr) {
	c, rest := cut(a.s)
	return c, Addr{rest}
}

// SplitLast returns all but the last component, and the last. Both are zero for
// the zero Addr.
func (a Addr) SplitLast() (Addr, Component) {
	var last Component
	for rest := a.s; rest != ""; {
		last, rest = cut(rest)
	}
	return Addr{a.s[:len(a.s)-len(last.s)]}, last
}

func (a Addr) find(code Code) (Component, bool) {
	for rest := a.s; rest != ""; {
		var c Component
		if c, rest = cut(rest); c.code == code {
			return c, true
		}
	}
	return Component{}, false
}

// cut cuts the first component off s, which is the binary form of an address
// and was validated when its Addr was made.
func cut(s string) (c Component, rest string) {
	if s == "" {
		return Component{}, ""
	}
	code, at := uvarint(s)
	size := lookup(code).size
	if size < 0 {
		n, k := uvarint(s[at:])
		size, at = int(n), at+k
	}
	return Component{s: s[:at+size], code: Code(code), at: uint8(at)}, s[at+size:]
}
