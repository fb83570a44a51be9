package perf

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/testkit"
	"github.com/kith-p2p/kith/memory"
	"github.com/kith-p2p/kith/tcp"
	"github.com/kith-p2p/kith/upgrade"
)

func TestRun(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct{ up, down uint64 }{
		{0, 0}, {1, 0}, {0, 1}, {1, 1}, {chunk, chunk}, {chunk + 1, chunk - 1}, {3 * mib, 0}, {0, 3 * mib}, {mib + 7, 2*mib + 9},
	} {
		t.Run(fmt.Sprintf("up %d down %d", c.up, c.down), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := testkit.Pair(t)
				srv := Serve(b)
				var last Progress
				r, err := Run(t.Context(), a, b.ID(), Config{Upload: c.up, Download: c.down, Progress: func(p Progress) { last = p }})
				if err != nil || r.Uploaded != c.up || r.Downloaded != c.down {
					t.Errorf("%+v, %v", r, err)
				}
				if last.Uploaded != c.up || last.Downloaded != c.down {
					t.Errorf("the last progress was %+v", last)
				}
				synctest.Wait()
				if n := srv.Counts(); n != (Counts{Served: 1, Received: c.up, Sent: c.down}) {
					t.Errorf("the server counts %+v", n)
				}
				if n := a.ConnsTo(b.ID())[0].NumStreams(); n != 0 {
					t.Errorf("%d streams are left", n)
				}
			})
		})
	}
}

func TestRunTCP(t *testing.T) {
	a, b := testkit.PairOver(t, "/ip4/127.0.0.1/tcp/0", func(u *upgrade.Upgrader) (*tcp.Transport, error) {
		return tcp.New(tcp.Config{Upgrader: u})
	})
	srv := Serve(b)
	const n = 16 << 20
	start := time.Now()
	r, err := Run(t.Context(), a, b.ID(), Config{Upload: n, Download: n})
	took := time.Since(start)
	if err != nil || r.Uploaded != n || r.Downloaded != n || r.UploadTime <= 0 || r.DownloadTime <= 0 || r.UploadTime+r.DownloadTime > took {
		t.Errorf("%+v in %v: %v", r, took, err)
	}
	if n := srv.Counts(); n.Received != r.Uploaded || n.Sent != r.Downloaded {
		t.Errorf("the server counts %+v", n)
	}
}

// The times are those of what the server does: 3 s until it has read everything,
// 2 s until everything is sent.
func slowServer(_ context.Context, s *host.Stream) error {
	var header [8]byte
	io.ReadFull(s, header[:])
	time.Sleep(3 * time.Second)
	io.Copy(io.Discard, s)
	n := binary.BigEndian.Uint64(header[:])
	if n > 0 {
		s.Write(make([]byte, n-1))
		time.Sleep(2 * time.Second)
		s.Write(make([]byte, 1))
	}
	return nil
}

func TestTimes(t *testing.T) {
	for _, c := range []struct {
		cfg      Config
		up, down time.Duration
	}{
		{Config{Upload: 10}, 3 * time.Second, 0},
		{Config{Download: 10}, 0, 5 * time.Second},
		{Config{Upload: 10, Download: 10}, 3 * time.Second, 2 * time.Second},
		{Config{}, 0, 3 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			a, b := testkit.Pair(t)
			b.Handle(ProtocolID, slowServer)
			var calls []Progress
			c.cfg.Progress = func(p Progress) { calls = append(calls, p) }
			r, err := Run(t.Context(), a, b.ID(), c.cfg)
			if err != nil || r.UploadTime != c.up || r.DownloadTime != c.down {
				t.Errorf("%+v took %v and %v: %v", c.cfg, r.UploadTime, r.DownloadTime, err)
			}
			n := len(calls)
			if most := int((c.up+c.down)/progressInterval) + 1; n > most || n < most-2 {
				t.Errorf("%d reports of progress in %v", n, c.up+c.down)
			}
			if !slices.IsSortedFunc(calls, func(a, b Progress) int { return int(a.Elapsed - b.Elapsed) }) {
				t.Errorf("progress goes back: %v", calls)
			}
			time.Sleep(time.Minute)
			if len(calls) != n {
				t.Error("progress is reported after the end")
			}
		})
	}
}

