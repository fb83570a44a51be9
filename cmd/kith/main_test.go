package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kith-p2p/kith"
	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"kith": main})
}

// The scripts in testdata are what a user types. Nothing they start leaves the
// loopback interface.
func TestScripts(t *testing.T) {
	loopback, err := loopbackInterface()
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			// Scripts that run at the same time do not find each other's peers.
			env.Setenv("IFACE", loopback)
			env.Setenv("SERVICE", fmt.Sprintf("_kith-%08x._udp", rand.Uint32()))
			env.Setenv("LISTEN", "/ip4/127.0.0.1/tcp/0")
			port, err := freePort()
			if err != nil {
				return err
			}
			env.Setenv("PORT", port)
			env.Setenv("HOME", env.WorkDir)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"field": setField, "await": await},
	})
}

// setField sets a variable from a field of the JSON object in a file: field VAR FILE NAME.
func setField(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: field VAR FILE NAME")
	}
	var object map[string]any
	if err := json.Unmarshal([]byte(ts.ReadFile(args[1])), &object); err != nil {
		ts.Fatalf("%s: %v", args[1], err)
	}
	value, ok := object[args[2]].(string)
	if !ok {
		ts.Fatalf("%s has no text %q: %v", args[1], args[2], object)
	}
	ts.Setenv(args[0], value)
}

// await waits until there is a file: await FILE.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: await FILE")
	}
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	deadline := time.After(time.Minute)
	for {
		if _, err := os.Stat(ts.MkAbs(args[0])); err == nil {
			return
		}
		select {
		case <-again.C:
		case <-deadline:
			ts.Fatalf("there is no %s", args[0])
		}
	}
}

func TestSizes(t *testing.T) {
	for in, want := range map[string]uint64{"0": 0, "65536": 65536, "64KiB": 64 << 10, "2 MiB": 2 << 20, "1GB": 1e9, "3kB": 3000, "5B": 5} {
		if got, err := parseSize(in); got != want || err != nil {
			t.Errorf("parseSize(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
	for _, bad := range []string{"", "x", "-1", "1.5GiB", "1TiB", "99999999999GiB"} {
		if got, err := parseSize(bad); err == nil {
			t.Errorf("parseSize(%q) = %d", bad, got)
		}
	}
	for in, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 64 << 20: "64 MiB", 1536 << 10: "1.5 MiB"} {
		if got := formatSize(in); got != want {
			t.Errorf("formatSize(%d) = %q, want %q", in, got, want)
		}
	}
}

// What strangers call themselves must not move the cursor.
func TestPrintable(t *testing.T) {
	if got := printable("a\x1b[2Jb\nc\u202ed"); got != "a�[2Jb�c�d" {
		t.Errorf("got %q", got)
	}
	if got := clipName("  ÄÖÜ\tname that is far too long for a line of a chat "); got != "ÄÖÜ�name that is far too long fo" {
		t.Errorf("got %q", got)
	}
}

// freePort finds a port of loopback that is free for TCP and UDP, and stays so until
// a script uses it: systems choose ports for those who want any from 32768 on.
func freePort() (port string, err error) {
	for range 100 {
		port = strconv.Itoa(10_000 + rand.IntN(20_000))
		addr := net.JoinHostPort("127.0.0.1", port)
		l, failed := net.Listen("tcp", addr)
		if err = failed; err != nil {
			continue
		}
		c, failed := net.ListenPacket("udp", addr)
		l.Close()
		if err = failed; err == nil {
			return port, c.Close()
		}
	}
	return "", err
}

// A peer that is named by its ID alone is dialed at the addresses that neighbours are
// known by, and these stay the neighbours' word.
func TestIDAloneVouchesForNothing(t *testing.T) {
	start := func() *kith.Node {
		n, err := kith.Start(t.Context(), kith.Config{Listen: []multiaddr.Addr{multiaddr.MustParse("/ip4/127.0.0.1/tcp/0")}, MDNS: kith.MDNS{Off: true}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { n.Close() })
		return n
	}
	a, b := start(), start()
	a.Discovered(peer.AddrInfo{ID: b.ID(), Addrs: b.Host.Addrs()}, "mdns", host.SourceLocal)
	if _, err := connect(t.Context(), a, b.ID().String(), time.Minute); err != nil {
		t.Error(err)
	}
	for _, known := range a.KnownAddrs(b.ID()) {
		if known.Source != host.SourceLocal {
			t.Errorf("%s is known by the word of %v", known.Addr, known.Source)
		}
	}
}
