package quic

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// otherFamily makes of control messages for packets to one family those for the other:
// the marks of congestion (ECN) have another place there. The size of segments stays,
// and the local address, which does not exist there, goes.
func otherFamily(oob []byte) []byte {
	var b []byte
	for len(oob) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return b
		}
		message := oob[:len(oob)-len(rest)]
		oob = rest
		switch {
		case h.Level == unix.IPPROTO_UDP:
			b = append(b, message...)
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_TOS && len(data) >= 1:
			b = appendInt(b, unix.IPPROTO_IPV6, unix.IPV6_TCLASS, int32(data[0]))
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_TCLASS && len(data) >= 4:
			b = appendInt(b, unix.IPPROTO_IP, unix.IP_TOS, int32(binary.NativeEndian.Uint32(data)))
		}
	}
	return b
}

// appendInt appends a control message with a C int.
func appendInt(b []byte, level, kind, value int32) []byte {
	at := len(b)
	b = append(b, make([]byte, unix.CmsgSpace(4))...)
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[at]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(4))
	binary.NativeEndian.PutUint32(b[at+unix.CmsgLen(0):], uint32(value))
	return b
}
