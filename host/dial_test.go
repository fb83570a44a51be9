package host

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

func TestRank(t *testing.T) {
	var in []multiaddr.Addr
	const hash = "/certhash/uEiAkH5a4DPGKUuOBjYw0CgwjvcJCJMD2K_1aluKR_tpevQ"
	for _, s := range []string{
		"/ip4/8.8.8.8/udp/1/webrtc-direct" + hash, "/ip4/8.8.8.8/tcp/1/tls/ws", "/ip4/8.8.8.8/tcp/1", "/dns4/example.com/tcp/1", "/ip4/8.8.8.8/udp/1/quic-v1",
		"/ip4/127.0.0.1/tcp/1", "/ip4/192.168.1.1/tcp/1/ws", "/ip4/192.168.1.1/udp/1/quic-v1/webtransport" + hash, "/ip4/8.8.8.8/tcp/1",
	} {
		in = append(in, multiaddr.MustParse(s))
	}
	var got strings.Builder
	for _, p := range rank(in) {
		fmt.Fprintf(&got, "%v %s\n", p.delay, p.addr)
	}
	const want = "0s /ip4/127.0.0.1/tcp/1\n30ms /ip4/192.168.1.1/udp/1/quic-v1/webtransport" + hash + "\n60ms /ip4/192.168.1.1/tcp/1/ws\n" +
		"90ms /ip4/8.8.8.8/udp/1/quic-v1\n340ms /ip4/8.8.8.8/tcp/1\n590ms /dns4/example.com/tcp/1\n840ms /ip4/8.8.8.8/tcp/1/tls/ws\n1.09s /ip4/8.8.8.8/udp/1/webrtc-direct" + hash + "\n"
	if got.String() != want {
		t.Errorf("plan:\n%swant:\n%s", &got, want)
	}
}

// fakeDNS answers from tables; a function, where given, comes first.
type fakeDNS struct {
	ips   map[string][]netip.Addr
	txt   func(name string) []string
	asked int
}

func (d *fakeDNS) LookupNetIP(_ context.Context, network, host string) ([]netip.Addr, error) {
	d.asked++
	if ips, ok := d.ips[network+" "+host]; ok {
		return ips, nil
	}
	return nil, errors.New("no such host")
}

func (d *fakeDNS) LookupTXT(_ context.Context, name string) ([]string, error) {
	d.asked++
	return d.txt(name), nil
}

func resolveWith(t *testing.T, dns *fakeDNS, p peer.ID, addrs ...string) (found []string, failed []DialAttempt) {
	t.Helper()
	var in []multiaddr.Addr
	for _, a := range addrs {
		in = append(in, multiaddr.MustParse(a))
	}
	h := &Host{resolver: dns}
	out, failed := h.resolveAll(t.Context(), p, in)
	for _, a := range out {
		found = append(found, a.String())
	}
	return found, failed
}

func TestResolve(t *testing.T) {
	p, other := testID(t), testID(t)
	dns := &fakeDNS{
		ips: map[string][]netip.Addr{
			"ip a.example":  {netip.MustParseAddr("1.1.1.1"), netip.MustParseAddr("2001:db8::1")},
			"ip4 b.example": {netip.MustParseAddr("::ffff:2.2.2.2")},
		},
		txt: func(string) []string {
			return []string{
				"dnsaddr=/ip4/3.3.3.3/tcp/4001/p2p/" + p.String(),
				"dnsaddr=/ip4/4.4.4.4/tcp/4001/p2p/" + other.String(),
				"dnsaddr=/dns4/b.example/tcp/5/p2p/" + p.String(),
				"dnsaddr=rubbish", "unrelated",
			}
		},
	}
	found, failed := resolveWith(t, dns, p, "/dns/a.example/tcp/1", "/dns4/b.example/tcp/2", "/dnsaddr/c.example", "/ip4/9.9.9.9/tcp/9", "/dns6/none.example/tcp/1")
	want := "[/ip4/1.1.1.1/tcp/1 /ip6/2001:db8::1/tcp/1 /ip4/2.2.2.2/tcp/2 /ip4/3.3.3.3/tcp/4001 /ip4/2.2.2.2/tcp/5 /ip4/9.9.9.9/tcp/9]"
	if fmt.Sprint(found) != want {
		t.Errorf("resolved to %v,\nwant %s", found, want)
	}
	if len(failed) != 1 || !strings.Contains(failed[0].Err.Error(), "none.example") {
		t.Errorf("failed: %v", failed)
	}
}

type nameDialer struct{ Transport }

func (nameDialer) CanDial(a multiaddr.Addr) bool { return a.Has(multiaddr.WSS) }

// A transport that dials names gets them, since certificates are for names.
func TestNamesAreKeptForWhoDialsThem(t *testing.T) {
	dns := &fakeDNS{
		ips: map[string][]netip.Addr{"ip a.example": {netip.MustParseAddr("1.1.1.1")}},
		txt: func(string) []string { return []string{"dnsaddr=/dns4/b.example/tcp/443/wss"} },
	}
	h := &Host{resolver: dns, transports: []Transport{nameDialer{}}}
	found, failed := h.resolveAll(t.Context(), testID(t), []multiaddr.Addr{
		multiaddr.MustParse("/dns/a.example/tcp/443/wss"), multiaddr.MustParse("/dns/a.example/tcp/1"), multiaddr.MustParse("/dnsaddr/c.example"),
	})
	const want = "[/dns/a.example/tcp/443/wss /ip4/1.1.1.1/tcp/1 /dns4/b.example/tcp/443/wss]"
	if fmt.Sprint(found) != want || len(failed) > 0 {
		t.Errorf("resolved to %v, failed %v, want %s", found, failed, want)
	}
}

// Answers are hostile: each record leads to ten others, without an end.
func TestResolveIsBounded(t *testing.T) {
	p := testID(t)
	dns := &fakeDNS{txt: func(name string) (records []string) {
		for i := range 10 {
			records = append(records, fmt.Sprintf("dnsaddr=/dnsaddr/%d.%s/p2p/%s", i, name, p))
		}
		for i := range 10_000 {
			records = append(records, fmt.Sprintf("dnsaddr=/ip4/10.0.%d.%d/tcp/1/p2p/%s", i>>8, i&255, p))
		}
		return records
	}}
	found, failed := resolveWith(t, dns, p, "/dnsaddr/bomb.example")
	if len(found) > maxResolved || dns.asked > maxLookups {
		t.Errorf("%d addresses after %d lookups", len(found), dns.asked)
	}
	if len(failed) == 0 && len(found) == 0 {
		t.Error("neither addresses nor a reason why not")
	}
}

func TestDialErrorTellsAll(t *testing.T) {
	p := testID(t)
	err := error(&DialError{Peer: p, Attempts: []DialAttempt{
		{Addr: multiaddr.MustParse("/ip4/1.2.3.4/tcp/1"), Start: time.Unix(1, 0), Stage: StageStart, Elapsed: 3 * time.Millisecond, Err: errors.New("connect: connection refused")},
		{Addr: multiaddr.MustParse("/ip4/1.2.3.5/tcp/1"), Start: time.Unix(1, 0), Stage: StageSecuring, Elapsed: 10 * time.Second, Err: context.DeadlineExceeded},
	}})
	for _, part := range []string{
		p.String(), "/ip4/1.2.3.4/tcp/1", "after 3ms", "nothing listens there", "the security handshake failed after 10s", "no answer in time",
	} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the text lacks %q:\n%v", part, err)
		}
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error("the reason of an attempt cannot be found with errors.Is")
	}
}
