package webrtc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/sctp"

	"github.com/kith-p2p/kith/host"
)

// Sizes of SCTP.
const (
	// packetSize is how long our SCTP packets are at most, in bytes: with DTLS, UDP
	// and IPv6 less than 1280, which every path carries; and divisible by 4.
	packetSize = 1188

	// fragmentSize is how much of a message one packet holds, in bytes, with the
	// longer header that interleaving has.
	fragmentSize = packetSize - 12 - 20

	// receiveWindow is how much a remote may send that was not taken from SCTP, in bytes.
	receiveWindow = 1 << 20

	// resetRest is how long a channel stays after a RESET: js-libp2p handles messages
	// and the ends of channels apart, and takes an end that comes with it for a good one.
	resetRest = 100 * time.Millisecond

	// maxUnread is how much of all streams is kept that nobody has read, in bytes.
	// What comes beyond it stays in the receive window.
	maxUnread = 4 << 20

	// maxPieces is how many pieces of messages that are not whole a remote may send: a
	// window full of pieces as large as packets are is 1,000, and 32,768 of the
	// smallest take 6 MiB.
	maxPieces = 32 << 10
)

// Bounds of a connection.
const (
	// maxStreams is how many data channels exist at once, each way. The host's own
	// limits are lower; each has a goroutine, 10 KiB in all.
	maxStreams = 2048

	// maxEarly is how many streams wait for the end of the Noise handshake and for
	// Serve. js-libp2p takes 10.
	maxEarly = 64

	// maxUnanswered is how many of the streams that we opened wait for the remote's
	// word before OpenStream waits too.
	maxUnanswered = 1024
)

// How long things last.
const (
	// defaultTimeout is how long nothing comes before the remote is thought gone.
	defaultTimeout = 30 * time.Second

	// consentInterval is how often a dialer sends a connectivity check: by them and
	// their answers both sides know that the other is there. go-libp2p's listeners
	// wait 20 s for one.
	consentInterval = 5 * time.Second

	// finAckWait is how long a stream that was closed waits for the remote's word
	// that all has arrived. go-libp2p waits as long.
	finAckWait = 10 * time.Second

	// closeWait is how long CloseWithCode waits for the remote to acknowledge what
	// was written, and closePoll how often it looks.
	closeWait = 300 * time.Millisecond
	closePoll = time.Millisecond

	// stallWait is how long a stream that nobody reads may stop the whole
	// connection: the remote has one window for all of its streams.
	stallWait = 10 * time.Second

	// idRest is how long the number of a stream that has ended is not used again:
	// as long as a lost request to end it takes to come again, and more.
	idRest = 3 * time.Second
)

// A CloseError tells that a connection has ended, by whom and with which code. It wraps net.ErrClosed.
type CloseError struct {
	Code   uint32
	Remote bool
	Reason string
}

func (e *CloseError) Error() string {
	who := "we closed the connection"
	if e.Remote {
		who = "the remote closed the connection"
	}
	if e.Reason != "" {
		who = e.Reason
	}
	return fmt.Sprintf("webrtc: %s (code %#x)", who, e.Code)
}

func (e *CloseError) Unwrap() error { return net.ErrClosed }

// ErrorCode is the code that the connection was closed with.
func (e *CloseError) ErrorCode() uint32 { return e.Code }

// IsRemote tells whether the remote closed.
func (e *CloseError) IsRemote() bool { return e.Remote }

