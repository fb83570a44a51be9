package trace_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/testkit"
	"github.com/kith-p2p/kith/memory"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/trace"
)

func someone(t *testing.T) peer.ID {
	t.Helper()
	id, err := peer.ParseID("12D3KooWCPPT8Z5bF8SEuHcMWpYAudSyqw74iX9j1nNCxE6QN6Hb")
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func records(events ...host.Event) (all []trace.Record) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for i, e := range events {
		all = append(all, trace.Record{Seq: uint64(i) + 1, Time: at.Add(time.Duration(i) * time.Millisecond), Event: e})
	}
	return all
}

func TestExplainFailure(t *testing.T) {
	p := someone(t)
	a := func(s string) multiaddr.Addr { return multiaddr.MustParse(s) }
	begun := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	quic, tcp, six, name, relay := a("/ip4/192.0.2.7/udp/4001/quic-v1"), a("/ip4/192.0.2.7/tcp/4001"), a("/ip6/2001:db8::7/tcp/4001"), a("/dns4/peer.example/tcp/4001"), a("/ip4/192.0.2.9/tcp/4001")
	slow := host.DialAttempt{Addr: quic, Start: begun, Elapsed: 10 * time.Second, Err: context.DeadlineExceeded}
	refused := host.DialAttempt{Addr: tcp, Start: begun, Delay: 250 * time.Millisecond, Elapsed: 12 * time.Millisecond,
		Err: &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}}
	hungUp := host.DialAttempt{Addr: relay, Start: begun, Delay: 500 * time.Millisecond, Elapsed: 30 * time.Millisecond, Stage: host.StageSecuring,
		Stages: [host.StageMuxed + 1]time.Duration{0, 10 * time.Millisecond, 20 * time.Millisecond, 0, 0}, Err: errors.New("noise: reading: EOF")}
	hole := host.DialAttempt{Addr: six, Err: &host.SkipError{Reason: host.ErrBlackHole, Detail: "none of the last 12 dials over IPv6 got through"}}
	unknown := host.DialAttempt{Addr: name, Elapsed: 4 * time.Millisecond, Err: &net.DNSError{Name: "peer.example", IsNotFound: true}}
	failed := &host.DialError{Peer: p, Attempts: []host.DialAttempt{slow, refused, hungUp, hole, unknown}}
	dials := trace.Explain(records(
		host.DialStarted{ID: 7, Peer: p, Addrs: []multiaddr.Addr{quic, tcp, six, name}},
		host.DialResolved{ID: 7, Peer: p, Failed: []host.DialAttempt{unknown}, Elapsed: 4 * time.Millisecond},
		host.DialRanked{ID: 7, Peer: p, Steps: []host.DialStep{{Addr: quic, Why: "it worked here before"}, {Addr: tcp, Delay: 250 * time.Millisecond}, {Addr: relay, Delay: 500 * time.Millisecond}}, Skipped: []host.DialAttempt{hole}},
		host.DialAttempted{ID: 7, Peer: p, Attempt: refused},
		host.DialAttempted{ID: 7, Peer: p, Attempt: hungUp},
		host.DialAttempted{ID: 7, Peer: p, Attempt: slow},
		host.DialEnded{ID: 7, Peer: p, Err: failed, Elapsed: 10 * time.Second},
	))
	if len(dials) != 1 {
		t.Fatalf("%d dials", len(dials))
	}
	const want = `not connected to 12D3KooWCPPT8Z5bF8SEuHcMWpYAudSyqw74iX9j1nNCxE6QN6Hb after 10s: none of its addresses gave a connection
names were resolved within 4ms

#  STARTED  OPEN  SECURE  MUX  TOTAL  OUTCOME    ADDRESS
1  +0s      -     -       -    10s    failed     /ip4/192.0.2.7/udp/4001/quic-v1
2  +250ms   -     -       -    12ms   failed     /ip4/192.0.2.7/tcp/4001
3  +500ms   10ms  -       -    30ms   failed     /ip4/192.0.2.9/tcp/4001
4  -        -     -       -    4ms    not tried  /dns4/peer.example/tcp/4001
5  -        -     -       -    -      not tried  /ip6/2001:db8::7/tcp/4001

1  rank it worked here before
   why  no answer in time
   do   is the peer running, is its UDP port open, and does this network let UDP through? TCP often works where UDP does not
2  why  connection refused: the machine is there, and nothing listens on this port
   do   start the peer, or ask it for its address now: kith node prints it
3  why  the other end hung up during the security handshake
   do   is it a libp2p peer that listens on this port? It may also be full, or in a private network (--psk)
4  why  there is no name peer.example in the DNS
   do   look for a typing error; /dns4 needs an A record, /dns6 an AAAA record
5  why  in this network nothing of its kind has got through
   do   none of the last 12 dials over IPv6 got through`
	if got := dials[0].String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	var object struct {
		Event string
		Steps []struct {
			Addr, Outcome, Reason, Remedy, Err string
			Started                            float64 `json:"started_ms"`
		}
	}
	text, err := json.Marshal(dials[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &object); err != nil {
		t.Fatal(err)
	}
	if object.Event != "explanation" || len(object.Steps) != 5 || object.Steps[1].Started != 250 || object.Steps[1].Remedy == "" || object.Steps[1].Err == "" {
		t.Errorf("got %s", text)
	}
}

