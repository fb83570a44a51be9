package hostile

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/upgrade"
)

// A peer that breaks the rules of the muxer is told so and its session ends, with
// an event that says why. Others notice nothing.
func TestMuxerViolations(t *testing.T) {
	const protocolError = 1
	many := func(n int, f frame) func(s *session) []frame {
		return func(*session) []frame {
			var all []frame
			for range n {
				all = append(all, f)
			}
			return all
		}
	}
	// on gives frames on a stream that is open and has its protocol.
	on := func(frames func(id uint32) []frame) func(s *session) []frame {
		return func(s *session) []frame {
			id := s.id()
			return append([]frame{dataFrame(syn, id, propose("/echo/1"))}, frames(id)...)
		}
	}
	for _, c := range []struct {
		name   string
		frames func(s *session) []frame
		code   int    // of GOAWAY; noGoAway: none is due
		reason string // in the event
	}{
		{"more data than the window", on(func(id uint32) []frame {
			return []frame{{typ: typeData, id: id, length: initialWindow + 1}}
		}), protocolError, "window"},
		{"a stream that opens with more than the window", func(s *session) []frame {
			return []frame{{typ: typeData, flags: syn, id: s.id(), length: initialWindow + 1}}
		}, protocolError, "window"},
		{"a frame of 4 GiB", on(func(id uint32) []frame {
			return []frame{{typ: typeData, id: id, length: 1<<32 - 1}}
		}), protocolError, "window"},
		{"credit over 32 bits", on(func(id uint32) []frame {
			return []frame{{typ: typeWindow, id: id, length: 1<<32 - 1}}
		}), protocolError, "credit"},
		{"frames without a byte", on(func(id uint32) []frame {
			return many(2000, frame{typ: typeData, id: id})(nil)
		}), protocolError, "empty frames"},
		{"credit of nothing", on(func(id uint32) []frame {
			return many(2000, frame{typ: typeWindow, id: id})(nil)
		}), protocolError, "empty frames"},
		{"pings without end", many(2000, frame{typ: typePing, flags: syn}), protocolError, "pings"},
		{"an id of the host's", func(*session) []frame {
			return []frame{{typ: typeWindow, flags: syn, id: 2}}
		}, protocolError, "id of ours"},
		{"a stream opened twice", on(func(id uint32) []frame {
			return []frame{{typ: typeWindow, flags: syn, id: id}}
		}), protocolError, "second time"},
		{"an unknown type", many(1, frame{typ: 4}), protocolError, "unknown type"},
		{"unknown flags", on(func(id uint32) []frame {
			return []frame{{typ: typeWindow, flags: 0x10, id: id}}
		}), protocolError, "unknown flags"},
		{"another version", many(1, frame{version: 1, typ: typePing, flags: syn}), protocolError, "version"},
		{"data on stream 0", many(1, dataFrame(0, 0, []byte("x"))), protocolError, "stream 0"},
		{"a ping on a stream", many(1, frame{typ: typePing, flags: syn, id: 1}), protocolError, "ping"},
		{"SYN and ACK at once", many(1, frame{typ: typeWindow, flags: syn | ack, id: 1}), protocolError, "SYN and ACK"},
		{"data after FIN", on(func(id uint32) []frame {
			return []frame{{typ: typeWindow, flags: fin, id: id}, dataFrame(0, id, []byte("x"))}
		}), protocolError, "after FIN"},
		{"GOAWAY and then a stream", func(s *session) []frame {
			return []frame{{typ: typeGoAway, length: 0}, dataFrame(syn, s.id(), propose("/echo/1"))}
		}, noGoAway, "goodbye"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := new(network)
				v := newVictimOn(t, net, victimConfig{bare: true})
				honest, err := v.guest(t, net)
				check(t, err)
				check(t, echoOnce(t.Context(), honest, v.ID()))
				events := v.Subscribe(16)
				s := v.attackOn(t, net)
				opened := <-events.Events()
				for {
					if _, ok := opened.(host.ConnOpened); ok {
						break
					}
					opened = <-events.Events()
				}
				begin := time.Now()
				check(t, s.send(c.frames(s)...))
				code, err := s.end()
				if err != nil || code != c.code {
					t.Errorf("the session ended with code %d and %v, want code %d", code, err, c.code)
				}
				closed, ok := (<-events.Events()).(host.ConnClosed)
				if !ok || closed.Conn != opened.(host.ConnOpened).Conn || !strings.Contains(closed.Err.Error(), c.reason) {
					t.Errorf("the event says %v, want it to speak of %q", closed.Err, c.reason)
				}
				if _, ok := (<-events.Events()).(host.PeerDisconnected); !ok {
					t.Error("no event tells that the peer is gone")
				}
				if took := time.Since(begin); took > time.Second {
					t.Errorf("it took %v", took)
				}
				synctest.Wait()
				if len(v.Conns()) != 1 || v.Usage().UnnegotiatedStreams != 0 {
					t.Errorf("left behind: %+v", v.Usage())
				}
				if err := echoOnce(t.Context(), honest, v.ID()); err != nil {
					t.Errorf("the others noticed: %v", err)
				}
			})
		})
	}
}

// guest makes an honest host in a network of the tests that is connected to v.
func (v *victim) guest(t testing.TB, n *network) (*host.Host, error) {
	t.Helper()
	key := newKey(t)
	h, err := host.New(host.Config{Identity: key, Transports: []host.Transport{dialOn(n)(newUpgrader(t, key, upgrade.Noise))}})
	check(t, err)
	t.Cleanup(func() { check(t, h.Close()) })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err = h.Connect(ctx, v.info())
	return h, err
}

// attackOn gives an attacker a session with v in a network of the tests.
func (v *victim) attackOn(t testing.TB, n *network) *session {
	t.Helper()
	a, err := newAttacker()
	check(t, err)
	conn, err := n.dial(t.Context(), attackerIP, v.port)
	check(t, err)
	t.Cleanup(func() { conn.Close() })
	s, err := a.session(conn)
	check(t, err)
	return s
}

// An address from which rules are broken again and again is not let in for a
// while; its neighbours are, and later it is too.
func TestOffendersWait(t *testing.T) {
	const offences = 8
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		v := newVictimOn(t, n, victimConfig{bare: true})
		begin := time.Now()
		for range offences {
			s := v.attackOn(t, n)
			check(t, s.send(frame{typ: 4}))
			if code, err := s.end(); code != 1 || err != nil {
				t.Fatalf("ended with code %d, %v", code, err)
			}
			synctest.Wait()
		}
		for range 100 {
			conn, err := n.dial(t.Context(), attackerIP, v.port)
			check(t, err)
			if n, err := conn.Read(make([]byte, 1)); n > 0 || err == nil {
				t.Fatal("the offender was let in")
			}
		}
		if u := v.Usage(); u.HalfOpen != 0 || u.Conns != 0 {
			t.Errorf("%+v", u)
		}
		check(t, echoTo(t, n, v))
		time.Sleep(10*time.Second - time.Since(begin))
		v.attackOn(t, n)
	})
}
