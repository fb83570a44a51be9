package upgrade_test

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/testkit"
	"github.com/kith-p2p/kith/multistream"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/upgrade"
)

func newUpgrader(t *testing.T, key peer.PrivateKey, channels ...func(peer.PrivateKey) (upgrade.Security, error)) *upgrade.Upgrader {
	t.Helper()
	var cfg upgrade.Config
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

// tape records the sizes of the writes of one end.
type tape struct {
	net.Conn
	mu     sync.Mutex
	writes []int
}

func (c *tape) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.writes = append(c.writes, len(p))
	c.mu.Unlock()
	return c.Conn.Write(p)
}

// pair gives the ends of a TCP connection, which unlike net.Pipe has buffers.
func pair(t *testing.T) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

// The proposal and the first message of the handshake leave in one write, and
// both sides pass the stages in order.
func TestPipelined(t *testing.T) {
	for name, channel := range map[string]func(peer.PrivateKey) (upgrade.Security, error){"noise": upgrade.Noise, "tls": upgrade.TLS} {
		t.Run(name, func(t *testing.T) {
			a, b := testkit.Key(t), testkit.Key(t)
			near, far := pair(t)
			recorded := &tape{Conn: near}
			var in, out []host.Stage
			accepted := make(chan error, 1)
			go func() {
				tc, err := newUpgrader(t, b, channel).Inbound(t.Context(), far, func(s host.Stage) { in = append(in, s) })
				if err == nil {
					if tc.RemoteKey.ID() != a.ID() {
						t.Errorf("the listener sees %s, want %s", tc.RemoteKey.ID(), a.ID())
					}
					defer tc.Mux.CloseWithCode(0)
				}
				accepted <- err
			}()
			tc, _, err := newUpgrader(t, a, channel).Dial(t.Context(), b.ID(),
				func(context.Context) (net.Conn, error) { return recorded, nil }, func(s host.Stage) { out = append(out, s) })
			if err != nil {
				t.Fatal(err)
			}
			defer tc.Mux.CloseWithCode(0)
			if err := <-accepted; err != nil {
				t.Fatal(err)
			}
			if tc.RemoteKey.ID() != b.ID() || tc.Muxer != upgrade.MuxerID {
				t.Errorf("the dialer sees %s with %s", tc.RemoteKey.ID(), tc.Muxer)
			}
			want := []host.Stage{host.StageOpened, host.StageSecuring, host.StageSecured, host.StageMuxed}
			if !slices.Equal(in, want) || !slices.Equal(out, want) {
				t.Errorf("stages %v of the listener and %v of the dialer, want %v", in, out, want)
			}
			recorded.mu.Lock()
			defer recorded.mu.Unlock()
			// Two messages of the dialer make up either handshake.
			if len(recorded.writes) != 2 {
				t.Errorf("the dialer wrote %v, want two writes", recorded.writes)
			}
		})
	}
}

// A remote that refuses the first choice is dialed once more, and not taught the
// same twice.
func TestRefusalIsRemembered(t *testing.T) {
	a, b := testkit.Key(t), testkit.Key(t)
	dialer := newUpgrader(t, a, upgrade.TLS, upgrade.Noise)
	listener := newUpgrader(t, b, upgrade.Noise)
	dials := 0
	connect := func() host.TransportConn {
		tc, _, err := dialer.Dial(t.Context(), b.ID(), func(context.Context) (net.Conn, error) {
			dials++
			near, far := pair(t)
			go func() {
				if tc, err := listener.Inbound(t.Context(), far, func(host.Stage) {}); err == nil {
					tc.Mux.Serve(nil)
				}
			}()
			return near, nil
		}, func(host.Stage) {})
		if err != nil {
			t.Fatal(err)
		}
		return tc
	}
	for i, want := range []int{2, 3} {
		tc := connect()
		if tc.Security != "/noise" || dials != want {
			t.Errorf("connection %d: %s after %d dials, want %d", i+1, tc.Security, dials, want)
		}
		tc.Mux.CloseWithCode(0)
	}
}

func TestWrongPeer(t *testing.T) {
	for name, channel := range map[string]func(peer.PrivateKey) (upgrade.Security, error){"noise": upgrade.Noise, "tls": upgrade.TLS} {
		t.Run(name, func(t *testing.T) {
			wanted, impostor := testkit.Key(t), testkit.Key(t)
			_, _, err := newUpgrader(t, testkit.Key(t), channel).Dial(t.Context(), wanted.ID(), func(context.Context) (net.Conn, error) {
				near, far := pair(t)
				go newUpgrader(t, impostor, channel).Inbound(t.Context(), far, func(host.Stage) {})
				return near, nil
			}, func(host.Stage) {})
			if err == nil || !strings.Contains(err.Error(), impostor.ID().String()) || !strings.Contains(err.Error(), wanted.ID().String()) {
				t.Errorf("dialing %s and reaching %s: %v", wanted.ID(), impostor.ID(), err)
			}
		})
	}
}

// Whatever a remote withholds, ctx ends the upgrade, and the reason is its own.
func TestContextEnds(t *testing.T) {
	// What the remote does before it falls silent.
	silences := map[string]func(net.Conn){
		"at once":          func(net.Conn) {},
		"after the header": func(c net.Conn) { multistream.Respond(c, func([]byte) (string, bool) { return "/noise", true }) },
		"in the middle of a frame": func(c net.Conn) {
			io.WriteString(c, "\x13/multistream/1.0.0\n\x07/no")
		},
	}
	for name, remote := range silences {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				upgrader := newUpgrader(t, testkit.Key(t), upgrade.Noise)
				for _, c := range []struct {
					name string
					want error
					end  func(context.Context) (context.Context, context.CancelFunc)
				}{
					{"deadline", context.DeadlineExceeded, func(ctx context.Context) (context.Context, context.CancelFunc) {
						return context.WithTimeout(ctx, time.Second)
					}},
					{"cancel", context.Canceled, func(ctx context.Context) (context.Context, context.CancelFunc) {
						ctx, cancel := context.WithCancel(ctx)
						time.AfterFunc(time.Second, cancel)
						return ctx, cancel
					}},
				} {
					for _, dialing := range []bool{true, false} {
						near, far := net.Pipe()
						go func() {
							go io.Copy(io.Discard, far)
							remote(far)
						}()
						ctx, cancel := c.end(t.Context())
						start := time.Now()
						var err error
						if dialing {
							_, _, err = upgrader.Dial(ctx, testkit.Key(t).ID(), func(context.Context) (net.Conn, error) { return near, nil }, func(host.Stage) {})
						} else {
							_, err = upgrader.Inbound(ctx, near, func(host.Stage) {})
						}
						if !errors.Is(err, c.want) && !strings.Contains(err.Error(), "multistream") {
							t.Errorf("%s, dialing %v: %v, want %v", c.name, dialing, err, c.want)
						}
						if took := time.Since(start); took > time.Second {
							t.Errorf("%s, dialing %v: it took %v", c.name, dialing, took)
						}
						cancel()
						near.Close()
						far.Close()
					}
				}
			})
		})
	}
}

func TestNoSecurity(t *testing.T) {
	if _, err := upgrade.New(upgrade.Config{}); err == nil {
		t.Error("an upgrader without a secure channel was made")
	}
}
