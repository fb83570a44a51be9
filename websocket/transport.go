//go:build !js

package websocket

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/upgrade"
)

// Config describes a Transport.
type Config struct {
	Upgrader *upgrade.Upgrader // required

	// TLS holds the certificate for listening on secure addresses, or finds it
	// (GetCertificate), and is needed for them. Browsers take one that an authority
	// they know has signed. See tls.LoadX509KeyPair for files.
	TLS *tls.Config

	// ClientTLS is for dialing secure addresses. nil: certificates must be signed by
	// an authority that the system knows, as those of web servers, and be for the
	// name or the IP address that is dialed. The name is set for each dial, unless it
	// is set here.
	ClientTLS *tls.Config

	// Handler answers HTTP requests that do not ask for a WebSocket, so that one port
	// serves both. nil: they get an error 404. Its connections pass through the host's
	// room of those that have not proved who they are, but only until they have sent
	// the head of the first request.
	Handler http.Handler

	// Listen opens a TCP port to be shared with others, as (*tcp.Ports).Listen does for
	// the kinds HTTP and TLS. nil: each address has its own socket.
	Listen func(ap netip.AddrPort, tls bool) (net.Listener, error)
}

// Transport is the WebSocket transport. It implements host.Transport.
type Transport struct {
	upgrader  *upgrade.Upgrader
	serverTLS *tls.Config // nil: none
	clientTLS *tls.Config
	handler   http.Handler
	listen    func(ap netip.AddrPort, tls bool) (net.Listener, error)
}

// New makes the transport. It opens nothing.
func New(cfg Config) (*Transport, error) {
	if cfg.Upgrader == nil {
		return nil, errors.New("websocket: Config.Upgrader is missing: make one with upgrade.New")
	}
	t := &Transport{upgrader: cfg.Upgrader, handler: cfg.Handler, listen: cfg.Listen, clientTLS: new(tls.Config)}
	if t.handler == nil {
		t.handler = http.NotFoundHandler()
	}
	if t.listen == nil {
		t.listen = listenTCP
	}
	if cfg.TLS != nil {
		t.serverTLS = cfg.TLS.Clone()
		// WebSockets begin with HTTP/1.1, which a browser that is offered HTTP/2 would
		// not speak.
		protos := slices.DeleteFunc(slices.Clone(cfg.TLS.NextProtos), func(p string) bool { return p == "h2" })
		if !slices.Contains(protos, "http/1.1") {
			protos = append(protos, "http/1.1")
		}
		t.serverTLS.NextProtos = protos
	}
	if cfg.ClientTLS != nil {
		t.clientTLS = cfg.ClientTLS.Clone()
	}
	t.clientTLS.NextProtos = []string{"http/1.1"}
	return t, nil
}

var _ host.Transport = (*Transport)(nil)

// CanDial tells whether addr is a WebSocket address, as doc.go describes them.
func (t *Transport) CanDial(addr multiaddr.Addr) bool {
	a, ok := parse(addr)
	return ok && a.port != 0
}

// CanListen tells whether addr is a WebSocket address with an IP address and a TCP
// port, which can be 0 for any free one.
func (t *Transport) CanListen(addr multiaddr.Addr) bool {
	_, ok := parseListen(addr)
	return ok
}

func parseListen(addr multiaddr.Addr) (address, bool) {
	a, ok := parse(addr)
	return a, ok && a.ip.IsValid() && addr.Has(multiaddr.TCP) && !addr.Has(multiaddr.HTTPPath)
}

// bound makes the deadline and the end of ctx those of c. The function returned
// undoes that, and tells whether it came before the end.
func bound(ctx context.Context, c net.Conn) (release func() bool) {
	deadline, _ := ctx.Deadline()
	c.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	return func() bool {
		if !stop() {
			return false
		}
		c.SetDeadline(time.Time{})
		return true
	}
}

// cause names the end of ctx as the reason, if it was. The connection's deadline is
// that of ctx, and can be a moment earlier.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return context.DeadlineExceeded
	}
	return err
}

// unmap gives an IPv4 address its own form, also where the socket is an IPv6 one.
func unmap(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
