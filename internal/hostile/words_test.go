package hostile

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/upgrade"
)

// Others tell a host where peers are: what it then dials is what these tests are about.

// dialed is a transport that understands every address and reaches none: it notes
// what it was to dial. The host also has one over a network in memory, for those who
// are to come in.
type dialed struct {
	over
	takes time.Duration // how long an attempt lasts

	mu     sync.Mutex
	log    []attempt
	flying map[string]int
	most   int // attempts at one port, of TCP or of UDP, at the same time, whatever the IP
}

// An attempt is one dial that a host made.
type attempt struct {
	addr multiaddr.Addr
	at   time.Time
}

var errNobody = errors.New("hostile: nobody answers")

func (d *dialed) CanDial(addr multiaddr.Addr) bool {
	return addr.Has(multiaddr.TCP) || addr.Has(multiaddr.UDP) || addr.Has(multiaddr.Unix) || addr.Has(multiaddr.WSS)
}

func (d *dialed) Dial(ctx context.Context, addr multiaddr.Addr, _ peer.ID, _ func(host.Stage)) (host.TransportConn, error) {
	ap, code, _ := addr.AddrPort()
	port := fmt.Sprint(code, ap.Port())
	d.mu.Lock()
	d.log = append(d.log, attempt{addr, time.Now()})
	if d.flying == nil {
		d.flying = make(map[string]int)
	}
	d.flying[port]++
	d.most = max(d.most, d.flying[port])
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.flying[port]--
	}()
	select {
	case <-time.After(d.takes):
		return host.TransportConn{}, errNobody
	case <-ctx.Done():
		return host.TransportConn{}, context.Cause(ctx)
	}
}

// perMinute is the largest number of attempts within a minute.
func (d *dialed) perMinute() (most int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	first := 0
	for i, a := range d.log {
		for a.at.Sub(d.log[first].at) >= time.Minute {
			first++
		}
		most = max(most, i+1-first)
	}
	return most
}

func newGullible(t *testing.T, d *dialed, resolver host.Resolver) *host.Host {
	t.Helper()
	key := newKey(t)
	d.over = over{new(network), newUpgrader(t, key, upgrade.Noise), victimIP}
	h, err := host.New(host.Config{Identity: key, Transports: []host.Transport{d}, Resolver: resolver})
	check(t, err)
	t.Cleanup(func() { h.Close() })
	return h
}

// hostileIP makes an address that no stranger can be allowed to send us to: of a
// forbidden range, and often inside an IPv6 one.
func hostileIP(r *rand.Rand) netip.Addr {
	v4 := func(prefix string) netip.Addr {
		p := netip.MustParsePrefix(prefix)
		b := p.Addr().As4()
		n := binary.BigEndian.Uint32(b[:]) | uint32(r.Uint64())&(^uint32(0)>>p.Bits())
		return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
	}
	v6 := func(prefix string) netip.Addr {
		p := netip.MustParsePrefix(prefix)
		b := p.Addr().As16()
		for i := range b {
			for bit := range 8 {
				if 8*i+bit >= p.Bits() && r.IntN(2) == 0 {
					b[i] |= 0x80 >> bit
				}
			}
		}
		return netip.AddrFrom16(b)
	}
	if r.IntN(4) == 0 {
		return v6([]string{
			"::1/128", "::/128", "fe80::/10", "fc00::/7", "fec0::/10", "ff00::/8", "100::/64", "2001:db8::/32", "3fff::/20", "2001:2::/48", "2001:10::/28", "2001:20::/28",
			"64:ff9b:1::/48", "fd00:ec2::254/128", "fd20:ce::254/128", "4000::/3", "e000::/4", "200::/7", "5f00::/16", "8000::/2",
		}[r.IntN(20)])
	}
	a := v4([]string{
		"127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "169.254.169.254/32", "100.64.0.0/10", "100.100.100.200/32", "0.0.0.0/8",
		"224.0.0.0/4", "240.0.0.0/4", "255.255.255.255/32", "192.0.0.0/24", "192.0.2.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "168.63.129.16/32",
	}[r.IntN(18)])
	return disguise(r, a, r.IntN(10))
}

