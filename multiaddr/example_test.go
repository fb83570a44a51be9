package multiaddr_test

import (
	"fmt"
	"net/netip"

	"github.com/kith-p2p/kith/multiaddr"
)

func Example() {
	a, err := multiaddr.Parse("/dns4/example.com/tcp/443/tls/ws")
	if err != nil {
		fmt.Println(err)
		return
	}
	for c := range a.Components() {
		fmt.Printf("%v %q\n", c.Code(), c.Value())
	}
	// Output:
	// dns4 "example.com"
	// tcp "443"
	// tls ""
	// ws ""
}

func ExampleParse() {
	_, err := multiaddr.Parse("/ip4/example.com/tcp/443")
	fmt.Println(err)
	// Output:
	// multiaddr: "/ip4/example.com/tcp/443": component 1 at byte 0: /ip4/example.com: want an IPv4 address such as 192.0.2.1 (a host name goes into /dns4, an IPv6 address into /ip6)
}

func ExampleAddr() {
	// Equal addresses are equal values, whatever text they came from.
	seen := map[multiaddr.Addr]bool{}
	seen[multiaddr.MustParse("/ip6/0:0:0:0:0:0:0:1/tcp/080")] = true
	fmt.Println(seen[multiaddr.MustParse("/ip6/::1/tcp/80/")])
	// Output:
	// true
}

func ExampleAddr_Encapsulate() {
	relay := multiaddr.MustParse("/ip4/192.0.2.1/udp/4001/quic-v1/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA")
	circuit := relay.Encapsulate(multiaddr.MustParse("/p2p-circuit"))
	fmt.Println(circuit)
	fmt.Println(circuit.Decapsulate(multiaddr.MustParse("/p2p-circuit")) == relay)
	// Output:
	// /ip4/192.0.2.1/udp/4001/quic-v1/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA/p2p-circuit
	// true
}

func ExampleFromAddrPort() {
	udp := multiaddr.FromAddrPort(multiaddr.UDP, netip.MustParseAddrPort("[fe80::1%eth0]:4001"))
	fmt.Println(udp)
	ap, protocol, ok := udp.Encapsulate(multiaddr.MustParse("/quic-v1")).AddrPort()
	fmt.Println(ap, protocol, ok)
	// Output:
	// /ip6zone/eth0/ip6/fe80::1/udp/4001
	// [fe80::1%eth0]:4001 udp true
}

func ExampleNewComponent() {
	c, err := multiaddr.NewComponent(multiaddr.HTTPPath, "api%2Fv0")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(c)
	fmt.Println(string(c.Bytes()))
	// Output:
	// /http-path/api%2Fv0
	// api/v0
}
