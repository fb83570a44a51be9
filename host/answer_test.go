package host

import (
	"testing"
	"testing/synctest"
	"time"
)

// writing is a stream that calls during in each Write.
type writing struct {
	MuxedStream
	during func()
}

func (w writing) Write(p []byte) (int, error) {
	w.during()
	return len(p), nil
}

// Until our answer to the remote's proposal is written, no other write can pass
// it: not even while the answer's timer is writing it.
func TestNothingPassesTheAnswer(t *testing.T) {
	s := &Stream{conn: &Conn{host: new(Host)}, dir: DirInbound}
	writes := 0
	s.mux = writing{during: func() {
		writes++
		if s.negotiating.Load() == nil {
			t.Error("the negotiation is done before its answer is written")
		}
	}}
	g := &negotiation{stream: s, pending: []byte("answer")}
	g.left.Store(1)
	s.negotiating.Store(g)
	if err := s.flush(g); err != nil || writes != 1 {
		t.Fatalf("%d writes, %v", writes, err)
	}
	if s.negotiating.Load() != nil {
		t.Error("the negotiation is not done")
	}
}

// Answers are sent when they have waited long enough, but not those that left in time,
// and a handler's that came later waits as long.
func TestLateAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := new(Host)
		start := time.Now()
		var sent [5]time.Duration
		add := func(i int) *Stream {
			s := &Stream{conn: &Conn{host: h}, dir: DirInbound}
			s.mux = writing{during: func() { sent[i] = time.Since(start) }}
			g := &negotiation{stream: s, pending: []byte("answer")}
			g.left.Store(1)
			s.negotiating.Store(g)
			h.answers.add(g, time.Now())
			return s
		}
		streams := []*Stream{add(0), add(1), add(2)}
		time.Sleep(answerDelay / 2)
		streams = append(streams, add(3))
		for _, i := range []int{1, 3} {
			if _, err := streams[i].Write([]byte("data")); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(answerDelay)
		synctest.Wait()
		if want := [5]time.Duration{answerDelay, answerDelay / 2, answerDelay, answerDelay / 2}; sent != want {
			t.Errorf("sent at %v, want %v", sent, want)
		}
		if h.answers.first != nil || h.answers.last != nil || h.answers.armed {
			t.Error("the queue is not at rest")
		}
		add(4)
		time.Sleep(2 * answerDelay)
		synctest.Wait()
		if want := answerDelay * 5 / 2; sent[4] != want {
			t.Errorf("sent at %v, want %v", sent[4], want)
		}
	})
}

// Close waits for an answer that the remote does not take, which the end of the
// connection ends.
func TestCloseEndsAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, err := New(Config{Identity: testKey(t)})
		if err != nil {
			t.Fatal(err)
		}
		taken := make(chan struct{})
		writes := 0
		add := func() {
			s := &Stream{conn: &Conn{host: h}, dir: DirInbound}
			s.mux = writing{during: func() { writes++; <-taken }}
			g := &negotiation{stream: s, pending: []byte("answer")}
			g.left.Store(1)
			s.negotiating.Store(g)
			h.answers.add(g, time.Now())
		}
		add()
		time.Sleep(answerDelay)
		synctest.Wait()
		add() // is not sent any more
		time.AfterFunc(answerDelay/2, func() { close(taken) })
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		add()
		time.Sleep(2 * answerDelay)
		synctest.Wait()
		if running := h.running.Load(); running != 0 || writes != 1 {
			t.Errorf("%d goroutines run, %d answers were sent", running, writes)
		}
	})
}
