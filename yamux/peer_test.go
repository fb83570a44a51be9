package yamux

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

// A rawPeer is the other end of a session under test, which can say anything.
type rawPeer struct {
	t        testing.TB
	session  *Session
	link     *link
	accepted chan *Stream
	served   chan error
}

// newRawPeer starts a session. It is the server unless client is true, so that
// the peer's own streams have odd ids.
func newRawPeer(t testing.TB, client bool, cfg Config) *rawPeer {
	t.Helper()
	near, far := newLink(plenty, 0)
	p := &rawPeer{
		t:        t,
		session:  New(near, client, cfg),
		link:     far,
		accepted: make(chan *Stream, 1<<16),
		served:   make(chan error, 1),
	}
	go func() { p.served <- p.session.Serve(func(st *Stream) { p.accepted <- st }) }()
	t.Cleanup(func() {
		p.session.Close()
		far.Close()
		near.stopTimers()
	})
	return p
}

// frame is a frame on the wire.
func frame(typ uint8, flags uint16, id, length uint32, payload ...byte) []byte {
	b := make([]byte, headerLen, headerLen+len(payload))
	putHeader(b, typ, flags, id, length)
	return append(b, payload...)
}

func data(flags uint16, id uint32, payload string) []byte {
	return frame(typeData, flags, id, uint32(len(payload)), []byte(payload)...)
}

func credit(flags uint16, id, length uint32) []byte {
	return frame(typeWindowUpdate, flags, id, length)
}

// send sends frames; a session that has ended meanwhile may have hung up.
func (p *rawPeer) send(frames ...[]byte) {
	p.link.Write(bytes.Join(frames, nil))
}

// next returns the next frame of the session, or an error at its end.
func (p *rawPeer) next() (header, []byte, error) {
	var b [headerLen]byte
	if _, err := io.ReadFull(p.link, b[:]); err != nil {
		return header{}, nil, err
	}
	h := parseHeader(b[:])
	if h.typ != typeData {
		return h, nil, nil
	}
	payload := make([]byte, h.length)
	_, err := io.ReadFull(p.link, payload)
	return h, payload, err
}

// expect reads the next frame and compares it.
func (p *rawPeer) expect(want []byte) {
	p.t.Helper()
	h, payload, err := p.next()
	if err != nil {
		p.t.Fatalf("want frame %x: %v", want, err)
	}
	if got := frame(h.typ, h.flags, h.id, h.length, payload...); !bytes.Equal(got, want) {
		p.t.Fatalf("frame %x, want %x", got, want)
	}
}

// expectQuiet makes sure, by a ping and its answer, that the session has
// handled all before it and said nothing.
func (p *rawPeer) expectQuiet() {
	p.t.Helper()
	p.send(frame(typePing, flagSYN, 0, 0xabcdef))
	p.expect(frame(typePing, flagACK, 0, 0xabcdef))
}

// expectEnd reads until the session hangs up. Its last frame must be GOAWAY with
// the code, and its error must say the reason.
func (p *rawPeer) expectEnd(code uint32, reason string) (frames []header) {
	p.t.Helper()
	for {
		h, _, err := p.next()
		if err != nil {
			break
		}
		frames = append(frames, h)
	}
	if n := len(frames); n == 0 || frames[n-1] != (header{typ: typeGoAway, length: code}) {
		p.t.Errorf("the last of %d frames is not GOAWAY(%d): %+v", n, code, frames[max(n-1, 0):])
	}
	p.expectError(code, false, reason)
	return frames
}

func (p *rawPeer) expectError(code uint32, remote bool, reason string) {
	p.t.Helper()
	var end *SessionError
	switch err := <-p.served; {
	case !errors.As(err, &end):
		p.t.Errorf("Serve = %v, want a SessionError", err)
	case end.Code != code || end.Remote != remote || !strings.Contains(end.Reason, reason):
		p.t.Errorf("Serve = %v, want code %#x, remote %v: %s", err, code, remote, reason)
	}
	if n := p.session.NumStreams(); n != 0 {
		p.t.Errorf("%d streams are left", n)
	}
}
