package host

import (
	"context"
	"errors"
	"net"
	"sync"

	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// acceptBacklog is how many streams wait for Accept before more are reset, as
// much as common kernels keep for TCP.
const acceptBacklog = 128

// errHandedOver tells that the stream outlives its handler.
var errHandedOver = errors.New("host: stream handed over")

// StreamAddr is one end of a stream, as a net.Addr.
type StreamAddr struct {
	Peer peer.ID
	Addr multiaddr.Addr // the connection's address at that end
}

// Network is "libp2p".
func (StreamAddr) Network() string { return "libp2p" }

// String is the multiaddr with /p2p and the peer.
func (a StreamAddr) String() string { return a.Addr.String() + "/p2p/" + a.Peer.String() }

// Listener gives the streams of one protocol as a net.Listener, so that
// http.Serve and (*grpc.Server).Serve run on it unchanged. Closing it removes the
// protocol's handler and resets the streams that were not accepted.
func (h *Host) Listener(proto ProtocolID) net.Listener {
	l := &streamListener{
		host:    h,
		proto:   proto,
		streams: make(chan *Stream, acceptBacklog),
		done:    make(chan struct{}),
	}
	h.Handle(proto, l.handle)
	return l
}

type streamListener struct {
	host    *Host
	proto   ProtocolID
	streams chan *Stream
	done    chan struct{}

	mu     sync.Mutex
	closed bool
}

func (l *streamListener) handle(_ context.Context, s *Stream) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return &StreamError{Code: CodeShutdown}
	}
	select {
	case l.streams <- s:
		return errHandedOver
	default:
		return &StreamError{Code: CodeResourceLimit}
	}
}

func (l *streamListener) Accept() (net.Conn, error) {
	select {
	case s := <-l.streams:
		return s, nil
	case <-l.done:
	case <-l.host.done:
		l.Close()
	}
	return nil, ErrClosed
}

func (l *streamListener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	l.host.RemoveHandler(l.proto)
	close(l.done)
	for {
		select {
		case s := <-l.streams:
			s.Reset(CodeShutdown)
		default:
			return nil
		}
	}
}

func (l *streamListener) Addr() net.Addr {
	a := StreamAddr{Peer: l.host.ID()}
	if addrs := l.host.Addrs(); len(addrs) > 0 {
		a.Addr = addrs[0]
	}
	return a
}
