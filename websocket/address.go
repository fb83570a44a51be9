package websocket

import (
	"fmt"
	"net/netip"
	"strconv"

	"github.com/kith-p2p/kith/multiaddr"
)

// The ports that are meant where an address has none.
// https://github.com/libp2p/specs/blob/master/websockets/README.md#addressing
const (
	plainPort  = 80
	securePort = 443
)

// An address is what a multiaddr says to this transport.
type address struct {
	ip     netip.Addr     // invalid: name is to be looked up
	family multiaddr.Code // of name: DNS, DNS4 or DNS6
	name   string
	port   uint16
	secure bool                // TLS below the WebSocket
	sni    string              // the name that the certificate is for, where the address has one of its own
	path   multiaddr.Component // /http-path; zero: none
}

// parse reads
//
//	(/ip4/IP | [/ip6zone/ZONE]/ip6/IP | /dns/NAME | /dns4/NAME | /dns6/NAME) [/tcp/PORT]
//	(/ws | /wss | /tls[/sni/NAME]/ws | /tls[/sni/NAME]/wss) [/http-path/PATH]
//
// of which the last form of the middle has no use, but is unambiguous.
func parse(addr multiaddr.Addr) (a address, ok bool) {
	first, rest := addr.SplitFirst()
	zone := ""
	if first.Code() == multiaddr.IP6Zone {
		zone = first.Value()
		if first, rest = rest.SplitFirst(); first.Code() != multiaddr.IP6 {
			return address{}, false
		}
	}
	switch first.Code() {
	case multiaddr.IP4, multiaddr.IP6:
		ip, err := netip.ParseAddr(first.Value())
		if err != nil {
			return address{}, false
		}
		a.ip = ip.WithZone(zone)
	case multiaddr.DNS, multiaddr.DNS4, multiaddr.DNS6:
		a.family, a.name = first.Code(), first.Value()
	default:
		return address{}, false
	}
	next := func() multiaddr.Component {
		var c multiaddr.Component
		c, rest = rest.SplitFirst()
		return c
	}
	c := next()
	portGiven := c.Code() == multiaddr.TCP
	if portGiven {
		port, err := strconv.ParseUint(c.Value(), 10, 16)
		if err != nil {
			return address{}, false
		}
		a.port = uint16(port)
		c = next()
	}
	if c.Code() == multiaddr.TLS {
		a.secure = true
		if c = next(); c.Code() == multiaddr.SNI {
			a.sni = c.Value()
			c = next()
		}
	}
	switch c.Code() {
	case multiaddr.WS:
	case multiaddr.WSS:
		a.secure = true
	default:
		return address{}, false
	}
	if !portGiven {
		a.port = plainPort
		if a.secure {
			a.port = securePort
		}
	}
	if !rest.IsZero() {
		c := next()
		if c.Code() != multiaddr.HTTPPath || !rest.IsZero() {
			return address{}, false
		}
		a.path = c
	}
	return a, true
}

// network is what package net calls the addresses that are meant.
func (a address) network() string {
	switch {
	case a.family == multiaddr.DNS4, a.ip.Is4():
		return "tcp4"
	case a.family == multiaddr.DNS6, a.ip.Is6():
		return "tcp6"
	}
	return "tcp"
}

// host is whom to connect to.
func (a address) host() string {
	if a.name != "" {
		return a.name
	}
	return a.ip.String()
}

// serverName is whose certificate the remote must have.
func (a address) serverName() string {
	if a.sni != "" {
		return a.sni
	}
	if a.name != "" {
		return a.name
	}
	return a.ip.WithZone("").String()
}

// over is the same way to speak, /ws or /tls/ws with the name of the certificate,
// at another place: go-libp2p and js-libp2p both understand these forms.
func (a address) over(ap netip.AddrPort) multiaddr.Addr {
	at := multiaddr.FromAddrPort(multiaddr.TCP, ap)
	if !a.secure {
		return multiaddr.Join(at, suffixWS, a.path.Addr())
	}
	name := a.sni
	if name == "" {
		name = a.name
	}
	if sni, err := multiaddr.NewComponent(multiaddr.SNI, name); name != "" && err == nil {
		return multiaddr.Join(at, suffixTLS, sni.Addr(), suffixWS, a.path.Addr())
	}
	return multiaddr.Join(at, suffixTLS, suffixWS, a.path.Addr())
}

var suffixTLS, suffixWS = multiaddr.MustParse("/tls"), multiaddr.MustParse("/ws")

func badAddress(addr multiaddr.Addr) error {
	return fmt.Errorf("websocket: %s is no WebSocket address: want for example /ip4/1.2.3.4/tcp/80/ws, /ip4/1.2.3.4/tcp/443/tls/sni/example.com/ws or /dns/example.com/tcp/443/wss", addr)
}
