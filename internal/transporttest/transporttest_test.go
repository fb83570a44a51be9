package transporttest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/memory"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/upgrade"
)

// A fault is something that a transport does wrong, and the part that must find it.
type fault struct {
	part   string
	stream func(*brokenConn, host.MuxedStream) host.MuxedStream
	conn   func(host.MuxedConn) host.MuxedConn
	dial   func(ctx context.Context, dial func(context.Context) (host.TransportConn, error)) (host.TransportConn, error)
	listen func(host.TransportListener) host.TransportListener
}

var faults = map[string]fault{
	"a reset with another code": {part: "Reset", stream: func(_ *brokenConn, s host.MuxedStream) host.MuxedStream { return otherCode{s} }},
	"a reset that looks like a closed connection": {part: "Reset", stream: func(_ *brokenConn, s host.MuxedStream) host.MuxedStream {
		return readErrors{s, func(err error) error { return fmt.Errorf("%w, %w", net.ErrClosed, err) }}
	}},
	"a reset that looks like the end": {part: "ResetWhileBlocked", stream: func(_ *brokenConn, s host.MuxedStream) host.MuxedStream {
		return readErrors{s, func(error) error { return io.EOF }}
	}},
	"a reset without a code": {part: "ResetWhileBlocked", stream: func(_ *brokenConn, s host.MuxedStream) host.MuxedStream {
		return readErrors{s, func(error) error { return errors.New("reset") }}
	}},
	"a timeout that is not one": {part: "DeadlinePast", stream: func(_ *brokenConn, s host.MuxedStream) host.MuxedStream {
		return readErrors{s, func(error) error { return errors.New("timeout") }}
	}},
	"deadlines that are not kept":       {part: "DeadlineMoved", stream: func(_ *brokenConn, s host.MuxedStream) host.MuxedStream { return noDeadline{s} }},
	"a write that tells of too much":    {part: "DeadlineOfWrites", stream: func(_ *brokenConn, s host.MuxedStream) host.MuxedStream { return boaster{s} }},
	"Close that loses":                  {part: "CloseArrives", stream: func(_ *brokenConn, s host.MuxedStream) host.MuxedStream { return loser{s} }},
	"CloseWrite that closes all":        {part: "HalfClose", stream: func(_ *brokenConn, s host.MuxedStream) host.MuxedStream { return allCloser{s} }},
	"CloseRead that resets":             {part: "CloseRead", stream: func(_ *brokenConn, s host.MuxedStream) host.MuxedStream { return readResetter{s} }},
	"a write of nothing that fails":     {part: "EmptyReadsAndWrites", stream: func(_ *brokenConn, s host.MuxedStream) host.MuxedStream { return emptyFails{s} }},
	"a byte that changes":               {part: "Bulk", stream: func(_ *brokenConn, s host.MuxedStream) host.MuxedStream { return &changer{MuxedStream: s} }},
	"a byte at the end that is missing": {part: "Sizes", stream: func(_ *brokenConn, s host.MuxedStream) host.MuxedStream { return shortener{s} }},
	"writes that wait for each other":   {part: "SlowReader", stream: func(c *brokenConn, s host.MuxedStream) host.MuxedStream { return &waiter{s, &c.writing} }},
	"credit that does not come back":    {part: "CreditReturns", stream: func(_ *brokenConn, s host.MuxedStream) host.MuxedStream { return miser{s} }},
	"streams that are not counted":      {part: "StreamsAtOnce", conn: func(m host.MuxedConn) host.MuxedConn { return noCount{m} }},
	"a slow CloseWithCode":              {part: "CloseConnection", conn: func(m host.MuxedConn) host.MuxedConn { return slowCloser{m} }},
	"a connection's code that is lost":  {part: "CloseConnection", conn: func(m host.MuxedConn) host.MuxedConn { return noConnCode{m} }},
	"a goroutine that is left":          {part: "Connect", conn: func(m host.MuxedConn) host.MuxedConn { go func() { select {} }(); return m }},
	"a dial that goes on": {part: "DialEnds", dial: func(ctx context.Context, dial func(context.Context) (host.TransportConn, error)) (host.TransportConn, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		return dial(ctx)
	}},
	"an error that does not say whom it met": {part: "WrongPeer", dial: func(ctx context.Context, dial func(context.Context) (host.TransportConn, error)) (host.TransportConn, error) {
		tc, err := dial(ctx)
		if err != nil {
			err = errors.New("wrong")
		}
		return tc, err
	}},
	"addresses that are missing": {part: "Connect", dial: func(ctx context.Context, dial func(context.Context) (host.TransportConn, error)) (host.TransportConn, error) {
		tc, err := dial(ctx)
		tc.LocalAddr = multiaddr.Addr{}
		return tc, err
	}},
	"an error of Accept that names no reason": {part: "CloseListener", listen: func(l host.TransportListener) host.TransportListener { return oddListener{l} }},
	"a listener that shares its address":      {part: "AddressInUse", listen: func(l host.TransportListener) host.TransportListener { l.Close(); return l }},
}

