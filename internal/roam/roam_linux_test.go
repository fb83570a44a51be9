package roam

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

var (
	moves  = flag.Int("moves", 2, "how often the node moves in each way; half as often where that takes long")
	outage = flag.Duration("outage", time.Second, "how long there is no network")
	sleep  = flag.Duration("sleep", 6*time.Second, "how long the machine sleeps")
)

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		if err := runNode(role); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if os.Getuid() != 0 {
		if code, started := asRoot(); started {
			os.Exit(code)
		}
	}
	flag.Parse()
	flag.Set("test.parallel", "16") // they wait rather than work
	os.Exit(m.Run())
}

// A way of moving changes the network of the node near; i counts moves. It returns
// when the node could be reached again.
type way struct {
	name  string
	first string // what the node begins with
	move  func(t *testing.T, w *world, i int)
	slow  bool
}

// Address and route of the i-th place on one of the two links.
func place4(link, i int) (add, del string) {
	a := fmt.Sprintf("10.9%d.0.%d/24 dev near%d", link+1, 10+i%200, link)
	return fmt.Sprintf("address add %s\nroute replace default via 10.9%d.0.1", a, link+1), "address del " + a
}

func place6(link, i int) (add, del string) {
	a := fmt.Sprintf("fd9%d::%d/64 dev near%d", link+1, 10+i%200, link)
	return fmt.Sprintf("address add %s nodad\nroute replace default via fd9%d::1", a, link+1), "address del " + a
}

func first(add, _ string) string { return add }

var ways = []way{
	{"address", first(place4(0, 0)), func(t *testing.T, w *world, i int) {
		_, del := place4(0, i)
		add, _ := place4(0, i+1)
		w.near.ip(t, del+"\n"+add)
	}, false},
	{"interface", first(place4(0, 0)), func(t *testing.T, w *world, i int) {
		_, del := place4(i%2, 0)
		add, _ := place4((i+1)%2, 0)
		w.near.ip(t, fmt.Sprintf("%s\nlink set near%d down\nlink set near%d up\n%s", del, i%2, (i+1)%2, add))
	}, false},
	{"family", first(place4(0, 0)), func(t *testing.T, w *world, i int) {
		add, _ := place6(0, 0)
		_, del := place4(0, 0)
		if i%2 == 1 {
			add, _ = place4(0, 0)
			_, del = place6(0, 0)
		}
		w.near.ip(t, del+"\n"+add)
	}, false},
	{"outage", first(place4(0, 0)), func(t *testing.T, w *world, i int) {
		_, del := place4(0, 0)
		w.near.ip(t, del+"\nlink set near0 down")
		time.Sleep(*outage)
		w.near.ip(t, "link set near0 up\n"+first(place4(0, 0)))
	}, true},
	{"suspend", first(place4(0, 0)), func(t *testing.T, w *world, i int) {
		w.client.cmd.Process.Signal(syscall.SIGSTOP)
		time.Sleep(*sleep)
		_, del := place4(0, i)
		add, _ := place4(0, i+1)
		w.near.ip(t, del+"\n"+add)
		w.client.cmd.Process.Signal(syscall.SIGCONT)
	}, true},
}

// A world is two nodes in networks with two links between them. The server is at an
// address behind both.
type world struct {
	near, far      *network
	server, client *node
}

func newWorld(t *testing.T, transport, begin string) *world {
	w := &world{near: newNetwork(t), far: newNetwork(t)}
	w.far.ip(t, fmt.Sprintf(`link set lo up
address add 10.90.0.1/32 dev lo
address add fd90::1/128 dev lo nodad
link add far0 type veth peer name near0
link add far1 type veth peer name near1
link set near0 addrgenmode none netns %[1]d
link set near1 addrgenmode none netns %[1]d
address add 10.91.0.1/24 dev far0
address add 10.92.0.1/24 dev far1
address add fd91::1/64 dev far0 nodad
address add fd92::1/64 dev far1 nodad
link set far0 up
link set far1 up`, w.near.thread))
	w.near.ip(t, "link set lo up\nlink set near0 up\n"+begin)
	w.server = start(t, w.far, "server", with(transport, 4001, "10.90.0.1", "fd90::1"))
	hello, err := w.server.await(time.Time{}, 20*time.Second, func(r report) bool { return r.Addrs != nil })
	if err != nil {
		t.Fatal(err)
	}
	w.client = start(t, w.near, "client", with("quic", 4002, "0.0.0.0", "::")+" "+with("tcp", 4002, "0.0.0.0", "::"), strings.Join(hello.Addrs, " "))
	if _, err := w.client.await(time.Time{}, 20*time.Second, func(r report) bool { return r.Pong }); err != nil {
		t.Fatal(err)
	}
	return w
}

