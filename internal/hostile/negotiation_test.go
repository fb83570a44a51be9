package hostile

import (
	"bytes"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-p2p/kith/host"
)

// maxRounds is how many proposals the host answers in one negotiation, and
// maxNegotiation how many bytes of it it reads.
const (
	maxRounds      = 64
	maxNegotiation = 4 << 10
)

// negotiations that lead nowhere; each is said again and again, after the header.
var negotiations = []struct {
	name string
	say  []byte
}{
	{"proposals that are refused", token("/nobody/1.0.0")},
	{"short proposals", token("/")},
	{"proposals as long as can be", token("/" + strings.Repeat("x", 1022))},
	{"proposals that are too long", token("/" + strings.Repeat("x", 1023))},
	{"ls", token("ls")},
	{"na", token("na")},
	{"the header again", token("/multistream/1.0.0")},
	{"nothing", []byte{0}},
	{"a newline", token("")},
	{"no newline", []byte("\x03abc")},
	{"a length that is not minimal", []byte("\x83\x00/x\n")},
	{"a length of two gigabytes", []byte("\xff\xff\xff\xff\x07/x\n")},
	{"a length without end", bytes.Repeat([]byte{0xff}, 32)},
	{"bytes of the muxer", frame{typ: typeWindow, flags: syn, id: 1}.appendTo(nil)},
	{"zeros", make([]byte, 64)},
}

// A negotiation that leads nowhere ends, on a connection and on a stream, after
// 64 rounds or 4 KiB.
func TestEndlessNegotiation(t *testing.T) {
	for _, n := range negotiations {
		t.Run("connection, "+n.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := new(network)
				v := newVictimOn(t, net, victimConfig{bare: true})
				conn, err := net.dial(t.Context(), attackerIP, v.port)
				check(t, err)
				defer conn.Close()
				rounds := count(conn)
				sent := repeat(conn, propose("")[:20], n.say)
				answers := <-rounds
				if answers > maxRounds || sent > maxNegotiation+pipeBuffer+len(n.say) {
					t.Errorf("%d answers, and %d bytes could be sent; want at most %d answers to %d bytes", answers, sent, maxRounds, maxNegotiation)
				}
				synctest.Wait()
				if v.log.count("upgrade failed") != 1 || v.Usage().HalfOpen != 0 {
					t.Errorf("%d upgrades failed, %+v", v.log.count("upgrade failed"), v.Usage())
				}
			})
		})
		t.Run("stream, "+n.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := new(network)
				v := newVictimOn(t, net, victimConfig{bare: true})
				s := v.attackOn(t, net)
				id := s.id()
				check(t, s.send(dataFrame(syn, id, propose("")[:20])))
				// All that a negotiation may take, twice.
				for sent := 0; sent < 2*maxNegotiation && sent < 2*maxRounds*len(n.say); sent += len(n.say) {
					check(t, s.send(dataFrame(0, id, n.say)))
				}
				answers := 0
				for {
					f, err := s.receive()
					check(t, err)
					if f.flags&rst != 0 {
						if f.length != host.CodeNegotiationFailed {
							t.Errorf("reset with code %#x", f.length)
						}
						break
					}
					answers += bytes.Count(f.payload, token("na"))
				}
				if answers > maxRounds {
					t.Errorf("%d answers, want at most %d", answers, maxRounds)
				}
				synctest.Wait()
				if u := v.Usage(); u.UnnegotiatedStreams != 0 || u.Conns != 1 {
					t.Errorf("left behind: %+v", u)
				}
				_, err := s.open("/echo/1", []byte("x")...)
				check(t, err)
				for answer := []byte(nil); !bytes.HasSuffix(answer, []byte("x")); {
					f, err := s.receive()
					check(t, err)
					answer = append(answer, f.payload...)
				}
			})
		})
	}
}

// repeat writes first, and what after it until the connection ends.
func repeat(conn net.Conn, first, what []byte) (sent int) {
	n, err := conn.Write(first)
	for sent = n; err == nil; sent += n {
		n, err = conn.Write(what)
	}
	return sent
}

