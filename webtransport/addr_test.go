package webtransport

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/kith-p2p/kith/multiaddr"
)

var (
	hashA = hashText(certHash([]byte("a")))
	hashB = hashText(certHash([]byte("b")))
	// SHA-1, which is no kind that is allowed.
	sha1Hash = hashText(append([]byte{0x11, 20}, make([]byte, 20)...))
)

func TestAddrs(t *testing.T) {
	tr := newTransport(t, newKey(t))
	for _, c := range []struct {
		addr         string
		dial, listen bool
	}{
		{"/ip4/192.0.2.1/udp/443/quic-v1/webtransport/certhash/" + hashA, true, false},
		{"/ip4/192.0.2.1/udp/443/quic-v1/webtransport/certhash/" + hashA + "/certhash/" + hashB, true, false},
		{"/ip6/2001:db8::1/udp/443/quic-v1/webtransport/certhash/" + hashA, true, false},
		{"/ip6zone/eth0/ip6/fe80::1/udp/443/quic-v1/webtransport/certhash/" + hashA, true, false},
		{"/ip4/192.0.2.1/udp/443/quic-v1/sni/example.com/webtransport/certhash/" + hashA, true, false},
		{"/ip4/192.0.2.1/udp/443/quic-v1/sni/example.com/webtransport", true, false}, // an authority vouches
		{"/ip4/192.0.2.1/udp/443/quic-v1/webtransport/certhash/" + sha1Hash + "/certhash/" + hashA, true, false},
		{"/ip4/192.0.2.1/udp/443/quic-v1/webtransport/certhash/" + sha1Hash, false, false},
		{"/ip4/192.0.2.1/udp/443/quic-v1/webtransport", false, true},
		{"/ip4/0.0.0.0/udp/0/quic-v1/webtransport", false, true},
		{"/ip6/::/udp/0/quic-v1/webtransport", false, true},
		{"/ip4/192.0.2.1/udp/0/quic-v1/webtransport/certhash/" + hashA, false, false},
		{"/ip4/192.0.2.1/udp/443/quic-v1", false, false},
		{"/ip4/192.0.2.1/udp/443/webtransport", false, false},
		{"/ip4/192.0.2.1/tcp/443/quic-v1/webtransport", false, false},
		{"/ip4/192.0.2.1/udp/443/quic/webtransport/certhash/" + hashA, false, false}, // a draft of QUIC
		{"/dns4/example.com/udp/443/quic-v1/webtransport/certhash/" + hashA, false, false},
		{"/ip4/192.0.2.1/udp/443/quic-v1/webtransport/p2p-circuit", false, false},
		{"/ip4/192.0.2.1/udp/443/quic-v1/certhash/" + hashA + "/webtransport", false, false},
		{"/ip4/192.0.2.1/udp/443/quic-v1/webtransport/sni/example.com", false, false},
		{"/ip4/192.0.2.1/udp/443/quic-v1/webtransport/webtransport", false, false},
		{"/ip4/192.0.2.1/udp/443/quic-v1/webtransport" + strings.Repeat("/certhash/"+hashA, maxHashes), true, false},
		{"/ip4/192.0.2.1/udp/443/quic-v1/webtransport" + strings.Repeat("/certhash/"+hashA, maxHashes+1), false, false},
		{"/memory/1", false, false},
	} {
		addr, err := multiaddr.Parse(c.addr)
		if err != nil {
			t.Fatalf("%s: %v", c.addr, err)
		}
		if got := tr.CanDial(addr); got != c.dial {
			t.Errorf("CanDial(%s) is %v", c.addr, got)
		}
		if got := tr.CanListen(addr); got != c.listen {
			t.Errorf("CanListen(%s) is %v", c.addr, got)
		}
	}
	if tr.CanDial(multiaddr.Addr{}) || tr.CanListen(multiaddr.Addr{}) {
		t.Error("no address is an address")
	}
}

// Who is refused is told why.
func TestDialRefusals(t *testing.T) {
	tr := newTransport(t, newKey(t))
	for addr, want := range map[string]string{
		"/ip4/127.0.0.1/udp/443/quic-v1/webtransport":                      "neither /certhash nor /sni",
		"/ip4/127.0.0.1/udp/443/quic-v1/webtransport/certhash/" + sha1Hash: "sha2-256",
		"/ip4/127.0.0.1/udp/443/quic-v1":                                   "/quic-v1/webtransport",
		"/ip4/127.0.0.1/tcp/443":                                           "UDP",
		"/ip4/127.0.0.1/udp/443/quic-v1/webtransport/p2p-circuit":          "p2p-circuit",
	} {
		_, err := tr.Dial(t.Context(), multiaddr.MustParse(addr), newKey(t).ID(), nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", addr, err, want)
		}
	}
	_, err := tr.Listen(multiaddr.MustParse("/ip4/127.0.0.1/udp/0/quic-v1/webtransport/certhash/" + hashA))
	if err == nil || !strings.Contains(err.Error(), "leave out") {
		t.Errorf("listening with a given certificate: %v", err)
	}
}

// Whatever an address says, only hashes that can be compared come out, in the
// same order, and as few as are bounded.
func FuzzParseAddr(f *testing.F) {
	for _, s := range []string{
		"/ip4/192.0.2.1/udp/443/quic-v1/webtransport/certhash/" + hashA + "/certhash/" + hashB,
		"/ip6/::1/udp/1/quic-v1/sni/example.com/webtransport/certhash/" + sha1Hash,
		"/ip6zone/x/ip6/fe80::1/udp/1/quic-v1/webtransport",
		"/ip4/192.0.2.1/udp/443/quic-v1/webtransport/certhash/" + hashText([]byte{sha256Code, sha256Len}[:1]) + "",
	} {
		if a, err := multiaddr.Parse(s); err == nil {
			f.Add(a.Bytes())
		}
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		addr, err := multiaddr.FromBytes(b)
		if err != nil {
			return
		}
		to, err := parseAddr(addr)
		if err != nil {
			return
		}
		if len(to.hashes)+to.others > maxHashes {
			t.Fatalf("%d hashes", len(to.hashes)+to.others)
		}
		var want [][]byte
		for c := range addr.Components() {
			if c.Code() == multiaddr.CertHash && isSHA256(c.Bytes()) {
				want = append(want, c.Bytes())
			}
		}
		if fmt.Sprint(want) != fmt.Sprint(to.hashes) {
			t.Fatalf("%s: hashes %x", addr, to.hashes)
		}
		again := multiaddr.FromAddrPort(multiaddr.UDP, to.at)
		if !bytes.HasPrefix(addr.Bytes(), again.Bytes()) {
			t.Fatalf("%s is at %s", addr, to.at)
		}
		if to.verifiable() == nil && len(to.hashes) == 0 && to.sni == "" {
			t.Fatalf("%s can be verified by nothing", addr)
		}
		for _, h := range to.hashes {
			if v, ok := certHashAddr(h).Value(multiaddr.CertHash); !ok || v != hashText(h) {
				t.Fatalf("%x is written %s", h, v)
			}
		}
	})
}
