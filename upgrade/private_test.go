package upgrade_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/testkit"
	"github.com/kith-p2p/kith/memory"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/pnet"
	"github.com/kith-p2p/kith/tcp"
	"github.com/kith-p2p/kith/upgrade"
)

// a channel makes a Security.
type channel = func(peer.PrivateKey) (upgrade.Security, error)

func newPrivate(t *testing.T, key peer.PrivateKey, psk *pnet.Key, channels ...channel) *upgrade.Upgrader {
	t.Helper()
	cfg := upgrade.Config{PSK: psk}
	for _, channel := range channels {
		s, err := channel(key)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Security = append(cfg.Security, s)
	}
	u, err := upgrade.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func ptr[T any](v T) *T { return &v }

// Who has the same key connects and nobody else does, over every transport that is
// upgraded, also where the first choice of secure channel is refused.
func TestPrivateNetwork(t *testing.T) {
	one, other := pnet.GenerateKey(), pnet.GenerateKey()
	network := new(memory.Network)
	transports := map[string]func(*upgrade.Upgrader) (host.Transport, error){
		"/ip4/127.0.0.1/tcp/0": func(u *upgrade.Upgrader) (host.Transport, error) { return tcp.New(tcp.Config{Upgrader: u}) },
		"/memory/0": func(u *upgrade.Upgrader) (host.Transport, error) {
			return memory.New(memory.Config{Network: network, Upgrader: u})
		},
	}
	for addr, transport := range transports {
		newHost := func(t *testing.T, failures chan<- error, psk *pnet.Key, channels ...channel) *host.Host {
			key := testkit.Key(t)
			tr, err := transport(newPrivate(t, key, psk, channels...))
			if err != nil {
				t.Fatal(err)
			}
			h, err := host.New(host.Config{Identity: key, Transports: []host.Transport{tr}, Trace: func(e host.Event) {
				if e, ok := e.(host.UpgradeFailed); ok {
					failures <- e.Err
				}
			}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { h.Close() })
			if err := h.Listen(multiaddr.MustParse(addr)); err != nil {
				t.Fatal(err)
			}
			h.Handle("/echo/1", func(_ context.Context, s *host.Stream) error {
				_, err := io.Copy(s, s)
				return err
			})
			return h
		}
		both := []channel{upgrade.TLS, upgrade.Noise}
		for _, c := range []struct {
			name             string
			dialer, listener *pnet.Key
			channels         []channel
			other            bool // the error names another network
			fails            bool
		}{
			{"one key noise", &one, &one, []channel{upgrade.Noise}, false, false},
			{"one key tls", &one, &one, []channel{upgrade.TLS}, false, false},
			{"one key, first choice refused", &one, ptr(one), both, false, false},
			{"another key", &one, &other, both, true, true},
			{"a listener without", &one, nil, both, true, true},
			{"a dialer without", nil, &one, both, false, true},
		} {
			t.Run(strings.Split(addr, "/")[1]+"/"+c.name, func(t *testing.T) {
				failures := make(chan error, 16)
				a, b := newHost(t, nil, c.dialer, c.channels...), newHost(t, failures, c.listener, c.channels[len(c.channels)-1])
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				_, err := a.Connect(ctx, testkit.Info(b))
				if c.fails {
					if err == nil || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, upgrade.ErrOtherNetwork) != c.other {
						t.Errorf("connected, or failed without the reason: %v", err)
					}
					if err := <-failures; c.listener != nil && !errors.Is(err, upgrade.ErrOtherNetwork) {
						t.Errorf("the listener does not know why: %v", err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				s, err := a.NewStream(ctx, b.ID(), "/echo/1")
				if err != nil {
					t.Fatal(err)
				}
				s.SetDeadline(time.Now().Add(10 * time.Second))
				sent := make([]byte, 3<<20)
				rand.Read(sent)
				go func() {
					s.Write(sent)
					s.CloseWrite()
				}()
				got, err := io.ReadAll(s)
				if err != nil || !bytes.Equal(got, sent) {
					t.Errorf("%d bytes of %d came back, %v", len(got), len(sent), err)
				}
			})
		}
	}
}

// Nonce, proposal and the first message of the handshake leave in one write, and
// nothing of it can be read without the key.
func TestPrivatePipelined(t *testing.T) {
	psk := pnet.GenerateKey()
	a, b := testkit.Key(t), testkit.Key(t)
	near, far := pair(t)
	recorded := &tape{Conn: near}
	heard := &bytes.Buffer{}
	accepted := make(chan error, 1)
	go func() {
		tc, err := newPrivate(t, b, &psk, upgrade.Noise).Inbound(t.Context(), &tee{far, heard}, func(host.Stage) {})
		if err == nil {
			defer tc.Mux.CloseWithCode(0)
		}
		accepted <- err
	}()
	tc, conn, err := newPrivate(t, a, &psk, upgrade.Noise).Dial(t.Context(), b.ID(),
		func(context.Context) (net.Conn, error) { return recorded, nil }, func(host.Stage) {})
	if err != nil {
		t.Fatal(err)
	}
	defer tc.Mux.CloseWithCode(0)
	if err := <-accepted; err != nil {
		t.Fatal(err)
	}
	if conn != recorded {
		t.Error("Dial does not return the connection that it was given")
	}
	recorded.mu.Lock()
	defer recorded.mu.Unlock()
	if len(recorded.writes) != 2 || recorded.writes[0] < 24+20 {
		t.Errorf("the dialer wrote %v, want two writes, the first with the nonce", recorded.writes)
	}
	if bytes.Contains(heard.Bytes(), []byte("multistream")) || bytes.Contains(heard.Bytes(), []byte("noise")) || heard.Len() < 100 {
		t.Errorf("heard %q", heard.Bytes())
	}
}

type tee struct {
	net.Conn
	heard *bytes.Buffer
}

func (c *tee) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.heard.Write(p[:n])
	return n, err
}

// Who sends a nonce and then anything but multistream's greeting under the key is
// sent away after the first wrong byte, whatever length it seems to announce.
func TestPrivateGarbage(t *testing.T) {
	psk := pnet.GenerateKey()
	for name, said := range map[string]string{
		"a byte": "x", "a long message": "\xff\x07", "another version": "\x13/multistream/2", "http": "GET / HTTP/1.1\r\n\r\n",
	} {
		near, far := pair(t)
		go pnet.Protect(near, psk).Write([]byte(said))
		_, err := newPrivate(t, testkit.Key(t), &psk, upgrade.Noise).Inbound(t.Context(), far, func(host.Stage) {})
		if !errors.Is(err, upgrade.ErrOtherNetwork) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Who comes and goes is from no network at all.
	for _, n := range []int{0, 1, 24, 30} {
		near, far := pair(t)
		conn := pnet.Protect(near, psk)
		if n > 24 {
			conn.Write([]byte(greetingStart[:n-24]))
		} else {
			near.Write(make([]byte, n))
		}
		near.(*net.TCPConn).CloseWrite()
		_, err := newPrivate(t, testkit.Key(t), &psk, upgrade.Noise).Inbound(t.Context(), far, func(host.Stage) {})
		if err == nil || errors.Is(err, upgrade.ErrOtherNetwork) {
			t.Errorf("%d bytes and the end: %v", n, err)
		}
	}
}

const greetingStart = "\x13/multistream/1.0.0\n"

func TestForcedPrivate(t *testing.T) {
	key := testkit.Key(t)
	noise, err := upgrade.Noise(key)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(pnet.ForceEnv, "1")
	if _, err := upgrade.New(upgrade.Config{Security: []upgrade.Security{noise}}); err == nil || !strings.Contains(err.Error(), pnet.ForceEnv) {
		t.Errorf("without a key: %v", err)
	}
	if _, err := upgrade.New(upgrade.Config{Security: []upgrade.Security{noise}, PSK: ptr(pnet.GenerateKey())}); err != nil {
		t.Errorf("with a key: %v", err)
	}
	if _, err := upgrade.New(upgrade.Config{Security: []upgrade.Security{noise}, PSK: new(pnet.Key)}); err == nil {
		t.Error("the zero Key was taken")
	}
}
