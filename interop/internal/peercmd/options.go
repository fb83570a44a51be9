package peercmd

import (
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Options are the flags of every mode, checked.
type Options struct {
	Timeout  time.Duration
	Listen   []string // nil: do not listen
	Security string   // noise, tls, or empty for both
	KeyType  string   // one of KeyTypes
	Peers    []string // addresses with /p2p
	PSK      string   // file with the key of a private network, or empty

	HighWater int // connections above which the least useful are closed at once; 0: the default. kith-peer alone

	// dial
	Do       []string // of Exchanges, in order
	Bytes    int64    // echo, halfclose, streams (of each), and what perf uploads
	Download int64    // what perf downloads
	Streams  int      // how many streams "streams" opens at once

	// mdns
	Service string
	Expect  int
	Linger  time.Duration
}

// KeyTypes are the names that --key-type takes.
var KeyTypes = []string{"ed25519", "secp256k1", "ecdsa", "rsa"}

// Exchanges are the names that --do takes.
var Exchanges = []string{"identify", "ping", "perf", "echo", "streams", "halfclose", "reset", "abort", "push"}

// maxStreams stays under the streams that the peers let one peer open, and under yamux's 256 that nobody has acknowledged.
const maxStreams = 128

// parseOptions reads the flags of one mode; extra adds those that only that mode has.
func parseOptions(mode string, args []string, extra func(*flag.FlagSet)) (Options, error) {
	var o Options
	var listen, peers, do string
	var timeout, linger int
	flags := flag.NewFlagSet(mode, flag.ContinueOnError)
	flags.SetOutput(io.Discard) // the caller prints the error
	flags.IntVar(&timeout, "timeout", 30, "seconds until the program gives up (a server: until it ends)")
	flags.StringVar(&listen, "listen", "/ip4/127.0.0.1/tcp/0", "comma-separated addresses, or none")
	flags.StringVar(&o.Security, "security", "", "offer only noise or only tls")
	flags.StringVar(&o.KeyType, "key-type", "ed25519", strings.Join(KeyTypes, ", "))
	flags.StringVar(&o.PSK, "psk", "", "file with the key of a private network")
	flags.IntVar(&o.HighWater, "high-water", 0, "how many connections to keep (kith-peer alone)")
	flags.StringVar(&peers, "peer", "", "comma-separated addresses with /p2p")
	flags.StringVar(&do, "do", "identify,ping", "what to do once connected, in order: "+strings.Join(Exchanges, ", "))
	flags.Int64Var(&o.Bytes, "bytes", 1<<20, "how much echo, halfclose, perf (up) and each of streams send")
	flags.Int64Var(&o.Download, "download", 1<<20, "how much perf downloads")
	flags.IntVar(&o.Streams, "streams", 32, "how many streams at once")
	flags.StringVar(&o.Service, "service", "_p2p._udp", "mDNS service")
	flags.IntVar(&o.Expect, "expect", 1, "how many peers to discover")
	flags.IntVar(&linger, "linger", 2, "seconds to stay after success, so that others find us too")
	if extra != nil {
		extra(flags)
	}
	if err := flags.Parse(args); err != nil {
		return Options{}, fmt.Errorf("%s: %w", mode, err)
	}
	o.Timeout = time.Duration(timeout) * time.Second
	o.Linger = time.Duration(linger) * time.Second
	if listen != "none" {
		o.Listen = splitList(listen)
	}
	o.Peers = splitList(peers)
	o.Do = splitList(do)
	switch {
	case flags.NArg() > 0:
		return Options{}, fmt.Errorf("%s: unexpected argument %q: flags are --name=value", mode, flags.Arg(0))
	case o.HighWater < 0:
		return Options{}, fmt.Errorf("%s: --high-water=%d: want 0 or more", mode, o.HighWater)
	case timeout <= 0 || linger < 0:
		return Options{}, fmt.Errorf("%s: --timeout=%d --linger=%d: want seconds, a positive timeout", mode, timeout, linger)
	case o.Security != "" && o.Security != "noise" && o.Security != "tls":
		return Options{}, fmt.Errorf("%s: --security=%s: want noise, tls, or nothing for both", mode, o.Security)
	case !slices.Contains(KeyTypes, o.KeyType):
		return Options{}, fmt.Errorf("%s: --key-type=%s: want one of %s", mode, o.KeyType, strings.Join(KeyTypes, ", "))
	case o.Bytes < 0 || o.Download < 0:
		return Options{}, fmt.Errorf("%s: --bytes=%d --download=%d: want 0 or more", mode, o.Bytes, o.Download)
	case o.Streams < 1 || o.Streams > maxStreams:
		return Options{}, fmt.Errorf("%s: --streams=%d: want 1 to %d", mode, o.Streams, maxStreams)
	}
	for _, name := range o.Do {
		if !slices.Contains(Exchanges, name) {
			return Options{}, fmt.Errorf("%s: --do=%s: want some of %s", mode, name, strings.Join(Exchanges, ", "))
		}
	}
	return o, nil
}

func splitList(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}