// disguise puts an IPv4 address into an IPv6 one that leads to it, in way 1 to 8.
func disguise(r *rand.Rand, v4 netip.Addr, way int) netip.Addr {
	a := v4.As4()
	var b [16]byte
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	set := func(at int, what ...byte) { copy(b[at:], what) }
	switch way {
	case 1: // mapped
		set(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a[0], a[1], a[2], a[3])
	case 2: // compatible
		set(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a[0], a[1], a[2], a[3])
	case 3: // translated
		set(0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, a[0], a[1], a[2], a[3])
	case 4: // NAT64
		set(0, 0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a[0], a[1], a[2], a[3])
	case 5: // 6to4
		set(0, 0x20, 0x02, a[0], a[1], a[2], a[3])
	case 6: // Teredo, its client
		set(0, 0x20, 0x01, 0, 0, 8, 8, 8, 8)
		set(12, ^a[0], ^a[1], ^a[2], ^a[3])
	case 7: // Teredo, its server
		set(0, 0x20, 0x01, 0, 0, a[0], a[1], a[2], a[3])
		set(12, ^byte(8), ^byte(8), ^byte(8), ^byte(8))
	case 8: // ISATAP
		set(0, 0x26, 0x06, 0x47)
		set(8, byte(r.IntN(2)*2), 0, 0x5e, 0xfe, a[0], a[1], a[2], a[3])
	default:
		return v4
	}
	return netip.AddrFrom16(b)
}

// around makes an address of an IP, over one of the transports.
func around(r *rand.Rand, ip netip.Addr, port uint16) multiaddr.Addr {
	over := []string{"/tcp", "/udp"}[r.IntN(2)]
	text := "/ip6/" + ip.String()
	if ip.Is4() {
		text = "/ip4/" + ip.String()
	}
	suffix := []string{"", "/ws", "/tls/ws", "/tls/sni/example.com/ws", "/wss"}
	if over == "/udp" {
		suffix = []string{"/quic-v1", "/quic-v1/webtransport", "/webrtc-direct"}
	}
	return multiaddr.MustParse(fmt.Sprintf("%s%s/%d%s", text, over, port, suffix[r.IntN(len(suffix))]))
}

// peerOf makes the ID of one of very many peers.
func peerOf(t testing.TB, n int) peer.ID {
	t.Helper()
	var b [34]byte
	b[0], b[1] = 0x12, 0x20 // SHA-256
	binary.BigEndian.PutUint64(b[2:], uint64(n))
	id, err := peer.IDFromBytes(b[:])
	check(t, err)
	return id
}

