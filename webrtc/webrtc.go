package webrtc

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/pion/stun/v4"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/noise"
	"github.com/kith-p2p/kith/peer"
)

// The first connectivity check that is not answered is sent again after the first
// of these, the next ones later, up to the second.
const (
	checkRetryMin = 100 * time.Millisecond
	checkRetryMax = time.Second
)

// Config describes a Transport.
type Config struct {
	Key peer.PrivateKey // required: the certificate is derived from it

	// ListenPacket opens a UDP socket that may be shared with other protocols: it
	// is to deliver STUN and DTLS. nil: a socket of our own.
	ListenPacket func(netip.AddrPort) (net.PacketConn, error)

	// Version of the protocol in dials: 1, which all listeners understand, or 2.
	// 0: 1. Listeners take both.
	Version int

	// Timeout is how long nothing is heard from a remote before its connection
	// ends, at least 1 s. 0: 30 s.
	Timeout time.Duration
}

// Transport is the WebRTC transport. It implements host.Transport.
type Transport struct {
	listenPacket func(netip.AddrPort) (net.PacketConn, error)
	version      int
	timeout      time.Duration
	cert         certificate
	noise        *noise.Transport
}

// New makes the transport. It opens nothing.
func New(cfg Config) (*Transport, error) {
	if cfg.Key.IsZero() {
		return nil, errors.New("webrtc: Config.Key is missing: make or load one")
	}
	if cfg.Version < 0 || cfg.Version > 2 {
		return nil, fmt.Errorf("webrtc: Config.Version is %d: there are 1 and 2", cfg.Version)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.Timeout < time.Second {
		return nil, fmt.Errorf("webrtc: Config.Timeout is %v: it must be at least 1 s", cfg.Timeout)
	}
	cert, err := newCertificate(cfg.Key)
	if err != nil {
		return nil, err
	}
	secure, err := noise.New(cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("webrtc: %w", err)
	}
	t := &Transport{listenPacket: cfg.ListenPacket, version: max(1, cfg.Version), timeout: cfg.Timeout, cert: cert, noise: secure}
	if t.listenPacket == nil {
		t.listenPacket = listenUDP
	}
	return t, nil
}

func listenUDP(ap netip.AddrPort) (net.PacketConn, error) {
	network := "udp6" // "udp" would open IPv4 too for the unspecified IPv6 address
	if ap.Addr().Is4() {
		network = "udp4"
	}
	conn, err := net.ListenUDP(network, net.UDPAddrFromAddrPort(ap))
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("webrtc: port %d is taken by another process: choose another, or 0 for any free one: %w", ap.Port(), err)
	}
	if err != nil {
		return nil, fmt.Errorf("webrtc: %w", err)
	}
	return conn, nil
}

var _ host.Transport = (*Transport)(nil)

// CanDial tells whether addr is /ip4|ip6/…/udp/…/webrtc-direct with a certificate hash.
func (t *Transport) CanDial(addr multiaddr.Addr) bool {
	ap, hashes, ok := split(addr)
	return ok && ap.Port() != 0 && len(hashes) > 0
}

// CanListen tells whether addr is /ip4|ip6/…/udp/…/webrtc-direct; the port can be
// 0 for any free one.
func (t *Transport) CanListen(addr multiaddr.Addr) bool {
	_, hashes, ok := split(addr)
	return ok && len(hashes) == 0
}

// maxHashes is how many certificate hashes of an address are looked at. Listeners have one.
const maxHashes = 8

// split takes an address apart. hashes are those of a kind that we know, and ok
// is false if there are only others.
func split(addr multiaddr.Addr) (ap netip.AddrPort, hashes []string, ok bool) {
	ap, code, ok := addr.AddrPort()
	if !ok || code != multiaddr.UDP {
		return ap, nil, false
	}
	at := multiaddr.FromAddrPort(multiaddr.UDP, ap).Encapsulate(direct)
	n, others := 0, 0
	for c := range addr.Components() {
		if c.Code() != multiaddr.CertHash {
			continue
		}
		if n++; n > maxHashes {
			return ap, nil, false
		}
		if raw := c.Bytes(); len(raw) == 34 && string(raw[:2]) == multihashSHA256 {
			hashes = append(hashes, string(raw))
		} else {
			others++
		}
		at = at.Encapsulate(c.Addr())
	}
	return ap, hashes, at == addr && (others == 0 || len(hashes) > 0)
}

var direct = multiaddr.MustParse("/webrtc-direct")

// address is the address of a remote or of our side, without certificates.
func address(ap netip.AddrPort) multiaddr.Addr {
	return multiaddr.FromAddrPort(multiaddr.UDP, ap).Encapsulate(direct)
}

// Dial connects to addr, at which p must answer.
func (t *Transport) Dial(ctx context.Context, addr multiaddr.Addr, p peer.ID, progress func(host.Stage)) (tc host.TransportConn, err error) {
	ap, hashes, ok := split(addr)
	if !ok || ap.Port() == 0 || len(hashes) == 0 {
		return tc, fmt.Errorf("webrtc: %s is not an IP address with a UDP port, /webrtc-direct and the SHA-256 hash of a certificate", addr)
	}
	tc, noSRTP, err := t.dial(ctx, addr, ap, hashes, p, true, progress)
	if noSRTP {
		tc, _, err = t.dial(ctx, addr, ap, hashes, p, false, progress)
	}
	return tc, err
}

