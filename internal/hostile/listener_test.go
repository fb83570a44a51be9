package hostile

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/noise"
	"github.com/kith-p2p/kith/peer"
)

// Whatever a listener does, a dial to it ends in time, and the error says how
// far it came and why it went no further.
func TestHostileListener(t *testing.T) {
	const now = 0
	self, err := newAttacker()
	check(t, err)
	forever := func(conn net.Conn, what []byte) {
		for {
			if _, err := conn.Write(what); err != nil {
				return
			}
		}
	}
	silence := func(conn net.Conn) { io.Copy(io.Discard, conn) }
	// secured answers an honest handshake.
	secured := func(conn net.Conn, muxers ...string) *noise.Conn {
		if respond(conn, noiseID) != nil {
			return nil
		}
		c, err := self.noise.Server(context.Background(), conn, noise.Config{Muxers: muxers})
		if err != nil {
			return nil
		}
		return c
	}
	for _, c := range []struct {
		name   string
		answer func(conn net.Conn)
		stage  host.Stage
		took   time.Duration
		reason string
	}{
		{"hangs up", func(net.Conn) {}, host.StageOpened, now, "noise"},
		{"says nothing", silence, host.StageOpened, budget, "no answer in time"},
		{"says the header and no more", func(conn net.Conn) {
			conn.Write(propose("")[:20])
			silence(conn)
		}, host.StageOpened, budget, "no answer in time"},
		{"says a byte now and then", func(conn net.Conn) { hold(conn, propose(noiseID)) }, host.StageOpened, budget, "no answer in time"},
		{"speaks HTTP", func(conn net.Conn) {
			io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n400 Bad Request")
			silence(conn)
		}, host.StageOpened, now, "multistream"},
		{"sends zeros without end", func(conn net.Conn) { forever(conn, make([]byte, 4096)) }, host.StageOpened, now, "multistream"},
		{"proposes without end", func(conn net.Conn) {
			conn.Write(propose("")[:20])
			forever(conn, token("/nobody/1"))
		}, host.StageOpened, now, "multistream"},
		{"refuses everything", func(conn net.Conn) { respond(conn, "/nobody/1") }, host.StageOpened, now, "not supported"},
		{"refuses without end", func(conn net.Conn) {
			conn.Write(propose("")[:20])
			forever(conn, token("na"))
		}, host.StageOpened, now, "multistream"},
		{"agrees and says no more", func(conn net.Conn) {
			respond(conn, noiseID)
			silence(conn)
		}, host.StageSecuring, budget, "no answer in time"},
		{"agrees and sends zeros without end", func(conn net.Conn) {
			respond(conn, noiseID)
			forever(conn, make([]byte, 4096))
		}, host.StageSecuring, now, "noise"},
		{"says half of message 2", func(conn net.Conn) {
			respond(conn, noiseID)
			conn.Write(message(200, random(100)))
			silence(conn)
		}, host.StageSecuring, budget, "no answer in time"},
		{"announces a message 2 of 64 KiB", func(conn net.Conn) {
			respond(conn, noiseID)
			conn.Write(message(65535, nil))
			silence(conn)
		}, host.StageSecuring, now, "65535"},
		{"says a message 2 that nobody can read", func(conn net.Conn) {
			respond(conn, noiseID)
			conn.Write(message(200, random(200)))
			silence(conn)
		}, host.StageSecuring, now, "noise"},
		{"agrees on TLS and sends zeros without end", func(conn net.Conn) {
			respond(conn, tlsID)
			forever(conn, make([]byte, 4096))
		}, host.StageSecuring, now, "tls"},
		{"agrees on TLS and says no more", func(conn net.Conn) {
			respond(conn, tlsID)
			silence(conn)
		}, host.StageSecuring, budget, "no answer in time"},
		{"has no muxer and says no more", func(conn net.Conn) {
			if secured(conn) != nil {
				silence(conn)
			}
		}, host.StageSecured, budget, "no answer in time"},
		{"refuses the muxer", func(conn net.Conn) {
			if c := secured(conn); c != nil {
				respond(c, "/nobody/1")
			}
		}, host.StageSecured, now, "muxer"},
		{"has a record that nobody can read", func(conn net.Conn) {
			if secured(conn) != nil {
				conn.Write(message(64, random(64)))
				silence(conn)
			}
		}, host.StageSecured, now, "not authentic"},
		{"has another muxer", func(conn net.Conn) {
			secured(conn, "/nobody/1")
			silence(conn)
		}, host.StageSecuring, now, "no muxer in common"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := new(network)
				v := newVictimOn(t, n, victimConfig{})
				synctest.Wait()
				before := v.level()
				at := serve(t, n, c.answer)
				listening := v.level().goroutines - before.goroutines
				begin := time.Now()
				_, err := v.Connect(t.Context(), peer.AddrInfo{ID: self.key.ID(), Addrs: at})
				took := time.Since(begin)
				var failed *host.DialError
				if !errors.As(err, &failed) || len(failed.Attempts) != 1 {
					t.Fatalf("connecting: %v", err)
				}
				if a := failed.Attempts[0]; a.Stage != c.stage || took != c.took || a.Elapsed != c.took || !strings.Contains(err.Error(), c.reason) {
					t.Errorf("after %v at the stage %q: %v; want %v, %q, and %q in it", took, a.Stage, err, c.took, c.stage, c.reason)
				}
				synctest.Wait()
				if now := v.level(); now.goroutines > before.goroutines+listening || now.usage.Conns != 0 {
					t.Errorf("left behind: %+v, before it was %+v", now, before)
				}
				// A caller that does not wait so long does not have to.
				if c.took > 0 {
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					begin := time.Now()
					if _, err := v.Connect(ctx, peer.AddrInfo{ID: self.key.ID(), Addrs: at}); !errors.As(err, &failed) || !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("connecting for a second: %v", err)
					}
					if took := time.Since(begin); took != time.Second {
						t.Errorf("connecting for a second took %v", took)
					}
				}
			})
		})
	}
}

// Whoever answers in place of the peer that was dialed is told nothing, and named.
func TestAnotherPeerAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		v := newVictimOn(t, n, victimConfig{})
		self, err := newAttacker()
		check(t, err)
		met := make(chan error, 1)
		at := serve(t, n, func(conn net.Conn) {
			if respond(conn, noiseID) == nil {
				_, err := self.noise.Server(context.Background(), conn, noise.Config{Muxers: []string{yamuxID}})
				met <- err
			}
		})
		wanted := newKey(t).ID()
		_, err = v.Connect(t.Context(), peer.AddrInfo{ID: wanted, Addrs: at})
		var mismatch *peer.MismatchError
		if !errors.As(err, &mismatch) || mismatch.Want != wanted || mismatch.Got != self.key.ID() {
			t.Errorf("connecting: %v", err)
		}
		if err := <-met; err == nil {
			t.Error("the impostor learned who called")
		}
	})
}

// One hostile address among a peer's costs an honest one no more than its turn.
func TestHostileAddressAmongHonest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		v := newVictimOn(t, n, victimConfig{})
		honest, err := v.guest(t, n)
		check(t, err)
		silent := serve(t, n, func(conn net.Conn) { io.Copy(io.Discard, conn) })
		for _, c := range honest.Conns() {
			c.Close()
			<-c.Done()
		}
		begin := time.Now()
		_, err = honest.Connect(t.Context(), peer.AddrInfo{ID: v.ID(), Addrs: append(silent, v.Addrs()...)})
		check(t, err)
		if took := time.Since(begin); took > time.Second {
			t.Errorf("it took %v", took)
		}
	})
}
