package unified

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/kith-p2p/kith/interop/internal/peercmd"
	"github.com/kith-p2p/kith/multiaddr"
)

// A contract is what the environment asks of one process.
type contract struct {
	dialer    bool
	redisAddr string
	key       string     // Redis key of the listener's address
	carrier   string     // the transport
	security  string     // "" where the transport has its own
	ip        netip.Addr // to listen on
	timeout   time.Duration

	// perf, dialer only
	uploadBytes, downloadBytes                              int64
	uploadIterations, downloadIterations, latencyIterations int
}

// Perf's values where the environment has none that is a number.
const (
	defaultBytes             = 1 << 30
	defaultIterations        = 10
	defaultLatencyIterations = 100
	maxIterations            = 100_000 // their samples are printed on one line
)

// defaultTimeout is also the runner's own, for one test.
const defaultTimeout = 180 * time.Second

// Main plays the role that the environment asks for in the suite, "transport" or "perf", and writes a dialer's result to out.
// A listener ends, with success, by SIGTERM or its timeout.
func Main(suite string, start Start, getenv func(string) string, out io.Writer) error {
	if suite != "transport" && suite != "perf" {
		return fmt.Errorf("no suite %q: want transport or perf", suite)
	}
	c, err := readContract(getenv)
	if err != nil {
		return err
	}
	terminated, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(terminated, c.timeout)
	defer cancel()
	return c.run(ctx, suite, start, out)
}

// Start makes a node that does not listen yet; Program.Start is one.
type Start func(ctx context.Context, opt peercmd.Options, hooks peercmd.Hooks) (peercmd.Node, error)

func (c contract) run(ctx context.Context, suite string, start Start, out io.Writer) (err error) {
	node, err := start(ctx, peercmd.Options{Security: c.security, KeyType: "ed25519"}, peercmd.NoHooks)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, node.Close()) }()
	meet := map[string]rendezvous{"transport": byList, "perf": byString}[suite]
	switch {
	case !c.dialer:
		return c.serve(ctx, node, meet)
	case suite == "transport":
		return c.transport(ctx, node, out)
	}
	return c.perf(ctx, node, out)
}

// standalone are the transports that have a secure channel and a muxer of their own.
var standalone = map[string]bool{"quic-v1": true, "webtransport": true, "webrtc-direct": true}

// below is how the address of a listener goes on behind its IP.
var below = map[string]string{
	"tcp": "/tcp/0", "ws": "/tcp/0/ws", "wss": "/tcp/0/tls/ws",
	"quic-v1": "/udp/0/quic-v1", "webtransport": "/udp/0/quic-v1/webtransport", "webrtc-direct": "/udp/0/webrtc-direct",
}

// readContract checks everything, so that a wrong environment fails at once and not by a timeout.
func readContract(getenv func(string) string) (contract, error) {
	c := contract{
		redisAddr: getenv("REDIS_ADDR"), key: getenv("TEST_KEY") + "_listener_multiaddr",
		uploadBytes: number(getenv("UPLOAD_BYTES"), defaultBytes), downloadBytes: number(getenv("DOWNLOAD_BYTES"), defaultBytes),
		uploadIterations:   int(number(getenv("UPLOAD_ITERATIONS"), defaultIterations)),
		downloadIterations: int(number(getenv("DOWNLOAD_ITERATIONS"), defaultIterations)),
		latencyIterations:  int(number(getenv("LATENCY_ITERATIONS"), defaultLatencyIterations)),
		timeout:            time.Duration(number(getenv("TEST_TIMEOUT_SECS"), int64(defaultTimeout/time.Second))) * time.Second,
	}
	var err error
	oneOf := func(name string, allowed ...string) {
		if value := getenv(name); err == nil && !slices.Contains(allowed, value) {
			err = fmt.Errorf("%s=%s: want one of %s", name, value, strings.Join(allowed, ", "))
		}
	}
	required := func(name string) {
		if err == nil && getenv(name) == "" {
			err = fmt.Errorf("%s is not set", name)
		}
	}
	oneOf("IS_DIALER", "true", "false")
	required("REDIS_ADDR")
	required("TEST_KEY")
	oneOf("TRANSPORT", "tcp", "ws", "wss", "quic-v1", "webtransport", "webrtc-direct")
	c.carrier = getenv("TRANSPORT")
	if !standalone[c.carrier] {
		c.security = getenv("SECURE_CHANNEL")
		oneOf("SECURE_CHANNEL", "noise", "tls")
		oneOf("MUXER", "yamux")
	}
	c.dialer = getenv("IS_DIALER") == "true"
	if err == nil && !c.dialer {
		if c.ip, err = netip.ParseAddr(getenv("LISTENER_IP")); err != nil {
			err = fmt.Errorf("LISTENER_IP: %w", err)
		}
	}
	if most := max(c.uploadIterations, c.downloadIterations, c.latencyIterations); err == nil && most > maxIterations {
		err = fmt.Errorf("%d iterations: want at most %d", most, maxIterations)
	}
	return c, err
}

