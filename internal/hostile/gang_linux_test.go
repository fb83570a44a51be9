package hostile

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// An order is what a gang of attackers is to do.
type order struct {
	Attack string // a name in attacks
	Stage  string // of the attack "stages"
	Addr   netip.AddrPort
	From   []netip.Addr // where they come from, in turns
	N      int          // how many of them
	Rate   int          // how many begin in a second
	More   int          // how many begin in each second after the first N, until the end

	Bytes []byte // of the attack "streams": what is said on each stream, from the proposal on
	Flags uint16 // of the frame with them
	Reset bool   // the stream is reset at once
	Again bool   // whoever is sent away comes again
	Wait  bool   // all have their sessions, and say "ready", before one begins

	Over   string // of the attacks in onslaught_linux_test.go: "tcp" or "quic"
	Memory int    // of "serve": the budget, in MiB
	Whole  bool   // of "serve": a node, not a host with one transport
}

// orderEnv holds the order of a process that is a gang.
const orderEnv = "KITH_HOSTILE_ORDER"

// told is what the test says to this process after it has begun.
var told = make(chan string)

// A gang runs as a process of its own, so that what it does to the victim's
// process is the victim's, and its sockets do not count there. The process is
// this test binary.
func TestMain(m *testing.M) {
	text := os.Getenv(orderEnv)
	if text == "" {
		runtime.MemProfileRate = profileRate
		os.Exit(m.Run())
	}
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		fmt.Println("failed", err)
		os.Exit(1)
	}
	stdin := bufio.NewScanner(os.Stdin)
	stdin.Scan() // it says when to begin
	go func() {
		for stdin.Scan() {
			told <- stdin.Text()
		}
		hangUp() // the test says so, or has died
		os.Exit(0)
	}()
	if err := attacks[o.Attack](o); err != nil {
		fmt.Println("failed", err)
	}
	select {} // until stdin ends
}

// A gang is such a process, seen from the test.
type gang struct {
	t     testing.TB
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string
	once  sync.Once
}

// hire starts a gang; it waits for begin.
func hire(t testing.TB, v *victim, o order) *gang {
	t.Helper()
	return hireAgainst(t, v.port, o)
}

// hireFor is hire for a victim in another process.
func hireFor(t testing.TB, f *far, o order) *gang {
	t.Helper()
	port, _, _ := f.info.Addrs[0].AddrPort()
	return hireAgainst(t, port, o)
}

func hireAgainst(t testing.TB, port netip.AddrPort, o order) *gang {
	t.Helper()
	o.Addr = port
	if len(o.From) == 0 {
		o.From = []netip.Addr{netip.MustParseAddr("127.0.0.2")}
	}
	text, err := json.Marshal(o)
	check(t, err)
	g := &gang{t: t, cmd: exec.Command(os.Args[0]), lines: make(chan string, 64)}
	g.cmd.Env = append(os.Environ(), orderEnv+"="+string(text))
	g.start()
	return g
}

// start starts the process, which ends with the test.
func (g *gang) start() {
	g.t.Helper()
	g.cmd.Stderr = os.Stderr
	var err error
	g.in, err = g.cmd.StdinPipe()
	check(g.t, err)
	out, err := g.cmd.StdoutPipe()
	check(g.t, err)
	check(g.t, g.cmd.Start())
	go func() {
		defer close(g.lines)
		for scan := bufio.NewScanner(out); scan.Scan(); {
			g.lines <- scan.Text()
		}
	}()
	g.t.Cleanup(g.leave)
}

func (g *gang) begin() { fmt.Fprintln(g.in, "go") }

// leave ends the gang and all its connections.
func (g *gang) leave() {
	g.once.Do(func() {
		g.in.Close()
		for range g.lines {
		}
		g.cmd.Wait()
	})
}

// report waits for a line that begins with word and gives the rest.
func (g *gang) report(word string) string {
	g.t.Helper()
	timeout := time.NewTimer(3 * patience)
	defer timeout.Stop()
	for {
		select {
		case line, ok := <-g.lines:
			if !ok {
				g.t.Fatalf("the gang died before it said %q", word)
			}
			if rest, ok := strings.CutPrefix(line, word); ok {
				return strings.TrimSpace(rest)
			}
			if strings.HasPrefix(line, "failed") {
				g.t.Fatalf("the gang: %s", line)
			}
		case <-timeout.C:
			g.t.Fatalf("the gang did not say %q", word)
		}
	}
}

// heard tells whether a line is there already, and takes it.
func (g *gang) heard(word string) (string, bool) {
	g.t.Helper()
	select {
	case line, ok := <-g.lines:
		if rest, is := strings.CutPrefix(line, word); ok && is {
			return strings.TrimSpace(rest), true
		}
		g.t.Fatalf("the gang said %q, not %q", line, word)
	default:
	}
	return "", false
}

