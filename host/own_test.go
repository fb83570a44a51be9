package host

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-p2p/kith/multiaddr"
)

func addrs(texts ...string) (all []multiaddr.Addr) {
	for _, t := range texts {
		all = append(all, multiaddr.MustParse(t))
	}
	return all
}

// behindNAT is what a host listens on whose address is 54.1.2.3 for others.
var behindNAT = addrs("/ip4/192.168.1.5/udp/4001/quic-v1", "/ip4/192.168.1.5/udp/4001/quic-v1/webtransport",
	"/ip4/192.168.1.5/tcp/4001", "/ip4/127.0.0.1/udp/4001/quic-v1", "/ip4/127.0.0.1/tcp/4001")

func saw(at, observer string, dialed bool) observation {
	return observation{
		local: multiaddr.MustParse("/ip4/0.0.0.0/udp/4001/quic-v1"), observed: multiaddr.MustParse("/ip4/" + at + "/quic-v1"),
		observer: multiaddr.MustParse("/ip4/" + observer + "/udp/9/quic-v1"), dialed: dialed,
	}
}

// What peers say by identify becomes an address of the host, once enough of them have said it.
func TestObservedByIdentify(t *testing.T) {
	dialing(t, Config{}, func(t *testing.T, h *Host, s *scriptedTransport) {
		h.mu.Lock()
		h.listeners = append(h.listeners, silentListener{})
		h.mu.Unlock()
		outside := multiaddr.MustParse("/ip4/54.1.2.3/udp/4001/quic-v1")
		for i := range minObservers {
			if slices.Contains(h.Addrs(), outside) {
				t.Fatalf("announced on the word of %d", i)
			}
			c, err := h.addConn(TransportConn{
				Mux: &idleMux{ended: make(chan struct{})}, RemoteKey: testKey(t).Public(),
				LocalAddr: silentListener{}.Addr(), RemoteAddr: multiaddr.MustParse(fmt.Sprintf("/ip4/44.%d.0.1/udp/9/quic-v1", i)),
			}, DirOutbound, false)
			if err != nil {
				t.Fatal(err)
			}
			h.Identified(c, PeerInfo{ObservedAddr: outside}, false)
			time.Sleep(2 * judgeDelay)
			synctest.Wait()
		}
		if !slices.Contains(h.Addrs(), outside) {
			t.Errorf("announced: %v, not what %d peers have seen", h.Addrs(), minObservers)
		}
	})
}

// silentListener is one to which nobody comes.
type silentListener struct{ TransportListener }

func (silentListener) Addr() multiaddr.Addr {
	return multiaddr.MustParse("/ip4/192.168.1.5/udp/4001/quic-v1")
}
func (silentListener) Close() error { return nil }

func TestObserved(t *testing.T) {
	start := time.Now()
	right := "54.1.2.3/udp/4001"
	four := []observation{saw(right, "44.1.0.1", true), saw(right, "44.2.0.1", true), saw(right, "44.3.0.1", false), saw(right, "44.4.0.1", false)}
	private := addrs("/ip4/192.168.1.5/udp/4001/quic-v1", "/ip4/192.168.1.5/udp/4001/quic-v1/webtransport", "/ip4/192.168.1.5/tcp/4001",
		"/ip4/127.0.0.1/udp/4001/quic-v1", "/ip4/127.0.0.1/tcp/4001")
	outside := append(addrs("/ip4/54.1.2.3/udp/4001/quic-v1", "/ip4/54.1.2.3/udp/4001/quic-v1/webtransport"), private...)
	change := func(i int, o observation) []observation {
		all := slices.Clone(four)
		all[i] = o
		return all
	}
	tcp := saw(right, "44.4.0.1", true)
	tcp.observed = multiaddr.MustParse("/ip4/54.1.2.3/tcp/4001")
	elsewhere := saw(right, "44.4.0.1", true)
	elsewhere.local = multiaddr.MustParse("/ip4/0.0.0.0/udp/5000/quic-v1")
	for _, c := range []struct {
		name string
		seen []observation
		want []multiaddr.Addr
	}{
		{"four networks, two of them dialed", four, outside},
		{"three", four[:3], private},
		{"one network twice", change(3, saw(right, "44.1.9.9", true)), private},
		{"one dialed", change(1, saw(right, "44.2.0.1", false)), private},
		{"another port", change(3, saw("54.1.2.3/udp/4002", "44.4.0.1", true)), private},
		{"another transport", change(3, tcp), private},
		{"a port at which nobody listens", change(3, elsewhere), private},
		{"an observer in a private network", change(3, saw(right, "10.4.0.1", true)), private},
		{"an observer at the same address", change(3, saw(right, "54.1.2.3", true)), private},
		{"two votes of one network", append(slices.Clone(four[:3]), saw(right, "44.3.0.7", false), saw("54.9.9.9/udp/1", "44.3.0.8", true)), private},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range 5 { // in any order
				rand.Shuffle(len(c.seen), func(i, j int) { c.seen[i], c.seen[j] = c.seen[j], c.seen[i] })
				var o ownAddrs
				o.observe(start, behindNAT, c.seen)
				if got := o.announced(behindNAT, nil, nil); !slices.Equal(got, c.want) {
					t.Errorf("announced %v\nwant %v", got, c.want)
				}
			}
		})
	}

	// It stays for a while when the observers go, and not in another network.
	var o ownAddrs
	o.observe(start, behindNAT, four)
	o.observe(start.Add(externalTTL-1), behindNAT, four[:1])
	if got := o.announced(behindNAT, nil, nil); !slices.Equal(got, outside) {
		t.Errorf("after a while: %v", got)
	}
	o.observe(start.Add(externalTTL), behindNAT, four[:1])
	if got := o.announced(behindNAT, nil, nil); !slices.Equal(got, private) {
		t.Errorf("later: %v", got)
	}
	o.observe(start, behindNAT, four)
	o.forget()
	if got := o.announced(behindNAT, nil, nil); !slices.Equal(got, private) {
		t.Errorf("elsewhere: %v", got)
	}
}

