package acl

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/testkit"
	"github.com/kith-p2p/kith/memory"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

const (
	ada = "12D3KooWGzxzKZYveHXtpG6AsrUJBcWxHBFS2HsEoGTxrMLvKXtf"
	bob = "QmaCpDMGvV2BGHeYERUEnRQAwe3N8SzbUtfsmvsqQLuvuJ"
)

func subject(t testing.TB, s string) Subject {
	t.Helper()
	sub, err := ParseSubject(s)
	if err != nil {
		t.Fatal(err)
	}
	return sub
}

func entries(t testing.TB, text string) []Entry {
	t.Helper()
	tab, err := parseTable([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return tab.list
}

func TestSubjects(t *testing.T) {
	for in, want := range map[string]string{
		"everyone": "everyone", ada: ada, bob: bob, "192.0.2.7": "192.0.2.7", "192.0.2.7/24": "192.0.2.0/24", "192.0.2.7/32": "192.0.2.7",
		"::ffff:192.0.2.7": "192.0.2.7", "::ffff:192.0.2.7/120": "192.0.2.0/24", "2001:DB8::/32": "2001:db8::/32", "2001:db8::1": "2001:db8::1", "0.0.0.0/0": "0.0.0.0/0", "::/0": "::/0",
		"::ffff:0:0/96": "0.0.0.0/0",
	} {
		s := subject(t, in)
		if s.String() != want || s.IsZero() || subject(t, want) != s {
			t.Errorf("%q is %s, want %s", in, s, want)
		}
	}
	for _, bad := range []string{"", "everybody", "192.0.2", "192.0.2.0/33", "fe80::1%eth0", "fe80::1%eth0/64", "12D3", "example.com", "/ip4/192.0.2.1", "block"} {
		if s, err := ParseSubject(bad); err == nil {
			t.Errorf("%q is %s", bad, s)
		}
	}
}

func TestDecisions(t *testing.T) {
	l := New()
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	l.now = func() time.Time { return now }
	if err := l.Set(entries(t, `
		block 203.0.113.0/24 # all of them
		allow 203.0.113.7
		block 203.0.113.9 until 2030-01-01T00:00:10Z
		allow 203.0.113.8/29 until 2030-01-01T00:00:20Z
		block 2001:db8::/32
		allow 2001:db8:1::/48
		allow 10.0.0.0/8
		block `+ada)...); err != nil {
		t.Fatal(err)
	}
	check := func(addr string, blocked bool) {
		t.Helper()
		err := l.CheckAddr(multiaddr.MustParse(addr))
		var why *BlockedError
		if errors.As(err, &why) != blocked {
			t.Errorf("%v: %s: %v", now, addr, err)
		}
	}
	check("/ip4/203.0.113.1/tcp/1", true)
	check("/ip6/::ffff:203.0.113.1/tcp/1", true)
	check("/ip6zone/eth0/ip6/2001:db8::1/tcp/1", true)
	check("/ip4/203.0.113.7/tcp/1", false)
	check("/ip4/203.0.113.9/tcp/1", true)
	check("/ip4/203.0.113.10/tcp/1", false)
	check("/ip4/203.0.114.1/tcp/1", false)
	check("/ip6/2001:db8:1::1/tcp/1", false)
	check("/ip6/2001:db8:2::1/udp/1/quic-v1", true)
	check("/dns4/example.com/tcp/1", false)
	check("/memory/1", false)
	now = now.Add(10 * time.Second)
	check("/ip4/203.0.113.9/tcp/1", false) // now it is one of the eight
	now = now.Add(10 * time.Second)
	check("/ip4/203.0.113.9/tcp/1", true)
	check("/ip4/203.0.113.10/tcp/1", true)

	allow := l.Gate().AllowPrivate
	for ip, want := range map[string]bool{"10.1.2.3": true, "192.168.1.1": false, "203.0.113.7": true, "203.0.113.1": false} {
		if allow(netip.MustParseAddr(ip)) != want {
			t.Errorf("AllowPrivate(%s) is %v", ip, !want)
		}
	}

	peerIs := func(s string, blocked bool) {
		t.Helper()
		id, err := peer.ParseID(s)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.CheckPeer(id); (err != nil) != blocked {
			t.Errorf("%s: %v", s, err)
		}
	}
	peerIs(ada, true)
	peerIs(bob, false)
	if err := l.Set(entries(t, "block everyone\nallow "+ada)...); err != nil {
		t.Fatal(err)
	}
	peerIs(ada, false)
	peerIs(bob, true)
	if n, err := l.Remove(Everyone, subject(t, bob)); n != 1 || err != nil {
		t.Errorf("removed %d, %v", n, err)
	}
	peerIs(bob, false)
}

// A blocked IPv4 address is blocked in each of the IPv6 forms in which packets reach it.
func TestDisguisedAddresses(t *testing.T) {
	l := New()
	if err := l.Set(entries(t, "block 192.0.2.0/24\nallow 198.51.100.0/24\nblock 2001:db8::/32")...); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		form, blocked, other string
	}{
		{"plain", "192.0.2.33", "198.51.100.33"},
		{"mapped", "::ffff:192.0.2.33", "::ffff:198.51.100.33"},
		{"compatible", "::192.0.2.33", "::198.51.100.33"},
		{"translated", "::ffff:0:192.0.2.33", "::ffff:0:198.51.100.33"},
		{"NAT64", "64:ff9b::192.0.2.33", "64:ff9b::198.51.100.33"},
		{"6to4", "2002:c000:221::1", "2002:c633:6421::1"},
		{"Teredo client", "2001:0:c633:6421::3fff:fdde", "2001:0:c633:6421::39cc:9bde"},
		{"Teredo server", "2001:0:c000:221::39cc:9bde", "2001:0:c633:6421::39cc:9bde"},
		{"ISATAP", "2001:470::5efe:192.0.2.33", "2001:470::5efe:198.51.100.33"},
		{"its own network", "2001:db8::5efe:198.51.100.33", "2001:db9::1"},
		{"loopback", "2001:db8::1", "::1"},
	} {
		for ip, want := range map[string]bool{c.blocked: true, c.other: false} {
			addr := multiaddr.FromAddrPort(multiaddr.TCP, netip.AddrPortFrom(netip.MustParseAddr(ip), 4001))
			var blocked *BlockedError
			if err := l.CheckAddr(addr); errors.As(err, &blocked) != want {
				t.Errorf("%s: %s: %v", c.form, ip, err)
			}
		}
	}
	// All of IPv4 is not this machine by IPv6.
	if err := l.Set(entries(t, "block 0.0.0.0/0")...); err != nil {
		t.Fatal(err)
	}
	if err := l.CheckAddr(multiaddr.MustParse("/ip6/::1/tcp/1")); err != nil {
		t.Error(err)
	}
	// What strangers may lead us to is allowed by name alone.
	if l.allowsIP(netip.MustParseAddr("64:ff9b::198.51.100.33")) || !l.allowsIP(netip.MustParseAddr("198.51.100.33")) {
		t.Error("an allowed network allows other forms")
	}
}

func TestErrorText(t *testing.T) {
	l := New()
	l.Set(entries(t, "block 203.0.113.0/24 until 2100-01-01T00:00:00Z # floods us")...)
	const want = "acl: 203.0.113.0/24 is blocked until 2100-01-01T00:00:00Z (floods us)"
	if err := l.CheckAddr(multiaddr.MustParse("/ip4/203.0.113.1/tcp/1")); err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "acl.txt")
	l, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Dir(path)); err == nil {
		t.Error("reading made a directory")
	}
	until := time.Date(2100, 1, 2, 3, 4, 5, 678, time.FixedZone("", 3600))
	if err := l.Set(
		Entry{Subject: subject(t, ada), Verdict: Allow, Note: "a\nfriend\x1b[2J # of ours\u202e"},
		Entry{Subject: subject(t, "192.0.2.0/24"), Verdict: Block, Until: until},
		Entry{Subject: Everyone, Verdict: Block},
		Entry{Subject: subject(t, bob), Verdict: Block, Until: time.Unix(1, 0)}, // in the past
	); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Join(header, "\n") + `
block everyone
block 192.0.2.0/24 until 2100-01-02T02:04:05Z
allow ` + ada + ` # a friend [2J # of ours
block ` + bob + ` until 1970-01-01T00:00:01Z
`
	if string(data) != want {
		t.Errorf("file:\n%s\nwant:\n%s", data, want)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	again, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := again.Entries(); !slices.Equal(got, l.Entries()) || len(got) != 3 {
		t.Errorf("%v and %v", got, l.Entries())
	}
	// A change forgets what has ended, and keeps comments.
	if err := os.WriteFile(path, []byte("# mine\n\n  block everyone until 1999-01-01T00:00:00Z\nallow 192.0.2.1 #x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := again.Set(Entry{Subject: subject(t, "::1"), Verdict: Block}); err != nil {
		t.Fatal(err)
	}
	if data, _ := os.ReadFile(path); string(data) != "# mine\nallow 192.0.2.1 # x\nblock ::1\n" {
		t.Errorf("file:\n%s", data)
	}
}

// A file with a mistake names it, and is left alone by all.
func TestBadFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "acl.txt")
	for text, want := range map[string]string{
		"block":                                "line 1: ",
		"# x\n\nblock nobody":                  "line 3: ",
		"deny 192.0.2.1":                       "neither block nor allow",
		"block 192.0.2.1 for 3h":               "not of the form",
		"block 192.0.2.1 until tomorrow":       "no time",
		"block 192.0.2.1\nallow 192.0.2.1":     "line 2: 192.0.2.1 is in line 1",
		"block 192.0.2.1 192.0.2.2":            "not of the form",
		"\x00\xff":                             "not of the form",
		strings.Repeat("#\n", maxFile/2) + "#": "larger than",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(path)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%.20q: %v", text, err)
		}
		l := New()
		l.path = path
		if err := l.Set(Entry{Subject: Everyone, Verdict: Block}); err == nil {
			t.Errorf("%.20q was overwritten", text)
		}
		if now, _ := os.ReadFile(path); string(now) != text {
			t.Errorf("%.20q is %.20q now", text, now)
		}
	}
}