// Not a byte comes down before the last one has gone up.
func TestServerWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := testkit.Pair(t)
		Serve(b)
		s := open(t, a, b, 10)
		s.Write(make([]byte, 5))
		s.SetReadDeadline(time.Now().Add(time.Second))
		if n, err := s.Read(make([]byte, 10)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d bytes came during the upload: %v", n, err)
		}
		s.SetReadDeadline(time.Time{})
		s.CloseWrite()
		if got, err := io.ReadAll(s); len(got) != 10 || err != nil {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
}

// open begins a measurement by hand.
func open(t *testing.T, from, to *host.Host, download uint64) *host.Stream {
	t.Helper()
	s, err := from.NewStream(t.Context(), to.ID(), ProtocolID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(binary.BigEndian.AppendUint64(nil, download)); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestHostileClients(t *testing.T) {
	for _, c := range []struct {
		name  string
		do    func(s *host.Stream) error // what the client sees
		after time.Duration
	}{
		{"truncated header", func(s *host.Stream) error {
			s.Write(make([]byte, 7))
			s.CloseWrite()
			_, err := s.Read(make([]byte, 1))
			return err
		}, 0},
		{"stalled header", func(s *host.Stream) error {
			s.Write(make([]byte, 7))
			_, err := s.Read(make([]byte, 1))
			return err
		}, stallTimeout},
		{"stalled upload", func(s *host.Stream) error {
			s.Write(make([]byte, 1<<20))
			_, err := s.Read(make([]byte, 1))
			return err
		}, stallTimeout},
		{"download that is not read", func(s *host.Stream) error {
			s.Write(binary.BigEndian.AppendUint64(nil, math.MaxUint64))
			s.CloseWrite()
			time.Sleep(2 * stallTimeout)
			_, err := io.Copy(io.Discard, s)
			return err
		}, 2 * stallTimeout},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := testkit.Pair(t)
				srv := Serve(b)
				s, err := a.NewStream(t.Context(), b.ID(), ProtocolID)
				if err != nil {
					t.Fatal(err)
				}
				begin := time.Now()
				var reset *host.StreamError
				if err := c.do(s); !errors.As(err, &reset) || !reset.Remote || time.Since(begin) != c.after {
					t.Errorf("%v after %v", err, time.Since(begin))
				}
				if n := srv.Counts(); n.Active != 0 || n.Served != 1 {
					t.Errorf("the server counts %+v", n)
				}
			})
		})
	}
}

// Whoever is slow, but not stalled, is served.
func TestSlowClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := testkit.Pair(t)
		Serve(b)
		const n = 4 << 20
		s := open(t, a, b, n)
		for range 10 {
			time.Sleep(stallTimeout - time.Second)
			s.Write([]byte{1})
		}
		s.CloseWrite()
		got := 0
		buf := make([]byte, 256<<10)
		for {
			m, err := io.ReadFull(s, buf)
			if got += m; err != nil {
				break
			}
			time.Sleep(stallTimeout / 10)
		}
		if got != n {
			t.Errorf("%d bytes of %d came", got, n)
		}
	})
}

func TestTooManyStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(memory.Network)
		a, b, other := testkit.Host(t, network, host.Config{}), testkit.Host(t, network, host.Config{}), testkit.Host(t, network, host.Config{})
		srv := Serve(b)
		testkit.Connect(t, a, b)
		testkit.Connect(t, other, b)
		var streams []*host.Stream
		for range maxStreamsPerPeer {
			streams = append(streams, open(t, a, b, 0))
		}
		synctest.Wait()
		var reset *host.StreamError
		if r, err := Run(t.Context(), a, b.ID(), Config{Upload: 1}); !errors.As(err, &reset) || reset.Code != host.CodeResourceLimit {
			t.Errorf("one stream too many: %+v, %v", r, err)
		}
		if _, err := Run(t.Context(), other, b.ID(), Config{Upload: 1}); err != nil {
			t.Errorf("another peer: %v", err)
		}
		if n := srv.Counts(); n.Active != maxStreamsPerPeer || n.Refused != 1 {
			t.Errorf("the server counts %+v", n)
		}
		for _, s := range streams {
			s.Reset(0)
		}
		synctest.Wait()
		if _, err := Run(t.Context(), a, b.ID(), Config{Upload: 1}); err != nil {
			t.Errorf("after the others have ended: %v", err)
		}
		if len(srv.streams) != 0 {
			t.Errorf("%d peers are remembered", len(srv.streams))
		}
	})
}

