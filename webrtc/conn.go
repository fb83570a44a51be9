package webrtc

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/pion/dtls/v3"

	"github.com/kith-p2p/kith/host"
)

// Bounds of a connection.
const (
	// maxStreams is how many data channels exist at once, each way. The host's
	// own limits are lower; a channel that neither side uses any more takes 600 bytes
	// until the remote has agreed to its end.
	maxStreams = 8192

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
	// In a third of it, we ask whether it is there.
	defaultTimeout = 30 * time.Second

	// consentInterval is how often a dialer sends a connectivity check: listeners
	// that are no ICE lite agents give up without. go-libp2p's do after 20 s.
	consentInterval = 5 * time.Second

	// finAckWait is how long a stream that was closed waits for the remote's word
	// that all has arrived. go-libp2p waits as long.
	finAckWait = 10 * time.Second

	// closeWait is how long CloseWithCode waits for what was written to streams
	// that were closed.
	closeWait = 300 * time.Millisecond
)

type connState uint8

const (
	stateHandshake connState = iota // DTLS
	stateWaiting                    // for the remote's INIT (listener), or its INIT ACK (dialer)
	stateEchoed                     // for COOKIE ACK
	stateOpen
	stateClosed
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

// A conn is one connection. It has no goroutine: packets are handled where the
// socket is read, and one timer does what is due. It implements host.MuxedConn.
type conn struct {
	// fixed
	socket   *socket
	remote   netip.AddrPort
	addr     *net.UDPAddr // the same
	dialer   bool
	timeout  time.Duration // after which a silent remote is gone
	shaking  *handshakeConn
	channel  *stream // of the Noise handshake
	detach   func()  // takes the connection off its listener, or closes the dialer's socket; set before packets come
	check    *check  // nil for a listener
	stun     func(p []byte)
	local    initChunk // what we say in INIT or INIT ACK
	done     chan struct{}
	progress chan struct{} // signalled when the handshake has come further

	mu sync.Mutex // guards all that follows

	state     connState
	err       error // why the connection is closed
	layer     *recordLayer
	keeper    *dtls.Conn // repeats the last flight
	early     [][]byte   // records that came before the keys
	accept    func(host.MuxedStream)
	waiting   []*stream // that accept has yet to be called for
	accepting []*stream // that accept is called for when the lock is given back
	timer     *time.Timer
	timerAt   time.Time
	lastHeard time.Time
	lastCheck time.Time
	lastBeat  time.Time
	startedAt time.Time // of the SCTP handshake's last message
	cookie    []byte    // the remote's, until it is acknowledged

	streams    map[uint16]*stream
	nextID     uint16
	ids        uint16 // those of channels are below this: 1024 with js-libp2p, else 65535
	numOurs    int    // channels that we opened
	unanswered int
	opened     sync.Cond // unanswered or numOurs has become less
	closing    []*stream // whose FIN waits for its answer, oldest first
	kith       bool      // the remote gives a window for each stream
	announced  bool      // we have given one
	windows    int       // the sum of those given beyond the first, in bytes

	send    sender
	receive receiver
}

func newConn(s *socket, remote netip.AddrPort, dialer bool, timeout time.Duration) *conn {
	c := &conn{
		socket: s, remote: remote, addr: net.UDPAddrFromAddrPort(remote), dialer: dialer, timeout: timeout,
		done: make(chan struct{}), progress: make(chan struct{}, 1),
		streams: make(map[uint16]*stream), nextID: 1, lastHeard: time.Now(),
	}
	if dialer {
		c.nextID = 2 // 0 is the channel of the handshake
	}
	var random [40]byte
	rand.Read(random[:])
	c.local = initChunk{
		tag: binary.BigEndian.Uint32(random[:]) | 1, window: maxUnread, tsn: binary.BigEndian.Uint32(random[4:]),
	}
	c.opened.L, c.send.idle.L = &c.mu, &c.mu
	c.send.init(c.local.tsn)
	c.receive.init()
	c.channel = newStream(c, handshakeID)
	c.streams[handshakeID] = c.channel
	c.shaking = newHandshakeConn(func(p []byte) { s.send(p, len(p), c.addr) }, s.conn.LocalAddr(), c.addr)
	return c
}

// secure runs the handshake of DTLS and waits for that of SCTP.
func (c *conn) secure(ctx context.Context, cert certificate, srtp bool, verify func(der []byte) error) (remoteHash string, err error) {
	keeper, layer, der, err := shake(ctx, c.shaking, cert.tls, c.dialer, srtp, verify)
	if err != nil {
		c.fail(err)
		return "", err
	}
	c.mu.Lock()
	if c.state == stateClosed {
		c.mu.Unlock()
		c.dropKeeper(keeper)
		return "", c.err
	}
	c.state, c.layer = stateWaiting, layer
	c.timer = time.AfterFunc(time.Hour, c.tick)
	if c.dialer {
		c.sendInit(time.Now())
	} else {
		c.keeper = keeper
	}
	early := c.early
	c.early = nil
	for _, p := range early {
		c.handleRecords(p)
	}
	dropped := c.finish()
	c.mu.Unlock()
	if c.dialer {
		c.dropKeeper(keeper)
	}
	c.dropKeeper(dropped)
	for {
		c.mu.Lock()
		state, err := c.state, c.err
		c.mu.Unlock()
		switch {
		case state == stateClosed:
			return "", err
		case state == stateOpen:
			return certHash(der), nil
		}
		select {
		case <-c.progress:
		case <-c.done:
		case <-ctx.Done():
			err := fmt.Errorf("webrtc: SCTP handshake: %w", context.Cause(ctx))
			c.fail(err)
			return "", err
		}
	}
}

// dropKeeper ends pion's part. It must not send anything: its alert would end the connection.
func (c *conn) dropKeeper(k *dtls.Conn) {
	if k != nil {
		c.shaking.Close()
		k.Close()
	}
}

// packets handles what the socket has read from the remote: packets of size
// bytes, the last of which may be shorter. They are decrypted in place.
func (c *conn) packets(b []byte, size int) {
	c.mu.Lock()
	for len(b) > 0 {
		n := min(size, len(b))
		c.handlePacket(b[:n:n])
		b = b[n:]
	}
	keeper := c.finish()
	accept, streams := c.takeAccepting()
	c.mu.Unlock()
	c.dropKeeper(keeper)
	for _, s := range streams {
		accept(s)
	}
}

// takeAccepting takes the streams for which accept is to be called without the lock.
func (c *conn) takeAccepting() (func(host.MuxedStream), []*stream) {
	streams := c.accepting
	c.accepting = nil
	return c.accept, streams
}

func (c *conn) handlePacket(p []byte) {
	switch {
	case isSTUN(p):
		c.stun(p)
	case c.state == stateClosed || !isDTLS(p):
	case p[0] == recordApplication || p[0] == recordAlert && p[4] == 1:
		if c.layer != nil {
			c.handleRecords(p)
		} else if p[0] == recordApplication && len(c.early) < earlyRecords {
			c.early = append(c.early, append([]byte(nil), p...))
		} else if p[0] == recordAlert {
			c.shaking.deliver(p)
		}
	case c.layer == nil || c.keeper != nil:
		c.shaking.deliver(p)
	}
}

func (c *conn) handleRecords(p []byte) {
	for len(p) > 0 && c.state != stateClosed {
		kind, content, rest := c.layer.decrypt(p)
		p = rest
		if len(content) == 0 {
			continue
		}
		c.lastHeard = time.Now()
		switch kind {
		case recordApplication:
			c.handleSCTP(content)
		case recordAlert:
			if len(content) == 2 && (content[0] == 2 || content[1] == alertCloseNotify) {
				c.shut(&CloseError{Remote: true})
			}
		}
	}
}

// finish sends what the packets handled have made possible, or a timer. It
// returns pion's part when it is of no more use.
func (c *conn) finish() (keeper *dtls.Conn) {
	if c.state != stateClosed && c.layer != nil {
		now := time.Now()
		c.flush(now)
		c.arm(now)
	}
	if c.keeper != nil && (c.state == stateOpen || c.state == stateClosed) {
		keeper, c.keeper = c.keeper, nil
	}
	return keeper
}

// arm sees to it that the timer fires when the next thing is due. That it fires
// too early does no harm, and spares setting it again for each packet.
func (c *conn) arm(now time.Time) {
	if c.timer == nil {
		return
	}
	next := c.lastHeard.Add(c.timeout / 3)
	if !c.lastBeat.Before(c.lastHeard) {
		next = c.lastBeat.Add(c.timeout / 3)
	}
	earlier := func(t time.Time) {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	if c.dialer {
		earlier(c.lastCheck.Add(consentInterval))
	}
	if c.state != stateOpen {
		earlier(c.startedAt.Add(c.send.rto))
	}
	if len(c.closing) > 0 {
		earlier(c.closing[0].finDeadline)
	}
	earlier(c.send.timeout)
	earlier(c.send.resetTimeout)
	earlier(c.receive.ackDeadline)
	if c.timerAt.IsZero() || next.Before(c.timerAt) {
		c.timerAt = next
		c.timer.Reset(max(0, next.Sub(now)))
	}
}

// tick does what is due.
func (c *conn) tick() {
	c.mu.Lock()
	if c.state == stateClosed {
		c.mu.Unlock()
		return
	}
	now := time.Now()
	c.timerAt = time.Time{}
	switch {
	case now.Sub(c.lastHeard) >= c.timeout:
		c.shut(&CloseError{Remote: true, Reason: "nothing was heard of the remote for " + c.timeout.String()})
		c.mu.Unlock()
		return
	case now.Sub(c.lastHeard) >= c.timeout/3 && now.Sub(c.lastBeat) >= c.timeout/3 && c.state == stateOpen:
		c.lastBeat = now
		c.send.controls = append(c.send.controls, appendChunk(nil, chunkHeartbeat, 0,
			appendParam(nil, paramHeartbeat, binary.BigEndian.AppendUint64(nil, uint64(now.UnixNano())))))
	}
	if c.dialer && now.Sub(c.lastCheck) >= consentInterval {
		c.lastCheck = now
		c.sendCheck()
	}
	if c.state != stateOpen && now.Sub(c.startedAt) >= c.send.rto {
		c.send.rto = min(2*c.send.rto, maxRTO)
		switch {
		case c.state == stateEchoed:
			c.sendCookie(now)
		case c.dialer:
			c.sendInit(now)
		default:
			c.startedAt = now
		}
	}
	for len(c.closing) > 0 && !now.Before(c.closing[0].finDeadline) {
		s := c.closing[0]
		c.closing[0] = nil
		c.closing = c.closing[1:]
		s.waited()
	}
	c.sendTimeouts(now)
	keeper := c.finish()
	c.mu.Unlock()
	c.dropKeeper(keeper)
}

func (c *conn) sendInit(now time.Time) {
	c.startedAt = now
	c.sendNow(0, c.local.append(nil, chunkInit))
}

func (c *conn) sendCookie(now time.Time) {
	c.startedAt = now
	c.sendNow(c.send.tag, appendChunk(nil, chunkCookieEcho, 0, c.cookie))
}

// open is called when the SCTP handshake is over.
func (c *conn) open() {
	if c.state == stateOpen {
		return
	}
	c.state = stateOpen
	c.cookie = nil
	c.send.rto = initialRTO
	select {
	case c.progress <- struct{}{}:
	default:
	}
}

// shut ends the connection, with the lock held. Nothing is sent.
func (c *conn) shut(err error) {
	if c.state == stateClosed {
		return
	}
	c.state, c.err = stateClosed, err
	close(c.done)
	if c.timer != nil {
		c.timer.Stop()
	}
	for _, s := range c.streams {
		s.readable.Broadcast()
		s.writable.Broadcast()
		s.drop()
	}
	clear(c.streams)
	c.opened.Broadcast()
	c.waiting, c.closing, c.early = nil, nil, nil
	c.send.drop()
	c.receive.drop()
	keeper := c.keeper
	c.keeper = nil
	c.shaking.Close()
	if keeper != nil {
		go keeper.Close() // it waits for the handshake, which may be sending
	}
	c.detach()
}

// refusal is the alert handshake_failure, before there are keys. Its number is one
// that pion has not used.
var refusal = []byte{recordAlert, 0xfe, 0xfd, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 2, 40}

// fail ends a connection that is not finished.
func (c *conn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.state == stateClosed:
	case c.layer != nil:
		c.sayGoodbye(0)
	case !c.dialer:
		c.socket.send(refusal, len(refusal), c.addr)
	}
	c.shut(err)
}

// sayGoodbye tells the remote that the connection ends.
func (c *conn) sayGoodbye(code uint32) {
	if c.send.tag != 0 {
		cause := appendParam(nil, causeUserAbort, binary.BigEndian.AppendUint32(nil, code))
		c.sendNow(c.send.tag, appendChunk(nil, chunkAbort, 0, cause))
	}
	b := c.layer.start(nil)
	b = c.layer.finish(append(b, 1, alertCloseNotify), 0, recordAlert)
	c.socket.send(b, len(b), c.addr)
}

var _ host.MuxedConn = (*conn)(nil)

// OpenStream opens a stream. See host.MuxedConn.
func (c *conn) OpenStream(ctx context.Context) (host.MuxedStream, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	limit := min(maxStreams, int(c.ids)/2-1)
	if c.unanswered >= maxUnanswered || c.numOurs >= limit {
		stop := context.AfterFunc(ctx, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.opened.Broadcast()
		})
		defer stop()
		for (c.unanswered >= maxUnanswered || c.numOurs >= limit) && c.state != stateClosed && ctx.Err() == nil {
			c.opened.Wait()
		}
	}
	if c.state == stateClosed {
		return nil, c.err
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("webrtc: opening a stream: %w", context.Cause(ctx))
	}
	for c.streams[c.nextID] != nil {
		c.bumpID()
	}
	s := newStream(c, c.nextID)
	s.ours, s.unanswered, s.announce = true, true, true
	c.bumpID()
	c.streams[s.id] = s
	c.unanswered++
	c.numOurs++
	s.introduce()
	return s, nil
}