type otherCode struct{ host.MuxedStream }

func (s otherCode) Reset(code uint32) error { return s.MuxedStream.Reset(code + 1) }

type readErrors struct {
	host.MuxedStream
	change func(error) error
}

func (s readErrors) Read(p []byte) (int, error) {
	n, err := s.MuxedStream.Read(p)
	if err != nil && err != io.EOF {
		err = s.change(err)
	}
	return n, err
}

type noDeadline struct{ host.MuxedStream }

func (noDeadline) SetReadDeadline(time.Time) error { return nil }

type boaster struct{ host.MuxedStream }

func (s boaster) Write(p []byte) (int, error) {
	n, err := s.MuxedStream.Write(p)
	if err != nil {
		n = len(p)
	}
	return n, err
}

type loser struct{ host.MuxedStream }

func (s loser) Close() error { return s.Reset(0) }

type allCloser struct{ host.MuxedStream }

func (s allCloser) CloseWrite() error { return s.Close() }

type readResetter struct{ host.MuxedStream }

func (s readResetter) CloseRead() error { return s.Reset(0) }

type emptyFails struct{ host.MuxedStream }

func (s emptyFails) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, io.ErrShortWrite
	}
	return s.MuxedStream.Write(p)
}

type changer struct {
	host.MuxedStream
	n int
}

func (s *changer) Read(p []byte) (int, error) {
	n, err := s.MuxedStream.Read(p)
	if s.n += n; s.n > 1<<20 && n > 0 {
		p[n-1]++
		s.n = 0
	}
	return n, err
}

type shortener struct{ host.MuxedStream }

func (s shortener) Write(p []byte) (int, error) {
	if len(p) == 1<<16+1 {
		n, err := s.MuxedStream.Write(p[:len(p)-1])
		return n + 1, err
	}
	return s.MuxedStream.Write(p)
}

type waiter struct {
	host.MuxedStream
	mu *sync.Mutex
}

func (s *waiter) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n, err := s.MuxedStream.Write(p); !errors.Is(err, os.ErrDeadlineExceeded) {
		return n, err
	}
	select {} // for ever, with the lock
}

type miser struct{ host.MuxedStream }

func (miser) CloseRead() error { return nil }

type noCount struct{ host.MuxedConn }

func (noCount) NumStreams() int { return 0 }

type slowCloser struct{ host.MuxedConn }

func (c slowCloser) CloseWithCode(code uint32) error {
	<-time.After(2 * time.Second)
	return c.MuxedConn.CloseWithCode(code)
}

type noConnCode struct{ host.MuxedConn }

func (c noConnCode) CloseWithCode(uint32) error { return c.MuxedConn.CloseWithCode(0) }

type oddListener struct{ host.TransportListener }