// Row A1: strangers, and peers of themselves, tell of a great many addresses that are
// not the internet's. Nothing is sent to any of them; an honest address among them is
// dialed.
func TestAddressesOfStrangers(t *testing.T) {
	peers := 4_000
	if *full {
		peers = 32_000 // a million addresses
	}
	const perPeer = 32
	synctest.Test(t, func(t *testing.T) {
		d := new(dialed)
		h := newGullible(t, d, nil)
		r := rand.New(rand.NewPCG(1, 2))
		honest := make(map[multiaddr.Addr]bool)
		hostile, refused := 0, 0
		for n := range peers {
			info := peer.AddrInfo{ID: peerOf(t, n)}
			for range perPeer {
				info.Addrs = append(info.Addrs, around(r, hostileIP(r), []uint16{80, 443, 4001, 22, 6379}[r.IntN(5)]))
			}
			if n%100 == 0 {
				// One in a hundred peers has one that is good.
				ip := netip.AddrFrom4([4]byte{11, byte(n >> 16), byte(n >> 8), byte(n)})
				info.Addrs[n%perPeer] = multiaddr.FromAddrPort(multiaddr.TCP, netip.AddrPortFrom(ip, 4001))
				honest[info.Addrs[n%perPeer]] = true
			}
			h.Discovered(info, "stranger", host.SourceStranger)
			var err error
			if n%2 == 0 {
				_, err = h.Connect(t.Context(), peer.AddrInfo{ID: info.ID})
			} else {
				_, err = h.ConnectBackground(t.Context(), peer.AddrInfo{ID: info.ID})
			}
			var failed *host.DialError
			if !errors.As(err, &failed) {
				t.Fatalf("peer %d: %v", n, err)
			}
			hostile += perPeer
			for _, a := range failed.Attempts {
				if errors.Is(a.Err, host.ErrForbidden) {
					refused++
				}
			}
		}
		for _, a := range d.log {
			if !honest[a.addr] {
				t.Errorf("%s was dialed", a.addr)
			}
		}
		hostile -= len(honest)
		if len(d.log) != len(honest) {
			t.Errorf("%d of %d honest addresses were dialed", len(d.log), len(honest))
		}
		t.Logf("%d hostile addresses: %d refused as forbidden, the others are no machine's; %d dials, all to the %d honest ones", hostile, refused, len(d.log), len(honest))
	})
}

// Row A2: ten thousand peers are said to be at one victim, over all transports and
// in every disguise. It gets ten dials a minute.
func TestThirdParty(t *testing.T) {
	const peers = 10_000
	victim := netip.MustParseAddr("44.55.66.77")
	for _, c := range []struct {
		name  string
		takes time.Duration // to fail
		addrs func(r *rand.Rand) []multiaddr.Addr
	}{
		{"refuses at once", 0, func(*rand.Rand) []multiaddr.Addr { return addrs("/ip4/44.55.66.77/tcp/443") }},
		{"says nothing", time.Hour, func(*rand.Rand) []multiaddr.Addr {
			return addrs("/ip4/44.55.66.77/tcp/443", "/ip4/44.55.66.77/udp/443/quic-v1")
		}},
		{"all ports and transports", time.Second, func(r *rand.Rand) (all []multiaddr.Addr) {
			for range 8 {
				all = append(all, around(r, victim, 1024+uint16(r.UintN(60000))))
			}
			return append(all, addrs("/ip4/44.55.66.77/wss")...)
		}},
		{"in disguise", time.Second, func(r *rand.Rand) (all []multiaddr.Addr) {
			for way := range 9 {
				if way != 7 { // there the victim is a server that the packets only pass
					all = append(all, around(r, disguise(r, victim, way), 443))
				}
			}
			return all
		}},
		{"by name", time.Second, func(r *rand.Rand) []multiaddr.Addr {
			return addrs(fmt.Sprintf("/dns4/%x.example/tcp/443/wss", r.Uint64()), fmt.Sprintf("/dnsaddr/%x.example", r.Uint64()))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &dialed{takes: c.takes}
				h := newGullible(t, d, &lyingDNS{ips: []netip.Addr{victim}, txt: func(string) []string { return []string{"dnsaddr=/ip4/44.55.66.77/tcp/443"} }})
				r := rand.New(rand.NewPCG(3, 4))
				var all sync.WaitGroup
				start := time.Now()
				for n := range peers {
					info := peer.AddrInfo{ID: peerOf(t, n), Addrs: c.addrs(r)}
					h.Discovered(info, "stranger", host.SourceStranger)
					all.Go(func() {
						if n%2 == 0 {
							h.Connect(t.Context(), peer.AddrInfo{ID: info.ID})
						} else {
							h.ConnectBackground(t.Context(), peer.AddrInfo{ID: info.ID})
						}
					})
					if n%100 == 99 {
						time.Sleep(3 * time.Second) // five minutes in all
					}
				}
				all.Wait()
				took := time.Since(start)
				if n := d.perMinute(); n > 10 || n == 0 {
					t.Errorf("%d dials to the victim in a minute", n)
				}
				if d.most > 1 {
					t.Errorf("%d dials to one port of the victim at the same time", d.most)
				}
				t.Logf("%d peers in %v: %d dials in all, %d in the worst minute, %d at one port at a time", peers, took, len(d.log), d.perMinute(), d.most)
			})
		})
	}
}

