package interop

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kith-p2p/kith/interop/internal/peercmd"
)

// A program is one implementation; its argv takes a mode and flags.
type program struct {
	name     string
	argv     []string
	agent    string   // what its identify agent begins with
	keyTypes []string // it can have and knows in others
	codes    bool     // it sends and tells the codes of stream resets
	aborts   bool     // it tells of a stream that the remote has reset from one that has ended
	records  bool     // its signed peer records have a domain and type of their own, which beside itself only Kith reads
	dials    []string // transports
	listens  []string
	lost     []string // transports over which it neither sends nor tells codes
	deaf     []string // transports over which it does not learn that the remote has reset a stream
	mismatch []string // either is in its error when another peer answers than the one that was dialed
}

// The programs, filled in by TestMain.
var kithPeer, goPeer, jsPeer program

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "kith-interop")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		if err := prepare(dir); err != nil {
			fmt.Fprintln(os.Stderr, "interop:", err)
			return 1
		}
		return m.Run()
	}())
}

// prepare builds our own programs into dir and finds the others, which interop/setup has installed.
func prepare(dir string) error {
	build := func(name, pkg string) (string, error) {
		file := filepath.Join(dir, name)
		out, err := exec.Command("go", "build", "-o", file, pkg).CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("build %s: %w\n%s", pkg, err, out)
		}
		return file, nil
	}
	everything := []string{"tcp", "ws", "wss", "quic-v1", "webtransport", "webrtc-direct"}
	kith, err := build("kith-peer", "./cmd/kith-peer")
	if err != nil {
		return err
	}
	kithPeer = program{
		name: "kith", argv: []string{kith}, agent: "kith/", keyTypes: peercmd.KeyTypes,
		codes: true, aborts: true, dials: everything, listens: everything, mismatch: []string{"another peer has answered"},
	}
	gopeer, err := build("gopeer", "./gopeer")
	if err != nil {
		return err
	}
	goPeer = program{
		name: "go", argv: []string{gopeer}, agent: "go-libp2p/", keyTypes: peercmd.KeyTypes,
		codes: true, aborts: true, dials: everything, listens: everything, lost: []string{"webtransport"}, mismatch: []string{"peer id mismatch"},
	}
	node, _ := filepath.Glob("jspeer/node_modules/node-*/bin/node")
	if len(node) != 1 {
		return fmt.Errorf("jspeer is not installed: run interop/setup")
	}
	jsPeer = program{
		name: "js", argv: []string{node[0], "jspeer/index.js"}, agent: "js-libp2p/", keyTypes: []string{"ed25519", "secp256k1", "rsa"},
		aborts: true, dials: []string{"tcp", "ws", "wss", "quic-v1", "webrtc-direct"}, listens: []string{"tcp", "ws", "quic-v1", "webrtc-direct"},
		deaf:     []string{"quic-v1"},
		mismatch: []string{"does not match expected remote", "Unexpected Peer"},
	}
	return nil
}

func (p program) run(t *testing.T, mode string, flags ...string) *process {
	t.Helper()
	argv := append(slices.Clone(p.argv), mode, fmt.Sprintf("--timeout=%.0f", peerTimeout.Seconds()))
	return run(t, append(argv, flags...)...)
}

// A stack is a transport and, above it, a secure channel, where the transport does not have its own.
type stack struct{ transport, security string }

func (s stack) String() string { return strings.TrimSuffix(s.transport+"/"+s.security, "/") }

// listen is the address to listen on.
func (s stack) listen() string {
	return "/ip4/127.0.0.1" + map[string]string{
		"tcp": "/tcp/0", "ws": "/tcp/0/ws", "wss": "/tcp/0/tls/ws",
		"quic-v1": "/udp/0/quic-v1", "webtransport": "/udp/0/quic-v1/webtransport", "webrtc-direct": "/udp/0/webrtc-direct",
	}[s.transport]
}

func stacks() (all []stack) {
	for _, transport := range []string{"tcp", "ws", "wss"} {
		all = append(all, stack{transport, "noise"}, stack{transport, "tls"})
	}
	return append(all, stack{"quic-v1", ""}, stack{"webtransport", ""}, stack{"webrtc-direct", ""})
}

