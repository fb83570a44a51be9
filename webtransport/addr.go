package webtransport

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/kith-p2p/kith/multiaddr"
)

// The only kind of hash that browsers compare certificates with.
// https://www.w3.org/TR/webtransport/#dom-webtransporthash-algorithm
const (
	sha256Code = 0x12 // https://github.com/multiformats/multicodec/blob/master/table.csv
	sha256Len  = sha256.Size
)

// maxHashes bounds the certificate hashes of an address. Servers have two or three.
const maxHashes = 32

// protocols is what stands between the port and the hashes.
var protocols = multiaddr.MustParse("/quic-v1/webtransport")

// A target is what an address says.
type target struct {
	at     netip.AddrPort
	sni    string   // "" when the address names no server
	hashes [][]byte // SHA-256 multihashes of certificates
	others int      // hashes of kinds that are not understood
}

// parseAddr takes an address apart, and tells why it is not one of ours.
func parseAddr(addr multiaddr.Addr) (target, error) {
	ap, code, ok := addr.AddrPort()
	if !ok || code != multiaddr.UDP {
		return target{}, fmt.Errorf("webtransport: %s does not begin with an IP address and a UDP port", addr)
	}
	t := target{at: ap}
	const (
		start = iota
		quic
		named
		done
	)
	place := start
	for c := range skip(addr, multiaddr.FromAddrPort(multiaddr.UDP, ap)) {
		switch {
		case place == start && c.Code() == multiaddr.QUICV1:
			place = quic
		case place == quic && c.Code() == multiaddr.SNI:
			place, t.sni = named, c.Value()
		case (place == quic || place == named) && c.Code() == multiaddr.WebTransport:
			place = done
		case place == done && c.Code() == multiaddr.CertHash:
			if len(t.hashes)+t.others == maxHashes {
				return target{}, fmt.Errorf("webtransport: the address has more than %d certificate hashes", maxHashes)
			}
			if h := c.Bytes(); isSHA256(h) {
				t.hashes = append(t.hashes, h)
			} else {
				t.others++
			}
		default:
			return target{}, fmt.Errorf("webtransport: %s has %s out of place: want /quic-v1/webtransport/certhash/… behind the port", addr, c)
		}
	}
	if place != done {
		return target{}, fmt.Errorf("webtransport: %s is not followed by /quic-v1/webtransport", addr)
	}
	return t, nil
}

// skip gives the components of addr behind those of prefix, with which it begins.
func skip(addr, prefix multiaddr.Addr) func(func(multiaddr.Component) bool) {
	return func(yield func(multiaddr.Component) bool) {
		n := 0
		for range prefix.Components() {
			n++
		}
		for c := range addr.Components() {
			if n > 0 {
				n--
			} else if !yield(c) {
				return
			}
		}
	}
}

// certHash is the multihash of a certificate.
func certHash(der []byte) []byte {
	sum := sha256.Sum256(der)
	return append([]byte{sha256Code, sha256Len}, sum[:]...)
}

func isSHA256(hash []byte) bool {
	return len(hash) == 2+sha256Len && hash[0] == sha256Code && hash[1] == sha256Len
}

func containsHash(hashes [][]byte, hash []byte) bool {
	return slices.ContainsFunc(hashes, func(h []byte) bool { return bytes.Equal(h, hash) })
}

// hashText writes a multihash as it stands in an address.
func hashText(hash []byte) string { return "u" + base64.RawURLEncoding.EncodeToString(hash) }

func certHashAddr(hash []byte) multiaddr.Addr {
	c, err := multiaddr.NewComponent(multiaddr.CertHash, hashText(hash))
	if err != nil {
		panic("webtransport: " + err.Error()) // of our own making
	}
	return c.Addr()
}

// fromNet is the address of one end of a connection, without hashes.
func fromNet(a net.Addr) multiaddr.Addr {
	udp, ok := a.(*net.UDPAddr)
	if !ok {
		return multiaddr.Addr{}
	}
	return fromAddrPort(udp.AddrPort())
}

func fromAddrPort(ap netip.AddrPort) multiaddr.Addr {
	ap = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	return multiaddr.Join(multiaddr.FromAddrPort(multiaddr.UDP, ap), protocols)
}
