package host

import (
	"testing"
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
	s := &Stream{dir: DirInbound}
	writes := 0
	s.mux = writing{during: func() {
		writes++
		if s.negotiating.Load() == nil {
			t.Error("the negotiation is done before its answer is written")
		}
	}}
	g := &negotiation{mux: s.mux, pending: []byte("answer"), late: time.NewTimer(time.Hour)}
	g.left.Store(1)
	s.negotiating.Store(g)
	if err := s.flush(g); err != nil || writes != 1 {
		t.Fatalf("%d writes, %v", writes, err)
	}
	if s.negotiating.Load() != nil {
		t.Error("the negotiation is not done")
	}
}
