package transporttest

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/identify"
	"github.com/kith-p2p/kith/internal/testkit"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// A closing is what a part of Closing makes its states of.
type closing struct {
	t     *testing.T
	c     Case
	limit host.Limits
	// hook is told of the stages of connections, of those that are dialed and of those
	// that are accepted, by all hosts.
	hook func(dials bool, s host.Stage)

	mu    sync.Mutex
	hosts []*host.Host
}

// Closing closes hosts in all states in which they can be: each within a second, with
// no error and without a goroutine that is left.
func Closing(t *testing.T, c Case) {
	c = c.withDefaults()
	for name, state := range map[string]func(*closing){
		"new":                       func(p *closing) { p.host() },
		"connected":                 func(p *closing) { p.connected() },
		"nobody answers":            func(p *closing) { p.dialing(p.silent()) },
		"a name is looked up":       func(p *closing) { p.dialing(multiaddr.MustParse("/dnsaddr/never.example")) },
		"remotes are silent":        (*closing).silentRemotes,
		"writers wait for credit":   func(p *closing) { p.blocked(1) },
		"many writers wait":         func(p *closing) { p.blocked(50) },
		"handlers write, none read": (*closing).unread,
		"handlers wait to read":     (*closing).waiting,
		"streams without a word":    (*closing).unsaid,
		"streams come and go":       (*closing).busy,
		"events are not read":       (*closing).deaf,
		"too many connections":      (*closing).trimming,
		"two connections":           func(p *closing) { p.twice(0) },
		"one of two is asked about": func(p *closing) { p.twice(3100 * time.Millisecond) },
		"one of two has yielded":    func(p *closing) { p.twice(3600 * time.Millisecond) },
		"the other side closes too": (*closing).both,
	} {
		t.Run(name, func(t *testing.T) {
			nothingLeft(t)
			p := &closing{t: t, c: c}
			defer p.closeAll()
			state(p)
		})
	}
	for stage := host.StageOpened; stage <= host.StageMuxed; stage++ {
		for _, dials := range []bool{true, false} {
			name := "accepting: " + stage.String()
			if dials {
				name = "dialing: " + stage.String()
			}
			t.Run(name, func(t *testing.T) {
				nothingLeft(t)
				p := &closing{t: t, c: c}
				defer p.closeAll()
				p.atStage(dials, stage)
			})
		}
	}
}

// closeAll closes the hosts in the order in which they were made.
func (p *closing) closeAll() {
	for _, h := range p.hosts {
		p.close(h)
	}
}

func (p *closing) close(h *host.Host) {
	took := testkit.Took(func() {
		if err := h.Close(); err != nil {
			p.t.Errorf("closing: %v", err)
		}
	})
	if took > closeLimit {
		p.t.Errorf("closing took %v", took)
	}
	p.t.Logf("closed within %v", took.Round(time.Millisecond))
}

// host makes a host that listens.
func (p *closing) host() *host.Host {
	n := p.c.node(p.t)
	h, err := host.New(host.Config{Identity: n.key, Transports: []host.Transport{hooked{n.Transport, p}}, Limits: p.limit, Resolver: neverResolves{}})
	check(p.t, err)
	p.mu.Lock()
	p.hosts = append(p.hosts, h)
	p.mu.Unlock()
	identify.Start(h, identify.Config{AgentVersion: "kith"})
	check(p.t, h.Listen(p.c.Listen(p.t)[0]))
	h.Handle("/hang/1", func(ctx context.Context, s *host.Stream) error {
		<-ctx.Done() // does not read
		return nil
	})
	h.Handle("/read/1", func(_ context.Context, s *host.Stream) error {
		_, err := io.Copy(io.Discard, s)
		return err
	})
	h.Handle("/write/1", func(_ context.Context, s *host.Stream) error {
		for {
			if _, err := s.Write(make([]byte, 64<<10)); err != nil {
				return err
			}
		}
	})
	return h
}

func (p *closing) info(h *host.Host) peer.AddrInfo {
	return peer.AddrInfo{ID: h.ID(), Addrs: []multiaddr.Addr{p.c.Dial(h.Addrs()[0])}}
}