// A conn is one connection. It implements host.MuxedConn.
//
// The lock of a stream may be held when that of the connection is taken, and both
// when pion is called, but not the other way round.
type conn struct {
	// fixed
	link    *link
	dialer  bool
	timeout time.Duration // after which a silent remote is gone
	check   *check        // nil for a listener
	stun    func(p []byte)
	detach  func() // takes the connection off its listener, or closes the dialer's socket; set before packets come
	done    chan struct{}
	gone    chan struct{} // closed when nothing runs any more

	lastHeard atomic.Int64 // Unix time in ns
	offered   atomic.Int64 // the window that we have told the remote last
	window    atomic.Int64 // the one that it has told us
	fullest   int64        // the first of those; set in the handshake

	assoc *sctp.Association // set in the handshake

	pieces fragments // owned by the read loop of SCTP

	accepting sync.Mutex // held while accept runs; taken before mu

	mu sync.Mutex // guards all that follows

	err        error // why the connection is closed; never changes again
	dtls       *dtls.Conn
	code       uint32 // with which the remote has closed
	accept     func(host.MuxedStream)
	waiting    []*stream // that accept has yet to be called for
	timer      *time.Timer
	lastCheck  time.Time
	streams    map[uint16]*stream
	handshakes *stream // on channel 0
	theirs     int     // channels of the remote's that are not at their end
	nextID     uint16
	ids        uint16 // those of channels are below this: 1024 with js-libp2p, else 65535
	numOurs    int    // channels that we opened
	resting    []restingID
	restingIDs map[uint16]struct{}
	unanswered int
	opened     sync.Cond // unanswered or numOurs has become less, or an ID has rested

	unread  int // bytes of all streams
	charged int // of them, to account
	account *host.Account
	room    sync.Cond // unread has become less
	blocked map[*stream]struct{}
	probeAt time.Time
	probing time.Duration
}

type restingID struct {
	id    uint16
	until time.Time
}

func newConn(k *link, dialer bool, timeout time.Duration) *conn {
	c := &conn{
		link: k, dialer: dialer, timeout: timeout, done: make(chan struct{}), gone: make(chan struct{}),
		streams: make(map[uint16]*stream), restingIDs: make(map[uint16]struct{}), blocked: make(map[*stream]struct{}),
		nextID: 1, ids: 65535,
	}
	if dialer {
		c.nextID = 2 // 0 is the channel of the handshake
	}
	c.opened.L, c.room.L = &c.mu, &c.mu
	c.heard()
	c.offered.Store(receiveWindow)
	return c
}

func (c *conn) heard() { c.lastHeard.Store(time.Now().UnixNano()) }

// packets handles what the socket has read from the remote. It tells whether it has kept b.
func (c *conn) packets(b *block, n, size int) (kept bool) {
	for p := b[:n]; len(p) > 0; p = p[min(size, len(p)):] {
		if q := p[:min(size, len(p))]; isSTUN(q) {
			c.stun(q)
		}
	}
	return c.link.deliver(b, n, size)
}

// secure runs the handshakes of DTLS and SCTP.
func (c *conn) secure(ctx context.Context, cert certificate, srtp bool, verify func(der []byte) error) (remoteHash string, err error) {
	der, err := c.handshake(ctx, cert.tls, srtp, verify)
	if err != nil {
		return "", err
	}
	stop := context.AfterFunc(ctx, func() {
		c.fail(fmt.Errorf("webrtc: SCTP handshake: %w", context.Cause(ctx)))
	})
	defer stop()
	config := sctp.Config{
		NetConn: &records{c.dtls, c}, LoggerFactory: quiet, Name: "kith", EnableZeroChecksum: true, MTU: packetSize,
		MaxReceiveBufferSize: receiveWindow,
	}
	var assoc *sctp.Association
	if c.dialer {
		assoc, err = sctp.ClientWithOptions(config)
	} else {
		assoc, err = sctp.ServerWithOptions(config)
	}
	if err != nil {
		c.fail(fmt.Errorf("webrtc: SCTP handshake: %w", err))
		<-c.gone
		return "", c.err
	}
	c.mu.Lock()
	c.assoc, c.fullest = assoc, c.window.Load()
	s := newStream(c, handshakeID)
	c.handshakes, c.streams[handshakeID] = s, s
	closed := c.err
	c.mu.Unlock()
	if closed != nil {
		assoc.Close()
		return "", closed
	}
	if s.out, err = assoc.OpenStream(handshakeID, sctp.PayloadTypeWebRTCBinary); err == nil {
		go s.receive()
	}
	go c.acceptStreams(assoc)
	c.mu.Lock()
	if c.err == nil {
		c.lastCheck = time.Now()
		c.timer = time.AfterFunc(c.interval(), c.tick)
	}
	c.mu.Unlock()
	return certHash(der), nil
}

// records is the DTLS connection as SCTP sees it.
type records struct {
	*dtls.Conn
	c *conn
}