func TestBounds(t *testing.T) {
	var many []Entry
	for i := range MaxEntries + 1 {
		ip := netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)})
		many = append(many, Entry{Subject: Network(netip.PrefixFrom(ip, 32)), Verdict: Block})
	}
	l := New()
	if err := l.Set(many...); err == nil {
		t.Error("too many entries were taken")
	}
	if n := len(l.Entries()); n != 0 {
		t.Errorf("%d of them are there", n)
	}
	if err := l.Set(many[:MaxEntries]...); err != nil {
		t.Error(err)
	}
	if err := l.CheckAddr(multiaddr.MustParse("/ip4/11.0.255.255/tcp/1")); err == nil {
		t.Error("the last is not blocked")
	}
	for _, e := range []Entry{{}, {Subject: Everyone}, {Verdict: Block}, {Subject: Everyone, Verdict: 7}} {
		if err := l.Set(e); err == nil {
			t.Errorf("%v was taken", e)
		}
	}
}

// Changes that several make at the same time are all there in the end.
func TestWriters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "acl.txt")
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			l, err := Open(path) // as a process of its own would
			for j := range 8 {
				if err == nil {
					err = l.Set(Entry{Subject: subject(t, fmt.Sprintf("192.0.%d.%d", i, j)), Verdict: Block})
				}
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	l, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(l.Entries()); n != 64 {
		t.Errorf("%d entries", n)
	}
}