// Row 23 of the scorecard: 50 liars in three networks get nothing announced, whether
// they agree or not, whether they come or are dialed, beside honest peers or alone.
func TestLiars(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 2000 {
		honest := r.IntN(8)
		var seen []observation
		for i := range honest {
			seen = append(seen, saw("54.1.2.3/udp/4001", fmt.Sprintf("44.%d.0.1", i), true))
		}
		for i := range 50 {
			lie := "77.7.7.7/udp/443"
			if round%2 == 0 {
				lie = fmt.Sprintf("77.7.7.%d/udp/%d", 1+r.IntN(3), 1+r.IntN(3))
			}
			seen = append(seen, saw(lie, fmt.Sprintf("45.%d.%d.%d", 1+i%3, r.IntN(256), 1+r.IntN(250)), r.IntN(2) == 0))
		}
		rand.Shuffle(len(seen), func(i, j int) { seen[i], seen[j] = seen[j], seen[i] })
		var o ownAddrs
		o.observe(time.Now(), behindNAT, seen)
		for _, a := range o.announced(behindNAT, nil, nil) {
			if ip, _ := a.IP(); netip.MustParsePrefix("77.0.0.0/8").Contains(ip) {
				t.Fatalf("round %d: announced %s on the word of liars", round, a)
			}
		}
		if got := o.announced(behindNAT, nil, nil)[0]; honest >= minObservers && got != multiaddr.MustParse("/ip4/54.1.2.3/udp/4001/quic-v1") {
			t.Fatalf("round %d: %d honest peers are not believed", round, honest)
		}
	}
}

// Whatever is said, there is an end to what is announced.
func TestAnnouncedBounds(t *testing.T) {
	var seen []observation
	for port := range 40 {
		for i := range 4 {
			seen = append(seen, saw(fmt.Sprintf("54.1.2.3/udp/%d", 1+port), fmt.Sprintf("44.%d.0.1", 4*port+i), true))
		}
	}
	var o ownAddrs
	o.observe(time.Now(), behindNAT, seen)
	if n := len(o.externals); n != maxExternal {
		t.Errorf("%d addresses are believed", n)
	}
	var relayed []multiaddr.Addr
	for i := range 100 {
		relayed = append(relayed, multiaddr.MustParse(fmt.Sprintf("/ip4/44.0.0.%d/tcp/1", i)))
	}
	if n := len(o.announced(behindNAT, nil, relayed)); n != maxAnnounced {
		t.Errorf("%d addresses are announced", n)
	}
}

// The order, and that nothing is announced twice.
func TestAnnounced(t *testing.T) {
	listening := addrs("/ip4/127.0.0.1/tcp/4001", "/ip4/192.168.1.5/tcp/4001", "/ip6/2600::5/tcp/4001")
	mapped := []Mapping{
		{multiaddr.MustParse("/ip4/192.168.1.5/tcp/4001"), multiaddr.MustParse("/ip4/54.1.2.3/tcp/14001")},
		{multiaddr.MustParse("/ip4/192.168.1.5/udp/4001"), multiaddr.MustParse("/ip4/54.1.2.3/udp/14001")}, // nobody listens
	}
	relayed := addrs("/ip4/44.0.0.1/tcp/1", "/ip4/54.1.2.3/tcp/14001")
	got := new(ownAddrs).announced(listening, mapped, relayed)
	want := addrs("/ip6/2600::5/tcp/4001", "/ip4/54.1.2.3/tcp/14001", "/ip4/44.0.0.1/tcp/1", "/ip4/192.168.1.5/tcp/4001", "/ip4/127.0.0.1/tcp/4001")
	if !slices.Equal(got, want) {
		t.Errorf("announced %v\nwant %v", got, want)
	}
}

func TestOutlook(t *testing.T) {
	own := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.168.1.5")}
	for _, c := range []struct {
		local, remote string
		want          fate
	}{
		{"/ip4/192.168.1.5/tcp/5", "/ip4/44.0.0.1/tcp/1", unsure},
		{"/ip4/192.168.1.6/tcp/5", "/ip4/44.0.0.1/tcp/1", lost},
		{"/ip4/192.168.1.6/tcp/5/ws", "/ip4/44.0.0.1/tcp/1/ws", lost},
		{"/ip4/192.168.1.6/udp/5/quic-v1", "/ip4/44.0.0.1/udp/1/quic-v1", unsure},
		{"/ip4/0.0.0.0/udp/5/quic-v1", "/ip4/44.0.0.1/udp/1/quic-v1", unsure},
		{"/ip4/127.0.0.2/tcp/5", "/ip4/127.0.0.1/tcp/1", unaffected},
		{"/memory/1", "/memory/2", unaffected},
	} {
		if got := outlook(multiaddr.MustParse(c.local), multiaddr.MustParse(c.remote), own); got != c.want {
			t.Errorf("%s to %s: %d, want %d", c.local, c.remote, got, c.want)
		}
	}
}
