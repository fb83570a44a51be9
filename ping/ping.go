package ping

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/peer"
)

// ProtocolID is the protocol's name.
// https://github.com/libp2p/specs/blob/master/ping/ping.md#protocol
const ProtocolID host.ProtocolID = "/ipfs/ping/1.0.0"

// size is how many bytes a ping has.
// https://github.com/libp2p/specs/blob/master/ping/ping.md#protocol
const size = 32

const (
	// maxStreams is how many streams of one peer are served, as the specification asks.
	maxStreams = 2
	// idleTimeout is how long a stream is kept without a ping.
	idleTimeout = 30 * time.Second
	// A ping takes some 10 µs of CPU, so these are 1 % of a core for each stream.
	// Whoever waits for the answer before the next ping rarely gets there.
	pingInterval = time.Millisecond
	pingBurst    = 5000

	// answerTimeout is how long a ping waits for its answer.
	answerTimeout = 10 * time.Second
	// streamAge is how long one stream is used for pings. go-libp2p ends streams
	// after 30 s, js-libp2p after 10 s, busy or not.
	streamAge = 5 * time.Second
)

// Ping measures the round trip to p, again at each turn of the loop, which sets
// the pace; it connects if there is no connection. After an error, and when the
// loop is left, it ends.
//
//	for rtt, err := range ping.Ping(ctx, h, p) {
//		if err != nil {
//			return err
//		}
//		fmt.Println(rtt)
//		time.Sleep(time.Second)
//	}
//
// The error wraps os.ErrDeadlineExceeded when no answer came within 10 s, and is a
// *host.ProtocolError when p does not answer pings at all.
func Ping(ctx context.Context, h *host.Host, p peer.ID) iter.Seq2[time.Duration, error] {
	return func(yield func(time.Duration, error) bool) {
		pg := pinger{host: h, peer: p}
		defer pg.close()
		for {
			rtt, err := pg.ping(ctx)
			if !yield(rtt, err) || err != nil {
				return
			}
		}
	}
}

// Once measures the round trip to p. See Ping.
func Once(ctx context.Context, h *host.Host, p peer.ID) (time.Duration, error) {
	pg := pinger{host: h, peer: p}
	defer pg.close()
	return pg.ping(ctx)
}

// A pinger pings one peer, over one stream at a time.
type pinger struct {
	host   *host.Host
	peer   peer.ID
	stream *host.Stream
	opened time.Time
	sent   [size]byte
	got    [size]byte
}

func (pg *pinger) ping(ctx context.Context) (time.Duration, error) {
	if pg.stream != nil && time.Since(pg.opened) > streamAge {
		pg.close()
	}
	if pg.stream == nil {
		s, err := pg.host.NewStream(ctx, pg.peer, ProtocolID)
		if err != nil {
			return 0, fmt.Errorf("ping: %w", err)
		}
		pg.stream, pg.opened = s, time.Now()
	}
	rtt, err := pg.exchange(ctx)
	if err != nil {
		code := host.CodeNone
		if errors.Is(err, errOther) {
			code = host.CodeProtocolViolation
		}
		pg.stream.Reset(code)
		pg.stream = nil
		return 0, fmt.Errorf("ping: %s: %w", pg.peer, err)
	}
	return rtt, nil
}

var errOther = errors.New("other bytes came back than were sent")

func (pg *pinger) exchange(ctx context.Context) (time.Duration, error) {
	s := pg.stream
	s.SetDeadline(time.Now().Add(answerTimeout))
	stop := context.AfterFunc(ctx, func() { s.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	rand.Read(pg.sent[:])
	start := time.Now()
	_, err := s.Write(pg.sent[:])
	if err == nil {
		_, err = io.ReadFull(s, pg.got[:])
	}
	rtt := time.Since(start)
	switch {
	case ctx.Err() != nil:
		return 0, context.Cause(ctx)
	case err == io.EOF:
		return 0, fmt.Errorf("the remote ended the stream instead of answering: %w", io.ErrUnexpectedEOF)
	case err != nil:
		return 0, err
	case pg.got != pg.sent:
		return 0, errOther
	}
	return rtt, nil
}

func (pg *pinger) close() {
	if pg.stream != nil {
		pg.stream.Close()
		pg.stream = nil
	}
}

// Serve answers pings, until h is closed.
func Serve(h *host.Host) {
	r := &responder{streams: make(map[peer.ID]int)}
	h.Handle(ProtocolID, r.handle)
}

// A responder counts the streams of each peer.
type responder struct {
	mu      sync.Mutex
	streams map[peer.ID]int
}

func (r *responder) handle(ctx context.Context, s *host.Stream) error {
	p := s.Conn().RemotePeer()
	if !r.enter(p) {
		return fmt.Errorf("ping: more than %d streams: %w", maxStreams, &host.StreamError{Code: host.CodeResourceLimit})
	}
	defer r.leave(p)
	return answer(ctx, s)
}

func (r *responder) enter(p peer.ID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.streams[p] >= maxStreams {
		return false
	}
	r.streams[p]++
	return true
}

func (r *responder) leave(p peer.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.streams[p]--; r.streams[p] == 0 {
		delete(r.streams, p)
	}
}

// answer sends back what comes, 32 bytes at a time, until the remote ends the stream.
func answer(ctx context.Context, s *host.Stream) error {
	buf := make([]byte, size)
	var paid time.Time // when the pings so far are paid for
	for {
		now := time.Now()
		s.SetDeadline(now.Add(idleTimeout))
		switch _, err := io.ReadFull(s, buf); {
		case err == io.EOF:
			return nil
		case err != nil:
			return fmt.Errorf("ping: %w", err)
		}
		if _, err := s.Write(buf); err != nil {
			return fmt.Errorf("ping: %w", err)
		}
		if paid.Before(now) {
			paid = now
		}
		paid = paid.Add(pingInterval)
		if debt := paid.Sub(now) - pingBurst*pingInterval; debt > 0 {
			if err := sleep(ctx, debt); err != nil {
				return err
			}
		}
	}
}

// sleep waits for d, or for the end of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