// dial tries once. noSRTP tells that it failed because the listener knows no SRTP.
func (t *Transport) dial(ctx context.Context, addr multiaddr.Addr, ap netip.AddrPort, hashes []string, p peer.ID, srtp bool, progress func(host.Stage)) (tc host.TransportConn, noSRTP bool, err error) {
	var d net.Dialer
	raw, err := d.DialContext(ctx, "udp", ap.String())
	if err != nil {
		return tc, false, fmt.Errorf("webrtc: %w", err)
	}
	udp := raw.(*net.UDPConn)
	c := newConn(newLink(newSocket(udp, true), ap), true, t.timeout)
	c.check = newCheck(t.version)
	c.stun = c.dialerSTUN
	c.detach = func() { udp.Close() }
	go c.readOwn()
	defer func() {
		if err != nil {
			c.fail(err)
		}
	}()

	if err := c.probe(ctx); err != nil {
		return tc, false, err
	}
	progress(host.StageOpened)
	hash, err := c.secure(ctx, t.cert, srtp, func(der []byte) error {
		got := certHash(der)
		for _, want := range hashes {
			if got == want {
				return nil
			}
		}
		return fmt.Errorf("webrtc: the certificate of %s has another hash than its address says: %s", ap, hashText(got))
	})
	if err != nil {
		return tc, srtp && c.link.noSRTP.Load(), err
	}
	progress(host.StageSecuring)
	// The listener is the initiator, because it can send first.
	secured, err := t.noise.Server(ctx, handshakeChannel{c.handshakes}, noise.Config{Remote: p, Prologue: prologue(t.cert.hash, hash)})
	if err != nil {
		return tc, false, fmt.Errorf("webrtc: %w", err)
	}
	progress(host.StageSecured)
	progress(host.StageMuxed)
	local := udp.LocalAddr().(*net.UDPAddr).AddrPort()
	return host.TransportConn{
		Mux:        c,
		LocalAddr:  address(netip.AddrPortFrom(local.Addr().Unmap(), local.Port())),
		RemoteAddr: addr,
		RemoteKey:  secured.RemoteKey(),
		Cost:       connCost,
		StreamCost: streamCost,
		Charge:     c.charge,
		Shed:       c.shed,
	}, false, nil
}

// A check is what a dialer tells a listener to recognise it by, and whether it was answered.
type check struct {
	ours, theirs     string // ufrags
	ourKey, theirKey string
	id               [12]byte
	tiebreaker       uint64
	answered         chan error // the first answer
}

func newCheck(version int) *check {
	k := &check{answered: make(chan error, 1)}
	var random [20]byte
	rand.Read(random[:])
	copy(k.id[:], random[:])
	k.tiebreaker = binary.BigEndian.Uint64(random[12:])
	if version == 1 {
		k.ours = ufragV1 + randomICE(32)
		k.ourKey, k.theirs, k.theirKey = k.ours, k.ours, k.ours
	} else {
		k.ours, k.ourKey = randomICE(32), randomICE(32)
		k.theirs = ufragV2 + k.ourKey
		k.theirKey = k.theirs
	}
	return k
}

func (k *check) request() []byte {
	return stunRequest(k.id, k.theirs+":"+k.ours, k.theirKey, k.tiebreaker)
}

// probe sends connectivity checks until one is answered.
func (c *conn) probe(ctx context.Context) error {
	for wait := checkRetryMin; ; wait = min(2*wait, checkRetryMax) {
		c.sendCheck()
		timer := time.NewTimer(wait)
		select {
		case err := <-c.check.answered:
			timer.Stop()
			return err
		case <-timer.C:
		case <-c.done:
			timer.Stop()
			return c.err
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("webrtc: connectivity check: %w", context.Cause(ctx))
		}
	}
}

// dialerSTUN handles answers to our checks, and the checks of listeners that are
// full ICE agents.
func (c *conn) dialerSTUN(p []byte) {
	m, err := parseSTUN(p)
	if err != nil {
		return
	}
	k := c.check
	var name stun.Username
	var refused stun.ErrorCodeAttribute
	var outcome error
	switch {
	case m.Type == stun.BindingRequest:
		if name.GetFrom(m) == nil && name.String() == k.ours+":"+k.theirs && authentic(m, k.ourKey) {
			answer := stunSuccess(m, c.link.remote, k.ourKey)
			c.link.socket.send(answer, len(answer), c.link.addr)
		}
		return
	case m.TransactionID != k.id:
		return
	case m.Type == stun.BindingSuccess && authentic(m, k.theirKey):
		c.heard()
	case m.Type == stun.BindingError && refused.GetFrom(m) == nil && refused.Code/100 == 4:
		outcome = fmt.Errorf("webrtc: the remote refused the connectivity check with %d: it may not know this version of webrtc-direct", refused.Code)
	default:
		return
	}
	select {
	case k.answered <- outcome:
	default:
	}
}

// readOwn reads the socket of a dialer until it is closed.
func (c *conn) readOwn() {
	b, oob := blocks.Get().(*block), make([]byte, 64)
	for {
		n, size, _, err := c.link.socket.read(b[:], oob)
		switch {
		case err == nil:
			if c.packets(b, n, size) {
				b = blocks.Get().(*block)
			}
		case errors.Is(err, net.ErrClosed):
			return
		case errors.Is(err, syscall.ECONNREFUSED) && !c.link.secured.Load():
			c.fail(fmt.Errorf("webrtc: %w", err))
		}
	}
}
