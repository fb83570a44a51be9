package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/kith-p2p/kith/interop/internal/peercmd"
	"github.com/kith-p2p/kith/pnet"
)

// TestPrivateNetwork lets peers do everything under a pre-shared key, and nothing under
// two different ones or where only one side has a key.
func TestPrivateNetwork(t *testing.T) {
	keyFile := func() string {
		file := filepath.Join(t.TempDir(), "swarm.key")
		if err := os.WriteFile(file, pnet.GenerateKey().Marshal(), 0o600); err != nil {
			t.Fatal(err)
		}
		return "--psk=" + file
	}
	one, other, none := keyFile(), keyFile(), "--psk="
	for _, pair := range []pair{{kithPeer, goPeer}, {goPeer, kithPeer}, {goPeer, goPeer}} {
		t.Run(pair.String(), func(t *testing.T) {
			t.Parallel()
			for _, security := range []string{"noise", "tls"} {
				t.Run(security, func(t *testing.T) {
					server := pair.listener.run(t, "listen", "--security="+security, one)
					listening := await[peercmd.Listening](t, server)
					client := pair.dialer.run(t, "dial", "--security="+security, one, "--peer="+listening.Addrs[0],
						"--do=identify,ping,echo,halfclose,reset,perf", fmt.Sprintf("--bytes=%d", 8<<20), fmt.Sprintf("--download=%d", 8<<20))
					dialed := await[peercmd.Dialed](t, client)
					if dialed.Security != securityIDs[security] {
						t.Errorf("agreed on %s", dialed.Security)
					}
					client.succeed(t)

					for name, psk := range map[string]string{"another key": other, "no key": none} {
						stranger := pair.dialer.run(t, "dial", "--security="+security, psk, "--timeout=5", "--peer="+listening.Addrs[0], "--do=ping")
						<-stranger.exited
						if stranger.err == nil {
							t.Errorf("a dialer with %s was let in", name)
						}
					}
					server.terminate(t)
				})
			}
		})
	}
}