// bumpID goes to the next ID of ours.
func (c *conn) bumpID() {
	if c.nextID += 2; c.nextID >= c.ids || c.nextID < 2 {
		c.nextID = 1
		if c.dialer {
			c.nextID = 2
		}
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
	for _, s := range waiting {
		accept(s)
	}
	<-c.done
	return c.err
}

// CloseWithCode ends the connection. See host.MuxedConn.
func (c *conn) CloseWithCode(code uint32) error {
	c.mu.Lock()
	if c.state == stateOpen && c.busy() {
		timer := time.AfterFunc(closeWait, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.send.giveUp = true
			c.send.idle.Broadcast()
		})
		for c.state == stateOpen && c.busy() && !c.send.giveUp {
			c.send.idle.Wait()
		}
		timer.Stop()
	}
	if c.state == stateClosed {
		c.mu.Unlock()
		return nil
	}
	if c.layer != nil {
		c.sayGoodbye(code)
	}
	c.shut(&CloseError{Code: code})
	c.mu.Unlock()
	return nil
}

// NumStreams tells how many streams are open.
func (c *conn) NumStreams() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, s := range c.streams {
		if !s.gone && s.id != handshakeID {
			n++
		}
	}
	return n
}

// RTT is the last round-trip time measured.
func (c *conn) RTT() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.send.srtt
}
