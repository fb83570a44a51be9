package host_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/testkit"
	"github.com/kith-p2p/kith/memory"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

var errUnwanted = errors.New("not wanted here")

// refused checks that err is a refusal of a hook of a Gate, and says why.
func refused(t *testing.T, err error, hook string) {
	t.Helper()
	var gated *host.GateError
	switch {
	case !errors.As(err, &gated):
		t.Errorf("%v is not a GateError", err)
	case gated.Hook != hook || !errors.Is(err, errUnwanted) || !strings.Contains(err.Error(), errUnwanted.Error()):
		t.Errorf("%s refused (want %s): %v", gated.Hook, hook, err)
	}
}

func TestGateOfADial(t *testing.T) {
	network := new(memory.Network)
	b := testkit.Host(t, network, host.Config{})
	for hook, gate := range map[string]host.Gate{
		"DialPeer": {DialPeer: func(p peer.ID) error {
			if p != b.ID() {
				t.Errorf("asked for %s", p)
			}
			return errUnwanted
		}},
		"DialAddr": {DialAddr: func(p peer.ID, addr multiaddr.Addr) error {
			if p != b.ID() || addr != b.Addrs()[0] {
				t.Errorf("asked for %s at %s", p, addr)
			}
			return errUnwanted
		}},
		"Secured": {Secured: func(p peer.ID, dir host.Direction, remote multiaddr.Addr) error {
			if p != b.ID() || dir != host.DirOutbound || remote != b.Addrs()[0] {
				t.Errorf("asked for %s %s at %s", dir, p, remote)
			}
			return errUnwanted
		}},
	} {
		a := testkit.Host(t, network, host.Config{Gate: gate})
		_, err := a.Connect(t.Context(), testkit.Info(b))
		refused(t, err, hook)
		if _, err := a.NewStream(t.Context(), b.ID(), "/echo/1"); err == nil {
			t.Errorf("%s: a stream was opened", hook)
		}
		if n := len(a.Conns()); n != 0 {
			t.Errorf("%s: %d connections", hook, n)
		}
	}
}

// A Gate that is asked and has no objections changes nothing.
func TestGateLets(t *testing.T) {
	var mu sync.Mutex
	asked := make(map[string]int)
	note := func(hook string) error {
		mu.Lock()
		defer mu.Unlock()
		asked[hook]++
		return nil
	}
	gate := host.Gate{
		DialPeer: func(peer.ID) error { return note("DialPeer") },
		DialAddr: func(peer.ID, multiaddr.Addr) error { return note("DialAddr") },
		Accept:   func(multiaddr.Addr) error { return note("Accept") },
		Secured:  func(_ peer.ID, dir host.Direction, _ multiaddr.Addr) error { return note("Secured " + dir.String()) },
	}
	network := new(memory.Network)
	a, b := testkit.Host(t, network, host.Config{Gate: gate}), testkit.Host(t, network, host.Config{Gate: gate})
	testkit.Connect(t, a, b)
	mu.Lock()
	defer mu.Unlock()
	for _, hook := range []string{"DialPeer", "DialAddr", "Accept", "Secured " + host.DirInbound.String(), "Secured " + host.DirOutbound.String()} {
		if asked[hook] != 1 {
			t.Errorf("%s was asked %d times", hook, asked[hook])
		}
	}
}

func TestGateOfAnAccept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(memory.Network)
		var failed []host.UpgradeFailed
		b := testkit.Host(t, network, host.Config{
			Gate: host.Gate{Accept: func(multiaddr.Addr) error { return errUnwanted }},
			Trace: func(e host.Event) {
				if e, ok := e.(host.UpgradeFailed); ok {
					failed = append(failed, e)
				}
			},
		})
		a := testkit.Host(t, network, host.Config{})
		if _, err := a.Connect(t.Context(), testkit.Info(b)); err == nil {
			t.Error("connected")
		}
		synctest.Wait()
		if len(failed) != 1 || failed[0].Stage != host.StageStart {
			t.Fatalf("traced: %+v", failed)
		}
		refused(t, failed[0].Err, "Accept")
	})
}

// Who is refused when it has proved who it is learns that it was, and not why.
func TestGateOfAPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(memory.Network)
		a := testkit.Host(t, network, host.Config{})
		var failed []host.UpgradeFailed
		b := testkit.Host(t, network, host.Config{
			Gate: host.Gate{Secured: func(p peer.ID, dir host.Direction, _ multiaddr.Addr) error {
				if p != a.ID() || dir != host.DirInbound {
					t.Errorf("asked for %s %s", dir, p)
				}
				return errUnwanted
			}},
			Trace: func(e host.Event) {
				if e, ok := e.(host.UpgradeFailed); ok {
					failed = append(failed, e)
				}
			},
		})
		b.Handle("/echo/1", func(context.Context, *host.Stream) error {
			t.Error("a stream was served")
			return nil
		})
		events := a.Subscribe(16)
		c, err := a.Connect(t.Context(), testkit.Info(b))
		if err != nil {
			t.Fatal(err)
		}
		if s, err := c.NewStream(t.Context(), "/echo/1"); err == nil {
			s.Write([]byte("hello"))
		}
		<-c.Done()
		synctest.Wait()
		var ended *host.ConnError
		for e := range events.Events() {
			if closed, ok := e.(host.ConnClosed); ok {
				if !errors.As(closed.Err, &ended) || ended.Code != host.ConnCodeGated || !ended.Remote || !errors.Is(closed.Err, net.ErrClosed) {
					t.Errorf("the connection ended with %v", closed.Err)
				}
				break
			}
		}
		if len(failed) != 1 || len(b.Conns()) != 0 {
			t.Fatalf("%d connections, traced: %+v", len(b.Conns()), failed)
		}
		refused(t, failed[0].Err, "Secured")
	})
}
