package main

import (
	"debug/buildinfo"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/kith-p2p/kith/bench/internal/worker"
)

// The loads, apart from what each run fills in.
var (
	noise = worker.NodeConfig{Security: "noise"}
	tls   = worker.NodeConfig{Security: "tls"}
	wide  = worker.NodeConfig{Security: "noise", Wide: true}

	quic         = worker.NodeConfig{Transport: worker.QUIC}
	wideQUIC     = worker.NodeConfig{Transport: worker.QUIC, Wide: true}
	websocket    = worker.NodeConfig{Transport: worker.WebSocket, Security: "noise"}
	webtransport = worker.NodeConfig{Transport: worker.WebTransport}
	webrtc       = worker.NodeConfig{Transport: worker.WebRTC}
)

// experiments lists everything, in the order in which it runs.
func experiments() []experiment {
	all := []experiment{
		{name: "noise-up", row: "bulk", about: "TCP, Noise, yamux; one stream, client to server",
			run: measured(worker.Load{Kind: worker.Bulk, Node: noise}, bulkFigures)},
		{name: "noise-down", row: "bulk", about: "the same, server to client",
			run: measured(worker.Load{Kind: worker.Bulk, Node: noise, Download: true}, bulkFigures)},
		{name: "tls-up", row: "bulk", about: "TCP, TLS, yamux; one stream, client to server",
			run: measured(worker.Load{Kind: worker.Bulk, Node: tls}, bulkFigures)},
		{name: "tls-down", row: "bulk", about: "the same, server to client",
			run: measured(worker.Load{Kind: worker.Bulk, Node: tls, Download: true}, bulkFigures)},
		{name: "limit-tcp", row: "bulk", impls: []string{limits},
			run: measured(worker.Load{Kind: worker.Bulk, Node: worker.NodeConfig{Security: "tcp"}}, bulkFigures)},
		{name: "limit-tls", row: "bulk", impls: []string{limits},
			run: measured(worker.Load{Kind: worker.Bulk, Node: tls}, bulkFigures)},
		{name: "limit-noise", row: "bulk", impls: []string{limits},
			run: measured(worker.Load{Kind: worker.Bulk, Node: noise, Chunk: maxRecord}, bulkFigures)},

		{name: "streams-64", row: "streams", about: "64 at once on one connection: a stream opened, 1 byte there and back, both ends closed",
			run: measured(worker.Load{Kind: worker.Streams, Node: noise, Parallel: 64}, streamFigures)},
		{name: "streams-1", row: "streams", about: "the same, one at a time",
			run: measured(worker.Load{Kind: worker.Streams, Node: noise, Parallel: 1}, streamFigures)},

		{name: "parallel", row: "parallel", about: "one connection: 64 streams against one, and one beside a stream that nobody reads", run: runParallel},

		{name: "dial", row: "dial", about: "16 at once: connected, 1 byte there and back on a stream, closed, as soon as the implementation lets its user",
			run: measured(worker.Load{Kind: worker.Dial, Node: noise, Parallel: 16, Nodes: dialNodes}, dialFigures)},
		{name: "dial-identified", row: "dial", about: "the same, but the client always waits for the answer of identify; go-libp2p never does otherwise",
			run: measured(worker.Load{Kind: worker.Dial, Node: noise, Parallel: 16, Nodes: dialNodes, Identified: true}, dialFigures)},

		{name: "dial-dead", row: "dial-dead", about: "a peer with ten addresses of which nine are dead, the live one at each place in turn: from new nodes, and again from one that has dialed it before; beside dials at the live address alone, from new nodes",
			run: func(b *bench, impl string) (figures, error) { return runDead(b, impl, noise) }},
		{name: "quic-dial-dead", row: "dial-dead", about: "the same over QUIC",
			run: func(b *bench, impl string) (figures, error) { return runDead(b, impl, quic) }},

		{name: "rtt", row: "rtt", about: "a new process connects over a link of 100 ms a round trip",
			run: measured(worker.Load{Kind: worker.First, Node: noise}, rttFigures)},

		{name: "memory-conn", row: "memory", about: "idle connections that a node has accepted, from as many nodes of Kith in another process",
			run: func(b *bench, impl string) (figures, error) { return runConns(b, impl, noise, b.Conns) }},
		{name: "memory-stream", row: "memory", about: "idle streams on one connection; the acceptor has a handler waiting on each",
			run: func(b *bench, impl string) (figures, error) { return runStreams(b, impl, b.Streams) }},

		{name: "quic-up", row: "quic", about: "QUIC; one stream, client to server",
			run: measured(worker.Load{Kind: worker.Bulk, Node: quic}, overUDP(bulkFigures))},
		{name: "quic-down", row: "quic", about: "the same, server to client",
			run: measured(worker.Load{Kind: worker.Bulk, Node: quic, Download: true}, overUDP(bulkFigures))},
		{name: "limit-quic", row: "quic", impls: []string{limits},
			run: measured(worker.Load{Kind: worker.Bulk, Node: quic}, overUDP(bulkFigures))},
		{name: "quic-streams-64", row: "quic", about: "64 at once on one connection: a stream opened, 1 byte there and back, both ends closed",
			run: measured(worker.Load{Kind: worker.Streams, Node: quic, Parallel: 64}, overUDP(streamFigures))},
		{name: "limit-quic-streams-64", row: "quic", impls: []string{limits},
			run: measured(worker.Load{Kind: worker.Streams, Node: quic, Parallel: 64}, overUDP(streamFigures))},
		{name: "quic-rtt", row: "quic", about: "a new process connects over a link of 100 ms a round trip",
			run: measured(worker.Load{Kind: worker.First, Node: quic}, rttFigures)},
		{name: "quic-memory-conn", row: "quic", once: true, about: "idle connections that a node has accepted, from as many nodes of Kith in another process",
			run: func(b *bench, impl string) (figures, error) { return runConns(b, impl, quic, b.Conns) }},
		{name: "quic-stream-limit", row: "quic", once: true, about: "how many of 10,000 streams a server with no limit of its own lets a client have open on one connection", run: runStreamLimit},

		{name: "ws-up", row: "ws", about: "WebSocket, Noise, yamux; one stream, client to server",
			run: measured(worker.Load{Kind: worker.Bulk, Node: websocket}, bulkFigures)},
		{name: "ws-down", row: "ws", about: "the same, server to client",
			run: measured(worker.Load{Kind: worker.Bulk, Node: websocket, Download: true}, bulkFigures)},

		{name: "webtransport-up", row: "webtransport", about: "WebTransport; one stream, client to server",
			run: measured(worker.Load{Kind: worker.Bulk, Node: webtransport}, overUDP(bulkFigures))},
		{name: "webtransport-down", row: "webtransport", about: "the same, server to client",
			run: measured(worker.Load{Kind: worker.Bulk, Node: webtransport, Download: true}, overUDP(bulkFigures))},

		{name: "webrtc-up", row: "webrtc", about: "WebRTC-direct; one stream, client to server",
			run: measured(worker.Load{Kind: worker.Bulk, Node: webrtc}, overUDP(bulkFigures))},
		{name: "webrtc-down", row: "webrtc", about: "the same, server to client",
			run: measured(worker.Load{Kind: worker.Bulk, Node: webrtc, Download: true}, overUDP(bulkFigures))},

		{name: "scale-conn", row: "scale", once: true, about: "idle connections, few and many", run: runScaleConns},
		{name: "scale-stream", row: "scale", once: true, about: "idle streams on one connection, few and many", run: runScaleStreams},

		{name: "size", row: "size", once: true, about: "a program with host, TCP, Noise and yamux, built with -ldflags='-s -w'",
			run: func(b *bench, impl string) (figures, error) { return sizeOf(b.binary("minimal-" + impl)) }},
		{name: "size-node", row: "size", once: true, about: "a program with a node of all defaults, built the same way",
			run: func(b *bench, impl string) (figures, error) { return sizeOf(b.binary("node-" + impl)) }},

		{name: "start", row: "start", about: "the first of these programs, from exec to the line that tells its address",
			run: func(b *bench, impl string) (figures, error) { return runStart(b, "minimal-"+impl) }},
		{name: "start-node", row: "start", about: "the second",
			run: func(b *bench, impl string) (figures, error) { return runStart(b, "node-"+impl) }},
	}
	for i := range all {
		if all[i].impls == nil {
			all[i].impls = []string{kith, golibp2p}
		}
	}
	return all
}

