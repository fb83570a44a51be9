//go:build !js

package kith

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/kith-p2p/kith/autotls"
	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/quic"
	"github.com/kith-p2p/kith/tcp"
	"github.com/kith-p2p/kith/udp"
	"github.com/kith-p2p/kith/unix"
	"github.com/kith-p2p/kith/upgrade"
	"github.com/kith-p2p/kith/webrtc"
	"github.com/kith-p2p/kith/websocket"
	"github.com/kith-p2p/kith/webtransport"
)

const (
	// tcpKeepAlive is how long a peer over TCP may be silent until yamux asks: it finds
	// who still has a machine but no longer a program that answers. Of 10,000 idle
	// connections that takes 0.6 % of a core; asking every 30 s takes 2 %.
	tcpKeepAlive = 2 * time.Minute
	// portAttempts is how many free TCP ports are tried until one is free for UDP, too.
	portAttempts = 16
)

// WebSocket describes how the node serves WebSocket, and what else on the same ports.
type WebSocket struct {
	// Handler answers the HTTP requests that do not ask for a WebSocket. Nil: they
	// are refused.
	Handler http.Handler

	// The certificate for addresses with /tls/ws or /wss, which pages that were loaded
	// over https need: from TLS, from the two PEM files, or by AutoTLS, which gets one
	// for a name below libp2p.direct and needs no more than &autotls.Config{}. With
	// none of them the node listens on no such address.
	TLS      *tls.Config
	CertFile string
	KeyFile  string
	AutoTLS  *autotls.Config

	// ClientTLS is for dialing such addresses, for example to trust an authority of
	// one's own. Nil: as for other web servers.
	ClientTLS *tls.Config
}

// transports are all ways in which a node connects.
type transports struct {
	all      []host.Transport // the preferred first
	announce func([]multiaddr.Addr) []multiaddr.Addr
	autoTLS  *autotls.Manager // nil: off
	// moved is called when the machine's addresses have changed; nil: nothing can move.
	moved func(ctx context.Context, elsewhere func(peer.ID, multiaddr.Addr) []multiaddr.Addr) error
	close func() error
}

// newTransports makes them; addrs tells what the node announces.
func newTransports(key peer.PrivateKey, cfg Config, upgrading upgrade.Config, addrs func() []multiaddr.Addr) (t transports, err error) {
	// TCP and WebSocket share ports: the first bytes of a connection tell what it is.
	ports := new(tcp.Ports)
	upgrader, err := upgrade.New(upgrading)
	if err != nil {
		return t, err
	}
	// Whether TCP's idle connections live the system asks, which costs us nothing.
	upgrading.Yamux.KeepAlive = tcpKeepAlive
	tcpUpgrader, err := upgrade.New(upgrading)
	if err != nil {
		return t, err
	}
	overTCP, err := tcp.New(tcp.Config{Upgrader: tcpUpgrader, Ports: ports})
	if err != nil {
		return t, err
	}
	ws := websocket.Config{
		Upgrader:  upgrader,
		ClientTLS: cfg.WebSocket.ClientTLS,
		Handler:   cfg.WebSocket.Handler,
		Listen: func(ap netip.AddrPort, overTLS bool) (net.Listener, error) {
			if overTLS {
				return ports.Listen(ap, tcp.TLS)
			}
			return ports.Listen(ap, tcp.HTTP)
		},
	}
	if ws.TLS, err = cfg.WebSocket.tls(); err != nil {
		return t, err
	}
	if cfg.WebSocket.AutoTLS != nil {
		auto := *cfg.WebSocket.AutoTLS
		auto.Key, auto.Addrs = key, addrs
		if auto.Dir == "" && cfg.Dir != "" {
			auto.Dir = filepath.Join(cfg.Dir, "autotls")
		}
		if auto.Logger == nil {
			auto.Logger = cfg.Logger
		}
		if t.autoTLS, err = autotls.New(auto); err != nil {
			return t, err
		}
		ws.TLS, t.announce = t.autoTLS.TLSConfig(), t.autoTLS.Announce
	}
	overWebSocket, err := websocket.New(ws)
	if err != nil {
		return t, err
	}
	overUnix, err := unix.New(unix.Config{Upgrader: upgrader})
	if err != nil {
		return t, err
	}
	t.all = []host.Transport{overTCP, overWebSocket, overUnix}
	t.close = func() error { return nil }
	if cfg.PSK != nil {
		return t, nil // the others encrypt for themselves and cannot keep a network private
	}

	// QUIC, WebTransport and WebRTC share sockets.
	limits := cfg.Limits.Resolve(host.MachineMemory())
	sockets := new(udp.Sockets)
	endpoint := quic.NewEndpoint(quic.EndpointConfig{Sockets: sockets, Key: key, MaxIncomingStreams: quicStreams(limits), MaxOpening: limits.HalfOpening(), MaxWide: max(limits.Memory/(8<<20), 1)})
	t.close = endpoint.Close
	overQUIC, err := quic.New(quic.Config{Key: key, Endpoint: endpoint})
	if err != nil {
		return t, err
	}
	overWebTransport, err := webtransport.New(webtransport.Config{Key: key, Endpoint: endpoint})
	if err != nil {
		return t, err
	}
	overWebRTC, err := webrtc.New(webrtc.Config{Key: key, ListenPacket: sockets.Other})
	if err != nil {
		return t, err
	}
	t.all = append(t.all, overQUIC, overWebTransport, overWebRTC)
	t.moved = overQUIC.AddrsChanged
	return t, nil
}

