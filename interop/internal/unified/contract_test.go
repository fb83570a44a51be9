package unified

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestReadContract(t *testing.T) {
	dialer := map[string]string{
		"IS_DIALER": "true", "REDIS_ADDR": "transport-redis:6379", "TEST_KEY": "a5b50d5e",
		"TRANSPORT": "tcp", "SECURE_CHANNEL": "noise", "MUXER": "yamux", "LISTENER_IP": "0.0.0.0", "DEBUG": "false",
	}
	with := func(changes ...string) func(string) string {
		return func(name string) string {
			value := dialer[name]
			for i := 0; i < len(changes); i += 2 {
				if changes[i] == name {
					value = changes[i+1]
				}
			}
			return value
		}
	}

	got, err := readContract(with())
	want := contract{
		dialer: true, redisAddr: "transport-redis:6379", key: "a5b50d5e_listener_multiaddr", carrier: "tcp", security: "noise", timeout: 180 * time.Second,
		uploadBytes: 1 << 30, downloadBytes: 1 << 30, uploadIterations: 10, downloadIterations: 10, latencyIterations: 100,
	}
	if err != nil || got != want {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}

	// The runner's own words for "use the default", and sizes beyond 32 bits.
	got, err = readContract(with("UPLOAD_ITERATIONS", "null", "DOWNLOAD_ITERATIONS", "0", "UPLOAD_BYTES", "5000000000", "DOWNLOAD_BYTES", "1e9"))
	want.uploadBytes = 5_000_000_000
	if err != nil || got != want {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}

	got, err = readContract(with("IS_DIALER", "false", "LISTENER_IP", "127.0.0.1"))
	if err != nil || got.dialer || got.ip != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("listener: got %+v, %v", got, err)
	}

	got, err = readContract(with("TRANSPORT", "quic-v1", "SECURE_CHANNEL", "", "MUXER", ""))
	if err != nil || got.carrier != "quic-v1" || got.security != "" {
		t.Errorf("a transport with its own security: got %+v, %v", got, err)
	}

	for _, wrong := range []struct{ name, value, want string }{
		{"IS_DIALER", "", "want one of true, false"},
		{"IS_DIALER", "yes", "IS_DIALER=yes"},
		{"REDIS_ADDR", "", "REDIS_ADDR is not set"},
		{"TEST_KEY", "", "TEST_KEY is not set"},
		{"TRANSPORT", "webrtc", "TRANSPORT=webrtc: want one of tcp, ws, wss"},
		{"SECURE_CHANNEL", "", "SECURE_CHANNEL=: want one of noise, tls"},
		{"MUXER", "mplex", "MUXER=mplex: want one of yamux"},
		{"LATENCY_ITERATIONS", "1000000", "1000000 iterations: want at most"},
	} {
		if _, err := readContract(with(wrong.name, wrong.value)); err == nil || !strings.Contains(err.Error(), wrong.want) {
			t.Errorf("%s=%s: error %v, want %q", wrong.name, wrong.value, err, wrong.want)
		}
	}
	if _, err := readContract(with("IS_DIALER", "false", "LISTENER_IP", "here")); err == nil || !strings.Contains(err.Error(), "LISTENER_IP") {
		t.Errorf("LISTENER_IP=here: error %v", err)
	}
}

func TestPublicAddr(t *testing.T) {
	const id = "/p2p/12D3KooWASf5dzsRVtjydi2D598E1hrY33DCFpsRyEp9TmZigJY3"
	for _, test := range []struct {
		ip    string
		addrs []string
		want  string
	}{
		{"127.0.0.1", []string{"/ip4/127.0.0.1/tcp/1"}, "/ip4/127.0.0.1/tcp/1"},
		{"0.0.0.0", []string{"/ip4/127.0.0.1/tcp/1", "/ip4/169.254.1.1/tcp/1", "/ip4/172.18.0.3/tcp/1"}, "/ip4/172.18.0.3/tcp/1"},
		{"0.0.0.0", []string{"/ip4/127.0.0.1/tcp/1"}, ""},
		{"::", []string{"/ip6/::1/tcp/1", "/ip6/fd00::3/tcp/1"}, "/ip6/fd00::3/tcp/1"},
		{"127.0.0.1", nil, ""},
	} {
		var addrs []string
		for _, a := range test.addrs {
			addrs = append(addrs, a+id)
		}
		got, err := publicAddr(addrs, netip.MustParseAddr(test.ip))
		if strings.TrimSuffix(got, id) != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%s of %v: got %q, %v; want %q", test.ip, test.addrs, got, err, test.want)
		}
	}
}
