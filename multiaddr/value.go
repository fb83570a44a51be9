package multiaddr

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/kith-p2p/kith/internal/multibase"
)

const (
	// maxTextLen is the longest text of one value: percent-encoding makes three
	// characters of a byte, every other encoding fewer.
	maxTextLen = 3 * MaxValueLen

	// maxInlineKey is the longest public key that is its own peer ID; longer
	// ones are hashed.
	// https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md#peer-ids
	maxInlineKey = 42
	// maxDigest is the longest digest of a certificate: SHA-512, or BLAKE2b-512.
	// WebTransport and WebRTC use SHA-256; rust-libp2p has this limit too.
	maxDigest = 64

	// Multihash and CID codes.
	// https://github.com/multiformats/multicodec/blob/master/table.csv
	hashIdentity = 0x00
	hashSHA256   = 0x12
	cidV1        = 0x01
	libp2pKey    = 0x72

	// An I2P destination is 256 + 128 bytes of keys and a certificate of 3 or
	// more; go-multiaddr reads 386 already.
	// https://geti2p.net/spec/common-structures#destination
	minGarlic64 = 386
	// The base32 name of an I2P destination is a SHA-256; that of an encrypted
	// lease set is longer. https://geti2p.net/spec/b32encrypted
	garlic32Len          = 32
	minGarlic32Encrypted = 35
)

// What each kind wants, for errors.
var (
	errNoValue  = errors.New("want no value: this protocol has none")
	errLong     = fmt.Errorf("want a value of at most %d bytes", MaxValueLen)
	errIP4      = errors.New("want an IPv4 address such as 192.0.2.1 (a host name goes into /dns4, an IPv6 address into /ip6)")
	errIP6      = errors.New("want an IPv6 address such as 2001:db8::1 (a zone goes in front, as in /ip6zone/eth0/ip6/fe80::1)")
	errCIDR     = errors.New("want a prefix length, 0 to 255")
	errPort     = errors.New("want a port, 0 to 65535")
	errUint64   = errors.New("want a number, 0 to 18446744073709551615")
	errName     = errors.New("want a name: UTF-8, not empty, without slashes and control characters")
	errPath     = errors.New("want a path such as /run/node.sock: UTF-8, without control characters, not ending in a slash")
	errHTTPPath = errors.New("want a path, percent-encoded and not empty, such as api%2Fv0")
	errPeerID   = errors.New("want a peer ID: base58 that begins with Qm or 1, or a CIDv1 of a libp2p key")
	errCertHash = fmt.Errorf("want a multihash in multibase, such as uEi… (base64url), with a digest of at most %d bytes", maxDigest)
	errOnion    = errors.New("want 16 base32 characters, a colon and a port from 1 to 65535")
	errOnion3   = errors.New("want 56 base32 characters, a colon and a port from 1 to 65535")
	errGarlic64 = fmt.Errorf("want an I2P destination of at least %d bytes in I2P's base64", minGarlic64)
	errGarlic32 = fmt.Errorf("want an I2P name of %d bytes, or of %d and more, in lower-case base32", garlic32Len, minGarlic32Encrypted)
)

func (k kind) want() error {
	return [...]error{
		kindNone: errNoValue, kindIP4: errIP4, kindIP6: errIP6, kindCIDR: errCIDR, kindPort: errPort, kindUint64: errUint64,
		kindName: errName, kindPath: errPath, kindHTTPPath: errHTTPPath, kindPeerID: errPeerID, kindCertHash: errCertHash,
		kindOnion: errOnion, kindOnion3: errOnion3, kindGarlic64: errGarlic64, kindGarlic32: errGarlic32,
	}[k]
}

// appendComponent appends the binary form of the component whose value is
// written as text.
func (p *protocol) appendComponent(b []byte, text string) ([]byte, error) {
	b = appendUvarint(b, uint64(p.code))
	if len(text) > maxTextLen {
		return nil, errLong
	}
	start := len(b)
	b, ok := p.kind.appendValue(b, text)
	if !ok {
		return nil, p.kind.want()
	}
	if err := p.check(b[start:]); err != nil {
		return nil, err
	}
	if p.size == varSize {
		// The length goes in front, now that it is known.
		n := len(b) - start
		b = appendUvarint(b, uint64(n))
		k := len(b) - n - start
		copy(b[start+k:], b[start:start+n])
		appendUvarint(b[:start], uint64(n))
	}
	return b, nil
}

