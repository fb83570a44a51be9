// Package tor is an example of a transport written outside of Kith: it dials peers
// through a SOCKS proxy such as Tor's. README.md explains it step by step.
package tor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"golang.org/x/net/proxy"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/upgrade"
)

// Config describes a Transport.
type Config struct {
	Upgrader *upgrade.Upgrader // required
	Proxy    string            // where the SOCKS proxy listens; empty: 127.0.0.1:9050, as Tor does

	// Names makes the transport dial /dns/NAME/tcp/PORT and its like as well. The
	// proxy resolves the name then, and whoever watches this machine does not see it.
	Names bool
}

// Transport dials through a SOCKS proxy. It implements host.Transport.
type Transport struct {
	upgrader *upgrade.Upgrader
	proxy    proxy.ContextDialer
	names    bool
}

// New makes the transport. It connects to nothing.
func New(cfg Config) (*Transport, error) {
	if cfg.Upgrader == nil {
		return nil, errors.New("tor: Config.Upgrader is missing: make one with upgrade.New")
	}
	if cfg.Proxy == "" {
		cfg.Proxy = "127.0.0.1:9050"
	}
	d, err := proxy.SOCKS5("tcp", cfg.Proxy, nil, &net.Dialer{})
	if err != nil {
		return nil, fmt.Errorf("tor: %w", err)
	}
	return &Transport{upgrader: cfg.Upgrader, proxy: d.(proxy.ContextDialer), names: cfg.Names}, nil
}

var _ host.Transport = (*Transport)(nil)

// CanDial tells whether addr is /onion3/NAME:PORT, or with Config.Names a DNS name
// with a TCP port, and nothing more.
func (t *Transport) CanDial(addr multiaddr.Addr) bool {
	_, ok := t.target(addr)
	return ok
}

// CanListen says no: Tor itself takes connections in, and forwards them to a port
// of this machine, on which the TCP transport listens.
func (t *Transport) CanListen(multiaddr.Addr) bool { return false }

// target turns addr into what SOCKS calls a host and a port.
func (t *Transport) target(addr multiaddr.Addr) (string, bool) {
	var list []multiaddr.Component
	for c := range addr.Components() {
		list = append(list, c)
	}
	switch {
	case len(list) == 1 && list[0].Code() == multiaddr.Onion3:
		name, port, ok := strings.Cut(list[0].Value(), ":")
		return net.JoinHostPort(name+".onion", port), ok
	case len(list) == 2 && t.names && isName(list[0].Code()) && list[1].Code() == multiaddr.TCP:
		return net.JoinHostPort(list[0].Value(), list[1].Value()), true
	}
	return "", false
}

func isName(c multiaddr.Code) bool {
	return c == multiaddr.DNS || c == multiaddr.DNS4 || c == multiaddr.DNS6
}

// Dial connects to addr through the proxy; p must answer there.
func (t *Transport) Dial(ctx context.Context, addr multiaddr.Addr, p peer.ID, progress func(host.Stage)) (host.TransportConn, error) {
	target, ok := t.target(addr)
	if !ok {
		return host.TransportConn{}, fmt.Errorf("tor: %s is no address to dial through a proxy", addr)
	}
	// The upgrader makes the connection, maybe twice: see upgrade.Upgrader.Dial. Then it
	// agrees on a secure channel, checks that p has the key of its ID, and starts yamux.
	tc, _, err := t.upgrader.Dial(ctx, p, func(ctx context.Context) (net.Conn, error) {
		conn, err := t.proxy.DialContext(ctx, "tcp", target)
		if err != nil {
			return nil, fmt.Errorf("tor: %w", err)
		}
		return conn, nil
	}, progress)
	if err != nil {
		return host.TransportConn{}, err
	}
	// Our own address stays unknown: it is that of a relay of Tor, and nobody's business.
	tc.RemoteAddr = addr
	return tc, nil
}

// Listen refuses: see CanListen.
func (t *Transport) Listen(addr multiaddr.Addr) (host.TransportListener, error) {
	return nil, fmt.Errorf("tor: cannot listen on %s: listen with TCP on 127.0.0.1 and let Tor forward to it (HiddenServicePort in torrc)", addr)
}
