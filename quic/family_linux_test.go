package quic

import (
	"bytes"
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

// Control messages come through as the other family has them.
func TestOtherFamily(t *testing.T) {
	segments := appendInt(nil, unix.IPPROTO_UDP, unix.UDP_SEGMENT, 1200)
	four, six := appendInt(nil, unix.IPPROTO_IP, unix.IP_TOS, 2), appendInt(nil, unix.IPPROTO_IPV6, unix.IPV6_TCLASS, 2)
	both := func(a, b []byte) []byte { return append(bytes.Clone(a), b...) }
	for name, test := range map[string]struct{ in, want []byte }{
		"nothing":          {nil, nil},
		"IPv4":             {both(segments, four), both(segments, six)},
		"IPv6":             {both(segments, six), both(segments, four)},
		"a local address":  {both(appendInt(nil, unix.IPPROTO_IP, unix.IP_PKTINFO, 1), four), six},
		"what is cut off":  {four[:len(four)-5], nil},
		"less than a head": {four[:7], nil},
	} {
		if got := otherFamily(test.in); !bytes.Equal(got, test.want) {
			t.Errorf("%s: %x, want %x", name, got, test.want)
		}
	}
	// quic-go gives the mark for IPv4 as a byte.
	byteMark := bytes.Clone(four)
	binary.NativeEndian.PutUint64(byteMark, uint64(unix.CmsgLen(1)))
	if got := otherFamily(byteMark); !bytes.Equal(got, six) {
		t.Errorf("%x, want %x", got, six)
	}
}
