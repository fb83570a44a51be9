package memory

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/upgrade"
)

// backlog is how many connections wait for Accept before more are refused.
const backlog = 128

// A Network is where transports find each other. The zero value is empty and ready.
type Network struct {
	mu        sync.Mutex
	listeners map[uint64]*listener
	last      uint64
}

// Config describes a Transport.
type Config struct {
	Network  *Network          // required
	Upgrader *upgrade.Upgrader // required
}

// Transport is the memory transport. It implements host.Transport.
type Transport struct {
	network  *Network
	upgrader *upgrade.Upgrader
}

// New makes the transport.
func New(cfg Config) (*Transport, error) {
	if cfg.Network == nil || cfg.Upgrader == nil {
		return nil, errors.New("memory: Config.Network and Config.Upgrader are both needed")
	}
	return &Transport{network: cfg.Network, upgrader: cfg.Upgrader}, nil
}

var _ host.Transport = (*Transport)(nil)

// CanDial tells whether addr is /memory/N and nothing more, with N above 0.
func (t *Transport) CanDial(addr multiaddr.Addr) bool {
	n, err := number(addr)
	return err == nil && n != 0
}

// CanListen is CanDial, but N can be 0 for any free number.
func (t *Transport) CanListen(addr multiaddr.Addr) bool {
	_, err := number(addr)
	return err == nil
}

func number(addr multiaddr.Addr) (uint64, error) {
	c, rest := addr.SplitFirst()
	if c.Code() != multiaddr.Memory || !rest.IsZero() {
		return 0, fmt.Errorf("memory: %s is not of the form /memory/N", addr)
	}
	return strconv.ParseUint(c.Value(), 10, 64)
}

func address(n uint64) multiaddr.Addr {
	return multiaddr.MustParse("/memory/" + strconv.FormatUint(n, 10))
}

// Dial connects to the listener at addr, at which p must answer.
func (t *Transport) Dial(ctx context.Context, addr multiaddr.Addr, p peer.ID, progress func(host.Stage)) (host.TransportConn, error) {
	n, err := number(addr)
	if err != nil {
		return host.TransportConn{}, err
	}
	tc, conn, err := t.upgrader.Dial(ctx, p, func(context.Context) (net.Conn, error) { return t.network.dial(n) }, progress)
	if err != nil {
		return tc, err
	}
	tc.LocalAddr = conn.(*pipe).local
	tc.RemoteAddr = addr
	return tc, nil
}

func (n *Network) dial(to uint64) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.listeners[to]
	if l == nil {
		return nil, fmt.Errorf("memory: nothing listens at /memory/%d", to)
	}
	n.last++
	near, far := newPipe(address(n.last), address(to))
	select {
	case l.waiting <- far:
		return near, nil
	default:
		return nil, fmt.Errorf("memory: too many connections wait at /memory/%d", to)
	}
}

// Listen opens addr.
func (t *Transport) Listen(addr multiaddr.Addr) (host.TransportListener, error) {
	number, err := number(addr)
	if err != nil {
		return nil, err
	}
	n := t.network
	n.mu.Lock()
	defer n.mu.Unlock()
	if number != 0 && n.listeners[number] != nil {
		return nil, fmt.Errorf("memory: %s is taken: choose another number, or 0 for any free one", addr)
	}
	for number == 0 || n.listeners[number] != nil {
		n.last++
		number = n.last
	}
	l := &listener{transport: t, number: number, waiting: make(chan *pipe, backlog), closed: make(chan struct{})}
	if n.listeners == nil {
		n.listeners = make(map[uint64]*listener)
	}
	n.listeners[number] = l
	return l, nil
}

type listener struct {
	transport *Transport
	number    uint64
	waiting   chan *pipe
	once      sync.Once
	closed    chan struct{}
}

func (l *listener) Accept() (host.Incoming, error) {
	select {
	case p := <-l.waiting:
		return incoming{p, l.transport.upgrader}, nil
	case <-l.closed:
		return nil, fmt.Errorf("memory: %w", net.ErrClosed)
	}
}

func (l *listener) Addr() multiaddr.Addr { return address(l.number) }

func (l *listener) Close() error {
	l.once.Do(func() {
		n := l.transport.network
		n.mu.Lock()
		delete(n.listeners, l.number)
		n.mu.Unlock()
		close(l.closed)
		for {
			select {
			case p := <-l.waiting:
				p.Close()
			default:
				return
			}
		}
	})
	return nil
}

type incoming struct {
	pipe     *pipe
	upgrader *upgrade.Upgrader
}

func (i incoming) RemoteAddr() multiaddr.Addr { return i.pipe.remote }

func (i incoming) Upgrade(ctx context.Context, progress func(host.Stage)) (host.TransportConn, error) {
	tc, err := i.upgrader.Inbound(ctx, i.pipe, progress)
	if err != nil {
		return tc, err
	}
	tc.LocalAddr, tc.RemoteAddr = i.pipe.local, i.pipe.remote
	return tc, nil
}

func (i incoming) Close() error { return i.pipe.Close() }