func addrs(texts ...string) (all []multiaddr.Addr) {
	for _, s := range texts {
		all = append(all, multiaddr.MustParse(s))
	}
	return all
}

// A lyingDNS is a name server that an attacker has.
type lyingDNS struct {
	ips   []netip.Addr
	turn  bool // one answer after the other, instead of all at once
	txt   func(name string) []string
	takes time.Duration

	mu    sync.Mutex
	asked int
}

func (l *lyingDNS) ask(ctx context.Context) (int, error) {
	l.mu.Lock()
	n := l.asked
	l.asked++
	l.mu.Unlock()
	if l.takes == 0 {
		return n, nil
	}
	select {
	case <-time.After(l.takes):
		return n, nil
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

func (l *lyingDNS) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	n, err := l.ask(ctx)
	if err != nil {
		return nil, err
	}
	if l.turn {
		return l.ips[n%len(l.ips):][:1], nil
	}
	return l.ips, nil
}

func (l *lyingDNS) LookupTXT(ctx context.Context, name string) ([]string, error) {
	if _, err := l.ask(ctx); err != nil {
		return nil, err
	}
	return l.txt(name), nil
}

// Row A3: name servers that answer with very much, with one another, or late.
func TestNamesOfStrangers(t *testing.T) {
	many := make([]netip.Addr, 10_000)
	for i := range many {
		many[i] = netip.AddrFrom4([4]byte{11, 0, byte(i >> 8), byte(i)})
	}
	records := func(format string) func(string) []string {
		all := make([]string, 10_000)
		for i := range all {
			all[i] = fmt.Sprintf("dnsaddr="+format, i)
		}
		return func(string) []string { return all }
	}
	loop := func(name string) []string {
		return []string{"dnsaddr=/dnsaddr/" + strings.TrimPrefix(name, "_dnsaddr.")}
	}
	for _, source := range []host.Source{host.SourceStranger, host.SourceUser} {
		for _, c := range []struct {
			name string
			liar *lyingDNS
			addr string
			most int // dials
		}{
			{"many addresses", &lyingDNS{ips: many}, "/dns4/a.example/tcp/4001", 32},
			{"many records", &lyingDNS{txt: records("/ip4/11.22.33.44/tcp/4%04d")}, "/dnsaddr/a.example", 32},
			{"records that lead to more", &lyingDNS{ips: many, txt: records("/dnsaddr/b%d.example")}, "/dnsaddr/a.example", 0},
			{"records that lead to names", &lyingDNS{ips: many, txt: records("/dns4/b%d.example/tcp/4001")}, "/dnsaddr/a.example", 32},
			{"a loop", &lyingDNS{txt: loop}, "/dnsaddr/a.example", 0},
			{"no answer", &lyingDNS{takes: time.Hour}, "/dnsaddr/a.example", 0},
			{"a second each", &lyingDNS{takes: time.Second, ips: many, txt: records("/dns4/b%d.example/tcp/4001")}, "/dnsaddr/a.example", 32},
		} {
			t.Run(fmt.Sprintf("%s, %s", c.name, source), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l := &lyingDNS{ips: c.liar.ips, txt: c.liar.txt, takes: c.liar.takes}
					d := new(dialed)
					h := newGullible(t, d, l)
					id := peerOf(t, 1)
					h.Discovered(peer.AddrInfo{ID: id, Addrs: addrs(c.addr)}, "stranger", source)
					start := time.Now()
					_, err := h.Connect(t.Context(), peer.AddrInfo{ID: id})
					if err == nil {
						t.Fatal("connected")
					}
					resolved := time.Since(start)
					if len(d.log) > 0 {
						resolved = d.log[0].at.Sub(start)
					}
					if resolved > 2*time.Second || l.asked > 17 || len(d.log) > c.most {
						t.Errorf("%v until the names were looked up, %d questions, %d dials", resolved, l.asked, len(d.log))
					}
					t.Logf("%v until the names were looked up, %d questions, %d dials", resolved, l.asked, len(d.log))
				})
			})
		}
	}
}

