//go:build !js

package websocket

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"strconv"

	gorilla "github.com/gorilla/websocket"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// Dial connects to addr, at which p must answer. Names are looked up here, since
// they are what the certificate is for.
func (t *Transport) Dial(ctx context.Context, addr multiaddr.Addr, p peer.ID, progress func(host.Stage)) (host.TransportConn, error) {
	a, ok := parse(addr)
	if !ok {
		return host.TransportConn{}, badAddress(addr)
	}
	tc, conn, err := t.upgrader.Dial(ctx, p, func(ctx context.Context) (net.Conn, error) { return t.dial(ctx, a) }, progress)
	if err != nil {
		return tc, err
	}
	tc.LocalAddr = address{secure: a.secure}.over(unmap(conn.LocalAddr()))
	tc.RemoteAddr = addr
	if a.name != "" {
		tc.RemoteAddr = a.over(unmap(conn.RemoteAddr()))
	}
	return tc, nil
}

func (t *Transport) dial(ctx context.Context, a address) (net.Conn, error) {
	var d net.Dialer
	raw, err := d.DialContext(ctx, a.network(), net.JoinHostPort(a.host(), strconv.Itoa(int(a.port))))
	if err != nil {
		return nil, err
	}
	release := bound(ctx, raw)
	c, err := t.handshake(ctx, raw, a)
	if !release() && err == nil {
		err = context.Canceled // cause knows better
	}
	if err != nil {
		raw.Close()
		return nil, fmt.Errorf("websocket: %w", cause(ctx, err))
	}
	return c, nil
}

// handshake does what lies between TCP and the first message.
func (t *Transport) handshake(ctx context.Context, raw net.Conn, a address) (net.Conn, error) {
	socket := newSocket(raw)
	below := &under{Conn: socket, budget: maxHead}
	usual := uint16(plainPort)
	if a.secure {
		usual = securePort
		cfg := t.clientTLS.Clone()
		if cfg.ServerName == "" {
			cfg.ServerName = a.serverName()
		}
		secured := tls.Client(socket, cfg)
		if err := secured.HandshakeContext(ctx); err != nil {
			return nil, fmt.Errorf("TLS with %s: %w", a.serverName(), err)
		}
		below.Conn = secured
	}
	// As in a URL of the web, the usual port is left out.
	to := url.URL{Scheme: "ws", Host: a.serverName(), Path: "/"}
	if a.port != usual {
		to.Host = net.JoinHostPort(to.Host, strconv.Itoa(int(a.port)))
	} else if a.ip.Is6() && a.sni == "" {
		to.Host = "[" + to.Host + "]"
	}
	if path := a.path.Bytes(); len(path) > 0 {
		to.Path = "/" + string(path)
	}
	d := gorilla.Dialer{
		NetDialContext:  func(context.Context, string, string) (net.Conn, error) { return below, nil },
		ReadBufferSize:  readBuffer,
		WriteBufferSize: largeWrite,
		WriteBufferPool: &largeWrites,
	}
	ws, resp, err := d.DialContext(ctx, to.String(), nil)
	if err != nil {
		if resp != nil {
			return nil, fmt.Errorf("the remote answered %q to the request for a WebSocket", resp.Status)
		}
		return nil, fmt.Errorf("asking for a WebSocket: %w", err)
	}
	if ext := resp.Header.Get("Sec-WebSocket-Extensions"); ext != "" {
		return nil, fmt.Errorf("the remote chose the extension %q, which was not offered", ext)
	}
	below.budget = -1
	return newConn(ws, socket, a.secure), nil
}
