package interop

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"testing"
)

// TestUnifiedTransport and TestUnifiedPerf run kith-peer in both roles of the public suites, as their runners do: everything by
// environment variables, the result on standard output.

func TestUnifiedTransport(t *testing.T) {
	for _, stack := range stacks() {
		t.Run(stack.String(), func(t *testing.T) {
			t.Parallel()
			// What the suite's runner greps for.
			want := regexp.MustCompile(`^latency:
  handshake_plus_one_rtt: [0-9]+\.[0-9]{3}
  ping_rtt: [0-9]+\.[0-9]{3}
  unit: ms
$`)
			if got := runUnified(t, "transport", stack); !want.MatchString(got) {
				t.Errorf("result is\n%s", got)
			}
		})
	}
}

func TestUnifiedPerf(t *testing.T) {
	section := func(name string, iterations int, value, unit string) string {
		list := fmt.Sprintf(`\[(%s(, %s)*)?\]`, value, value)
		return fmt.Sprintf("%s:\n  iterations: %d\n  min: %s\n  q1: %s\n  median: %s\n  q3: %s\n  max: %s\n  outliers: %s\n  samples: %s\n  unit: %s\n",
			name, iterations, value, value, value, value, value, list, list, unit)
	}
	const gbps, ms = `[0-9]+\.[0-9]{2}`, `[0-9]+\.[0-9]{3}`
	want := regexp.MustCompile("^" + section("upload", 3, gbps, "Gbps") + section("download", 4, gbps, "Gbps") + section("latency", 5, ms, "ms") + "$")
	got := runUnified(t, "perf", stack{transport: "tcp", security: "noise"}, "UPLOAD_BYTES=10000000", "DOWNLOAD_BYTES=10000000",
		"UPLOAD_ITERATIONS=3", "DOWNLOAD_ITERATIONS=4", "LATENCY_ITERATIONS=5")
	if !want.MatchString(got) {
		t.Errorf("result is\n%s", got)
	}
}

// runUnified runs listener and dialer of a suite and returns what the dialer printed.
func runUnified(t *testing.T, suite string, stack stack, env ...string) string {
	t.Helper()
	redis := startRedis(t)
	role := func(isDialer bool) *process {
		cmd := exec.CommandContext(t.Context(), kithPeer.argv[0], suite)
		cmd.Env = append(os.Environ(), "REDIS_ADDR="+redis, "TEST_KEY=a5b50d5e", "TRANSPORT="+stack.transport,
			"LISTENER_IP=127.0.0.1", "DEBUG=false", "TEST_TIMEOUT_SECS=60", fmt.Sprintf("IS_DIALER=%v", isDialer))
		if stack.security != "" {
			cmd.Env = append(cmd.Env, "SECURE_CHANNEL="+stack.security, "MUXER=yamux")
		}
		cmd.Env = append(cmd.Env, env...)
		return runCmd(t, cmd)
	}
	dialer := role(true) // first: it has to wait for the listener
	listener := role(false)
	dialer.succeed(t)
	listener.terminate(t)
	if out := listener.stdout.all(); out != "" {
		t.Errorf("the listener printed %q", out)
	}
	return dialer.stdout.all()
}

// startRedis runs a server of the test's own, on loopback and without files, and returns its address.
func startRedis(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().(*net.TCPAddr)
	listener.Close()
	server := run(t, "redis-server", "--bind", "127.0.0.1", "--port", fmt.Sprint(addr.Port), "--save", "", "--appendonly", "no", "--dir", t.TempDir())
	server.awaitText(t, "Ready to accept connections")
	return addr.String()
}
