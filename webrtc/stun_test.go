package webrtc

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"github.com/pion/stun/v4"
)

// The request and the response of RFC 5769, section 2.1 and 2.2: test vectors for
// STUN with the password VOkJxbRl1RmTxUk/WvJxBt.
const rfc5769Password = "VOkJxbRl1RmTxUk/WvJxBt"

var rfc5769Request = []byte("\x00\x01\x00\x58\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae" +
	"\x80\x22\x00\x10STUN test client\x00\x24\x00\x04\x6e\x00\x01\xff" +
	"\x80\x29\x00\x08\x93\x2f\xf9\xb1\x51\x26\x3b\x36\x00\x06\x00\x09evtj:h6vY   " +
	"\x00\x08\x00\x14\x9a\xea\xa7\x0c\xbf\xd8\xcb\x56\x78\x1e\xf2\xb5\xb2\xd3\xf2\x49\xc1\xb5\x71\xa2" +
	"\x80\x28\x00\x04\xe5\x7a\x3b\xcf")

func TestSTUNVector(t *testing.T) {
	m, err := parseSTUN(rfc5769Request)
	if err != nil || m.Type != stun.BindingRequest || !m.Contains(stun.AttrUsername) {
		t.Fatalf("%+v, %v", m, err)
	}
	if !authentic(m, rfc5769Password) || authentic(m, rfc5769Password+"x") {
		t.Error("the integrity is not checked")
	}
	for i := range rfc5769Request {
		broken := bytes.Clone(rfc5769Request)
		broken[i] ^= 1
		if m, err := parseSTUN(broken); err == nil && authentic(m, rfc5769Password) {
			t.Errorf("byte %d can be changed", i)
		}
	}
}

func TestSTUNAnswer(t *testing.T) {
	k := newCheck(2)
	m, err := parseSTUN(k.request())
	if err != nil {
		t.Fatal(err)
	}
	key, kind := listenerCheck(m)
	if kind != checkValid {
		t.Fatalf("a check of ours is not valid: %d", kind)
	}
	for _, from := range []string{"192.0.2.1:32853", "[2001:db8:1234:5678:11:2233:4455:6677]:32853"} {
		answer := stunSuccess(m, netip.MustParseAddrPort(from), key)
		got, err := parseSTUN(answer)
		if err != nil || got.Type != stun.BindingSuccess || got.TransactionID != k.id || !authentic(got, k.theirKey) {
			t.Errorf("%s: %+v, %v", from, got, err)
		}
		if len(answer) > len(k.request()) {
			t.Errorf("the answer has %d bytes, more than the %d of the request", len(answer), len(k.request()))
		}
	}
	// The mapped address of RFC 5769, section 2.2.
	m.TransactionID = [12]byte([]byte("\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae"))
	if got := stunSuccess(m, netip.MustParseAddrPort("192.0.2.1:32853"), ""); !bytes.Contains(got, []byte("\x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43")) {
		t.Errorf("the mapped address is wrong: %x", got)
	}
}

func TestListenerCheck(t *testing.T) {
	v1 := ufragV1 + "abcdefghijklmnopqrstuvwxyz123456"
	pwd := "abcdefghijklmnopqrstuvwxyz"
	for _, c := range []struct {
		name, server, client, key string
		want                      checkKind
	}{
		{"version 1", v1, v1, v1, checkValid},
		{"version 1 with another client", v1, v1 + "x", v1, checkIgnored},
		{"version 1 with a short secret", ufragV1, ufragV1, ufragV1, checkIgnored},
		{"version 2", ufragV2 + pwd, "abcd", ufragV2 + pwd, checkValid},
		{"version 2 with a short password", ufragV2 + pwd[:minPwd-1], "abcd", ufragV2 + pwd[:minPwd-1], checkIgnored},
		{"version 2 with a short ufrag", ufragV2 + pwd, "abc", ufragV2 + pwd, checkIgnored},
		{"version 3", "libp2p+webrtc+v3/" + pwd, "abcd", "libp2p+webrtc+v3/" + pwd, checkRefused},
		{"no version", pwd, pwd, pwd, checkRefused},
		{"another password", v1, v1, v1 + "x", checkIgnored},
		{"too long", ufragV2 + strings.Repeat("a", maxUfrag), "abcd", ufragV2 + strings.Repeat("a", maxUfrag), checkIgnored},
		{"characters that ICE does not know", v1 + "-", v1 + "-", v1 + "-", checkIgnored},
		{"no client", v1, "", v1, checkIgnored},
	} {
		k := check{theirs: c.server, ours: c.client, theirKey: c.key}
		m, err := parseSTUN(k.request())
		if err != nil {
			if c.want != checkIgnored {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if _, got := listenerCheck(m); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func FuzzSTUN(f *testing.F) {
	f.Add(rfc5769Request)
	f.Add(newCheck(1).request())
	f.Add(newCheck(2).request())
	f.Fuzz(func(t *testing.T, p []byte) {
		m, err := parseSTUN(p)
		if err != nil {
			return
		}
		if key, kind := listenerCheck(m); kind == checkValid {
			if answer := stunSuccess(m, netip.MustParseAddrPort("[::1]:1"), key); len(answer) > len(p)+64 {
				t.Errorf("%d bytes answer %d", len(answer), len(p))
			}
		}
	})
}