// A host ends the connections that its list does not allow any more, whoever changed
// the list, and takes in no new ones.
func TestRun(t *testing.T) {
	path := filepath.Join(t.TempDir(), "acl.txt")
	synctest.Test(t, func(t *testing.T) {
		l, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		network := new(memory.Network)
		h := testkit.Host(t, network, host.Config{Gate: l.Gate()})
		h.Go(func(ctx context.Context) { l.Run(ctx, h) })
		friend, other := testkit.Host(t, network, host.Config{}), testkit.Host(t, network, host.Config{})
		testkit.Connect(t, friend, h)
		testkit.Connect(t, other, h)
		synctest.Wait()

		want := func(what string, peers ...*host.Host) {
			t.Helper()
			synctest.Wait()
			got := h.Peers()
			for _, p := range peers {
				if !slices.Contains(got, p.ID()) {
					t.Errorf("%s: %s is gone", what, p.ID())
				}
			}
			if len(got) != len(peers) {
				t.Errorf("%s: %d peers, want %d", what, len(got), len(peers))
			}
		}
		want("before", friend, other)

		// In this program.
		if err := l.Set(Entry{Subject: Peer(other.ID()), Verdict: Block, Until: time.Now().Add(time.Minute)}); err != nil {
			t.Fatal(err)
		}
		want("one is blocked", friend)
		if c, err := other.Connect(t.Context(), testkit.Info(h)); err == nil {
			<-c.Done()
		}
		want("it comes again", friend)
		if _, err := h.Connect(t.Context(), testkit.Info(other)); err == nil {
			t.Error("a blocked peer was dialed")
		}
		var why *BlockedError
		if _, err := h.Connect(t.Context(), testkit.Info(other)); !errors.As(err, &why) || why.Entry.Subject != Peer(other.ID()) {
			t.Errorf("the refusal does not name the entry: %v", err)
		}
		time.Sleep(2 * time.Minute)
		testkit.Connect(t, other, h)
		want("the entry has ended", friend, other)

		// In another program.
		foreign, err := Open(path)
		if err == nil {
			err = foreign.Set(Entry{Subject: Everyone, Verdict: Block}, Entry{Subject: Peer(friend.ID()), Verdict: Allow, Until: time.Now().Add(time.Minute)})
		}
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * lookEvery)
		want("everyone else is blocked", friend)

		// A mistake changes nothing.
		if err := os.WriteFile(path, []byte("nonsense"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * lookEvery)
		want("the file is bad", friend)
		if err := l.CheckPeer(other.ID()); err == nil {
			t.Error("the list was forgotten because of a bad file")
		}
		time.Sleep(time.Minute)
		want("what was allowed has ended")
	})
}

