package webrtc

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net/netip"
	"strings"
)

// https://www.rfc-editor.org/rfc/rfc8489.html#section-5, #section-14 and
// https://www.rfc-editor.org/rfc/rfc8445.html#section-16.1
const (
	stunHeaderLen = 20
	stunMagic     = 0x2112A442

	stunBindingRequest = 0x0001
	stunBindingSuccess = 0x0101
	stunBindingError   = 0x0111

	stunAttrUsername         = 0x0006
	stunAttrMessageIntegrity = 0x0008
	stunAttrErrorCode        = 0x0009
	stunAttrXORMappedAddress = 0x0020
	stunAttrPriority         = 0x0024
	stunAttrUseCandidate     = 0x0025
	stunAttrFingerprint      = 0x8028
	stunAttrICEControlling   = 0x802A

	stunFingerprintXOR = 0x5354554e
)

// maxSTUN is the longest STUN message that is looked at, in bytes. Two ufrags of
// 256 characters and what belongs to them need less than 700.
const maxSTUN = 1024

// The ufrag of a listener names the version of the protocol.
// https://github.com/libp2p/specs/blob/master/webrtc/webrtc-direct.md#browser-to-public-server
const (
	ufragV1 = "libp2p+webrtc+v1/"
	ufragV2 = "libp2p+webrtc+v2/"
)

// Bounds of RFC 8839 for what ICE calls ufrag and password, in characters.
// https://www.rfc-editor.org/rfc/rfc8839.html#section-5.4
const (
	minUfrag, maxUfrag = 4, 256
	minPwd, maxPwd     = 22, 256
)

var errSTUN = errors.New("webrtc: not a STUN message of ICE")

// isSTUN tells STUN from what else arrives on the socket.
// https://www.rfc-editor.org/rfc/rfc9443.html
func isSTUN(p []byte) bool {
	return len(p) >= stunHeaderLen && p[0] < 4 && binary.BigEndian.Uint32(p[4:]) == stunMagic
}

// A stunMessage points into the packet that it was read from.
type stunMessage struct {
	kind      uint16
	id        [12]byte
	username  []byte
	integrity int // where MESSAGE-INTEGRITY starts; 0: none
	errorCode int
	raw       []byte
}

// parseSTUN reads what ICE needs and checks the fingerprint, which ICE demands.
// Attributes that follow MESSAGE-INTEGRITY are not read.
func parseSTUN(p []byte) (m stunMessage, err error) {
	if !isSTUN(p) || len(p) > maxSTUN || int(binary.BigEndian.Uint16(p[2:])) != len(p)-stunHeaderLen || len(p)%4 != 0 {
		return m, errSTUN
	}
	m.kind = binary.BigEndian.Uint16(p)
	copy(m.id[:], p[8:])
	m.raw = p
	complete := false
	for at := stunHeaderLen; at < len(p); {
		if len(p)-at < 4 {
			return m, errSTUN
		}
		kind, n := binary.BigEndian.Uint16(p[at:]), int(binary.BigEndian.Uint16(p[at+2:]))
		padded := (n + 3) &^ 3
		if padded > len(p)-at-4 {
			return m, errSTUN
		}
		value := p[at+4 : at+4+n]
		switch {
		case kind == stunAttrFingerprint:
			if n != 4 || at+8 != len(p) || binary.BigEndian.Uint32(value) != crc32.ChecksumIEEE(p[:at])^stunFingerprintXOR {
				return m, errSTUN
			}
			complete = true
		case m.integrity != 0:
		case kind == stunAttrMessageIntegrity:
			if n != sha1.Size {
				return m, errSTUN
			}
			m.integrity = at
		case kind == stunAttrUsername:
			if n > 2*maxUfrag+1 {
				return m, errSTUN
			}
			m.username = value
		case kind == stunAttrErrorCode && n >= 4:
			m.errorCode = int(value[2]&7)*100 + int(value[3])
		}
		at += 4 + padded
	}
	if !complete {
		return m, errSTUN
	}
	return m, nil
}

// authentic tells whether the message was made with key.
func (m *stunMessage) authentic(key string) bool {
	if m.integrity == 0 {
		return false
	}
	mac := stunMAC(m.raw[:m.integrity], key)
	return hmac.Equal(mac, m.raw[m.integrity+4:m.integrity+4+sha1.Size])
}

// stunMAC is the HMAC over what precedes MESSAGE-INTEGRITY, with a length in the
// header as if the message ended with it.
func stunMAC(p []byte, key string) []byte {
	var header [stunHeaderLen]byte
	copy(header[:], p)
	binary.BigEndian.PutUint16(header[2:], uint16(len(p)-stunHeaderLen+4+sha1.Size))
	h := hmac.New(sha1.New, []byte(key))
	h.Write(header[:])
	h.Write(p[stunHeaderLen:])
	return h.Sum(nil)
}

