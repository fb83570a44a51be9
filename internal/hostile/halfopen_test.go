package hostile

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// budget is what the host gives a connection, or a stream, from nothing to being
// of use, in all and not for each step.
const budget = 10 * time.Second

// keepAlive is when a peer that has said something once is taken for dead at the
// latest: after 30 s the host looks whether it did, after 60 s it asks, after 70 s it has waited long enough.
const keepAlive = 70 * time.Second

// Whoever falls silent half way, at any stage, is gone when its budget is over:
// its connection, its goroutine, its place and its memory. Those who had finished
// the set-up are gone when they have not answered a keepalive.
func TestSilenceIsBounded(t *testing.T) {
	all, err := stages()
	check(t, err)
	for _, s := range all {
		t.Run(s.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const n = 50
				net := new(network)
				v := newVictimOn(t, net, victimConfig{})
				synctest.Wait()
				before := v.level()
				begin := time.Now()
				ended := make(chan time.Duration, n)
				for range n {
					conn, err := net.dial(t.Context(), attackerIP, v.port)
					check(t, err)
					a, err := newAttacker()
					check(t, err)
					go func() {
						if err := s.reach(a, conn); err != nil {
							t.Errorf("an attacker did not get there: %v", err)
						}
						hold(conn, s.drip)
						ended <- time.Since(begin)
					}()
				}
				synctest.Wait()
				limit := budget
				if s.known {
					limit = keepAlive
				}
				if u := v.Usage(); s.known && u.Conns != n || !s.known && u.HalfOpen != n {
					t.Fatalf("of %d attackers the host holds %+v", n, u)
				}
				if err := echoTo(t, net, v); err != nil {
					t.Errorf("an honest peer during the attack: %v", err)
				}
				time.Sleep(budget)
				synctest.Wait()
				if u := v.Usage(); u.HalfOpen != 0 || u.UnnegotiatedStreams != 0 {
					t.Errorf("after %v: %+v", budget, u)
				}
				var longest time.Duration
				for range n {
					longest = max(longest, <-ended)
				}
				if longest > limit {
					t.Errorf("an attacker was there for %v, want at most %v", longest, limit)
				}
				synctest.Wait()
				if now := v.level(); now.goroutines > before.goroutines+teller || now.usage.Conns != 0 || now.heap > before.heap+heapSlack {
					t.Errorf("left behind: %+v, before the attack it was %+v", now, before)
				}
				if s.known {
					if got := v.log.last("closed"); !strings.Contains(got, "keepalive") {
						t.Errorf("closed because of %q", got)
					}
				} else if got := v.log.count("upgrade failed"); got != n {
					t.Errorf("%d upgrades failed, want %d", got, n)
				} else if text := v.log.last("upgrade failed"); !strings.Contains(text, "deadline") {
					t.Errorf("the upgrade failed with %q", text)
				}
			})
		})
	}
}

// hold keeps a connection until the other side ends it, with a byte of drip
// every three seconds.
func hold(conn net.Conn, drip []byte) {
	defer conn.Close()
	buf := make([]byte, 4096)
	for {
		conn.SetReadDeadline(time.Now().Add(3 * time.Second))
		if _, err := conn.Read(buf); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if len(drip) > 0 {
			conn.Write(drip[:1])
			drip = drip[1:]
		}
	}
}

// echoTo is a visit of an honest newcomer in a network of the tests.
func echoTo(t testing.TB, n *network, v *victim) error {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := v.visit(ctx, dialOn(n), newKey(t))
	if err != nil {
		return fmt.Errorf("visiting: %w", err)
	}
	return nil
}