// dialNodes is how many nodes dial, enough for about three seconds.
const dialNodes = 512

// maxRecord is what a full record of Noise carries, in bytes.
const maxRecord = 1<<16 - 1 - 16

func bulkFigures(w window, load worker.Load) figures {
	sender, receiver := w.Client, w.Server
	if load.Download {
		sender, receiver = receiver, sender
	}
	gib, pieces := w.Result.Work/(1<<30), w.Result.Work/(64<<10)
	return figures{
		{"MiB/s", w.Result.Work / (1 << 20) / w.Result.Elapsed.Seconds()},
		{"CPU s/GiB, both ends", (sender.CPU + receiver.CPU).Seconds() / gib},
		{"CPU s/GiB, sender", sender.CPU.Seconds() / gib},
		{"CPU s/GiB, receiver", receiver.CPU.Seconds() / gib},
		{"write calls per 64 KiB, sender", float64(sender.Writes) / pieces},
		{"read calls per 64 KiB, receiver", float64(receiver.Reads) / pieces},
		{"read calls per 64 KiB, sender", float64(sender.Reads) / pieces},
		{"write calls per 64 KiB, receiver", float64(receiver.Writes) / pieces},
		{"allocations per MiB, both ends", float64(sender.Mallocs+receiver.Mallocs) / (gib * 1024)},
	}
}

