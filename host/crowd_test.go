package host

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// A puppet is a connection of which a test says what it does, so that there can be many.
type puppet struct {
	streams atomic.Int32 // open, besides those that the host opens
	answers atomic.Bool  // to what is written on streams, after a delay
	delay   time.Duration
	asked   func()
	once    sync.Once
	ended   chan struct{}
	code    atomic.Uint32
}

func (m *puppet) Serve(func(MuxedStream)) error {
	<-m.ended
	return net.ErrClosed
}

func (m *puppet) CloseWithCode(code uint32) error {
	m.once.Do(func() {
		m.code.Store(code)
		close(m.ended)
	})
	return nil
}

func (m *puppet) NumStreams() int    { return int(m.streams.Load()) }
func (m *puppet) RTT() time.Duration { return 0 }

func (m *puppet) OpenStream(context.Context) (MuxedStream, error) {
	select {
	case <-m.ended:
		return nil, net.ErrClosed
	default:
		return &puppetStream{mux: m, reset: make(chan struct{})}, nil
	}
}

// A puppetStream answers one byte to everything.
type puppetStream struct {
	mux      *puppet
	answerAt time.Time
	deadline time.Time
	once     sync.Once
	reset    chan struct{}
}

func (s *puppetStream) Write(p []byte) (int, error) {
	if s.mux.asked != nil {
		s.mux.asked()
	}
	s.answerAt = time.Now().Add(s.mux.delay)
	return len(p), nil
}

func (s *puppetStream) Read(p []byte) (int, error) {
	var answer, late <-chan time.Time
	if s.mux.answers.Load() {
		t := time.NewTimer(time.Until(s.answerAt))
		defer t.Stop()
		answer = t.C
	}
	if !s.deadline.IsZero() {
		t := time.NewTimer(time.Until(s.deadline))
		defer t.Stop()
		late = t.C
	}
	select {
	case <-answer:
		return copy(p, "\n"), nil
	case <-late:
		return 0, os.ErrDeadlineExceeded
	case <-s.reset:
		return 0, errors.New("reset")
	case <-s.mux.ended:
		return 0, net.ErrClosed
	}
}

func (s *puppetStream) Close() error      { return s.Reset(0) }
func (s *puppetStream) CloseRead() error  { return nil }
func (s *puppetStream) CloseWrite() error { return nil }
func (s *puppetStream) Reset(uint32) error {
	s.once.Do(func() { close(s.reset) })
	return nil
}
func (s *puppetStream) SetDeadline(t time.Time) error      { s.deadline = t; return nil }
func (s *puppetStream) SetReadDeadline(t time.Time) error  { s.deadline = t; return nil }
func (s *puppetStream) SetWriteDeadline(t time.Time) error { return nil }

// puppetKeys are keys of peers, made once since each takes a while.
var puppetKeys = sync.OnceValue(func() []peer.PublicKey {
	keys := make([]peer.PublicKey, 11_000)
	for i := range keys {
		var raw [36]byte // an Ed25519 key in its protobuf; nobody has the private one
		copy(raw[:], "\x08\x01\x12\x20")
		binary.BigEndian.PutUint32(raw[4:], uint32(i+1))
		key, err := peer.UnmarshalPublicKey(raw[:])
		if err != nil {
			panic(err)
		}
		keys[i] = key
	}
	return keys
})

// crowdedHost is a host for so many connections, of which none are closed before.
func crowdedHost(t testing.TB, conns int, cfg Config) *Host {
	key, err := peer.GenerateKey(peer.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Identity = key
	cfg.Limits.Conns, cfg.Limits.HighWater, cfg.Limits.Memory = conns, -1, -1
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// enter connects the peer with a number from an IP.
func (h *Host) enter(n int, ip netip.Addr, dir Direction, m *puppet) (*Conn, error) {
	m.ended = make(chan struct{})
	addr := multiaddr.FromAddrPort(multiaddr.UDP, netip.AddrPortFrom(ip, 4001))
	return h.addConn(TransportConn{Mux: m, LocalAddr: multiaddr.MustParse("/ip4/192.0.2.1/udp/1"), RemoteAddr: addr, RemoteKey: puppetKeys()[n]}, dir, false)
}

// single is an IP of an address group of its own.
func single(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{20 + byte(n>>16), byte(n >> 8), byte(n), 1})
}

// BenchmarkNewcomer is what one more connection costs at the hard limit of 10,000.
func BenchmarkNewcomer(b *testing.B) {
	for _, c := range []struct {
		name  string
		grace time.Duration
		busy  bool
		in    bool
	}{
		{"displaces", time.Hour, false, true},
		{"is refused, all settled", -1, false, false},
		{"is refused, all busy", time.Hour, true, false},
	} {
		b.Run(c.name, func(b *testing.B) {
			h := crowdedHost(b, 10_000, Config{Limits: Limits{Grace: c.grace}})
			n := 0
			enter := func() error {
				m := new(puppet)
				if c.busy {
					m.streams.Store(1)
				}
				_, err := h.enter(n%11_000, single(n), DirInbound, m)
				n++
				return err
			}
			for range 10_000 {
				if err := enter(); err != nil {
					b.Fatal(err)
				}
			}
			for b.Loop() {
				if err := enter(); (err == nil) != c.in {
					b.Fatal(fmt.Sprint(err))
				}
			}
		})
	}
}

func BenchmarkLineUp(b *testing.B) {
	core := &trimmer{hard: 10_000, grace: 20 * time.Second}
	paths := settled(10_000)
	for b.Loop() {
		if l := core.lineUp(epoch, paths); len(l.seats) != 10_000 {
			b.Fatal("somebody is missing")
		}
	}
}
