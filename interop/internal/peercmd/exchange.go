package peercmd

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"
)

// The protocols of this suite, which every peer serves.
const (
	EchoProtocol      = "/kith-interop/echo/1"      // what comes goes back; at EOF the server closes
	HalfCloseProtocol = "/kith-interop/halfclose/1" // reads to EOF, then answers with the count of bytes in decimal, and closes
	ResetProtocol     = "/kith-interop/reset/1"     // reads one byte, then resets with ResetCode
	PushedProtocol    = "/kith-interop/pushed/1"    // the dialer announces it after connecting; the listener opens it and says PushedGreeting, and the dialer ends it

	// PerfProtocol is libp2p's: https://github.com/libp2p/specs/blob/master/perf/perf.md
	PerfProtocol = "/perf/1.0.0"
)

const (
	ResetCode      = 42 // what the server of ResetProtocol resets with
	AbortCode      = 43 // what a dialer's abort resets with
	PushedGreeting = "pushed"
)

// maxAnswer is the longest decimal that a byte count can have.
const maxAnswer = 20

// A Stream as the exchanges need it.
type Stream interface {
	io.ReadWriteCloser
	CloseWrite() error
	Reset(code uint32) error
}

// A ResetError tells that a stream was reset. Each implementation has an error of its own for it, which its adapter turns
// into this one.
type ResetError struct {
	Code   uint32
	Remote bool // the remote reset it, not we
	Err    error
}

func (e *ResetError) Error() string { return e.Err.Error() }
func (e *ResetError) Unwrap() error { return e.Err }

// A ClosedError tells that the remote, or this side, closed the connection, and why.
type ClosedError struct {
	Code   uint32
	Remote bool
	Err    error
}

func (e *ClosedError) Error() string { return e.Err.Error() }
func (e *ClosedError) Unwrap() error { return e.Err }

// released tells how a stream ended that was held.
func released(err error) Released {
	if err == nil {
		return Released{Error: "more bytes than were sent"}
	}
	if closed, ok := errors.AsType[*ClosedError](err); ok {
		return Released{Code: &closed.Code, Remote: closed.Remote, Error: err.Error()}
	}
	return Released{Error: err.Error()}
}

// bound bounds one exchange: when ctx ends before stop is called, the stream is reset, which ends every Read and Write on it.
func bound(ctx context.Context, s Stream) (stop func() bool) {
	return context.AfterFunc(ctx, func() { s.Reset(0) })
}

func serveEcho(s Stream) error {
	_, err := io.Copy(s, s)
	return err
}

func serveHalfClose(s Stream) error {
	n, err := io.Copy(io.Discard, s)
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(s, n)
	return err
}

func serveReset(s Stream) error {
	if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
		return err
	}
	return s.Reset(ResetCode)
}

// ServePerf answers one run of PerfProtocol, for implementations that have none of their own.
func ServePerf(s Stream) error {
	r := bufio.NewReaderSize(s, 64<<10)
	var want [8]byte
	if _, err := io.ReadFull(r, want[:]); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		return err
	}
	return writeZeros(s, int64(min(binary.BigEndian.Uint64(want[:]), 1<<62)))
}

// RunPerf is the client of PerfProtocol: upload bytes up, then download bytes down. The upload is over when the first byte of
// the answer (or its end) is here, as the server answers only after it has read everything.
func RunPerf(s Stream, upload, download int64) (up, down time.Duration, err error) {
	start := time.Now()
	if _, err := s.Write(binary.BigEndian.AppendUint64(nil, uint64(download))); err != nil {
		return 0, 0, err
	}
	if err := writeZeros(s, upload); err != nil {
		return 0, 0, err
	}
	if err := s.CloseWrite(); err != nil {
		return 0, 0, err
	}
	buf := make([]byte, 64<<10)
	var got int64
	for {
		n, err := s.Read(buf)
		if got += int64(n); up == 0 {
			up = time.Since(start)
		}
		switch {
		case err == io.EOF && got == download:
			return up, time.Since(start) - up, nil
		case err == io.EOF || got > download:
			return 0, 0, fmt.Errorf("downloaded %d bytes, wanted %d", got, download)
		case err != nil:
			return 0, 0, err
		}
	}
}

// echo sends n random bytes and wants them back. Both directions run at once: nobody could buffer a large n.
func echo(s Stream, n int64) error {
	sent := sha256.New()
	written := make(chan error, 1)
	go func() { written <- cmp.Or(writeRandom(s, n, sent), s.CloseWrite()) }()
	received := sha256.New()
	got, readErr := io.Copy(received, s)
	if err := cmp.Or(readErr, <-written); err != nil {
		return fmt.Errorf("after %d of %d bytes: %w", got, n, err)
	}
	if got != n || !bytes.Equal(sent.Sum(nil), received.Sum(nil)) {
		return fmt.Errorf("sent %d bytes, got %d back, or not the same ones", n, got)
	}
	return nil
}

func echoMany(ctx context.Context, session opener, streams int, n int64) error {
	errs := make([]error, streams)
	var all sync.WaitGroup
	for i := range streams {
		all.Go(func() {
			errs[i] = withStream(ctx, session, EchoProtocol, func(s Stream) error { return echo(s, n) })
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

func halfClose(s Stream, n int64) error {
	if err := cmp.Or(writeRandom(s, n, sha256.New()), s.CloseWrite()); err != nil {
		return err
	}
	answer, err := io.ReadAll(io.LimitReader(s, maxAnswer+1))
	if err != nil {
		return err
	}
	if got, err := strconv.ParseInt(string(answer), 10, 64); err != nil || got != n {
		return fmt.Errorf("sent %d bytes, answer is %q", n, answer)
	}
	return nil
}

// beReset provokes a reset and returns its code, if the implementation tells it.
func beReset(s Stream) (*uint32, error) {
	_, err := s.Write([]byte{1})
	if err == nil { // else the reset was here before Write had returned
		_, err = s.Read(make([]byte, 1))
	}
	if err == nil || err == io.EOF {
		return nil, fmt.Errorf("wanted a reset, read ended with %v", err)
	}
	return codeOf(err)
}

// codeOf returns the code of the remote's reset. Another error than a reset is returned as it is.
func codeOf(err error) (*uint32, error) {
	reset, ok := errors.AsType[*ResetError](err)
	if !ok {
		return nil, err
	}
	if !reset.Remote {
		return nil, fmt.Errorf("reset, but not by the remote: %w", err)
	}
	return &reset.Code, nil
}

// abort resets a stream whose two ends are in the middle of an echo.
func abort(s Stream) error {
	if _, err := s.Write([]byte("abort")); err != nil {
		return err
	}
	if _, err := io.ReadFull(s, make([]byte, len("abort"))); err != nil {
		return err
	}
	return s.Reset(AbortCode)
}

// writeRandom writes n bytes that no compression or reordering survives unnoticed, and hashes them.
func writeRandom(w io.Writer, n int64, sum hash.Hash) error {
	source := rand.NewChaCha8([32]byte{byte(n)})
	_, err := io.CopyBuffer(io.MultiWriter(w, sum), io.LimitReader(source, n), make([]byte, 64<<10))
	return err
}

func writeZeros(w io.Writer, n int64) error {
	buf := make([]byte, min(n, 64<<10))
	for n > 0 {
		written, err := w.Write(buf[:min(n, int64(len(buf)))])
		if err != nil {
			return err
		}
		n -= int64(written)
	}
	return nil
}