func FuzzParse(f *testing.F) {
	f.Add("block 203.0.113.0/24 until 2030-12-31T23:59:59Z # floods us\nallow " + ada)
	f.Add("# only a comment\n\n allow everyone")
	f.Add("block ::ffff:1.2.3.4/100 #")
	f.Fuzz(func(t *testing.T, text string) {
		first, err := parseTable([]byte(text))
		if err != nil {
			return
		}
		again, err := parseTable(first.format())
		if err != nil {
			t.Fatalf("%q was written as %q: %v", text, first.format(), err)
		}
		if !slices.Equal(first.list, again.list) || !slices.Equal(first.comments, again.comments) {
			t.Fatalf("%q and %q", first.format(), again.format())
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	l := New()
	var many []Entry
	for i := range 10_000 {
		ip := netip.AddrFrom4([4]byte{11, byte(i >> 8), byte(i), 0})
		many = append(many, Entry{Subject: Network(netip.PrefixFrom(ip, 16+i%17)), Verdict: Block})
	}
	if err := l.Set(many...); err != nil {
		b.Fatal(err)
	}
	addr := multiaddr.MustParse("/ip4/8.8.8.8/tcp/4001")
	b.ReportAllocs()
	for b.Loop() {
		l.CheckAddr(addr)
	}
}
