package peercmd

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// settleEvery is how often a condition is looked at that nobody tells of.
const settleEvery = 10 * time.Millisecond

// obey does what the lines of in order, one after the other, until in or ctx ends. Each order has its answer, a Did.
func (r *Run) obey(ctx context.Context, in io.Reader) {
	for lines := bufio.NewScanner(in); lines.Scan() && ctx.Err() == nil; {
		did := Did{Order: lines.Text()}
		if err := r.order(ctx, strings.Fields(did.Order)); err != nil {
			did.Error = err.Error()
		}
		r.Events.Emit(did)
	}
}

func (r *Run) order(ctx context.Context, words []string) error {
	words = append(words, "", "", "", "")
	switch words[0] {
	case "listen":
		if err := r.Node.Listen([]string{words[1]}); err != nil {
			return err
		}
		r.Events.Emit(Listening{Peer: r.Node.Peer(), Addrs: r.Node.Addrs()})
		return nil
	case "connect":
		_, _, err := r.Node.Connect(ctx, words[1])
		return err
	case "meet":
		return r.meet(ctx, words[1], words[2])
	case "hold":
		return r.hold(ctx, words[1])
	case "knows":
		return r.until(ctx, func() bool { return slices.Contains(r.Node.KnownAddrs(words[1]), words[2]) })
	case "has":
		return r.until(ctx, func() bool { return r.Node.Connected(words[1]) })
	case "gone":
		return r.until(ctx, func() bool { return !r.Node.Connected(words[1]) })
	case "close":
		code, err := strconv.ParseUint(words[2], 0, 32)
		if err != nil {
			return err
		}
		if err := r.Node.Disconnect(words[1], uint32(code)); err != nil {
			return err
		}
		return r.until(ctx, func() bool { return !r.Node.Connected(words[1]) })
	case "refuse":
		return r.Node.Refuse(words[1])
	case "value":
		value, err := strconv.ParseFloat(words[2], 64)
		if err != nil {
			return err
		}
		return r.Node.Value(words[1], value)
	}
	return fmt.Errorf("no order %q", words[0])
}

// meet dials addr at a moment, in nanoseconds of Unix time, and then opens streams at once; with the remote doing the same, both
// dial, and open streams on whatever connections there are.
func (r *Run) meet(ctx context.Context, addr, moment string) error {
	nanos, err := strconv.ParseInt(moment, 10, 64)
	if err != nil {
		return err
	}
	_, peer, _ := strings.Cut(addr, "/p2p/")
	time.Sleep(time.Until(time.Unix(0, nanos)))
	if _, _, err := r.Node.Connect(ctx, addr); err != nil {
		return err
	}
	return echoMany(ctx, anyConn{r.Node, peer}, r.Options.Streams, r.Options.Bytes)
}

// hold opens a stream and tells how it ends.
func (r *Run) hold(ctx context.Context, peer string) error {
	s, err := r.Node.NewStream(ctx, peer, EchoProtocol)
	if err != nil {
		return err
	}
	echo := []byte("held")
	if _, err := s.Write(echo); err != nil {
		return err
	}
	if _, err := io.ReadFull(s, echo); err != nil {
		return err
	}
	go func() {
		defer s.Close()
		_, err := s.Read(echo)
		r.Events.Emit(released(err))
	}()
	return nil
}

func (r *Run) until(ctx context.Context, holds func() bool) error {
	for !holds() {
		select {
		case <-time.After(settleEvery):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// anyConn opens streams over whatever connection with a peer the node thinks best.
type anyConn struct {
	node Node
	peer string
}

func (a anyConn) NewStream(ctx context.Context, protocol string) (Stream, error) {
	return a.node.NewStream(ctx, a.peer, protocol)
}