func (c WebSocket) tls() (*tls.Config, error) {
	files := c.CertFile != "" || c.KeyFile != ""
	switch {
	case c.AutoTLS != nil && (files || c.TLS != nil), files && c.TLS != nil:
		return nil, errors.New("Config.WebSocket: the certificate comes from TLS, from CertFile and KeyFile, or by AutoTLS: set one of them")
	case !files:
		return c.TLS, nil
	}
	cert, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("Config.WebSocket: the certificate: %w", err)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}}, nil
}

// listen opens addrs; nil: everything, on one port.
func listen(h *host.Host, cfg Config) error {
	if cfg.Listen != nil {
		for _, a := range cfg.Listen {
			if err := h.Listen(a); err != nil {
				return listenError(a, cfg, err)
			}
		}
		return nil
	}
	port, ips, err := freePort(cfg.PSK == nil)
	if err != nil {
		return err
	}
	for _, ip := range ips {
		for _, a := range defaultAddrs(ip, port, cfg) {
			if err := h.Listen(a); err != nil {
				return listenError(a, cfg, err)
			}
		}
	}
	return nil
}

func listenError(a multiaddr.Addr, cfg Config, err error) error {
	switch {
	case cfg.PSK != nil && errors.Is(err, host.ErrNoTransport):
		return fmt.Errorf("a node with a pre-shared key cannot listen on %s: only TCP, WebSocket and Unix sockets keep a network private; change Config.Listen: %w", a, err)
	case isTaken(err):
		return fmt.Errorf("%w (the port is set in Config.Listen)", err)
	}
	return err
}

// defaultAddrs are those of one IP, the best first.
func defaultAddrs(ip netip.Addr, port uint16, cfg Config) []multiaddr.Addr {
	overTCP := multiaddr.FromAddrPort(multiaddr.TCP, netip.AddrPortFrom(ip, port))
	overUDP := multiaddr.FromAddrPort(multiaddr.UDP, netip.AddrPortFrom(ip, port))
	with := func(a multiaddr.Addr, rest string) multiaddr.Addr { return a.Encapsulate(multiaddr.MustParse(rest)) }
	var addrs []multiaddr.Addr
	if cfg.PSK == nil {
		addrs = append(addrs, with(overUDP, "/quic-v1"))
	}
	addrs = append(addrs, overTCP)
	if cfg.PSK == nil {
		addrs = append(addrs, with(overUDP, "/quic-v1/webtransport"), with(overUDP, "/webrtc-direct"))
	}
	addrs = append(addrs, with(overTCP, "/ws"))
	if cfg.WebSocket.TLS != nil || cfg.WebSocket.CertFile != "" || cfg.WebSocket.AutoTLS != nil {
		addrs = append(addrs, with(overTCP, "/tls/ws"))
	}
	return addrs
}

// freePort finds a port that is free for TCP and UDP, and for which of IPv4 and
// IPv6: a machine with only one of the two is no error.
func freePort(withUDP bool) (port uint16, ips []netip.Addr, err error) {
	for range portAttempts {
		port, ips = 0, nil
		for _, ip := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
			var got uint16
			if got, err = probe(ip, port, withUDP); err == nil {
				port, ips = got, append(ips, ip)
			} else if isTaken(err) {
				break
			}
		}
		if len(ips) > 0 && !isTaken(err) {
			return port, ips, nil
		}
	}
	return 0, nil, fmt.Errorf("no port is free for TCP and UDP: %w", err)
}

// probe tells whether port, or any free one, is free for both.
func probe(ip netip.Addr, port uint16, withUDP bool) (uint16, error) {
	family := "4"
	if ip.Is6() {
		family = "6"
	}
	l, err := net.Listen("tcp"+family, netip.AddrPortFrom(ip, port).String())
	if err != nil {
		return 0, err
	}
	defer l.Close()
	port = l.Addr().(*net.TCPAddr).AddrPort().Port()
	if withUDP {
		c, err := net.ListenPacket("udp"+family, net.JoinHostPort(ip.String(), strconv.Itoa(int(port))))
		if err != nil {
			return 0, err
		}
		c.Close()
	}
	return port, nil
}

// isTaken tells whether another has the port. Windows has a number of its own for that.
func isTaken(err error) bool {
	const windows = syscall.Errno(10048)
	return errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, windows)
}