var securityIDs = map[string]string{"noise": "/noise", "tls": "/tls/1.0.0"}

// A pair is who dials whom.
type pair struct{ dialer, listener program }

func (p pair) String() string { return fmt.Sprintf("%s-dials-%s", p.dialer.name, p.listener.name) }

func kithPairs() []pair {
	return []pair{{kithPeer, goPeer}, {goPeer, kithPeer}, {kithPeer, jsPeer}, {jsPeer, kithPeer}}
}

// otherPairs are without Kith. When they fail too, it is the suite's fault or a peer's.
func otherPairs() []pair { return []pair{{goPeer, jsPeer}, {jsPeer, goPeer}} }

// TestPeers runs every exchange over one connection, for each pair, security and key type. Both sides have the same type of
// key, so each is shown and checked in both roles.
func TestPeers(t *testing.T) {
	for _, pair := range kithPairs() {
		testPair(t, pair, peercmd.KeyTypes)
	}
	for _, pair := range otherPairs() {
		testPair(t, pair, []string{"secp256k1"})
	}
}

func testPair(t *testing.T, pair pair, keyTypes []string) {
	t.Run(pair.String(), func(t *testing.T) {
		t.Parallel()
		for _, security := range []string{"noise", "tls"} {
			for _, keyType := range keyTypes {
				if slices.Contains(pair.dialer.keyTypes, keyType) && slices.Contains(pair.listener.keyTypes, keyType) {
					t.Run(fmt.Sprintf("tcp/%s/%s", security, keyType), func(t *testing.T) {
						testExchanges(t, pair, stack{"tcp", security}, keyType)
					})
				}
			}
		}
	})
}

// TestTransports is TestPeers over the other transports, with the key type that nearly everybody has.
func TestTransports(t *testing.T) {
	for _, pair := range append(kithPairs(), otherPairs()...) {
		t.Run(pair.String(), func(t *testing.T) {
			t.Parallel()
			for _, stack := range stacks() {
				if stack.transport != "tcp" && slices.Contains(pair.dialer.dials, stack.transport) && slices.Contains(pair.listener.listens, stack.transport) {
					t.Run(stack.String(), func(t *testing.T) { testExchanges(t, pair, stack, "ed25519") })
				}
			}
		})
	}
}

