package webrtc

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strings"

	"github.com/pion/stun/v4"
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

// hostPriority is what the candidate of a socket of our own has.
// https://www.rfc-editor.org/rfc/rfc8445.html#section-5.1.2.1
const hostPriority = 126<<24 | 65535<<8 | 255

var errSTUN = errors.New("webrtc: not a STUN message of ICE")

// isSTUN tells STUN from what else arrives on the socket.
// https://www.rfc-editor.org/rfc/rfc9443.html
func isSTUN(p []byte) bool { return len(p) > 0 && p[0] < 4 && stun.IsMessage(p) }

// parseSTUN reads a message and checks its fingerprint, which ICE demands.
func parseSTUN(p []byte) (*stun.Message, error) {
	if !isSTUN(p) || len(p) > maxSTUN || int(binary.BigEndian.Uint16(p[2:])) != len(p)-20 {
		return nil, errSTUN
	}
	m := stun.New()
	if stun.Decode(p, m) != nil {
		return nil, errSTUN
	}
	if stun.Fingerprint.Check(m) != nil {
		return nil, errSTUN
	}
	return m, nil
}

func authentic(m *stun.Message, key string) bool {
	return stun.NewShortTermIntegrity(key).Check(m) == nil
}

// buildSTUN makes a message from parts that are valid.
func buildSTUN(parts ...stun.Setter) []byte {
	m, err := stun.Build(append(parts, stun.Fingerprint)...)
	if err != nil {
		return nil
	}
	return m.Raw
}

// attribute is one that pion has no type for.
type attribute stun.RawAttribute

func (a attribute) AddTo(m *stun.Message) error {
	m.Add(a.Type, a.Value)
	return nil
}

// stunRequest is the connectivity check of the dialer, which controls and
// nominates the only pair there is.
func stunRequest(id [12]byte, username, key string, tiebreaker uint64) []byte {
	return buildSTUN(stun.NewTransactionIDSetter(id), stun.BindingRequest, stun.NewUsername(username),
		attribute{Type: stun.AttrPriority, Value: binary.BigEndian.AppendUint32(nil, hostPriority)},
		attribute{Type: stun.AttrICEControlling, Value: binary.BigEndian.AppendUint64(nil, tiebreaker)},
		attribute{Type: stun.AttrUseCandidate},
		stun.NewShortTermIntegrity(key))
}

// stunSuccess answers the check m, which came from an address.
func stunSuccess(m *stun.Message, from netip.AddrPort, key string) []byte {
	return buildSTUN(m, stun.BindingSuccess,
		&stun.XORMappedAddress{IP: net.IP(from.Addr().Unmap().AsSlice()), Port: int(from.Port())},
		stun.NewShortTermIntegrity(key))
}

// stunRefusal tells that the username of m is none of ours.
func stunRefusal(m *stun.Message) []byte {
	return buildSTUN(m, stun.BindingError, stun.ErrorCodeAttribute{Code: stun.CodeUnauthorized})
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
func listenerCheck(m *stun.Message) (key string, kind checkKind) {
	var name stun.Username
	if m.Type != stun.BindingRequest || name.GetFrom(m) != nil {
		return "", checkIgnored
	}
	server, client, ok := strings.Cut(name.String(), ":")
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
	if len(server) < minPwd || !authentic(m, server) {
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
