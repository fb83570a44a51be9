package yamux

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
)

// FuzzSession takes arbitrary bytes for what a peer says, to a client and to a
// server, in records of any size. The session must end with a SessionError when
// they end, and hold no more than its budget before.
func FuzzSession(f *testing.F) {
	v := loadVectors(f)
	var all []byte
	for _, frame := range v.Frames {
		f.Add([]byte(frame.Hex), uint16(1))
		all = append(all, frame.Hex...)
	}
	for _, frame := range v.Refused {
		f.Add([]byte(frame.Hex), uint16(100))
	}
	f.Add(all, uint16(7))
	f.Add([]byte(v.Conversation.Client), uint16(64))
	f.Add(bytes.Join([][]byte{data(flagSYN, 2, "hello"), data(flagSYN|flagFIN, 1, "hello"), credit(0, 1, 1<<20), credit(flagFIN, 2, 0),
		data(flagSYN, 3, string(zeros[:100])), credit(flagRST, 3, 1), data(flagSYN, 5, "x"), credit(flagACK, 2, 0)}, nil), uint16(13))
	f.Add(repeat(50, synRST), uint16(1000))
	f.Fuzz(func(t *testing.T, input []byte, record uint16) {
		for _, client := range []bool{false, true} {
			fuzzSession(t, client, input, int(record)%4096+1)
		}
	})
}

func fuzzSession(t *testing.T, client bool, input []byte, record int) {
	const budget = 64 << 10
	near, far := newLink(plenty, 0)
	s := New(near, client, Config{MaxIncomingStreams: 8, Budget: budget})
	near.record = make([]byte, record)
	own := mustOpen(t, s)
	mustWrite(t, own, "hello")
	kinds := 0
	var wg sync.WaitGroup
	wg.Go(func() { io.Copy(io.Discard, far) })
	far.Write(input)
	far.Close()
	err := s.Serve(func(st *Stream) {
		if held := s.held.Load(); held > budget {
			t.Errorf("%d bytes are held", held)
		}
		switch kinds++; kinds % 4 { // and what applications do
		case 0:
			st.Close()
		case 1:
			st.CloseRead()
		case 2:
			st.Reset(1)
		case 3:
			st.CloseWrite()
		}
	})
	var end *SessionError
	if !errors.As(err, &end) || !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve = %v", err)
	}
	if n := s.NumStreams(); n != 0 {
		t.Errorf("%d streams are left", n)
	}
	if _, err := own.Write([]byte("x")); err == nil {
		t.Error("a stream has outlived its session")
	}
	if n := len(s.opens); n > 1 {
		t.Errorf("%d streams count as unacknowledged", n)
	}
	s.Close()
	wg.Wait()
}

// FuzzRoundTrip has two sessions carry streams whose writes and reads have
// arbitrary sizes, over a connection that may hold very little. Each stream is
// five bytes of the input. What is read must be what was written.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte{1, 0, 1, 0, 1}, uint16(1))
	f.Add([]byte{255, 255, 255, 255, 255, 3, 10, 200, 1, 0, 8, 100, 100, 0, 255}, uint16(1000))
	f.Add([]byte{0, 0, 200, 200, 9, 1, 200, 0, 200, 17, 2, 1, 255, 7, 33, 3, 7, 7, 7, 255}, uint16(65535))
	f.Fuzz(func(t *testing.T, plan []byte, room uint16) {
		plan = plan[:min(len(plan), 5*16)]
		p := newPair(t, 100+int(room), 0, Config{KeepAlive: -1})
		defer p.close()
		var wg sync.WaitGroup
		var opened [2]int
		for ; len(plan) >= 5; plan = plan[5:] {
			from := p.client
			if plan[0]&1 == 1 {
				from = p.server
			}
			opened[plan[0]&1]++
			one := [5]byte(plan)
			wg.Go(func() { fuzzWrite(t, from, one) })
		}
		for range opened[0] {
			wg.Go(func() { fuzzRead(t, <-p.accepted) })
		}
		for range opened[1] {
			wg.Go(func() { fuzzRead(t, <-p.acceptedBack) })
		}
		wg.Wait()
	})
}

// fuzzWrite sends its plan, then a pattern, and expects an echo of all.
func fuzzWrite(t *testing.T, s *Session, plan [5]byte) {
	st := mustOpen(t, s)
	defer st.Close()
	size := 5 + int(plan[1])*int(plan[1])*4
	want := make([]byte, size)
	pattern(want, 0, plan[4])
	copy(want, plan[:])
	go func() {
		chunk := 1 + int(plan[2])*int(plan[2])
		for rest := want; len(rest) > 0; rest = rest[min(len(rest), chunk):] {
			if _, err := st.Write(rest[:min(len(rest), chunk)]); err != nil {
				t.Error(err)
			}
		}
		st.CloseWrite()
	}()
	got, err := io.ReadAll(st)
	if !bytes.Equal(got, want) || err != nil {
		t.Errorf("%d bytes came back of %d, %v", len(got), size, err)
	}
}

func fuzzRead(t *testing.T, st *Stream) {
	defer st.Close()
	buf := make([]byte, 5)
	if _, err := io.ReadFull(st, buf); err != nil {
		t.Error(err)
	}
	st.Write(buf)
	buf = make([]byte, 1+int(buf[3])*int(buf[3]))
	for {
		n, err := st.Read(buf)
		if _, err := st.Write(buf[:n]); err != nil {
			t.Error(err)
		}
		if err != nil {
			if err != io.EOF {
				t.Error(err)
			}
			return
		}
	}
}