// appendValue appends the value that text stands for, not yet checked.
func (k kind) appendValue(b []byte, text string) (_ []byte, ok bool) {
	switch k {
	case kindNone:
		return b, text == ""
	case kindIP4:
		ip, err := netip.ParseAddr(text)
		if err != nil || !ip.Is4() {
			return nil, false
		}
		v := ip.As4()
		return append(b, v[:]...), true
	case kindIP6:
		ip, err := netip.ParseAddr(text)
		if err != nil || !ip.Is6() || ip.Zone() != "" {
			return nil, false
		}
		v := ip.As16()
		return append(b, v[:]...), true
	case kindCIDR:
		n, err := strconv.ParseUint(text, 10, 8)
		return append(b, byte(n)), err == nil
	case kindPort:
		n, err := strconv.ParseUint(text, 10, 16)
		return binary.BigEndian.AppendUint16(b, uint16(n)), err == nil
	case kindUint64:
		n, err := strconv.ParseUint(text, 10, 64)
		return binary.BigEndian.AppendUint64(b, n), err == nil
	case kindHTTPPath:
		return appendUnescaped(b, text)
	case kindPeerID:
		return appendPeerID(b, text)
	case kindCertHash:
		b, err := multibase.AppendDecode(b, text)
		return b, err == nil
	case kindOnion:
		return appendOnion(b, text, 16)
	case kindOnion3:
		return appendOnion(b, text, 56)
	case kindGarlic64:
		b, err := multibase.I2PBase64.AppendDecode(b, text)
		return b, err == nil
	case kindGarlic32:
		b, err := multibase.I2PBase32.AppendDecode(b, text)
		return b, err == nil
	default: // kindName, kindPath
		return append(b, text...), true
	}
}

// check reports whether v, which has the right size if that is fixed, is a
// valid value in canonical form.
func (p *protocol) check(v []byte) error {
	if len(v) > MaxValueLen {
		return errLong
	}
	ok := true
	switch p.kind {
	case kindName:
		ok = len(v) > 0 && isPrintable(v, '/')
	case kindPath:
		ok = len(v) > 1 && v[0] == '/' && v[len(v)-1] != '/' && isPrintable(v, 0)
	case kindHTTPPath:
		ok = len(v) > 0
	case kindPeerID:
		code, size, valid := multihash(v)
		ok = valid && (code == hashSHA256 && size == 32 || code == hashIdentity && size <= maxInlineKey)
	case kindCertHash:
		_, size, valid := multihash(v)
		ok = valid && size <= maxDigest
	case kindOnion, kindOnion3:
		ok = v[len(v)-2]|v[len(v)-1] != 0
	case kindGarlic64:
		ok = len(v) >= minGarlic64
	case kindGarlic32:
		ok = len(v) == garlic32Len || len(v) >= minGarlic32Encrypted
	}
	if !ok {
		return p.kind.want()
	}
	return nil
}

// appendText appends the text of the value v.
func (p *protocol) appendText(b []byte, v string) []byte {
	switch p.kind {
	case kindIP4:
		return netip.AddrFrom4([4]byte([]byte(v))).AppendTo(b)
	case kindIP6:
		return netip.AddrFrom16([16]byte([]byte(v))).AppendTo(b)
	case kindCIDR:
		return strconv.AppendUint(b, uint64(v[0]), 10)
	case kindPort:
		return appendPort(b, v)
	case kindUint64:
		return strconv.AppendUint(b, binary.BigEndian.Uint64([]byte(v)), 10)
	case kindHTTPPath:
		return appendEscaped(b, v)
	case kindPeerID:
		return multibase.AppendBase58(b, v)
	case kindCertHash:
		return multibase.Base64URL.AppendEncode(append(b, 'u'), v)
	case kindOnion, kindOnion3:
		b = multibase.Base32.AppendEncode(b, v[:len(v)-2])
		return appendPort(append(b, ':'), v[len(v)-2:])
	case kindGarlic64:
		return multibase.I2PBase64.AppendEncode(b, v)
	case kindGarlic32:
		return multibase.I2PBase32.AppendEncode(b, v)
	default: // kindName, kindPath
		return append(b, v...)
	}
}