// Who stops waiting learns what had been going on.
func TestExplainGivenUp(t *testing.T) {
	p := someone(t)
	addr := multiaddr.MustParse("/ip4/192.0.2.7/udp/4001/quic-v1")
	running := host.DialAttempt{Addr: addr, Start: time.Now(), Elapsed: 2 * time.Second, Err: context.Canceled}
	dials := trace.Explain(records(
		host.DialStarted{ID: 1, Peer: p, Addrs: []multiaddr.Addr{addr}},
		host.DialRanked{ID: 1, Peer: p, Steps: []host.DialStep{{Addr: addr}}},
	))
	if len(dials) != 1 || !strings.Contains(dials[0].String(), "has not ended") || !strings.Contains(dials[0].String(), "no turn") {
		t.Errorf("got %v", dials)
	}
	dials = trace.Explain(records(
		host.DialStarted{ID: 1, Peer: p, Addrs: []multiaddr.Addr{addr}},
		host.DialEnded{ID: 1, Peer: p, Elapsed: 2 * time.Second, Err: &host.DialError{Peer: p, Cause: context.Canceled, Attempts: []host.DialAttempt{running}}},
	))
	late := &trace.Explanation{Peer: p, Elapsed: time.Minute, Err: &host.DialError{Peer: p, Cause: context.DeadlineExceeded}}
	if s := late.Summary(); !strings.Contains(s, "after 1m0s: its time was over") {
		t.Errorf("got %q", s)
	}
	text := dials[0].String()
	for _, want := range []string{"after 2s: it was given up before an address gave a connection", "failed", "no answer in time", "UDP"} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q in\n%s", want, text)
		}
	}
}