// overUDP leaves out what cannot be told: /proc/self/io counts no calls that read or write packets.
func overUDP(figuresOf func(window, worker.Load) figures) func(window, worker.Load) figures {
	return func(w window, load worker.Load) figures {
		return slices.DeleteFunc(figuresOf(w, load), func(f figure) bool {
			return strings.HasPrefix(f.Name, "read calls") || strings.HasPrefix(f.Name, "write calls")
		})
	}
}

func streamFigures(w window, _ worker.Load) figures { return operationFigures(w) }

func dialFigures(w window, _ worker.Load) figures { return operationFigures(w) }

func operationFigures(w window) figures {
	n := w.Result.Work
	micros := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
	return figures{
		{"per second", n / w.Result.Elapsed.Seconds()},
		{"CPU µs, both ends", micros(w.Client.CPU+w.Server.CPU) / n},
		{"ms, median", micros(w.Result.P50) / 1000},
		{"ms, 99th percentile", micros(w.Result.P99) / 1000},
		{"CPU µs, client", micros(w.Client.CPU) / n},
		{"CPU µs, server", micros(w.Server.CPU) / n},
		{"allocations, client", float64(w.Client.Mallocs) / n},
		{"allocations, server", float64(w.Server.Mallocs) / n},
		{"bytes allocated, client", float64(w.Client.AllocBytes) / n},
		{"bytes allocated, server", float64(w.Server.AllocBytes) / n},
		{"read calls, client", float64(w.Client.Reads) / n},
		{"read calls, server", float64(w.Server.Reads) / n},
		{"write calls, client", float64(w.Client.Writes) / n},
		{"write calls, server", float64(w.Server.Writes) / n},
	}
}