func (r *records) Read(p []byte) (int, error) {
	for {
		n, err := r.Conn.Read(p)
		var timeout net.Error
		switch {
		case err == nil:
			r.c.heard()
			r.c.observe(p[:n])
			return n, nil
		case errors.Is(err, io.EOF): // SCTP says that of a stream that has ended
			return 0, net.ErrClosed
		case errors.Is(err, net.ErrClosed) || errors.As(err, &timeout) && timeout.Timeout() || r.c.link.isClosed():
			return 0, err
		}
		// A record that makes no sense, for which SCTP must not end.
	}
}

func (r *records) Write(p []byte) (int, error) {
	if len(p) >= sctpSack && p[sctpHeader] == chunkSack {
		r.c.offered.Store(int64(binary.BigEndian.Uint32(p[sctpHeader+8:])))
	}
	return r.Conn.Write(p)
}

// What observe looks at. https://www.rfc-editor.org/rfc/rfc9260.html#section-3.3
const (
	sctpHeader = 12
	sctpSack   = sctpHeader + 16
	sctpInit   = sctpHeader + 20

	chunkData    = 0
	chunkInit    = 1
	chunkInitAck = 2
	chunkSack    = 3
	chunkAbort   = 6
	chunkIData   = 64

	causeUserAbort = 12
)

// observe notes what pion does not tell of a packet: the window that the remote
// gives, how many channels it knows, with which code it closes, and that there is a
// reset behind data for which there is no room.
func (c *conn) observe(p []byte) {
	if len(p) <= sctpHeader+8 {
		return
	}
	v := p[sctpHeader+4:] // the value of the first chunk
	switch kind := p[sctpHeader]; {
	case kind == chunkSack && len(p) >= sctpSack:
		c.window.Store(int64(binary.BigEndian.Uint32(v[4:])))
	case (kind == chunkInit || kind == chunkInitAck) && len(p) >= sctpInit && c.assocIsNew():
		c.window.Store(int64(binary.BigEndian.Uint32(v[4:])))
		c.mu.Lock()
		c.ids = max(8, min(binary.BigEndian.Uint16(v[8:]), binary.BigEndian.Uint16(v[10:])))
		c.mu.Unlock()
	case kind == chunkData || kind == chunkIData:
		for p = p[sctpHeader:]; len(p) > 4; {
			n := int(binary.BigEndian.Uint16(p[2:]))
			if n < 4 || n > len(p) {
				break
			}
			if c.pieces.tooMany(p[:n]) {
				go c.fail(fmt.Errorf("webrtc: more than %d pieces of messages that do not end", maxPieces))
				return
			}
			c.look(p[:n])
			p = p[min((n+3)&^3, len(p)):]
		}
	case kind == chunkAbort && len(v) >= 8 && binary.BigEndian.Uint32(v) == causeUserAbort<<16|8:
		c.mu.Lock()
		c.code = binary.BigEndian.Uint32(v[4:])
		c.mu.Unlock()
	}
}

// fragments counts the pieces of messages that are not whole, by channel. pion bounds
// their bytes, and a piece of one byte takes 200.
type fragments struct {
	of  map[uint16]int
	all int
}

// tooMany counts a chunk of data, and tells when a bound is met.
func (f *fragments) tooMany(chunk []byte) bool {
	if (chunk[0] != chunkData && chunk[0] != chunkIData) || len(chunk) < 16 {
		return false
	}
	id := binary.BigEndian.Uint16(chunk[8:])
	if chunk[1]&1 != 0 { // the last one
		f.all -= f.of[id]
		delete(f.of, id)
		return false
	}
	if f.of == nil {
		f.of = make(map[uint16]int)
	}
	f.of[id]++
	f.all++
	return f.all > maxPieces
}

// look lets the reader of a stream go on if a chunk tells that the stream is reset
// or that nothing more is wanted, as it cannot overtake the data before it.
func (c *conn) look(chunk []byte) {
	header := 16
	if chunk[0] == chunkIData {
		header = 20
	} else if chunk[0] != chunkData {
		return
	}
	if len(chunk) < header+3 || len(chunk) > header+16 || chunk[1]&3 != 3 { // a message in one chunk
		return
	}
	if m := chunk[header:]; int(m[0]) == len(m)-1 && m[1] == fieldFlag<<3 && (flag(m[2]) == flagReset || flag(m[2]) == flagStopSending) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if s := c.streams[binary.BigEndian.Uint16(chunk[8:])]; s != nil {
			s.urgent = true
			c.room.Broadcast()
		}
	}
}