// count tells how often "na" was read when the connection has ended.
func count(conn io.Reader) <-chan int {
	counted := make(chan int, 1)
	go func() {
		all, _ := io.ReadAll(conn)
		counted <- bytes.Count(all, token("na"))
	}()
	return counted
}

// A tampered connection is honest up to a point: the byte number at of what is
// written is another one, or, with cut, the connection ends before it.
type tampered struct {
	net.Conn
	at  int
	cut bool
}

func (c *tampered) Write(p []byte) (int, error) {
	at := c.at
	c.at -= len(p)
	if at < 0 || at >= len(p) {
		return c.Conn.Write(p)
	}
	if c.cut {
		c.Conn.Write(p[:at])
		c.Conn.Close()
		return at, io.ErrClosedPipe
	}
	p = slices.Clone(p)
	p[at] ^= 0x10
	return c.Conn.Write(p)
}

// Wherever a connection is cut, or whichever of its bytes is wrong, nothing is
// left of it, and nobody panics.
func TestTampering(t *testing.T) {
	for name, cut := range map[string]bool{"cut": true, "changed": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := new(network)
				v := newVictimOn(t, n, victimConfig{})
				synctest.Wait()
				before := v.level()
				// What an honest client writes until its first stream is served is shorter.
				const all = 600
				done := make(chan bool, all)
				for at := range all {
					conn, err := n.dial(t.Context(), attackerIP, v.port)
					check(t, err)
					conn.SetDeadline(time.Now().Add(patience))
					a, err := newAttacker()
					check(t, err)
					go func() {
						defer conn.Close()
						s, err := a.session(&tampered{conn, at, cut})
						if err == nil {
							_, err = s.open("/ipfs/ping/1.0.0", random(32)...)
						}
						for err == nil {
							_, err = s.receive()
						}
						done <- true
					}()
					// One after the other: it is not a flood.
					synctest.Wait()
				}
				for range all {
					<-done
				}
				synctest.Wait()
				if now := v.level(); now.goroutines > before.goroutines+teller || now.usage.Conns+now.usage.HalfOpen+now.usage.UnnegotiatedStreams > 0 ||
					now.heap > before.heap+heapSlack {
					t.Errorf("left behind: %+v, before it was %+v", now, before)
				}
				if got := v.log.count("upgrade failed"); got < 300 {
					t.Errorf("only %d upgrades failed", got)
				}
				check(t, echoTo(t, n, v))
			})
		})
	}
}

// What is longer than it may be is refused by its length, before it comes.
func TestOversized(t *testing.T) {
	hello, err := clientHello()
	check(t, err)
	for _, c := range []struct {
		name   string
		say    []byte
		reason string
	}{
		{"noise message 1 of 4097 bytes", append(propose(noiseID), message(4097, nil)...), "4097"},
		{"noise message 1 of 65535 bytes", append(propose(noiseID), message(65535, random(2000))...), "65535"},
		{"noise message 1 with a payload", append(propose(noiseID), message(64, random(64))...), "must have 32"},
		{"noise message 1 of nothing", append(propose(noiseID), message(0, nil)...), "must have 32"},
		{"a TLS record of 65535 bytes", append(propose(tlsID), 22, 3, 1, 255, 255), "oversized"},
		{"a TLS hello of 16 MiB", append(propose(tlsID), append([]byte{22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff}, make([]byte, 16<<10)...)...), "16"},
		{"TLS hellos without end", append(propose(tlsID), bytes.Repeat(hello, 100)...), "tls"},
		{"HTTP", []byte("GET / HTTP/1.1\r\nHost: example.com\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n"), "multistream"},
		{"TLS without multistream", hello, "multistream"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := new(network)
				v := newVictimOn(t, n, victimConfig{bare: true})
				conn, err := n.dial(t.Context(), attackerIP, v.port)
				check(t, err)
				defer conn.Close()
				begin := time.Now()
				go conn.Write(c.say)
				io.Copy(io.Discard, conn)
				if took := time.Since(begin); took > 0 {
					t.Errorf("the connection ended after %v, not at once", took)
				}
				synctest.Wait()
				if text := v.log.last("upgrade failed"); !strings.Contains(text, c.reason) {
					t.Errorf("the upgrade failed with %q, want it to tell of %q", text, c.reason)
				}
			})
		})
	}
}