// What ends a whole dial has its remedy too.
func TestExplainCause(t *testing.T) {
	p := someone(t)
	dials := trace.Explain(records(
		host.DialStarted{ID: 1, Peer: p},
		host.DialEnded{ID: 1, Peer: p, Err: &host.DialError{Peer: p, Cause: host.ErrNoAddrs}},
	))
	const want = `not connected to 12D3KooWCPPT8Z5bF8SEuHcMWpYAudSyqw74iX9j1nNCxE6QN6Hb after 0s: no address of the peer is known
do: give one, or let a discovery find the peer: is it running, and on this network?`
	if got := dials[0].String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// A real dial of two addresses, of which one leads nowhere.
func TestExplainSuccess(t *testing.T) {
	network := new(memory.Network)
	tr := trace.New(1024)
	a, b := testkit.Host(t, network, host.Config{Trace: tr.Add}), testkit.Host(t, network, host.Config{})
	if _, err := a.Connect(t.Context(), peer.AddrInfo{ID: b.ID(), Addrs: append(b.Addrs(), multiaddr.MustParse("/memory/99"), multiaddr.MustParse("/ip4/192.0.2.1/tcp/1"))}); err != nil {
		t.Fatal(err)
	}
	var all []trace.Record
	for r := range tr.Records() {
		all = append(all, r)
		if _, ok := r.Event.(host.DialEnded); ok {
			break
		}
	}
	dials := trace.Explain(all)
	if len(dials) != 1 || len(dials[0].Steps) != 3 || dials[0].Conn == nil {
		t.Fatalf("got %v", dials)
	}
	text := dials[0].String()
	for _, want := range []string{
		`^connected to 12D3\S+ at /memory/\d+ in `,
		`connected +/memory/`,
		`not tried +/ip4/192.0.2.1/tcp/1`,
		`this node speaks no transport of this kind`,
	} {
		if !regexp.MustCompile("(?m)" + want).MatchString(text) {
			t.Errorf("%s\n does not match %s", text, want)
		}
	}
	if strings.Contains(text, "not ended") {
		t.Error(text)
	}
}

// Every reason for which an address fails or is not tried has words, and a remedy if
// there is something to do.
func TestWhy(t *testing.T) {
	tcp := multiaddr.MustParse("/ip4/192.0.2.7/tcp/4001")
	six := multiaddr.MustParse("/ip6/2001:db8::7/tcp/4001")
	wanted, got := testkit.Key(t).ID(), testkit.Key(t).ID()
	for _, c := range []struct {
		a              host.DialAttempt
		reason, remedy string
	}{
		{host.DialAttempt{Addr: tcp}, "", ""},
		{host.DialAttempt{Addr: tcp, Err: host.ErrNotNeeded}, "another address was faster", ""},
		{host.DialAttempt{Addr: tcp, Err: host.ErrInFlight}, "under way", ""},
		{host.DialAttempt{Addr: tcp, Err: &host.SkipError{Reason: host.ErrBackoff}}, "failed lately", "explicit dial"},
		{host.DialAttempt{Addr: tcp, Err: host.ErrPaced}, "too often", "wait a minute"},
		{host.DialAttempt{Addr: tcp, Err: host.ErrTooManyAddrs}, "more addresses", "give the address"},
		{host.DialAttempt{Addr: tcp, Err: fmt.Errorf("%w: 192.0.2.7 is private", host.ErrForbidden)}, "192.0.2.7 is private", "give it yourself"},
		{host.DialAttempt{Addr: tcp, Err: host.ErrNoTransport}, "no transport", "add one"},
		{host.DialAttempt{Addr: tcp, Err: host.ErrDialSelf}, "this node itself", "drop it"},
		{host.DialAttempt{Addr: tcp, Err: &host.GateError{Hook: "DialAddr", Addr: tcp, Err: errors.New("on the list")}}, "on the list", "kith acl"},
		{host.DialAttempt{Err: host.ErrNoAddrs}, "no address", "discovery"},
		{host.DialAttempt{Addr: tcp, Err: &host.LimitError{Scope: "Conns", Limit: 2, Used: 2}}, "limit", "--limits"},
		{host.DialAttempt{Addr: tcp, Err: &net.DNSError{Name: "x", IsTimeout: true}}, "did not answer", "resolver"},
		{host.DialAttempt{Err: errors.New("host: dnsaddr x: no TXT record of _dnsaddr.x holds an address of the peer")}, "_dnsaddr.x", "is the peer ID right"},
		{host.DialAttempt{Err: errors.New("host: dnsaddr x: more than 4 names lead to one another")}, "more than 4", "mend"},
		{host.DialAttempt{Addr: tcp, Err: os.ErrDeadlineExceeded}, "no answer in time", "firewall"},
		{host.DialAttempt{Addr: tcp, Err: context.Canceled}, "no answer in time", "firewall"},
		{host.DialAttempt{Addr: tcp, Stage: host.StageOpened, Err: os.ErrDeadlineExceeded}, "during agreeing on a secure channel", "libp2p peer"},
		{host.DialAttempt{Addr: six, Err: syscall.ENETUNREACH}, "no way to IPv6", "IPv4"},
		{host.DialAttempt{Addr: tcp, Err: syscall.EHOSTUNREACH}, "no route", "network"},
		{host.DialAttempt{Addr: tcp, Err: syscall.EMFILE}, "file descriptors", "ulimit"},
		{host.DialAttempt{Addr: tcp, Err: syscall.EPERM}, "forbade", "firewall"},
		{host.DialAttempt{Addr: tcp, Err: syscall.ECONNRESET}, "hung up", "libp2p peer"},
		{host.DialAttempt{Addr: tcp, Err: errors.New("quic: handshake: the remote takes no connections now: it is closing")}, "turned us away", "try later"},
		{host.DialAttempt{Addr: tcp, Err: fmt.Errorf("quic: handshake: %w", &host.ConnError{Code: host.ConnCodeGated, Remote: true})}, "turned us away: quic: handshake: host: the remote closed the connection: gated", "the peer decides"},
		{host.DialAttempt{Addr: tcp, Err: &peer.MismatchError{Want: wanted, Got: got}}, "another peer has answered: " + got.String(), "dial the ID that answered"},
		{host.DialAttempt{Addr: tcp, Stage: host.StageOpened, Err: errors.New(`multistream: not supported: "/noise"`)}, "secure channel", "--security"},
		{host.DialAttempt{Addr: tcp, Err: errors.New("something else")}, "something else", "--verbose"},
	} {
		reason, remedy := trace.Why(c.a)
		if !strings.Contains(reason, c.reason) || !strings.Contains(remedy, c.remedy) || (c.remedy == "") != (remedy == "") {
			t.Errorf("%v: %q, %q; want %q, %q", c.a.Err, reason, remedy, c.reason, c.remedy)
		}
	}
}

func TestAnotherPeer(t *testing.T) {
	network := new(memory.Network)
	a, b := testkit.Host(t, network, host.Config{}), testkit.Host(t, network, host.Config{})
	_, err := a.Connect(t.Context(), peer.AddrInfo{ID: testkit.Key(t).ID(), Addrs: b.Addrs()})
	var failed *host.DialError
	if !errors.As(err, &failed) || len(failed.Attempts) != 1 {
		t.Fatal(err)
	}
	if reason, _ := trace.Why(failed.Attempts[0]); !strings.Contains(reason, "another peer has answered: "+b.ID().String()) {
		t.Errorf("got %q for %v", reason, failed.Attempts[0].Err)
	}
}