// attacks are what a gang can do.
var attacks = map[string]func(order) error{
	"stages":  stagesAttack,
	"streams": streamsAttack,

	"hold":    holdAttack,
	"silence": silenceAttack,
	"churn":   churnAttack,
	"storm":   stormAttack,
	"unread":  unreadAttack,
	"greed":   greedAttack,

	"serve": serveOrder, // not an attack: the victim
}

// dial connects attacker number i.
func (o order) dial(i int) (net.Conn, error) {
	d := net.Dialer{
		LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(o.From[i%len(o.From)], 0)),
		Timeout:   patience,
		// The port is chosen when the other three numbers are known, so that ports do not run out.
		Control: func(_, _ string, raw syscall.RawConn) error {
			var failed error
			err := raw.Control(func(fd uintptr) {
				failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
			})
			if err != nil {
				return err
			}
			return failed
		},
	}
	conn, err := d.Dial("tcp4", o.Addr.String())
	if err == nil {
		conn.SetDeadline(time.Now().Add(patience))
	}
	return conn, err
}

// pace calls do n times, rate times a second, from a few goroutines; without a
// rate as fast as it goes. Time that was lost is not made up for: a burst is
// another attack.
func pace(n, rate int, do func(i int)) {
	tick := make(<-chan time.Time)
	if rate > 0 {
		ticker := time.NewTicker(time.Second / time.Duration(rate))
		defer ticker.Stop()
		tick = ticker.C
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if rate > 0 {
					<-tick
				}
				do(i)
			}
		})
	}
	wg.Wait()
}

// stagesAttack brings connections to a stage and keeps them there.
func stagesAttack(o order) error {
	all, err := stages()
	if err != nil {
		return err
	}
	var s stage
	for _, candidate := range all {
		if candidate.name == o.Stage {
			s = candidate
		}
	}
	var mu sync.Mutex
	var held []net.Conn
	var cut atomic.Int64
	one := func(i int) {
		conn, err := o.dial(i)
		if err != nil {
			cut.Add(1)
			return
		}
		a, err := newAttacker()
		if err == nil {
			err = s.reach(a, conn)
		}
		if err != nil {
			cut.Add(1)
			conn.Close()
			return
		}
		mu.Lock()
		held = append(held, conn)
		mu.Unlock()
	}
	if len(s.drip) > 0 {
		go func() {
			for i := 0; i < len(s.drip); i++ {
				<-time.After(3 * time.Second)
				mu.Lock()
				for _, c := range held {
					c.Write(s.drip[i : i+1])
				}
				mu.Unlock()
			}
		}()
	}
	pace(o.N, o.Rate, one)
	fmt.Printf("reached %d, cut before %d\n", len(held), cut.Load())
	last := time.Now()
	if o.More > 0 {
		pace(1<<30, o.More, one)
	}
	for _, c := range held {
		c.SetReadDeadline(last.Add(2 * patience))
		for buf := make([]byte, 4096); ; {
			if _, err := c.Read(buf); err != nil {
				break
			}
		}
	}
	fmt.Printf("gone %d ms after the last came\n", time.Since(last).Milliseconds())
	return nil
}

// streamsAttack opens streams as fast as it goes, from N peers at the same time,
// until each was sent away, or, with Again, whenever it is let in, for Rate seconds.
func streamsAttack(o order) error {
	var wg sync.WaitGroup
	var sent, sessions, refused atomic.Int64
	var ready sync.WaitGroup
	ready.Add(o.N)
	begin := make(chan struct{})
	if o.Wait {
		go func() {
			ready.Wait()
			fmt.Println("ready")
			<-told
			close(begin)
		}()
	} else {
		close(begin)
	}
	end := time.Now().Add(time.Duration(o.Rate) * time.Second)
	for i := range o.N {
		wg.Go(func() {
			a, err := newAttacker()
			if err != nil {
				fmt.Println("failed", err)
				return
			}
			wait := sync.OnceFunc(func() {
				ready.Done()
				<-begin
			})
			for {
				if err := streams(o, a, i, &sent, wait); err != nil {
					refused.Add(1)
					<-time.After(100 * time.Millisecond)
				} else {
					sessions.Add(1)
				}
				if !o.Again || time.Now().After(end) {
					return
				}
			}
		})
	}
	wg.Wait()
	fmt.Printf("sent %d streams in %d sessions, %d refused\n", sent.Load(), sessions.Load(), refused.Load())
	return nil
}

// streams is one session of streamsAttack; the error says that it did not begin.
func streams(o order, a *attacker, i int, sent *atomic.Int64, wait func()) error {
	conn, err := o.dial(i)
	if err != nil {
		return err
	}
	defer conn.Close()
	s, err := a.session(conn)
	if err != nil {
		return err
	}
	wait()
	go io.Copy(io.Discard, s.conn)
	for {
		var frames []frame
		for range 20 {
			id := s.id()
			frames = append(frames, dataFrame(syn|o.Flags, id, o.Bytes))
			if o.Reset {
				frames = append(frames, frame{typ: typeWindow, flags: rst, id: id})
			}
		}
		if s.send(frames...) != nil {
			return nil
		}
		sent.Add(20)
	}
}