func appendPort(b []byte, v string) []byte {
	return strconv.AppendUint(b, uint64(v[0])<<8|uint64(v[1]), 10)
}

// isPrintable reports whether v is UTF-8 without control characters and
// without the byte not.
func isPrintable(v []byte, not byte) bool {
	ascii := true
	for _, c := range v {
		if c < ' ' || c == 0x7f || c == not {
			return false
		}
		ascii = ascii && c < utf8.RuneSelf
	}
	if ascii {
		return true
	}
	for len(v) > 0 {
		r, n := utf8.DecodeRune(v)
		if r == utf8.RuneError && n <= 1 || 0x80 <= r && r < 0xa0 {
			return false
		}
		v = v[n:]
	}
	return true
}

// appendOnion appends the host of n base32 characters and the port of "host:port".
func appendOnion(b []byte, text string, n int) ([]byte, bool) {
	host, port, found := strings.Cut(text, ":")
	if !found || len(host) != n {
		return nil, false
	}
	b, err := multibase.Base32.AppendDecode(b, host)
	if err != nil {
		return nil, false
	}
	v, err := strconv.ParseUint(port, 10, 16)
	return binary.BigEndian.AppendUint16(b, uint16(v)), err == nil
}

// appendPeerID appends the multihash of a peer ID: the bytes of its base58
// form, or the end of its CIDv1.
// https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md#decoding
func appendPeerID(b []byte, text string) ([]byte, bool) {
	if strings.HasPrefix(text, "1") || strings.HasPrefix(text, "Qm") {
		b, err := multibase.AppendDecodeBase58(b, text)
		return b, err == nil
	}
	var buf [64]byte
	cid, err := multibase.AppendDecode(buf[:0], text)
	if err != nil || len(cid) < 2 || cid[0] != cidV1 || cid[1] != libp2pKey {
		return nil, false
	}
	return append(b, cid[2:]...), true
}

// multihash returns the hash function of a multihash and the size of its
// digest. ok is false if v is not exactly one multihash.
// https://github.com/multiformats/multihash
func multihash(v []byte) (code uint64, size int, ok bool) {
	code, k := uvarint(v)
	if k == 0 {
		return 0, 0, false
	}
	v = v[k:]
	n, k := uvarint(v)
	if k == 0 || n != uint64(len(v)-k) {
		return 0, 0, false
	}
	return code, int(n), true
}

// appendEscaped percent-encodes everything but RFC 3986's unreserved
// characters: all readers agree on that form.
func appendEscaped(b []byte, v string) []byte {
	const digits = "0123456789ABCDEF"
	for i := range len(v) {
		c := v[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~' {
			b = append(b, c)
		} else {
			b = append(b, '%', digits[c>>4], digits[c&15])
		}
	}
	return b
}

// appendUnescaped decodes percent-encoding. A plus is a plus.
// https://github.com/multiformats/multiaddr/blob/master/protocols/http-path.md
func appendUnescaped(b []byte, text string) ([]byte, bool) {
	for i := 0; i < len(text); i++ {
		if text[i] != '%' {
			b = append(b, text[i])
			continue
		}
		if i+2 >= len(text) {
			return nil, false
		}
		var err error
		if b, err = multibase.Base16.AppendDecode(b, text[i+1:i+3]); err != nil {
			return nil, false
		}
		i += 2
	}
	return b, true
}

// quoteless escapes text for an error as %q does, without the quotes, and cuts
// it short.
func quoteless(text string) string {
	const enough = 100
	q := strconv.Quote(text[:min(len(text), enough)])
	return q[1 : len(q)-1]
}