func TestHostileServers(t *testing.T) {
	send := func(n int) host.Handler {
		return func(_ context.Context, s *host.Stream) error {
			io.Copy(io.Discard, s)
			_, err := s.Write(make([]byte, n))
			return err
		}
	}
	var reset *host.StreamError
	var refused *host.ProtocolError
	for _, c := range []struct {
		name  string
		serve host.Handler
		want  func(error) bool
		after time.Duration
	}{
		{"not spoken", nil, func(err error) bool { return errors.As(err, &refused) }, 0},
		{"too little", send(99), func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }, 0},
		{"nothing", send(0), func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }, 0},
		{"too much", send(101), func(err error) bool { return err != nil }, 0},
		{"much too much", send(1 << 20), func(err error) bool { return err != nil }, 0},
		{"a reset", func(context.Context, *host.Stream) error { return &host.StreamError{Code: host.CodeGated} },
			func(err error) bool { return errors.As(err, &reset) && reset.Code == host.CodeGated }, 0},
		{"silence", func(ctx context.Context, s *host.Stream) error {
			io.Copy(io.Discard, s)
			<-ctx.Done()
			return nil
		}, func(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }, stallTimeout},
		{"half and silence", func(ctx context.Context, s *host.Stream) error {
			io.Copy(io.Discard, s)
			s.Write(make([]byte, 50))
			<-ctx.Done()
			return nil
		}, func(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }, stallTimeout},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := testkit.Pair(t)
				if c.serve != nil {
					b.Handle(ProtocolID, c.serve)
				}
				begin := time.Now()
				r, err := Run(t.Context(), a, b.ID(), Config{Upload: 10, Download: 100})
				if !c.want(err) || time.Since(begin) != c.after {
					t.Errorf("%+v, %v after %v", r, err, time.Since(begin))
				}
				synctest.Wait()
				if n := a.ConnsTo(b.ID())[0].NumStreams(); n != 0 {
					t.Errorf("%d streams are left", n)
				}
			})
		})
	}
}

// A measurement by time: as much as there can be, until ctx ends.
func TestEndless(t *testing.T) {
	slow := func(_ context.Context, s *host.Stream) error {
		if _, err := io.CopyN(io.Discard, s, 8); err != nil {
			return err
		}
		buf := make([]byte, chunk)
		for {
			time.Sleep(time.Millisecond)
			n, err := s.Read(buf)
			if err == io.EOF {
				_, err = s.Write(buf)
			}
			if err != nil {
				return fmt.Errorf("after %d bytes: %w", n, err)
			}
		}
	}
	for name, cfg := range map[string]Config{"upload": {Upload: math.MaxUint64}, "download": {Download: math.MaxUint64}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := testkit.Pair(t)
				b.Handle(ProtocolID, slow)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				r, err := Run(ctx, a, b.ID(), cfg)
				if !errors.Is(err, context.DeadlineExceeded) || r.Uploaded+r.Downloaded < 1<<20 || r.UploadTime+r.DownloadTime != time.Second {
					t.Errorf("%+v, %v", r, err)
				}
				synctest.Wait()
				if n := b.ConnsTo(a.ID())[0].NumStreams(); n != 0 {
					t.Errorf("%d streams are left", n)
				}
			})
		})
	}
}

func BenchmarkUpload(b *testing.B)   { benchmark(b, Config{Upload: 64 << 20}) }
func BenchmarkDownload(b *testing.B) { benchmark(b, Config{Download: 64 << 20}) }

func benchmark(b *testing.B, cfg Config) {
	x, y := testkit.Pair(b)
	Serve(y)
	b.SetBytes(int64(cfg.Upload + cfg.Download))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Run(b.Context(), x, y.ID(), cfg); err != nil {
			b.Fatal(err)
		}
	}
}