func appendSTUNAttr(b []byte, kind uint16, value []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, kind)
	b = binary.BigEndian.AppendUint16(b, uint16(len(value)))
	b = append(b, value...)
	return append(b, make([]byte, -len(value)&3)...)
}

// finishSTUN puts MESSAGE-INTEGRITY, if there is a key, and FINGERPRINT behind the message at the start of b.
func finishSTUN(b []byte, key string) []byte {
	if key != "" {
		b = appendSTUNAttr(b, stunAttrMessageIntegrity, stunMAC(b, key))
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)-stunHeaderLen+8))
	var sum [4]byte
	binary.BigEndian.PutUint32(sum[:], crc32.ChecksumIEEE(b)^stunFingerprintXOR)
	return appendSTUNAttr(b, stunAttrFingerprint, sum[:])
}

func startSTUN(kind uint16, id [12]byte) []byte {
	b := make([]byte, 0, 256)
	b = binary.BigEndian.AppendUint16(b, kind)
	b = append(b, 0, 0)
	b = binary.BigEndian.AppendUint32(b, stunMagic)
	return append(b, id[:]...)
}

// stunRequest is the connectivity check of the dialer, which controls and
// nominates the only pair there is.
func stunRequest(id [12]byte, username, key string, tiebreaker uint64) []byte {
	b := startSTUN(stunBindingRequest, id)
	b = appendSTUNAttr(b, stunAttrUsername, []byte(username))
	b = appendSTUNAttr(b, stunAttrPriority, []byte{126, 255, 255, 255}) // a host candidate's
	b = appendSTUNAttr(b, stunAttrICEControlling, binary.BigEndian.AppendUint64(nil, tiebreaker))
	b = appendSTUNAttr(b, stunAttrUseCandidate, nil)
	return finishSTUN(b, key)
}

// stunSuccess answers the check m, which came from an address.
func stunSuccess(m *stunMessage, from netip.AddrPort, key string) []byte {
	b := startSTUN(stunBindingSuccess, m.id)
	ip := from.Addr().Unmap()
	value := []byte{0, 1}
	if ip.Is6() {
		value[1] = 2
	}
	value = binary.BigEndian.AppendUint16(value, from.Port()^(stunMagic>>16))
	var mask [16]byte
	binary.BigEndian.PutUint32(mask[:], stunMagic)
	copy(mask[4:], m.id[:])
	for i, x := range ip.AsSlice() {
		value = append(value, x^mask[i])
	}
	b = appendSTUNAttr(b, stunAttrXORMappedAddress, value)
	return finishSTUN(b, key)
}

// stunRefusal tells that the username of m is none of ours, with 401.
func stunRefusal(m *stunMessage) []byte {
	b := startSTUN(stunBindingError, m.id)
	return finishSTUN(appendSTUNAttr(b, stunAttrErrorCode, []byte{0, 0, 4, 1}), "")
}

// A checkKind is what a listener makes of a connectivity check.
type checkKind uint8

const (
	checkIgnored checkKind = iota // not for us, or not authentic
	checkRefused                  // a version that we do not know
	checkValid
)

// listenerCheck judges a request that a dialer sent. The password that answers it
// follows from the username, so that nothing needs to be remembered.
func listenerCheck(m *stunMessage) (key string, kind checkKind) {
	if m.kind != stunBindingRequest {
		return "", checkIgnored
	}
	server, client, ok := strings.Cut(string(m.username), ":")
	if !ok || len(server) < minUfrag || len(server) > maxUfrag || len(client) < minUfrag || len(client) > maxUfrag ||
		!isICE(server) || !isICE(client) {
		return "", checkIgnored
	}
	switch {
	case strings.HasPrefix(server, ufragV1):
		if client != server {
			return "", checkIgnored
		}
	case strings.HasPrefix(server, ufragV2):
		if pwd := server[len(ufragV2):]; len(pwd) < minPwd || len(pwd) > maxPwd {
			return "", checkIgnored
		}
	default:
		return "", checkRefused
	}
	if len(server) < minPwd || !m.authentic(server) {
		return "", checkIgnored
	}
	return server, checkValid
}

// isICE tells whether s consists of ice-char.
// https://www.rfc-editor.org/rfc/rfc8839.html#section-5.1
func isICE(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '+' || c == '/') {
			return false
		}
	}
	return true
}

// randomICE makes a string of n characters that a ufrag or a password may have.
func randomICE(n int) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	b := make([]byte, n)
	rand.Read(b)
	for i := range b {
		b[i] = alphabet[b[i]&63]
	}
	return string(b)
}