// with makes addresses to listen on.
func with(transport string, port int, ip4, ip6 string) string {
	suffix := fmt.Sprintf("tcp/%d", port)
	if transport == "quic" {
		suffix = fmt.Sprintf("udp/%d/quic-v1", port)
	}
	return fmt.Sprintf("/ip4/%s/%s /ip6/%s/%s", ip4, suffix, ip6, suffix)
}

const (
	// calm is how long a network stays as it is between two moves.
	calm = 700 * time.Millisecond
	// enough is how many moves make figures. Where the tests run by default the machine may
	// be busy with others.
	enough = 20
	// never is when a move counts as one after which nothing works again.
	never = 30 * time.Second
)

// Traffic resumes after each move, over QUIC within a second in half of the cases
// and five in nearly all, over TCP within ten, and streams over QUIC live on.
func TestFigures(t *testing.T) {
	if err := missing(); err != nil {
		t.Skipf("nodes roam between networks that the test makes, and here it cannot: %v", err)
	}
	for _, transport := range []string{"quic", "tcp"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			for _, way := range ways {
				t.Run(way.name, func(t *testing.T) {
					t.Parallel()
					figures(t, transport, way)
				})
			}
		})
	}
}

func figures(t *testing.T, transport string, way way) {
	w := newWorld(t, transport, way.first)
	var resumed, told []time.Duration
	count, lost := *moves, 0
	if way.slow {
		count = (count + 1) / 2
	}
	for i := range count {
		time.Sleep(calm)
		began := time.Now()
		way.move(t, w, i)
		moved := time.Now()
		r, err := w.client.await(moved, never, func(r report) bool { return r.Pong })
		if err != nil {
			said := w.client.since(began)
			t.Fatalf("move %d: no traffic for %v; the client says at last %+v", i, never, said[max(len(said)-4, 0):])
		}
		resumed = append(resumed, r.At.Sub(moved))
		if r, err := w.server.await(moved, 15*time.Second, func(r report) bool { return len(r.Addrs) > 0 }); err == nil {
			told = append(told, r.At.Sub(moved))
		} else if way.name != "outage" { // after which the addresses are those of before
			t.Errorf("move %d: the other was not told of new addresses in 15 s", i)
		}
		time.Sleep(calm)
		died := slices.IndexFunc(w.client.since(began), func(r report) bool { return r.Lost != "" })
		if died >= 0 {
			lost++
			if transport == "quic" {
				t.Logf("move %d: the stream ended: %s", i, w.client.since(began)[died].Lost)
			}
		}
	}
	t.Logf("%s %s: %d moves; traffic again after p50 %v p99 %v max %v; new addresses told after p50 %v max %v; open stream lost in %d",
		transport, way.name, count, quantile(resumed, 0.5), quantile(resumed, 0.99), quantile(resumed, 1),
		quantile(told, 0.5), quantile(told, 1), lost)
	if transport == "quic" && lost*100 > count {
		t.Errorf("%d of %d moves were the end of a stream over QUIC", lost, count)
	}
	if quantile(resumed, 0.99) > 10*time.Second {
		t.Error("traffic resumes too late")
	}
	if transport == "quic" && count >= enough && (quantile(resumed, 0.5) > time.Second || quantile(resumed, 0.99) > 5*time.Second) {
		t.Error("traffic over QUIC resumes too late")
	}
}

// quantile is the value below which a part of all are.
func quantile(all []time.Duration, q float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)].Round(time.Millisecond)
}
