package perf

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/peer"
)

// ProtocolID is the protocol's name.
// https://github.com/libp2p/specs/blob/master/perf/perf.md#protocol
const ProtocolID host.ProtocolID = "/perf/1.0.0"

const (
	// chunk is how much is read or written at once, in bytes: what fits into one
	// record of the secure channel. Larger ones are no faster.
	chunk = 64 << 10
	// stallTimeout is how long both sides wait for a byte to move. Muxers give
	// credit in large steps, so on a slow link writes come to a halt for seconds.
	stallTimeout = 30 * time.Second
	// progressInterval is the time between two reports of progress.
	progressInterval = 250 * time.Millisecond
)

// zeros is what is sent. Nobody writes to it, so that it takes no memory of its own.
var zeros [chunk]byte

// Config says what to measure.
type Config struct {
	Upload   uint64 // bytes to send
	Download uint64 // bytes to ask for

	// Progress, when set, is told four times a second how far it is, and once at
	// the end. The calls come one after another, and none after Run has returned.
	Progress func(Progress)
}

// Progress is how far a measurement is.
type Progress struct {
	Uploaded   uint64 // bytes so far that were handed to the connection
	Downloaded uint64 // bytes so far that arrived
	Elapsed    time.Duration
}

// Result is what a measurement has found. The two times add up to that from the
// opening of the stream to its end.
type Result struct {
	Uploaded     uint64        // bytes
	Downloaded   uint64        // bytes
	UploadTime   time.Duration // until the server began to answer, so until it had everything; 0 without an upload
	DownloadTime time.Duration // from then on; 0 without a download
}

// Run uploads to p and then downloads from it. It connects if there is no
// connection. On an error, the end of ctx included, the result tells how far it came;
// so a measurement by time is one with a large number and a ctx that ends.
func Run(ctx context.Context, h *host.Host, p peer.ID, cfg Config) (Result, error) {
	s, err := h.NewStream(ctx, p, ProtocolID)
	if err != nil {
		return Result{}, fmt.Errorf("perf: %w", err)
	}
	// A reset, not a deadline: those belong to the transfer.
	stop := context.AfterFunc(ctx, func() { s.Reset(host.CodeNone) })
	defer stop()
	r := run{stream: s, cfg: cfg, start: time.Now()}
	end := r.report()
	result, err := r.measure()
	end()
	if err != nil {
		s.Reset(host.CodeNone)
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return result, fmt.Errorf("perf: %s: after %d bytes sent and %d received: %w", p, result.Uploaded, result.Downloaded, err)
	}
	return result, nil
}

// A run is one measurement.
type run struct {
	stream *host.Stream
	cfg    Config
	start  time.Time

	uploaded   atomic.Uint64
	downloaded atomic.Uint64
}

// report tells of progress until the function returned is called.
func (r *run) report() (end func()) {
	if r.cfg.Progress == nil {
		return func() {}
	}
	tell := func() {
		r.cfg.Progress(Progress{Uploaded: r.uploaded.Load(), Downloaded: r.downloaded.Load(), Elapsed: time.Since(r.start)})
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		ticker := time.NewTicker(progressInterval)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				tell()
			case <-done:
				return
			}
		}
	})
	return func() {
		close(done)
		wg.Wait()
		tell()
	}
}

func (r *run) measure() (Result, error) {
	answered, err := r.transfer()
	end := time.Now()
	res := Result{Uploaded: r.uploaded.Load(), Downloaded: r.downloaded.Load()}
	switch {
	case r.cfg.Upload == 0:
		answered = r.start
	case r.cfg.Download == 0 || answered.IsZero():
		answered = end
	}
	res.UploadTime, res.DownloadTime = answered.Sub(r.start), end.Sub(answered)
	return res, err
}

// transfer tells when the server began to answer.
func (r *run) transfer() (answered time.Time, err error) {
	t := transfer{stream: r.stream}
	header := binary.BigEndian.AppendUint64(make([]byte, 0, 8), r.cfg.Download)
	t.extend()
	if _, err := r.stream.Write(header); err != nil {
		return answered, err
	}
	if err := t.send(r.cfg.Upload, &r.uploaded); err != nil {
		return answered, err
	}
	if err := r.stream.CloseWrite(); err != nil {
		return answered, err
	}
	buf := make([]byte, chunk)
	for {
		n, err := t.read(buf)
		if answered.IsZero() && (n > 0 || err == io.EOF) {
			answered = time.Now()
		}
		switch got := r.downloaded.Add(uint64(n)); {
		case got > r.cfg.Download:
			return answered, fmt.Errorf("the server sent more than the %d bytes asked for", r.cfg.Download)
		case err == io.EOF && got < r.cfg.Download:
			return answered, io.ErrUnexpectedEOF
		case err == io.EOF:
			return answered, r.stream.Close()
		case err != nil:
			return answered, err
		}
	}
}

// A transfer reads and writes a stream and fails when nothing moves for a while.
type transfer struct {
	stream   *host.Stream
	deadline time.Time
}

// extend moves the deadline, but not for every chunk.
func (t *transfer) extend() {
	deadline := time.Now().Add(stallTimeout)
	if deadline.Sub(t.deadline) > stallTimeout/10 {
		t.deadline = deadline
		t.stream.SetDeadline(deadline)
	}
}

func (t *transfer) read(p []byte) (int, error) {
	t.extend()
	return t.stream.Read(p)
}

// write writes p and adds what has gone to written.
func (t *transfer) write(p []byte, written *atomic.Uint64) error {
	t.extend()
	n, err := t.stream.Write(p)
	written.Add(uint64(n))
	return err
}

// send writes n zeros.
func (t *transfer) send(n uint64, sent *atomic.Uint64) error {
	for n > 0 {
		part := zeros[:min(n, chunk)]
		if err := t.write(part, sent); err != nil {
			return err
		}
		n -= uint64(len(part))
	}
	return nil
}
