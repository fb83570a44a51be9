package unix

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/testkit"
	"github.com/kith-p2p/kith/internal/transporttest"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/pnet"
	"github.com/kith-p2p/kith/upgrade"
)

// dir gives a directory whose name is short enough for sockets in it.
func dir(t testing.TB) string {
	t.Helper()
	d, err := os.MkdirTemp("", "kith")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(d) })
	return d
}

func address(t testing.TB, name string) multiaddr.Addr {
	t.Helper()
	name = filepath.ToSlash(name)
	a, err := multiaddr.Parse("/unix/" + strings.TrimPrefix(name, "/"))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func newTransport(t testing.TB, mode fs.FileMode) *Transport {
	t.Helper()
	u := testkit.Upgrader(t, testkit.Key(t))
	tr, err := New(Config{Upgrader: u, Mode: mode})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func TestTransport(t *testing.T) {
	psk, err := pnet.KeyFromBytes(bytes.Repeat([]byte("kith"), 8)) // the same in the other process
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		channel func(peer.PrivateKey) (upgrade.Security, error)
		psk     *pnet.Key
	}{
		{"noise", upgrade.Noise, nil},
		{"tls and a key", upgrade.TLS, &psk},
	} {
		t.Run(c.name, func(t *testing.T) {
			var last atomic.Int32
			transporttest.Run(t, transporttest.Case{
				New: func(t testing.TB, key peer.PrivateKey) host.Transport {
					s, err := c.channel(key)
					if err != nil {
						t.Fatal(err)
					}
					u, err := upgrade.New(upgrade.Config{Security: []upgrade.Security{s}, PSK: c.psk})
					if err != nil {
						t.Fatal(err)
					}
					tr, err := New(Config{Upgrader: u})
					if err != nil {
						t.Fatal(err)
					}
					return tr
				},
				Listen: func(t testing.TB) []multiaddr.Addr {
					return []multiaddr.Addr{address(t, filepath.Join(dir(t), fmt.Sprint(last.Add(1))))}
				},
				Bulk:    8 << 20,
				Streams: 200,
				Conns:   20,
			})
		})
	}
}

func TestAddresses(t *testing.T) {
	tr := newTransport(t, 0)
	for addr, want := range map[string]bool{
		"/unix/run/kith.sock": true, "/unix/a": true, "/unix/a/p2p/x": true,
		"/ip4/1.2.3.4/tcp/5": false, "/memory/1": false, "/ip4/1.2.3.4/tcp/5/unix/a": false,
	} {
		a := multiaddr.MustParse(addr)
		if tr.CanDial(a) != want || tr.CanListen(a) != want {
			t.Errorf("%s: can dial %v, listen %v, want %v", addr, tr.CanDial(a), tr.CanListen(a), want)
		}
	}
	if name, err := path(multiaddr.MustParse("/unix/run/kith.sock")); err != nil || name != filepath.FromSlash("/run/kith.sock") {
		t.Errorf("%q, %v", name, err)
	}
}

func TestFileIsRemoved(t *testing.T) {
	name := filepath.Join(dir(t), "s")
	tr := newTransport(t, 0)
	for range 2 {
		l, err := tr.Listen(address(t, name))
		if err != nil {
			t.Fatal(err)
		}
		if l.Addr() != address(t, name) {
			t.Errorf("listening on %s", l.Addr())
		}
		l.Close()
		l.Close()
		if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("after Close: %v", err)
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept after Close: %v", err)
		}
	}
	// Not if somebody else has replaced it.
	l, err := tr.Listen(address(t, name))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(name, name+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l.Close()
	if _, err := os.Lstat(name); err != nil {
		t.Errorf("the file of another is gone: %v", err)
	}
}

// A socket to which nobody listens is replaced.
func TestStaleSocket(t *testing.T) {
	name := filepath.Join(dir(t), "s")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	if _, err := os.Lstat(name); err != nil {
		t.Fatal(err)
	}
	l, err := newTransport(t, 0).Listen(address(t, name))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("unix", name)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if files, _ := os.ReadDir(filepath.Dir(name)); len(files) != 1 {
		t.Errorf("left behind: %v", files)
	}
}

// Of several that find a stale socket at the same time, one gets its place.
func TestStaleSocketRace(t *testing.T) {
	name := filepath.Join(dir(t), "s")
	for range 20 {
		dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		dead.SetUnlinkOnClose(false)
		dead.Close()
		listeners := make(chan host.TransportListener)
		for range 4 {
			tr := newTransport(t, 0)
			go func() {
				l, err := tr.Listen(address(t, name))
				if err != nil && !errors.Is(err, syscall.EADDRINUSE) {
					t.Errorf("the loser is told: %v", err)
				}
				listeners <- l
			}()
		}
		var won []host.TransportListener
		for range 4 {
			if l := <-listeners; l != nil {
				won = append(won, l)
			}
		}
		if len(won) != 1 {
			t.Errorf("%d listen", len(won))
		}
		for _, l := range won {
			l.Close()
		}
	}
}

func TestListenErrors(t *testing.T) {
	d := dir(t)
	tr := newTransport(t, 0)
	l, err := tr.Listen(address(t, filepath.Join(d, "taken")))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.WriteFile(filepath.Join(d, "text"), []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, want string }{
		{"taken", "is taken by another process: choose another path"},
		{"text", "is there and no socket"},
		{"none/s", "make it"},
		{strings.Repeat("x", 108), "this system allows 10"},
	} {
		name := filepath.Join(d, c.name)
		l, err := tr.Listen(address(t, name))
		if err == nil {
			l.Close()
			t.Errorf("%s was opened", name)
			continue
		}
		if !strings.HasPrefix(err.Error(), "unix: ") || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want the path and %q", c.name, err, c.want)
		}
	}
	if b, err := os.ReadFile(filepath.Join(d, "text")); string(b) != "precious" {
		t.Errorf("the file that is no socket: %q, %v", b, err)
	}
	if _, err := tr.Dial(t.Context(), address(t, filepath.Join(d, strings.Repeat("x", 108))), peer.ID{}, func(host.Stage) {}); err == nil || !strings.Contains(err.Error(), "this system allows") {
		t.Errorf("dialing a path that is too long: %v", err)
	}
	if _, err := New(Config{}); err == nil {
		t.Error("a transport without an upgrader")
	}
	if _, err := New(Config{Upgrader: testkit.Upgrader(t, testkit.Key(t)), Mode: fs.ModeSetuid | 0o600}); err == nil {
		t.Error("a mode that is not of permissions")
	}
}

func TestMode(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Log("this system has no permissions of sockets")
		return
	}
	name := filepath.Join(dir(t), "s")
	l, err := newTransport(t, 0o620).Listen(address(t, name))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if info, err := os.Lstat(name); err != nil || info.Mode() != fs.ModeSocket|0o620 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}
