package hostile

import (
	"encoding/binary"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// flood has the host send without end, and gives it all the credit there is.
func (s *session) flood() error {
	id := s.id()
	return s.send(dataFrame(syn, id, propose("/firehose/1")), frame{typ: typeWindow, id: id, length: 1 << 30})
}

// What waits for a peer ends: a write at its deadline, a connection on which
// nothing can be written, and all of it with the host.
func TestWithheldReading(t *testing.T) {
	download := binary.BigEndian.AppendUint64(nil, 1<<40)
	for _, c := range []struct {
		name    string
		do      func(s *session) error
		reads   bool          // what comes, without giving credit
		stream  time.Duration // by when the host has ended the stream; 0: it does not
		session time.Duration // by when it has ended the session; 0: it does not
		reason  string
	}{
		{name: "a download without credit", reads: true, stream: time.Minute, do: func(s *session) error {
			id, err := s.open("/perf/1.0.0", download...)
			if err != nil {
				return err
			}
			return s.send(frame{typ: typeWindow, flags: fin, id: id})
		}},
		{name: "half a question to perf", reads: true, stream: time.Minute, do: func(s *session) error {
			_, err := s.open("/perf/1.0.0", download[:4]...)
			return err
		}},
		{name: "half a ping", reads: true, stream: 30 * time.Second, do: func(s *session) error {
			_, err := s.open("/ipfs/ping/1.0.0", random(16)...)
			return err
		}},
		{name: "a handler without a deadline", reads: true, do: func(s *session) error {
			_, err := s.open("/firehose/1")
			return err
		}},
		{name: "a download that is not taken from the wire", session: 12 * time.Second, reason: "did not read in time", do: func(s *session) error {
			id := s.id()
			return s.send(dataFrame(syn, id, append(propose("/perf/1.0.0"), download...)), frame{typ: typeWindow, flags: fin, id: id, length: 1 << 30})
		}},
		{name: "a handler without a deadline that is not taken from the wire", session: 12 * time.Second, reason: "did not read in time", do: (*session).flood},
		{name: "pings that are not taken from the wire", session: 1, reason: "pings too often", do: func(s *session) error {
			for range 5000 {
				if s.send(frame{typ: typePing, flags: syn}) != nil {
					break
				}
			}
			return nil
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := new(network)
				v := newVictimOn(t, n, victimConfig{bare: true})
				a, err := newAttacker()
				check(t, err)
				conn, err := n.dial(t.Context(), attackerIP, v.port)
				check(t, err)
				defer conn.Close()
				s, err := a.session(conn)
				check(t, err)
				synctest.Wait()
				victim := v.Conns()[0]
				begin := time.Now()
				if c.reads {
					// It answers pings, so that it is not taken for dead.
					go func() {
						for f, err := s.receive(); err == nil; f, err = s.receive() {
							if f.typ == typePing && f.flags&syn != 0 {
								s.send(frame{typ: typePing, flags: ack, length: f.length})
							}
						}
					}()
				}
				check(t, c.do(s))
				synctest.Wait()
				if c.session == 0 {
					wait := c.stream
					if wait == 0 {
						wait = 3 * time.Minute
					}
					time.Sleep(wait)
					synctest.Wait()
					if open := victim.NumStreams() == 1; open != (c.stream == 0) {
						t.Errorf("after %v the stream is open: %v", time.Since(begin), open)
					}
				} else {
					<-victim.Done()
					if took := time.Since(begin); took > c.session {
						t.Errorf("the session ended after %v, want at most %v", took, c.session)
					}
					synctest.Wait()
					if text := v.log.last("closed"); !strings.Contains(text, c.reason) {
						t.Errorf("closed because of %q, want %q", text, c.reason)
					}
				}
				// The victim is closed with the test, and complains if something is left.
				begin = time.Now()
				check(t, v.Close())
				if took := time.Since(begin); took > time.Second {
					t.Errorf("Close took %v", took)
				}
			})
		})
	}
}

// A flood of pings on a stream is answered no faster than a thousand a second,
// and costs the connection nothing else.
func TestPingFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		v := newVictimOn(t, n, victimConfig{bare: true})
		s := v.attackOn(t, n)
		begin := time.Now()
		id, err := s.open("/ipfs/ping/1.0.0")
		check(t, err)
		var answered int
		done := make(chan error, 1)
		go func() {
			for answered < 10_000*32 {
				f, err := s.receive()
				if err != nil {
					done <- err
					return
				}
				if f.typ == typeData && f.id == id {
					answered += len(f.payload)
					if err := s.send(frame{typ: typeWindow, id: id, length: f.length}); err != nil {
						done <- err
						return
					}
				}
			}
			done <- nil
		}()
		pings := random(32 * 1000)
		for range 10 {
			for part := pings; len(part) > 0; part = part[min(len(part), 8000):] {
				check(t, s.send(dataFrame(0, id, part[:min(len(part), 8000)])))
			}
			time.Sleep(time.Second)
		}
		check(t, <-done)
		if took := time.Since(begin); took < 4*time.Second {
			t.Errorf("10000 pings were answered in %v", took)
		}
		if len(v.Conns()) != 1 {
			t.Errorf("the connection ended: %s", v.log.last("closed"))
		}
	})
}
