package host_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/testkit"
)

// What comes with the proposal is read in whatever pieces the handler likes, and
// nothing is lost where it ends.
func TestRequestWithProposal(t *testing.T) {
	for _, size := range []int{1, 100, 171, 172, 173, 200, 5000} {
		for _, piece := range []int{1, 7, 8192} {
			a, b := testkit.Pair(t)
			b.Handle("/mirror/1", func(_ context.Context, s *host.Stream) error {
				var got []byte
				buf := make([]byte, piece)
				for len(got) < size {
					n, err := s.Read(buf)
					if err != nil {
						return err
					}
					got = append(got, buf[:n]...)
				}
				_, err := s.Write(got)
				return err
			})
			s, err := a.NewStream(t.Context(), b.ID(), "/mirror/1")
			if err != nil {
				t.Fatal(err)
			}
			sent := make([]byte, size)
			for i := range sent {
				sent[i] = byte(i)
			}
			s.Write(sent)
			if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, sent) {
				t.Errorf("%d bytes in pieces of %d: %d came back: %v", size, piece, len(got), err)
			}
		}
	}
}

// Nothing is read any more from a stream that was closed for reading, also not
// what came with the proposal.
func TestNoReadAfterClose(t *testing.T) {
	ends := map[string]func(*host.Stream) error{
		"CloseRead": (*host.Stream).CloseRead,
		"Close":     (*host.Stream).Close,
		"Reset":     func(s *host.Stream) error { return s.Reset(7) },
	}
	for name, end := range ends {
		a, b := testkit.Pair(t)
		read := make(chan error, 1)
		b.Handle("/end/1", func(_ context.Context, s *host.Stream) error {
			buf := make([]byte, 1)
			if _, err := s.Read(buf); err != nil {
				return err
			}
			end(s)
			_, err := s.Read(buf)
			read <- err
			return nil
		})
		s, err := a.NewStream(t.Context(), b.ID(), "/end/1")
		if err != nil {
			t.Fatal(err)
		}
		s.Write([]byte("more than one byte"))
		if err := <-read; err == nil || err == io.EOF {
			t.Errorf("a read after %s: %v", name, err)
		}
		s.Reset(0)
	}
}

// One reads what came with the proposal while another writes.
func TestAnswerWhileReading(t *testing.T) {
	a, b := testkit.Pair(t)
	b.Handle("/both/1", func(_ context.Context, s *host.Stream) error {
		var wg sync.WaitGroup
		wg.Go(func() { s.Write([]byte("answer")) })
		got, err := io.ReadAll(s)
		wg.Wait()
		if string(got) != "question" {
			return errors.New("another question")
		}
		return err
	})
	for range 100 {
		s, err := a.NewStream(t.Context(), b.ID(), "/both/1")
		if err != nil {
			t.Fatal(err)
		}
		s.Write([]byte("question"))
		s.CloseWrite()
		if got, err := io.ReadAll(s); string(got) != "answer" || err != nil {
			t.Fatalf("got %q, %v", got, err)
		}
	}
}