// testExchanges lets the dialer do everything that peercmd.Exchanges lists, and looks at what both report.
func testExchanges(t *testing.T, pair pair, stack stack, keyType string) {
	dialer, listener, security := pair.dialer, pair.listener, stack.security
	const (
		large = 64 << 20 // more than any window or buffer on the way
		small = 1 << 20  // more than a stream's first window of 256 KiB
	)
	size := small
	if keyType == "ed25519" && stack.transport == "tcp" {
		size = large
	}
	server := listener.run(t, "listen", "--listen="+stack.listen(), "--security="+security, "--key-type="+keyType)
	listening := await[peercmd.Listening](t, server)
	do := []string{"identify", "ping", "echo", "halfclose", "reset", "abort", "push", "perf"}
	switch {
	case stack.transport == "webrtc-direct" && dialer.name != "kith" && listener.name != "kith":
		// Between go-libp2p and js-libp2p the end of a stream gets lost now and then, be it closed or reset.
		do = do[:3]
	case slices.Contains(dialer.deaf, stack.transport):
		do = slices.DeleteFunc(do, func(name string) bool { return name == "reset" })
	}
	client := dialer.run(t, "dial", "--security="+security, "--key-type="+keyType, "--peer="+listening.Addrs[0],
		"--do="+strings.Join(do, ","), fmt.Sprintf("--bytes=%d", size), fmt.Sprintf("--download=%d", size))

	// The exchanges build on each other, so the first that fails is the last.
	step := func(name string, check func(*testing.T)) {
		if slices.Contains(peercmd.Exchanges, name) && !slices.Contains(do, name) {
			return
		}
		if !t.Run(name, check) {
			t.FailNow()
		}
	}
	var self peercmd.Listening // the dialer's
	var inbound peercmd.Connected
	step("connect", func(t *testing.T) {
		self = await[peercmd.Listening](t, client)
		dialed := await[peercmd.Dialed](t, client)
		if dialed.Peer != listening.Peer || dialed.Limited {
			t.Errorf("dialed %s, limited %v", dialed.Peer, dialed.Limited)
		}
		if security != "" && (dialed.Security != securityIDs[security] || dialed.Muxer != "/yamux/1.0.0") {
			t.Errorf("negotiated %s and %s", dialed.Security, dialed.Muxer)
		}
		inbound = await[peercmd.Connected](t, server)
		if inbound.Peer != self.Peer || inbound.Direction != "inbound" || inbound.Limited {
			t.Errorf("the listener sees %+v, want inbound, from %s", inbound, self.Peer)
		}
	})
	step("identify", func(t *testing.T) {
		checkIdentify(t, await[peercmd.Identify](t, client), dialer, listener, listening, keyType, inbound.Addr)
		told := await[peercmd.Identify](t, server)
		for len(told.ListenAddrs) == 0 { // go-libp2p can be asked before it knows its addresses; it pushes them then
			told = await[peercmd.Identify](t, server)
		}
		checkIdentify(t, told, listener, dialer, self, keyType, "")
	})
	step("ping", func(t *testing.T) { await[peercmd.Ping](t, client) })
	step("echo", func(t *testing.T) {
		if echo := await[peercmd.Echo](t, client); echo.Bytes != int64(size) {
			t.Errorf("%+v", echo)
		}
	})
	step("halfclose", func(t *testing.T) {
		if halfClose := await[peercmd.HalfClose](t, client); halfClose.Bytes != int64(size) {
			t.Errorf("%+v", halfClose)
		}
	})
	codes := dialer.codes && listener.codes && !slices.Contains(dialer.lost, stack.transport) && !slices.Contains(listener.lost, stack.transport)
	step("reset", func(t *testing.T) {
		checkCode(t, await[peercmd.Reset](t, client).Code, peercmd.ResetCode, codes)
	})
	step("abort", func(t *testing.T) {
		await[peercmd.Abort](t, client)
		if !listener.aborts || slices.Contains(listener.deaf, stack.transport) {
			return
		}
		aborted := await[peercmd.Aborted](t, server)
		if aborted.Protocol != peercmd.EchoProtocol {
			t.Errorf("the listener sees a reset of %s", aborted.Protocol)
		}
		checkCode(t, aborted.Code, peercmd.AbortCode, codes)
	})
	step("push", func(t *testing.T) { await[peercmd.Push](t, client) })
	step("perf", func(t *testing.T) {
		if perf := await[peercmd.Perf](t, client); perf.UploadBytes != int64(size) || perf.DownloadBytes != int64(size) {
			t.Errorf("%+v", perf)
		}
	})
	step("close", func(t *testing.T) {
		await[peercmd.Done](t, client)
		client.succeed(t)
		await[peercmd.Disconnected](t, server)
		server.terminate(t)
	})
}

// checkIdentify compares what reader was told with what the other side, who, is, which printed listening. An empty observed is
// not compared.
func checkIdentify(t *testing.T, got peercmd.Identify, reader, who program, listening peercmd.Listening, keyType, observed string) {
	t.Helper()
	if got.Peer != listening.Peer || got.KeyType != keyType || !strings.HasPrefix(got.Agent, who.agent) {
		t.Errorf("identified peer %s, key %s, agent %q; want %s, %s, %q", got.Peer, got.KeyType, got.Agent, listening.Peer, keyType, who.agent)
	}
	if want := reader.name == "kith" || reader.records == who.records; got.SignedRecord != want {
		t.Errorf("signed peer record: %v, want %v", got.SignedRecord, want)
	}
	for _, protocol := range []string{
		"/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0",
		peercmd.PerfProtocol, peercmd.EchoProtocol, peercmd.HalfCloseProtocol, peercmd.ResetProtocol,
	} {
		if !slices.Contains(got.Protocols, protocol) {
			t.Errorf("protocol %s is missing from %v", protocol, got.Protocols)
		}
	}
	var addrs []string
	for _, a := range listening.Addrs {
		addrs = append(addrs, withoutPeer(a))
	}
	if !slices.Equal(got.ListenAddrs, addrs) {
		t.Errorf("listen addresses %v, want %v", got.ListenAddrs, addrs)
	}
	if observed != "" && withoutPeer(got.Observed) != observed {
		t.Errorf("observed address %s, want %s", got.Observed, observed)
	}
}