func (c *conn) assocIsNew() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.assoc == nil
}

// acceptStreams takes the channels that the remote opens, until the association ends.
func (c *conn) acceptStreams(assoc *sctp.Association) {
	for {
		out, err := assoc.AcceptStream()
		if err != nil {
			break
		}
		if out.StreamIdentifier() == handshakeID { // the remote was first to use it
			continue
		}
		s := newStream(c, out.StreamIdentifier())
		s.out, s.announced = out, true
		c.mu.Lock()
		c.theirs++
		n := c.theirs
		c.mu.Unlock()
		if n > 2*maxStreams {
			c.fail(errors.New("webrtc: the remote does not end the channels that were refused"))
		}
		go s.receive()
	}
	c.mu.Lock()
	code := c.code
	c.mu.Unlock()
	c.end(&CloseError{Code: code, Remote: true}, noAbort)
}

// incoming gives out a stream that the remote has opened, unless there are too many.
func (c *conn) incoming(s *stream) bool {
	ours := s.id%2 == 1
	if c.dialer {
		ours = !ours
	}
	c.mu.Lock()
	accept := c.accept
	if ours || c.streams[s.id] != nil || c.err != nil || c.theirs > maxStreams || accept == nil && len(c.waiting) >= maxEarly {
		c.mu.Unlock()
		return false
	}
	c.streams[s.id] = s
	if accept == nil {
		c.waiting = append(c.waiting, s)
	}
	c.mu.Unlock()
	if accept != nil {
		// Each stream has a goroutine that reads it, and accept is for one at a time.
		c.accepting.Lock()
		defer c.accepting.Unlock()
		accept(s)
	}
	return true
}

// interval is how often tick looks.
func (c *conn) interval() time.Duration { return min(consentInterval, c.timeout/6) }

// tick asks whether the listener is there, and ends the connection if it is not.
func (c *conn) tick() {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	now := time.Now()
	silent := now.Sub(time.Unix(0, c.lastHeard.Load()))
	check := c.dialer && now.Sub(c.lastCheck) >= c.interval()
	if check {
		c.lastCheck = now
	}
	c.timer.Reset(c.interval())
	c.mu.Unlock()
	if silent >= c.timeout {
		c.end(&CloseError{Remote: true, Reason: "nothing was heard of the remote for " + c.timeout.String()}, 0)
		return
	}
	if check {
		c.sendCheck()
	}
}

func (c *conn) sendCheck() {
	request := c.check.request()
	c.link.socket.send(request, len(request), c.link.addr)
}

// noAbort stands for the code when the association has ended already.
const noAbort = -1

// end closes the connection because of err, unless it is closed. It does not wait
// for the remote, nor for what runs here: gone tells of that.
func (c *conn) end(err error, code int64) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = err
	c.settle()
	if c.timer != nil {
		c.timer.Stop()
	}
	streams := make([]*stream, 0, len(c.streams))
	for _, s := range c.streams {
		streams = append(streams, s)
	}
	clear(c.streams)
	c.waiting = nil
	c.opened.Broadcast()
	c.room.Broadcast()
	assoc, d := c.assoc, c.dtls
	close(c.done)
	c.mu.Unlock()
	for _, s := range streams {
		s.wake()
	}
	if d == nil {
		if !c.dialer {
			c.link.socket.send(refusal, len(refusal), c.link.addr)
		}
		c.leave()
		return
	}
	go func() {
		if assoc != nil && code != noAbort {
			assoc.Abort(string(binary.BigEndian.AppendUint32(nil, uint32(code))))
		}
		d.Close()
		c.leave()
	}()
}

// leave gives back the remote's address.
func (c *conn) leave() {
	c.link.Close()
	c.detach()
	close(c.gone)
}

// refusal is the alert handshake_failure, before there are keys. Its number is one
// that pion has not used.
var refusal = []byte{recordAlert, 0xfe, 0xfd, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 2, 40}

// fail ends a connection that is not finished, or that breaks rules.
func (c *conn) fail(err error) { c.end(err, 0) }

// closed is why the connection is closed, or nil.
func (c *conn) closed() error {
	select {
	case <-c.done:
		return c.err
	default:
		return nil
	}
}

