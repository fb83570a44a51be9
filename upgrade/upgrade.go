package upgrade

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multistream"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/pnet"
	"github.com/kith-p2p/kith/yamux"
)

// MuxerID is the one muxer that is offered.
// https://github.com/libp2p/specs/blob/master/yamux/README.md
const MuxerID = "/yamux/1.0.0"

// maxRefusers is how many peers are remembered that refused our first choice of
// secure channel; forgetting one costs a second dial.
const maxRefusers = 1024

// Config describes an Upgrader.
type Config struct {
	Security []Security   // what we speak, the preferred first; required
	Yamux    yamux.Config // the zero value has good defaults

	// PSK is the pre-shared key of a private network: every connection is made in
	// that network. Nil: the public one, unless pnet.ForceEnv forbids it.
	PSK *pnet.Key
}

// An Upgrader is shared by the transports of a host.
type Upgrader struct {
	security []Security
	protos   []string
	yamux    yamux.Config
	psk      *pnet.Key // nil: none

	mu       sync.Mutex
	refusers map[peer.ID]struct{}
}

// New makes an Upgrader.
func New(cfg Config) (*Upgrader, error) {
	if len(cfg.Security) == 0 {
		return nil, errors.New("upgrade: Config.Security is empty: give it upgrade.Noise, upgrade.TLS or both")
	}
	if err := pnet.Check(cfg.PSK); err != nil {
		return nil, fmt.Errorf("upgrade: Config.PSK: %w", err)
	}
	u := &Upgrader{security: cfg.Security, yamux: cfg.Yamux, psk: cfg.PSK, refusers: make(map[peer.ID]struct{})}
	for _, s := range cfg.Security {
		u.protos = append(u.protos, string(s.Protocol()))
	}
	return u, nil
}

// Dial makes a connection with dial and upgrades it; p must answer. If p refuses
// our first choice of secure channel, dial is called once more. The addresses of
// the result are left to the caller.
func (u *Upgrader) Dial(ctx context.Context, p peer.ID, dial func(context.Context) (net.Conn, error), progress func(host.Stage)) (host.TransportConn, net.Conn, error) {
	pipelined := !u.refused(p)
	for {
		conn, err := dial(ctx)
		if err != nil {
			return host.TransportConn{}, nil, err
		}
		progress(host.StageOpened)
		tc, err := u.outbound(ctx, conn, p, pipelined, progress)
		if err == nil {
			return tc, conn, nil
		}
		conn.Close()
		var refusal *multistream.NotSupportedError
		if pipelined && len(u.security) > 1 && errors.As(err, &refusal) {
			u.remember(p)
			pipelined = false
			continue
		}
		return host.TransportConn{}, nil, err
	}
}

func (u *Upgrader) refused(p peer.ID) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	_, ok := u.refusers[p]
	return ok
}

func (u *Upgrader) remember(p peer.ID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for old := range u.refusers {
		if len(u.refusers) < maxRefusers {
			break
		}
		delete(u.refusers, old)
	}
	u.refusers[p] = struct{}{}
}

func (u *Upgrader) outbound(ctx context.Context, conn net.Conn, p peer.ID, pipelined bool, progress func(host.Stage)) (host.TransportConn, error) {
	release := bound(ctx, conn)
	defer release()
	conn = u.protect(conn, true)
	sec := u.security[0]
	secured := conn
	if pipelined {
		proto := string(sec.Protocol())
		secured = &proposing{
			Conn: conn, proto: proto, head: multistream.AppendProposal(nil, proto),
			agreed: func() { progress(host.StageSecuring) },
		}
	} else {
		proto, err := multistream.Select(conn, u.protos...)
		if err != nil {
			return host.TransportConn{}, cause(ctx, fmt.Errorf("upgrade: agreeing on a secure channel: %w", err))
		}
		sec = u.find(proto)
		progress(host.StageSecuring)
	}
	sc, err := sec.Client(ctx, secured, p, []string{MuxerID})
	if err != nil {
		return host.TransportConn{}, cause(ctx, err)
	}
	progress(host.StageSecured)
	if sc.Muxer() == "" {
		setDeadline(ctx, conn) // the handshake has cleared it
		if _, err := multistream.Select(sc, MuxerID); err != nil {
			return host.TransportConn{}, cause(ctx, fmt.Errorf("upgrade: agreeing on a muxer: %w", err))
		}
	}
	return u.finish(ctx, conn, sec, sc, true, release, progress)
}