func (l oddListener) Accept() (host.Incoming, error) {
	in, err := l.TransportListener.Accept()
	if err != nil {
		err = errors.New("ended")
	}
	return in, err
}

// A broken transport has one fault.
type broken struct {
	host.Transport
	fault fault
}

func (b broken) Dial(ctx context.Context, addr multiaddr.Addr, p peer.ID, progress func(host.Stage)) (host.TransportConn, error) {
	dial := func(ctx context.Context) (host.TransportConn, error) { return b.Transport.Dial(ctx, addr, p, progress) }
	if b.fault.dial != nil {
		tc, err := b.fault.dial(ctx, dial)
		return b.wrap(tc), err
	}
	tc, err := dial(ctx)
	return b.wrap(tc), err
}

func (b broken) Listen(addr multiaddr.Addr) (host.TransportListener, error) {
	l, err := b.Transport.Listen(addr)
	if err != nil {
		return nil, err
	}
	if b.fault.listen != nil {
		return b.fault.listen(l), nil
	}
	return brokenListener{l, b}, nil
}

func (b broken) wrap(tc host.TransportConn) host.TransportConn {
	if tc.Mux == nil {
		return tc
	}
	if b.fault.conn != nil {
		tc.Mux = b.fault.conn(tc.Mux)
	}
	if b.fault.stream != nil {
		tc.Mux = &brokenConn{MuxedConn: tc.Mux, fault: b.fault}
	}
	return tc
}

type brokenListener struct {
	host.TransportListener
	b broken
}

func (l brokenListener) Accept() (host.Incoming, error) {
	in, err := l.TransportListener.Accept()
	if err != nil {
		return nil, err
	}
	return brokenIncoming{in, l.b}, nil
}

type brokenIncoming struct {
	host.Incoming
	b broken
}

func (in brokenIncoming) Upgrade(ctx context.Context, progress func(host.Stage)) (host.TransportConn, error) {
	tc, err := in.Incoming.Upgrade(ctx, progress)
	return in.b.wrap(tc), err
}

type brokenConn struct {
	host.MuxedConn
	fault   fault
	writing sync.Mutex
}

func (c *brokenConn) OpenStream(ctx context.Context) (host.MuxedStream, error) {
	s, err := c.MuxedConn.OpenStream(ctx)
	if err != nil {
		return nil, err
	}
	return c.fault.stream(c, s), nil
}

func (c *brokenConn) Serve(accept func(host.MuxedStream)) error {
	return c.MuxedConn.Serve(func(s host.MuxedStream) { accept(c.fault.stream(c, s)) })
}

// brokenEnv holds the name of the fault that a process is to find.
const brokenEnv = "KITH_TRANSPORTTEST_FAULT"

// TestFault is the body, on a transport in memory with the fault that the
// environment names: none, when it is run as all tests are.
func TestFault(t *testing.T) {
	fault := faults[os.Getenv(brokenEnv)]
	network := new(memory.Network)
	Run(t, Case{
		New: func(t testing.TB, key peer.PrivateKey) host.Transport {
			noise, err := upgrade.Noise(key)
			check(t, err)
			u, err := upgrade.New(upgrade.Config{Security: []upgrade.Security{noise}})
			check(t, err)
			transport, err := memory.New(memory.Config{Network: network, Upgrader: u})
			check(t, err)
			return broken{transport, fault}
		},
		Listen:    Addrs("/memory/0"),
		InProcess: true,
		Bulk:      4 << 20,
	})
}

// Each fault is found by the part that is there for it.
func TestFaultsAreFound(t *testing.T) {
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(os.Args[0], "-test.run=^TestFault$/^"+fault.part+"$", "-test.timeout=1m")
			cmd.Env = append(os.Environ(), brokenEnv+"="+name, patienceEnv+"=1s")
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "--- FAIL: TestFault/"+fault.part) {
				t.Errorf("it was not found: %v\n%s", err, out)
			}
		})
	}
}