// Rebinding: a name that stands for an honest address when it is looked at, and for
// the router when it is dialed. What is dialed is what was looked at.
func TestRebinding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := netip.MustParseAddr("192.168.1.1")
		good := netip.MustParseAddr("11.22.33.44")
		d := new(dialed)
		h := newGullible(t, d, &lyingDNS{ips: []netip.Addr{good, bad}, turn: true})
		for n := range 1000 {
			id := peerOf(t, n)
			h.Discovered(peer.AddrInfo{ID: id, Addrs: addrs("/dns4/rebind.example/tcp/443/tls/ws", "/dns/rebind.example/udp/443/quic-v1", "/dns4/rebind.example/tcp/4001")}, "stranger", host.SourceStranger)
			h.Connect(t.Context(), peer.AddrInfo{ID: id})
			time.Sleep(10 * time.Second)
		}
		for _, a := range d.log {
			if ip, ok := a.addr.IP(); !ok || ip != good {
				t.Fatalf("%s was dialed", a.addr)
			}
		}
		if len(d.log) == 0 {
			t.Error("nothing was dialed")
		}
		if !slices.ContainsFunc(d.log, func(a attempt) bool { return strings.Contains(a.addr.String(), "/tls/sni/rebind.example/ws") }) {
			t.Error("the name that the certificate is for was lost")
		}
		t.Logf("%d dials, none by name", len(d.log))
	})
}

// What a peer says of itself over an authenticated connection is a stranger's word
// too: it may name its own machine, and nobody else's.
func TestAddressesOfAPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := new(dialed)
		h := newGullible(t, d, nil)
		check(t, h.Listen(multiaddr.MustParse("/ip4/192.0.2.1/tcp/4001")))
		key := newKey(t)
		mates := over{d.network, newUpgrader(t, key, upgrade.Noise), netip.MustParseAddr("10.9.8.7")}
		liar, err := host.New(host.Config{Identity: key, Transports: []host.Transport{mates}})
		check(t, err)
		defer liar.Close()
		c, err := liar.Connect(t.Context(), peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()})
		check(t, err)
		synctest.Wait()
		h.Identified(h.ConnsTo(liar.ID())[0], host.PeerInfo{Addrs: addrs(
			"/ip4/10.9.8.6/tcp/4001", "/ip4/127.0.0.1/tcp/4001", "/ip4/169.254.169.254/tcp/80", "/ip6/::ffff:10.9.8.6/tcp/4001", "/ip4/192.0.2.1/tcp/4001",
			"/unix/run%2Fdocker.sock", "/ip4/10.9.8.7/tcp/22",
			"/ip4/10.9.8.7/tcp/4001", "/ip4/11.22.33.44/udp/4001/quic-v1",
		)}, false)
		c.Close()
		synctest.Wait()
		if _, err := h.NewStream(t.Context(), liar.ID(), "/echo/1"); err == nil {
			t.Fatal("connected")
		}
		got := make([]string, len(d.log))
		for i, a := range d.log {
			got[i] = a.addr.String()
		}
		slices.Sort(got)
		if want := []string{"/ip4/10.9.8.7/tcp/4001", "/ip4/11.22.33.44/udp/4001/quic-v1"}; !slices.Equal(got, want) {
			t.Errorf("dialed %v, want %v", got, want)
		}
	})
}