// connected makes two hosts that are connected.
func (p *closing) connected() (a, b *host.Host) {
	a, b = p.host(), p.host()
	seen := b.Subscribe(16)
	defer seen.Close()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	_, err := a.Connect(ctx, p.info(b))
	check(p.t, err)
	for len(b.ConnsTo(a.ID())) == 0 {
		<-seen.Events()
	}
	return a, b
}

func (p *closing) open(from, to *host.Host, proto host.ProtocolID) *host.Stream {
	s, err := from.NewStream(p.t.Context(), to.ID(), proto)
	check(p.t, err)
	return s
}

// silent is an address at which somebody listens and says nothing.
func (p *closing) silent() multiaddr.Addr {
	listen := p.c.Listen(p.t)[0]
	_, rest := listen.SplitFirst()
	_, rest = rest.SplitFirst()
	if listen.Has(multiaddr.UDP) {
		conn, err := net.ListenPacket("udp", "127.0.0.1:0")
		check(p.t, err)
		p.t.Cleanup(func() { conn.Close() })
		ap := conn.LocalAddr().(*net.UDPAddr).AddrPort()
		return multiaddr.Join(multiaddr.FromAddrPort(multiaddr.UDP, ap), rest)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(p.t, err)
	p.t.Cleanup(func() { l.Close() })
	return multiaddr.Join(multiaddr.FromAddrPort(multiaddr.TCP, l.Addr().(*net.TCPAddr).AddrPort()), rest)
}

// dialing has a host dial.
func (p *closing) dialing(addr multiaddr.Addr) {
	h := p.host()
	for _, connect := range []func(context.Context, peer.AddrInfo) (*host.Conn, error){h.Connect, h.ConnectBackground} {
		id := p.c.node(p.t).id
		go func() {
			if _, err := connect(context.Background(), peer.AddrInfo{ID: id, Addrs: []multiaddr.Addr{addr}}); err == nil {
				p.t.Error("connected")
			}
		}()
	}
	time.Sleep(20 * time.Millisecond)
}

// silentRemotes has clients that say nothing, or stop in the middle of a word.
func (p *closing) silentRemotes() {
	h := p.host()
	ap, _, _ := h.Addrs()[0].AddrPort()
	network := "tcp"
	if h.Addrs()[0].Has(multiaddr.UDP) {
		network = "udp"
	}
	for _, text := range []string{"", "\x13/multistream/1.0.0\n", "\x13/multistream/1.0.0\n\x07/noise\n", "\x13/multistream/1.0.0\n\x07/noise\n\x00\x20half of it"} {
		conn, err := net.Dial(network, ap.String())
		check(p.t, err)
		p.t.Cleanup(func() { conn.Close() })
		_, err = io.WriteString(conn, text)
		check(p.t, err)
	}
	time.Sleep(20 * time.Millisecond)
}

// blocked has streams whose remote does not read.
func (p *closing) blocked(streams int) {
	a, b := p.connected()
	var full sync.WaitGroup
	for range streams {
		s := p.open(a, b, "/hang/1")
		s.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		full.Go(func() {
			var err error
			for err == nil {
				_, err = s.Write(make([]byte, 64<<10))
			}
			s.SetWriteDeadline(time.Time{})
			go s.Write(make([]byte, 1<<20))
		})
	}
	full.Wait()
}

// unread has handlers on both sides whose remote does not read.
func (p *closing) unread() {
	a, b := p.connected()
	for range 3 { // more can fill the window of a whole connection
		for _, s := range []*host.Stream{p.open(a, b, "/write/1"), p.open(b, a, "/write/1")} {
			s.SetReadDeadline(time.Now().Add(patience))
			if _, err := s.Read(make([]byte, 1)); err != nil {
				p.t.Error(err)
			}
		}
	}
	time.Sleep(100 * time.Millisecond)
}

// waiting has handlers that wait for the remote, or for the end.
func (p *closing) waiting() {
	a, b := p.connected()
	for _, proto := range []host.ProtocolID{"/read/1", "/hang/1"} {
		for range 10 {
			for _, s := range []*host.Stream{p.open(a, b, proto), p.open(b, a, proto)} {
				if _, err := s.Write([]byte("x")); err != nil {
					p.t.Error(err)
				}
			}
		}
	}
	for range 10 { // and who opened them waits to read
		s := p.open(a, b, "/hang/1")
		go io.Copy(io.Discard, s)
	}
}

// unsaid has streams that are open on one side only, and some that end.
func (p *closing) unsaid() {
	a, b := p.connected()
	for range 10 {
		p.open(a, b, "/read/1")
		p.open(b, a, "/read/1").Close()
	}
}

// busy has streams that are opened and closed all the time.
func (p *closing) busy() {
	a, b := p.connected()
	for range 8 {
		go func() {
			for {
				s, err := a.NewStream(context.Background(), b.ID(), "/read/1")
				if err != nil {
					return
				}
				s.Write([]byte("x"))
				s.Close()
			}
		}()
	}
	time.Sleep(50 * time.Millisecond)
}

// deaf has a subscriber and a goroutine of the host that do not read.
func (p *closing) deaf() {
	a, _ := p.connected()
	a.Subscribe(1)
	events := a.Subscribe(1)
	a.Go(func(ctx context.Context) {
		<-ctx.Done()
		events.Close()
	})
}

// trimming has a host that closes connections.
func (p *closing) trimming() {
	p.limit = host.Limits{Conns: 12, HighWater: 4, LowWater: 2, Grace: -1}
	h := p.host()
	p.limit = host.Limits{}
	for range 10 {
		other := p.host()
		ctx, cancel := context.WithTimeout(p.t.Context(), patience)
		_, err := other.Connect(ctx, p.info(h))
		cancel()
		check(p.t, err)
	}
	time.Sleep(950 * time.Millisecond) // it looks after them every second
}

// twice has two hosts that dialed each other.
func (p *closing) twice(later time.Duration) {
	a, b := p.host(), p.host()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	var both sync.WaitGroup
	both.Go(func() { a.Connect(ctx, p.info(b)) })
	both.Go(func() { b.Connect(ctx, p.info(a)) })
	both.Wait()
	time.Sleep(later)
}

// both closes two hosts at the same time, each twice.
func (p *closing) both() {
	a, b := p.connected()
	p.open(a, b, "/hang/1").Write([]byte("x"))
	var all sync.WaitGroup
	for _, h := range []*host.Host{a, b, a, b} {
		all.Go(func() { p.close(h) })
	}
	all.Wait()
}

// atStage begins a connection and closes one of its hosts when it has come to a stage.
func (p *closing) atStage(dials bool, stage host.Stage) {
	reached := make(chan struct{})
	var once sync.Once
	p.hook = func(d bool, s host.Stage) {
		if d == dials && s >= stage {
			once.Do(func() { close(reached) })
		}
	}
	a, b := p.host(), p.host()
	go a.Connect(context.Background(), p.info(b))
	select {
	case <-reached:
	case <-time.After(patience):
		p.t.Error("the stage was not reached")
	}
	if !dials {
		p.hosts = []*host.Host{b, a}
	}
}

// neverResolves is a resolver whose servers do not answer.
type neverResolves struct{}

func (neverResolves) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (neverResolves) LookupTXT(ctx context.Context, _ string) ([]string, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// hooked tells of the stages of its connections.
type hooked struct {
	host.Transport
	p *closing
}

func (h hooked) told(dials bool, progress func(host.Stage)) func(host.Stage) {
	return func(s host.Stage) {
		progress(s)
		if h.p.hook != nil {
			h.p.hook(dials, s)
		}
	}
}

func (h hooked) Dial(ctx context.Context, addr multiaddr.Addr, p peer.ID, progress func(host.Stage)) (host.TransportConn, error) {
	return h.Transport.Dial(ctx, addr, p, h.told(true, progress))
}

func (h hooked) Listen(addr multiaddr.Addr) (host.TransportListener, error) {
	l, err := h.Transport.Listen(addr)
	return hookedListener{l, h}, err
}

type hookedListener struct {
	host.TransportListener
	h hooked
}

func (l hookedListener) Accept() (host.Incoming, error) {
	in, err := l.TransportListener.Accept()
	return hookedIncoming{in, l.h}, err
}

type hookedIncoming struct {
	host.Incoming
	h hooked
}

func (i hookedIncoming) Upgrade(ctx context.Context, progress func(host.Stage)) (host.TransportConn, error) {
	return i.Incoming.Upgrade(ctx, i.h.told(false, progress))
}
