package peercmd

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestEvents(t *testing.T) {
	var out strings.Builder
	events := NewEvents(&out)
	events.Emit(Listening{"A", []string{"/ip4/127.0.0.1/tcp/1/p2p/A"}})
	events.Emit(Reset{})
	events.Emit(Reset{new(uint32(42))})
	events.Emit(Done{})
	const want = `{"event":"listening","peer":"A","addrs":["/ip4/127.0.0.1/tcp/1/p2p/A"]}
{"event":"reset"}
{"event":"reset","code":42}
{"event":"done"}
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

func TestOptions(t *testing.T) {
	o, err := parseOptions("dial", []string{"--peer=/ip4/127.0.0.1/tcp/1/p2p/A", "--timeout=5", "--security=tls", "--key-type=rsa",
		"--do=echo,push", "--bytes=7", "--listen=none"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if o.Timeout != 5*time.Second || o.Security != "tls" || o.KeyType != "rsa" || o.Bytes != 7 || o.Listen != nil ||
		!slices.Equal(o.Peers, []string{"/ip4/127.0.0.1/tcp/1/p2p/A"}) || !slices.Equal(o.Do, []string{"echo", "push"}) {
		t.Errorf("got %+v", o)
	}
	for _, test := range []struct{ flag, want string }{
		{"--security=plaintext", "want noise, tls"},
		{"--key-type=dsa", "want one of ed25519"},
		{"--do=ping,dance", "want some of identify"},
		{"--timeout=0", "positive timeout"},
		{"--bytes=-1", "want 0 or more"},
		{"--streams=129", "want 1 to 128"},
		{"--no-such-flag", "not defined"},
		{"stray", "unexpected argument"},
	} {
		if _, err := parseOptions("dial", []string{test.flag}, nil); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want %q", test.flag, err, test.want)
		}
	}
}

func TestUnknownMode(t *testing.T) {
	for _, args := range [][]string{{}, {"dance"}} {
		if err := (Program{}).Main(args, &strings.Builder{}); err == nil || !strings.Contains(err.Error(), "want one of [dial listen mdns capabilities]") {
			t.Errorf("%v: error %v", args, err)
		}
	}
}