var _ host.MuxedConn = (*conn)(nil)

// OpenStream opens a stream. See host.MuxedConn.
func (c *conn) OpenStream(ctx context.Context) (host.MuxedStream, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	limit := min(maxStreams, int(c.ids)/2-1)
	var stops []func() bool
	defer func() {
		for _, stop := range stops {
			stop()
		}
	}()
	for {
		if c.err != nil {
			return nil, c.err
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("webrtc: opening a stream: %w", context.Cause(ctx))
		}
		if c.unanswered < maxUnanswered && c.numOurs < limit {
			if id, ok := c.freeID(); ok {
				s := newStream(c, id)
				s.ours, s.unanswered = true, true
				c.streams[id] = s
				c.unanswered++
				c.numOurs++
				return s, nil
			}
			timer := time.AfterFunc(time.Until(c.resting[0].until), c.wakeOpeners)
			stops = append(stops, timer.Stop)
		}
		if len(stops) == 0 {
			stops = append(stops, context.AfterFunc(ctx, c.wakeOpeners))
		}
		c.opened.Wait()
	}
}

func (c *conn) wakeOpeners() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opened.Broadcast()
}

// freeID finds an ID for a stream of ours.
func (c *conn) freeID() (uint16, bool) {
	now := time.Now()
	for len(c.resting) > 0 && now.After(c.resting[0].until) {
		delete(c.restingIDs, c.resting[0].id)
		c.resting = c.resting[1:]
	}
	for range c.ids / 2 {
		id := c.nextID
		if c.nextID += 2; c.nextID >= c.ids || c.nextID < 2 {
			c.nextID = 1
			if c.dialer {
				c.nextID = 2
			}
		}
		if _, rests := c.restingIDs[id]; !rests && c.streams[id] == nil {
			return id, true
		}
	}
	return 0, false
}

// forget lets the ID of a stream be used again, in a while. announced tells whether
// the remote has heard of it.
func (c *conn) forget(s *stream, announced bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.streams[s.id] == s {
		delete(c.streams, s.id)
	}
	if s.ours {
		c.numOurs--
		if announced {
			c.resting = append(c.resting, restingID{s.id, time.Now().Add(idRest)})
			c.restingIDs[s.id] = struct{}{}
		}
		c.opened.Broadcast()
	}
}

var errServed = errors.New("webrtc: Serve was called before")

// Serve gives out the streams that the remote opens. See host.MuxedConn.
func (c *conn) Serve(accept func(host.MuxedStream)) error {
	c.mu.Lock()
	if c.accept != nil {
		c.mu.Unlock()
		return errServed
	}
	c.accept = accept
	waiting := c.waiting
	c.waiting = nil
	c.mu.Unlock()
	c.accepting.Lock()
	for _, s := range waiting {
		accept(s)
	}
	c.accepting.Unlock()
	<-c.done
	return c.err
}

// CloseWithCode ends the connection. See host.MuxedConn.
func (c *conn) CloseWithCode(code uint32) error {
	if c.assoc != nil && c.closed() == nil {
		c.linger()
	}
	c.end(&CloseError{Code: code}, int64(code))
	<-c.gone
	return nil
}

// linger waits until the remote has got what was written, but not long. It holds its
// acknowledgement of a single packet back for 200 ms: that one is only to have left.
func (c *conn) linger() {
	poll, timer := time.NewTicker(closePoll), time.NewTimer(closeWait)
	defer poll.Stop()
	defer timer.Stop()
	for few := 0; few < 5; {
		switch buffered := c.assoc.BufferedAmount(); {
		case buffered == 0:
			return
		case buffered <= packetSize:
			few++
		}
		select {
		case <-poll.C:
		case <-timer.C:
			return
		case <-c.done:
			return
		}
	}
}

// NumStreams tells how many streams are open.
func (c *conn) NumStreams() int {
	c.mu.Lock()
	streams := make([]*stream, 0, len(c.streams))
	for _, s := range c.streams {
		streams = append(streams, s)
	}
	c.mu.Unlock()
	n := 0
	for _, s := range streams {
		if s.open() {
			n++
		}
	}
	return n
}

// RTT is the last round-trip time measured.
func (c *conn) RTT() time.Duration {
	return time.Duration(c.assoc.SRTT() * float64(time.Millisecond))
}
