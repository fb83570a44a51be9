package host

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// fakeDNS answers from tables; a function, where given, comes first.
type fakeDNS struct {
	ips   map[string][]netip.Addr
	txt   func(name string) []string
	asked atomic.Int32
}

func (d *fakeDNS) LookupNetIP(_ context.Context, network, host string) ([]netip.Addr, error) {
	d.asked.Add(1)
	if ips, ok := d.ips[network+" "+host]; ok {
		return ips, nil
	}
	return nil, errors.New("no such host")
}

func (d *fakeDNS) LookupTXT(_ context.Context, name string) ([]string, error) {
	d.asked.Add(1)
	return d.txt(name), nil
}

// resolveWith resolves the names among addrs as a dial of h does, and passes on the others.
func resolveWith(t *testing.T, h *Host, p peer.ID, source Source, addrs ...string) (found []string, failed []DialAttempt) {
	t.Helper()
	var names []KnownAddr
	for _, text := range addrs {
		k := KnownAddr{Addr: multiaddr.MustParse(text), Source: source}
		if h.mustResolve(k) {
			names = append(names, k)
		} else {
			found = append(found, text)
		}
	}
	r := h.resolveAll(t.Context(), p, names)
	for _, s := range r.steps {
		found = append(found, s.known.Addr.String())
	}
	return found, r.failed
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
	found, failed := resolveWith(t, &Host{resolver: dns}, p, SourceUser, "/dns/a.example/tcp/1", "/dns4/b.example/tcp/2", "/dnsaddr/c.example", "/ip4/9.9.9.9/tcp/9", "/dns6/none.example/tcp/1")
	want := "[/ip4/9.9.9.9/tcp/9 /ip4/1.1.1.1/tcp/1 /ip6/2001:db8::1/tcp/1 /ip4/2.2.2.2/tcp/2 /ip4/3.3.3.3/tcp/4001 /ip4/2.2.2.2/tcp/5]"
	if fmt.Sprint(found) != want {
		t.Errorf("resolved to %v,\nwant %s", found, want)
	}
	if len(failed) != 1 || !strings.Contains(failed[0].Err.Error(), "none.example") {
		t.Errorf("failed: %v", failed)
	}
	// A name that stands for other peers alone, or for nobody, is a reason too.
	for _, records := range [][]string{nil, {"unrelated"}, {"dnsaddr=/ip4/4.4.4.4/tcp/4001/p2p/" + other.String()}} {
		dns.txt = func(string) []string { return records }
		found, failed := resolveWith(t, &Host{resolver: dns}, p, SourceUser, "/dnsaddr/c.example")
		if len(found) > 0 || len(failed) != 1 || !strings.Contains(failed[0].Err.Error(), "no TXT record of _dnsaddr.c.example") {
			t.Errorf("records %q lead to %v, failed: %v", records, found, failed)
		}
	}
}

type nameDialer struct{ Transport }

func (nameDialer) CanDial(a multiaddr.Addr) bool { return a.Has(multiaddr.WSS) }

// A transport that dials names gets them, since certificates are for names: but only
// those that the user gave, since where others' names lead has to be seen first.
func TestNamesAreKeptForWhoDialsThem(t *testing.T) {
	dns := &fakeDNS{
		ips: map[string][]netip.Addr{"ip a.example": {netip.MustParseAddr("1.1.1.1")}, "ip4 b.example": {netip.MustParseAddr("2.2.2.2")}},
		txt: func(string) []string {
			return []string{"dnsaddr=/dns4/b.example/tcp/443/wss", "dnsaddr=/dns4/b.example/tcp/443/tls/sni/c.example/ws"}
		},
	}
	h := &Host{resolver: dns, transports: []Transport{nameDialer{}}}
	for _, c := range []struct {
		source Source
		want   string
	}{
		{SourceUser, "[/dns/a.example/tcp/443/wss /ip4/1.1.1.1/tcp/1 /dns4/b.example/tcp/443/wss /ip4/2.2.2.2/tcp/443/tls/sni/c.example/ws]"},
		{SourceStranger, "[/ip4/1.1.1.1/tcp/443/tls/sni/a.example/ws /ip4/1.1.1.1/tcp/1 /ip4/2.2.2.2/tcp/443/tls/sni/b.example/ws /ip4/2.2.2.2/tcp/443/tls/sni/c.example/ws]"},
	} {
		found, failed := resolveWith(t, h, testID(t), c.source, "/dns/a.example/tcp/443/wss", "/dns/a.example/tcp/1", "/dnsaddr/c.example")
		if fmt.Sprint(found) != c.want || len(failed) > 0 {
			t.Errorf("resolved to %v, failed %v, want %s", found, failed, c.want)
		}
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
	found, failed := resolveWith(t, &Host{resolver: dns}, p, SourceStranger, "/dnsaddr/bomb.example")
	if len(found) > maxResolved || dns.asked.Load() > maxLookups {
		t.Errorf("%d addresses after %d lookups", len(found), dns.asked.Load())
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