// number reads a positive number, or takes fallback: the suite's runner sometimes says "null".
func number(text string, fallback int64) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n <= 0 {
		return fallback
	}
	return n
}

// A rendezvous passes the listener's address. The suites do it in two ways that do not mix.
type rendezvous struct {
	publish func(r *redis, key, addr string) error
	await   func(ctx context.Context, r *redis, key string) (string, error)
}

// pollInterval is how often the dialer of the perf contract looks for the listener.
const pollInterval = time.Second

var (
	// byList: transport. A list, which the dialer can wait for.
	byList = rendezvous{
		publish: func(r *redis, key, addr string) error {
			_, err := r.do("RPUSH", key, addr)
			return err
		},
		await: func(_ context.Context, r *redis, key string) (string, error) {
			const forever = "0" // ctx closes the connection
			reply, err := r.do("BLPOP", key, forever)
			if err == nil && len(reply) != 2 {
				err = fmt.Errorf("redis: BLPOP: %d items, want key and address", len(reply))
			}
			if err != nil {
				return "", err
			}
			return reply[1], nil
		},
	}
	// byString: perf. A string, which the dialer polls.
	byString = rendezvous{
		publish: func(r *redis, key, addr string) error {
			_, err := r.do("SET", key, addr)
			return err
		},
		await: func(ctx context.Context, r *redis, key string) (string, error) {
			for {
				reply, err := r.do("GET", key)
				switch {
				case err != nil:
					return "", err
				case len(reply) == 1:
					return reply[0], nil
				}
				select {
				case <-time.After(pollInterval):
				case <-ctx.Done():
					return "", context.Cause(ctx)
				}
			}
		},
	}
)

// serve listens, publishes the address and serves until ctx ends, which is success.
func (c contract) serve(ctx context.Context, node peercmd.Node, meet rendezvous) error {
	family := "ip4"
	if c.ip.Is6() {
		family = "ip6"
	}
	if err := node.Listen([]string{fmt.Sprintf("/%s/%s%s", family, c.ip, below[c.carrier])}); err != nil {
		return err
	}
	addr, err := publicAddr(node.Addrs(), c.ip)
	if err != nil {
		return err
	}
	r, err := dialRedis(ctx, c.redisAddr)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := meet.publish(r, c.key, addr); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// publicAddr picks where the other container reaches us: of a node that listens everywhere, the first address that is neither
// loopback nor link-local.
func publicAddr(addrs []string, ip netip.Addr) (string, error) {
	for _, text := range addrs {
		addr, err := multiaddr.Parse(text)
		if err != nil {
			return "", err
		}
		if local, ok := addr.IP(); ok && (!ip.IsUnspecified() || local.IsGlobalUnicast()) {
			return text, nil
		}
	}
	return "", fmt.Errorf("no address that another machine could dial in %v", addrs)
}

// listener waits for the listener's address.
func (c contract) listener(ctx context.Context, meet rendezvous) (addr string, err error) {
	r, err := dialRedis(ctx, c.redisAddr)
	if err != nil {
		return "", err
	}
	defer r.Close()
	addr, err = meet.await(ctx, r, c.key)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("no listener has put its address under %s: %w", c.key, context.Cause(ctx))
	}
	return addr, err
}

// transport is the dialer of the transport contract.
func (c contract) transport(ctx context.Context, node peercmd.Node, out io.Writer) error {
	addr, err := c.listener(ctx, byList)
	if err != nil {
		return err
	}
	start := time.Now()
	session, _, err := node.Connect(ctx, addr)
	if err != nil {
		return err
	}
	rtt, err := session.Ping(ctx)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "latency:\n  handshake_plus_one_rtt: %.3f\n  ping_rtt: %.3f\n  unit: ms\n",
		millis(time.Since(start)), millis(rtt))
	return err
}

// perf is the dialer of the perf contract.
func (c contract) perf(ctx context.Context, node peercmd.Node, out io.Writer) error {
	addr, err := c.listener(ctx, byString)
	if err != nil {
		return err
	}
	session, _, err := node.Connect(ctx, addr)
	if err != nil {
		return err
	}
	for _, test := range []struct {
		section          string
		upload, download int64
		iterations       int
		value            func(time.Duration) float64
		unit             string
		decimals         int
	}{
		{"upload", c.uploadBytes, 0, c.uploadIterations, gbps(c.uploadBytes), "Gbps", 2},
		{"download", 0, c.downloadBytes, c.downloadIterations, gbps(c.downloadBytes), "Gbps", 2},
		{"latency", 1, 1, c.latencyIterations, millis, "ms", 3},
	} {
		var samples []float64
		for range test.iterations {
			start := time.Now()
			if _, _, err := session.Perf(ctx, test.upload, test.download); err != nil {
				return fmt.Errorf("%s: %w", test.section, err)
			}
			samples = append(samples, test.value(time.Since(start)))
		}
		if err := summarize(samples, test.unit, test.decimals).print(out, test.section); err != nil {
			return err
		}
	}
	return nil
}

func gbps(bytes int64) func(time.Duration) float64 {
	return func(d time.Duration) float64 { return float64(bytes) * 8 / d.Seconds() / 1e9 }
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
