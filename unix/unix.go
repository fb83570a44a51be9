package unix

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/upgrade"
)

// A listener that cannot take a connection, because files have run out for
// example, tries again after a while that grows from the first to the second.
const (
	acceptRetryMin = 5 * time.Millisecond
	acceptRetryMax = time.Second
)

// Config describes a Transport.
type Config struct {
	Upgrader *upgrade.Upgrader // required

	// Mode are the permissions of sockets that are listened on, such as 0o660 for
	// the owner's group too. Zero: as the umask has it.
	Mode fs.FileMode
}

// Transport is the transport over Unix sockets. It implements host.Transport.
type Transport struct {
	upgrader *upgrade.Upgrader
	mode     fs.FileMode
}

// New makes the transport. It opens nothing.
func New(cfg Config) (*Transport, error) {
	if cfg.Upgrader == nil {
		return nil, errors.New("unix: Config.Upgrader is missing: make one with upgrade.New")
	}
	if cfg.Mode&^fs.ModePerm != 0 {
		return nil, fmt.Errorf("unix: Config.Mode is %v: want permissions alone, such as 0o660", cfg.Mode)
	}
	return &Transport{upgrader: cfg.Upgrader, mode: cfg.Mode}, nil
}

var _ host.Transport = (*Transport)(nil)

// CanDial tells whether addr is /unix/PATH.
func (t *Transport) CanDial(addr multiaddr.Addr) bool {
	_, err := path(addr)
	return err == nil
}

// CanListen is CanDial.
func (t *Transport) CanListen(addr multiaddr.Addr) bool { return t.CanDial(addr) }

// Dial connects to the socket at addr, at which p must answer.
func (t *Transport) Dial(ctx context.Context, addr multiaddr.Addr, p peer.ID, progress func(host.Stage)) (host.TransportConn, error) {
	name, err := path(addr)
	if err == nil {
		err = checkLen(name)
	}
	if err != nil {
		return host.TransportConn{}, err
	}
	tc, _, err := t.upgrader.Dial(ctx, p, func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", name)
		if errors.Is(err, fs.ErrPermission) {
			return nil, fmt.Errorf("unix: %s does not let this user in: change its mode, or Config.Mode of who listens: %w", name, err)
		}
		return conn, err
	}, progress)
	if err != nil {
		return tc, err
	}
	tc.LocalAddr, tc.RemoteAddr = addr, addr
	return tc, nil
}

// Listen makes a socket at addr. Its directory must be there. A socket that a killed
// process has left is replaced.
func (t *Transport) Listen(addr multiaddr.Addr) (host.TransportListener, error) {
	name, err := path(addr)
	if err == nil {
		err = checkLen(name)
	}
	if err != nil {
		return nil, err
	}
	ln, err := listen(name)
	if err != nil {
		return nil, err
	}
	l := &listener{upgrader: t.upgrader, ln: ln, name: name, addr: addr, closed: make(chan struct{})}
	if t.mode != 0 {
		err = os.Chmod(name, t.mode)
	}
	if err == nil {
		l.file, err = os.Lstat(name)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("unix: %w", err), l.Close())
	}
	return l, nil
}

type listener struct {
	upgrader *upgrade.Upgrader
	ln       *net.UnixListener
	name     string
	addr     multiaddr.Addr
	file     fs.FileInfo // of our socket
	once     sync.Once
	closed   chan struct{}
}

func (l *listener) Accept() (host.Incoming, error) {
	for wait := acceptRetryMin; ; wait = min(2*wait, acceptRetryMax) {
		conn, err := l.ln.Accept()
		if err == nil {
			return &incoming{conn: conn, addr: l.addr, upgrader: l.upgrader}, nil
		}
		if errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		select {
		case <-l.closed:
			return nil, net.ErrClosed
		case <-time.After(wait):
		}
	}
}

func (l *listener) Addr() multiaddr.Addr { return l.addr }

// Close removes the file, if it is still ours.
func (l *listener) Close() error {
	var err error
	l.once.Do(func() {
		close(l.closed)
		if now, statErr := os.Lstat(l.name); statErr == nil && l.file != nil && same(now, l.file) {
			err = os.Remove(l.name)
		}
		err = errors.Join(err, l.ln.Close())
	})
	return err
}

type incoming struct {
	conn     net.Conn
	addr     multiaddr.Addr
	upgrader *upgrade.Upgrader
}

func (i *incoming) RemoteAddr() multiaddr.Addr { return i.addr }

func (i *incoming) Upgrade(ctx context.Context, progress func(host.Stage)) (host.TransportConn, error) {
	tc, err := i.upgrader.Inbound(ctx, i.conn, progress)
	if err != nil {
		return tc, err
	}
	tc.LocalAddr, tc.RemoteAddr = i.addr, i.addr
	return tc, nil
}

func (i *incoming) Close() error { return i.conn.Close() }