func runDead(b *bench, impl string, node worker.NodeConfig) (got figures, err error) {
	node.IP = "0.0.0.0"
	load := worker.Load{Kind: worker.Dead, Node: node}
	err = inDeadNetwork(func() error {
		w, err := b.measure(impl, load)
		if err != nil {
			return err
		}
		ms := func(d time.Duration) float64 { return d.Seconds() * 1000 }
		m := w.Result.Moments
		alone, cold, coldWorst, known, knownWorst := m[0], m[1], m[2], m[3], m[4]
		got = figures{
			{"ms, cold, beyond one handshake", ms(cold - alone)},
			{"known against the live one alone", float64(known) / float64(alone)},
			{"ms, the live one alone", ms(alone)},
			{"ms, cold", ms(cold)},
			{"ms, cold, at the worst place", ms(coldWorst)},
			{"ms, known", ms(known)},
			{"ms, known, the longest", ms(knownWorst)},
		}
		return nil
	})
	return got, err
}

func runParallel(b *bench, impl string) (figures, error) {
	load := worker.Load{Kind: worker.Parallel, Node: noise, Parallel: 1}
	one, err := b.measure(impl, load)
	if err != nil {
		return nil, err
	}
	load.Parallel = 64
	many, err := b.measure(impl, load)
	if err != nil {
		return nil, err
	}
	load.Parallel, load.Stalled = 1, 1
	beside, err := b.measure(impl, load)
	if err != nil {
		return nil, err
	}
	rate := func(w window) float64 { return w.Result.Work / (1 << 20) / w.Result.Elapsed.Seconds() }
	shares := spreadOf(many.Result.Shares)
	mean := many.Result.Work / float64(len(many.Result.Shares))
	return figures{
		{"MiB/s, one stream", rate(one)},
		{"MiB/s, 64 streams", rate(many)},
		{"64 streams against one", rate(many) / rate(one)},
		{"least share of 64 against the mean", shares.Min / mean},
		{"greatest share of 64 against the mean", shares.Max / mean},
		{"one beside one that is not read, against alone", rate(beside) / rate(one)},
	}, nil
}

// roundTrip is what the delaying link takes: long against all that is computed.
const roundTrip = 100 * time.Millisecond

// target is where a load's client connects.
func (b *bench) target(load worker.Load, addr string) (string, error) {
	if load.Kind != worker.First {
		return addr, nil
	}
	network, server, rest, err := splitAddr(addr)
	if err != nil {
		return "", err
	}
	var proxy interface{ addr() string } // until this process ends
	if network == "tcp" {
		proxy, err = listenProxy(server, roundTrip)
	} else {
		proxy, err = listenPacketProxy(server, roundTrip)
	}
	if err != nil {
		return "", err
	}
	host, port, err := net.SplitHostPort(proxy.addr())
	return fmt.Sprintf("/ip4/%s/%s/%s/%s", host, network, port, rest), err
}

// splitAddr takes /ip4/HOST/NETWORK/PORT/REST apart.
func splitAddr(addr string) (network, server, rest string, err error) {
	parts := strings.SplitN(addr, "/", 6)
	if len(parts) != 6 || parts[1] != "ip4" || parts[3] != "tcp" && parts[3] != "udp" {
		return "", "", "", fmt.Errorf("%q is not /ip4/…/tcp/… or /ip4/…/udp/…", addr)
	}
	return parts[3], net.JoinHostPort(parts[2], parts[4]), parts[5], nil
}

func rttFigures(w window, _ worker.Load) figures {
	trips := func(d time.Duration) float64 { return d.Seconds() / roundTrip.Seconds() }
	m := w.Result.Moments
	return figures{
		{"round trips to the first answer", trips(m[0] + m[1])},
		{"round trips until connected", trips(m[0])},
		{"round trips to the answer on the next stream", trips(m[2])},
	}
}

// warmCount is how many connections or streams come before a measurement of memory,
// so that what is needed once does not count.
const warmCount = 50

// few is the number with which the cost of one among many is compared.
const few = 100

// A population grows: connections with one node, or streams on one connection.
type population struct {
	b       *bench
	watched []*process // of which the memory is measured
	grower  *process
	base    []worker.Held
	count   int
}

