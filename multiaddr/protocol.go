package multiaddr

import "strconv"

// A Code is the number of a protocol.
type Code uint32

// The protocols of https://github.com/multiformats/multiaddr/blob/master/protocols.csv.
const (
	IP4              Code = 4
	TCP              Code = 6
	DCCP             Code = 33
	IP6              Code = 41
	IP6Zone          Code = 42 // in front of its IP6: /ip6zone/eth0/ip6/fe80::1
	IPCIDR           Code = 43
	DNS              Code = 53
	DNS4             Code = 54
	DNS6             Code = 55
	DNSAddr          Code = 56
	SCTP             Code = 132
	UDP              Code = 273
	P2PWebRTCStar    Code = 275 // deprecated
	P2PWebRTCDirect  Code = 276 // deprecated: WebRTCDirect
	P2PStardust      Code = 277 // deprecated
	WebRTCDirect     Code = 280
	WebRTC           Code = 281
	P2PCircuit       Code = 290
	UDT              Code = 301
	UTP              Code = 302
	Unix             Code = 400 // a path, to the end of the address
	P2P              Code = 421 // in old text also /ipfs/
	HTTPS            Code = 443 // deprecated: TLS, HTTP
	Onion            Code = 444
	Onion3           Code = 445
	Garlic64         Code = 446
	Garlic32         Code = 447
	TLS              Code = 448
	SNI              Code = 449
	Noise            Code = 454
	QUIC             Code = 460 // draft 29
	QUICV1           Code = 461 // RFC 9000
	WebTransport     Code = 465
	CertHash         Code = 466
	WS               Code = 477
	WSS              Code = 478 // deprecated: TLS, WS
	P2PWebSocketStar Code = 479 // deprecated
	HTTP             Code = 480
	HTTPPath         Code = 481
	Memory           Code = 777
	// PlaintextV2 is not in protocols.csv, but go-libp2p has it.
	// https://github.com/libp2p/specs/tree/master/plaintext
	PlaintextV2 Code = 7367777
)

// String returns the name that the protocol has in text addresses, or
// "unknown(N)" when no protocol has this code.
func (c Code) String() string {
	if p := lookup(uint64(c)); p != nil {
		return p.name
	}
	return "unknown(" + strconv.FormatUint(uint64(c), 10) + ")"
}

// A protocol is a row of the table.
type protocol struct {
	code Code
	name string
	kind kind
	size int // of the value, in bytes; 0: no value; varSize: its length stands in front of it
}

const varSize = -1

// A kind tells how a value is written, checked and printed. See value.go.
type kind uint8

const (
	kindNone     kind = iota
	kindIP4           // 4 bytes
	kindIP6           // 16 bytes
	kindCIDR          // 1 byte
	kindPort          // 2 bytes, big-endian
	kindUint64        // 8 bytes, big-endian
	kindName          // text without a slash
	kindPath          // text that begins with a slash and goes to the end of the address
	kindHTTPPath      // bytes; percent-encoded in text
	kindPeerID        // multihash of a public key
	kindCertHash      // multihash
	kindOnion         // 10 bytes and a port
	kindOnion3        // 35 bytes and a port
	kindGarlic64      // I2P destination
	kindGarlic32      // hash of an I2P destination
)

// protocols is the table, in the order of the codes.
var protocols = [...]protocol{
	{IP4, "ip4", kindIP4, 4},
	{TCP, "tcp", kindPort, 2},
	{DCCP, "dccp", kindPort, 2},
	{IP6, "ip6", kindIP6, 16},
	{IP6Zone, "ip6zone", kindName, varSize},
	{IPCIDR, "ipcidr", kindCIDR, 1},
	{DNS, "dns", kindName, varSize},
	{DNS4, "dns4", kindName, varSize},
	{DNS6, "dns6", kindName, varSize},
	{DNSAddr, "dnsaddr", kindName, varSize},
	{SCTP, "sctp", kindPort, 2},
	{UDP, "udp", kindPort, 2},
	{P2PWebRTCStar, "p2p-webrtc-star", kindNone, 0},
	{P2PWebRTCDirect, "p2p-webrtc-direct", kindNone, 0},
	{P2PStardust, "p2p-stardust", kindNone, 0},
	{WebRTCDirect, "webrtc-direct", kindNone, 0},
	{WebRTC, "webrtc", kindNone, 0},
	{P2PCircuit, "p2p-circuit", kindNone, 0},
	{UDT, "udt", kindNone, 0},
	{UTP, "utp", kindNone, 0},
	{Unix, "unix", kindPath, varSize},
	{P2P, "p2p", kindPeerID, varSize},
	{HTTPS, "https", kindNone, 0},
	{Onion, "onion", kindOnion, 12},
	{Onion3, "onion3", kindOnion3, 37},
	{Garlic64, "garlic64", kindGarlic64, varSize},
	{Garlic32, "garlic32", kindGarlic32, varSize},
	{TLS, "tls", kindNone, 0},
	{SNI, "sni", kindName, varSize},
	{Noise, "noise", kindNone, 0},
	{QUIC, "quic", kindNone, 0},
	{QUICV1, "quic-v1", kindNone, 0},
	{WebTransport, "webtransport", kindNone, 0},
	{CertHash, "certhash", kindCertHash, varSize},
	{WS, "ws", kindNone, 0},
	{WSS, "wss", kindNone, 0},
	{P2PWebSocketStar, "p2p-websocket-star", kindNone, 0},
	{HTTP, "http", kindNone, 0},
	{HTTPPath, "http-path", kindHTTPPath, varSize},
	{Memory, "memory", kindUint64, 8},
	{PlaintextV2, "plaintextv2", kindNone, 0},
}

// byName finds a protocol by its name in text, and under the old name of p2p.
var byName = func() map[string]*protocol {
	m := make(map[string]*protocol, len(protocols)+1)
	for i := range protocols {
		m[protocols[i].name] = &protocols[i]
	}
	m["ipfs"] = m["p2p"]
	return m
}()

// byCode holds, for the codes up to the last small one, the place in protocols plus one.
var byCode = func() (t [Memory + 1]uint8) {
	for i, p := range protocols {
		if p.code <= Memory {
			t[p.code] = uint8(i + 1)
		}
	}
	return t
}()

// lookup returns the protocol with the given code, nil when there is none.
func lookup(code uint64) *protocol {
	if code < uint64(len(byCode)) {
		if i := byCode[code]; i != 0 {
			return &protocols[i-1]
		}
		return nil
	}
	if last := &protocols[len(protocols)-1]; code == uint64(last.code) {
		return last
	}
	return nil
}