func withoutPeer(addr string) string {
	addr, _, _ = strings.Cut(addr, "/p2p/")
	return addr
}

// checkCode wants the code where both sides carry codes; elsewhere a reset has code 0 or none.
func checkCode(t *testing.T, got *uint32, want uint32, codes bool) {
	t.Helper()
	switch {
	case !codes && got != nil && *got != 0:
		t.Errorf("code %d from a side that has none", *got)
	case codes && got == nil:
		t.Errorf("no code, want %d", want)
	case codes && *got != want:
		t.Errorf("code %d, want %d", *got, want)
	}
}

// TestManyStreams opens many streams at once, more than fit into the first flights.
func TestManyStreams(t *testing.T) {
	for _, pair := range append(kithPairs(), otherPairs()...) {
		t.Run(pair.String(), func(t *testing.T) {
			t.Parallel()
			const streams = 64 // what go-libp2p's default limits let one peer and protocol open
			server := pair.listener.run(t, "listen")
			peer := await[peercmd.Listening](t, server).Addrs[0]
			client := pair.dialer.run(t, "dial", "--peer="+peer, "--do=streams,ping", fmt.Sprintf("--streams=%d", streams), "--bytes=300000")
			if got := await[peercmd.Streams](t, client); got.Streams != streams {
				t.Errorf("%+v", got)
			}
			client.succeed(t)
			server.terminate(t)
		})
	}
}

// TestShortStreams sends so little that the proposal of the protocol, the data and the end of the stream can travel in one piece.
// js-libp2p as the listener resets streams whose end comes with the proposal, so Kith sends the end later.
func TestShortStreams(t *testing.T) {
	for _, pair := range kithPairs() {
		t.Run(pair.String(), func(t *testing.T) {
			t.Parallel()
			server := pair.listener.run(t, "listen")
			peer := await[peercmd.Listening](t, server).Addrs[0]
			client := pair.dialer.run(t, "dial", "--peer="+peer, "--do=echo,halfclose,perf,identify,echo,halfclose,perf", "--bytes=10", "--download=10")
			client.succeed(t)
			server.terminate(t)
		})
	}
}

// TestSecondChoice dials peers that refuse the dialer's first choice of a secure channel, which travels together with the
// first message of its handshake.
func TestSecondChoice(t *testing.T) {
	for _, pair := range kithPairs() {
		for _, security := range []string{"noise", "tls"} {
			t.Run(pair.String()+"/"+security, func(t *testing.T) {
				t.Parallel()
				server := pair.listener.run(t, "listen", "--security="+security)
				peer := await[peercmd.Listening](t, server).Addrs[0]
				client := pair.dialer.run(t, "dial", "--peer="+peer, "--do=ping,echo", "--bytes=1000")
				if got := await[peercmd.Dialed](t, client).Security; !strings.Contains(got, security) {
					t.Errorf("agreed on %s, want %s", got, security)
				}
				client.succeed(t)
				server.terminate(t)
			})
		}
	}
}

// TestWrongPeer dials an address with another peer's ID, which nobody may accept.
func TestWrongPeer(t *testing.T) {
	for _, pair := range kithPairs() {
		for _, security := range []string{"noise", "tls"} {
			t.Run(fmt.Sprintf("%s/tcp/%s", pair, security), func(t *testing.T) {
				t.Parallel()
				server := pair.listener.run(t, "listen")
				addr := withoutPeer(await[peercmd.Listening](t, server).Addrs[0])
				const other = "12D3KooWASf5dzsRVtjydi2D598E1hrY33DCFpsRyEp9TmZigJY3" // nobody has its key any more
				client := pair.dialer.run(t, "dial", "--security="+security, "--peer="+addr+"/p2p/"+other)
				<-client.exited
				told := slices.ContainsFunc(pair.dialer.mismatch, func(text string) bool { return strings.Contains(client.stderr.String(), text) })
				if client.err == nil || !told {
					t.Errorf("the dial ended with %v, want an error with one of %q", client.err, pair.dialer.mismatch)
				}
			})
		}
	}
}