func (p *population) stop() {
	for _, w := range p.watched {
		w.stop()
	}
	p.grower.stop()
}

// newPopulation starts a server of impl and a client of another, or the same,
// implementation, which runs load.
func (b *bench) newPopulation(impl, clientImpl string, load worker.Load, watchClient bool) (*population, error) {
	node := load.Node
	node.Wide = true
	server, addr, err := b.server(impl, node)
	if err != nil {
		return nil, err
	}
	load.Node, load.To, load.Parallel = node, addr, 32
	client, err := b.client(clientImpl, load)
	if err != nil {
		server.stop()
		return nil, err
	}
	p := &population{b: b, watched: []*process{server}, grower: client}
	if watchClient {
		p.watched = append(p.watched, client)
	}
	if err = p.add(warmCount); err == nil {
		p.base, err = p.held()
	}
	if err != nil {
		p.stop()
		return nil, err
	}
	p.count = 0
	return p, nil
}

func (p *population) add(n int) error {
	p.count += n
	_, err := p.grower.call(worker.Command{Do: worker.Run, Count: n})
	return err
}

func (p *population) held() (all []worker.Held, err error) {
	time.Sleep(p.b.Settle)
	for _, w := range p.watched {
		reply, err := w.call(worker.Command{Do: worker.Memory})
		if err != nil {
			return nil, err
		}
		all = append(all, *reply.Held)
	}
	return all, nil
}

// each is what one of the population costs each watched process.
func (p *population) each() ([]cost, error) {
	now, err := p.held()
	if err != nil {
		return nil, err
	}
	costs := make([]cost, len(now))
	for i := range now {
		per := func(now, base uint64) float64 { return (float64(now) - float64(base)) / float64(p.count) }
		costs[i] = cost{
			rss:        per(now[i].RSS, p.base[i].RSS),
			heapInuse:  per(now[i].HeapInuse, p.base[i].HeapInuse),
			heapLive:   per(now[i].HeapLive, p.base[i].HeapLive),
			stacks:     per(now[i].Stacks, p.base[i].Stacks),
			goroutines: per(uint64(now[i].Goroutines), uint64(p.base[i].Goroutines)),
		}
	}
	return costs, nil
}

// A cost is in bytes, but for the goroutines.
type cost struct{ rss, heapInuse, heapLive, stacks, goroutines float64 }

func (c cost) figures(whose string) figures {
	return figures{
		{"bytes resident" + whose, c.rss},
		{"goroutines" + whose, c.goroutines},
		{"bytes of heap in use" + whose, c.heapInuse},
		{"bytes of live objects" + whose, c.heapLive},
		{"bytes of stacks" + whose, c.stacks},
	}
}

func runConns(b *bench, impl string, node worker.NodeConfig, n int) (figures, error) {
	p, err := b.newPopulation(impl, kith, worker.Load{Kind: worker.Crowd, Node: node}, false)
	if err != nil {
		return nil, err
	}
	defer p.stop()
	if err := p.add(n); err != nil {
		return nil, err
	}
	costs, err := p.each()
	if err != nil {
		return nil, err
	}
	return costs[0].figures(""), nil
}

func runStreams(b *bench, impl string, n int) (figures, error) {
	p, err := b.newPopulation(impl, impl, worker.Load{Kind: worker.Hold, Node: wide}, true)
	if err != nil {
		return nil, err
	}
	defer p.stop()
	if err := p.add(n); err != nil {
		return nil, err
	}
	costs, err := p.each()
	if err != nil {
		return nil, err
	}
	return append(costs[1].figures(", opener"), costs[0].figures(", acceptor")...), nil
}

const (
	manyStreams = 10_000
	// patience is for how long no stream opens when a server allows no more; each is
	// allowed a fraction of a millisecond after the one before.
	patience = 2 * time.Second
)