// Inbound upgrades a connection that was accepted. On an error conn is closed.
func (u *Upgrader) Inbound(ctx context.Context, conn net.Conn, progress func(host.Stage)) (host.TransportConn, error) {
	progress(host.StageOpened)
	tc, err := u.inbound(ctx, conn, progress)
	if err != nil {
		conn.Close()
	}
	return tc, err
}

func (u *Upgrader) inbound(ctx context.Context, conn net.Conn, progress func(host.Stage)) (host.TransportConn, error) {
	release := bound(ctx, conn)
	defer release()
	conn = u.protect(conn, false)
	proto, err := multistream.Respond(conn, u.match)
	if err != nil {
		return host.TransportConn{}, cause(ctx, fmt.Errorf("upgrade: agreeing on a secure channel: %w", err))
	}
	progress(host.StageSecuring)
	sec := u.find(proto)
	sc, err := sec.Server(ctx, conn, []string{MuxerID})
	if err != nil {
		return host.TransportConn{}, cause(ctx, err)
	}
	progress(host.StageSecured)
	if sc.Muxer() == "" {
		setDeadline(ctx, conn) // the handshake has cleared it
		if _, err := multistream.Respond(sc, matchMuxer); err != nil {
			return host.TransportConn{}, cause(ctx, fmt.Errorf("upgrade: agreeing on a muxer: %w", err))
		}
	}
	return u.finish(ctx, conn, sec, sc, false, release, progress)
}

func (u *Upgrader) match(proto []byte) (string, bool) {
	s := u.find(string(proto))
	if s == nil {
		return "", false
	}
	return string(s.Protocol()), true
}

func matchMuxer(proto []byte) (string, bool) { return MuxerID, string(proto) == MuxerID }

func (u *Upgrader) find(proto string) Security {
	for _, s := range u.security {
		if string(s.Protocol()) == proto {
			return s
		}
	}
	return nil
}

// finish starts the muxer on a connection that is out of ctx's hands from now on.
func (u *Upgrader) finish(ctx context.Context, conn net.Conn, sec Security, sc SecureConn, client bool, release func() bool, progress func(host.Stage)) (host.TransportConn, error) {
	if !release() {
		return host.TransportConn{}, cause(ctx, context.Canceled)
	}
	conn.SetDeadline(time.Time{})
	progress(host.StageMuxed)
	session := yamux.New(sc, client, u.yamux)
	return host.TransportConn{
		Mux:       muxed{session},
		Cost:      sec.Cost(),
		Charge:    func(a *host.Account) { session.Charge(a) },
		Shed:      session.Shed,
		RemoteKey: sc.RemoteKey(),
		Security:  sec.Protocol(),
		Muxer:     MuxerID,
	}, nil
}

// bound makes conn fail when ctx ends. The function returned undoes that, and
// tells whether it came before the end.
func bound(ctx context.Context, conn net.Conn) (release func() bool) {
	setDeadline(ctx, conn)
	return context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
}

func setDeadline(ctx context.Context, conn net.Conn) {
	deadline, ok := ctx.Deadline()
	if ctx.Err() != nil {
		deadline = time.Unix(1, 0)
	} else if !ok {
		deadline = time.Time{}
	}
	conn.SetDeadline(deadline)
}

// cause names the end of ctx as the reason, if it was.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("upgrade: %w", context.Cause(ctx))
	}
	// The connection's deadline is that of ctx, and can be a moment earlier.
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("upgrade: %w", context.DeadlineExceeded)
	}
	return err
}

// proposing is a dialed connection whose first write also carries the proposal of
// a protocol, and whose first read awaits the answer.
type proposing struct {
	net.Conn
	proto  string
	head   []byte
	agreed func() // is called when the remote has agreed
	heard  bool
}

func (c *proposing) Write(p []byte) (int, error) {
	if c.head == nil {
		return c.Conn.Write(p)
	}
	buf := append(c.head, p...)
	head := len(c.head)
	c.head = nil
	n, err := c.Conn.Write(buf)
	return max(n-head, 0), err
}

func (c *proposing) Read(p []byte) (int, error) {
	if !c.heard {
		if err := multistream.ReadAnswer(c.Conn, c.proto); err != nil {
			return 0, fmt.Errorf("upgrade: agreeing on a secure channel: %w", err)
		}
		c.heard = true
		c.agreed()
	}
	return c.Conn.Read(p)
}

// muxed is a yamux session as the host wants it.
type muxed struct{ *yamux.Session }

func (m muxed) OpenStream(ctx context.Context) (host.MuxedStream, error) {
	s, err := m.Open(ctx)
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (m muxed) Serve(accept func(host.MuxedStream)) error {
	return m.Session.Serve(func(s *yamux.Stream) { accept(s) })
}