func runStreamLimit(b *bench, impl string) (figures, error) {
	server, addr, err := b.server(impl, wideQUIC)
	if err != nil {
		return nil, err
	}
	defer server.stop()
	client, err := b.client(impl, worker.Load{Kind: worker.Hold, Node: wideQUIC, To: addr, Parallel: 32, Patience: patience})
	if err != nil {
		return nil, err
	}
	defer client.stop()
	ran, err := client.call(worker.Command{Do: worker.Run, Count: manyStreams})
	if err != nil {
		return nil, err
	}
	return figures{{"streams open at once", ran.Result.Work}}, nil
}

func runScaleConns(b *bench, impl string) (figures, error) {
	p, err := b.newPopulation(impl, kith, worker.Load{Kind: worker.Crowd, Node: noise}, false)
	if err != nil {
		return nil, err
	}
	defer p.stop()
	costs, err := p.scale(b.ScaleConns)
	if err != nil {
		return nil, err
	}
	server := p.watched[0]
	if _, err := server.call(worker.Command{Do: worker.Begin}); err != nil {
		return nil, err
	}
	time.Sleep(b.Idle)
	idle, err := server.call(worker.Command{Do: worker.End})
	if err != nil {
		return nil, err
	}
	got := scaleFigures(costs, 0, "")
	return append(got, figure{"% of a core when idle, all connections", 100 * idle.Usage.CPU.Seconds() / b.Idle.Seconds()}), nil
}

func runScaleStreams(b *bench, impl string) (figures, error) {
	p, err := b.newPopulation(impl, impl, worker.Load{Kind: worker.Hold, Node: wide}, true)
	if err != nil {
		return nil, err
	}
	defer p.stop()
	costs, err := p.scale(b.ScaleStreams)
	if err != nil {
		return nil, err
	}
	return append(scaleFigures(costs, 1, ", opener"), scaleFigures(costs, 0, ", acceptor")...), nil
}

// scale gives the costs of each of few, and of each of n.
func (p *population) scale(n int) (costs [2][]cost, err error) {
	for i, target := range []int{few, n} {
		if err := p.add(target - p.count); err != nil {
			return costs, err
		}
		if costs[i], err = p.each(); err != nil {
			return costs, err
		}
	}
	return costs, nil
}

// scaleFigures compares by heap and stacks: of few, resident memory says little.
func scaleFigures(costs [2][]cost, process int, whose string) figures {
	few, many := costs[0][process], costs[1][process]
	return figures{
		{"bytes of heap and stacks" + whose + ", of few", few.heapLive + few.stacks},
		{"bytes of heap and stacks" + whose + ", of many", many.heapLive + many.stacks},
		{"of many against of few" + whose, (many.heapLive + many.stacks) / (few.heapLive + few.stacks)},
		{"bytes resident" + whose + ", of many", many.rss},
	}
}

func sizeOf(path string) (figures, error) {
	file, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return figures{
		{"MB", float64(file.Size()) / 1e6},
		{"modules linked besides its own", float64(len(info.Deps))},
	}, nil
}

const (
	starts   = 5               // of a program in one run
	idleWait = 3 * time.Second // from its start to the measurement of its memory
)

func runStart(b *bench, program string) (figures, error) {
	var wall, cpu []float64
	var rss uint64
	for i := range starts {
		cmd := exec.Command(b.binary(program))
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		begin := time.Now()
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		_, err = stdout.Read(make([]byte, 1))
		took := time.Since(begin)
		last := i == starts-1
		if last && err == nil {
			time.Sleep(min(idleWait, b.Settle))
			rss, err = worker.RSS(cmd.Process.Pid)
		}
		cmd.Process.Kill()
		cmd.Wait()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", program, err)
		}
		wall = append(wall, took.Seconds()*1000)
		if !last {
			cpu = append(cpu, (cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime()).Seconds()*1000)
		}
	}
	return figures{
		{"ms to listening", spreadOf(wall).Median},
		{"MiB resident when idle", float64(rss) / (1 << 20)},
		{"CPU ms to listening", spreadOf(cpu).Median},
	}, nil
}
