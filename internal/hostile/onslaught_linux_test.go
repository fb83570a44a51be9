package hostile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	quicgo "github.com/quic-go/quic-go"

	"github.com/kith-p2p/kith/p2ptls"
	"github.com/kith-p2p/kith/peer"
)

// A line is an attacker's connection that is secured and muxed, over any transport.
type line interface {
	// open opens a stream, says what on it and goes on as the order wants. An error
	// says that the line has ended.
	open(o order) error

	// fill opens an echo stream and sends what the host takes without anybody reading.
	fill() error

	// greed opens another stream for each that has ended, Rate at a time.
	greed(o order, ended func()) error

	close()
}

// line connects attacker number i.
func (o order) line(i int) (line, error) {
	if o.Over == "quic" {
		conn, err := quicDial(o, i, nil)
		if err != nil {
			return nil, err
		}
		return quicLine{conn}, nil
	}
	conn, err := o.dial(i)
	if err != nil {
		return nil, err
	}
	a, err := newAttacker()
	if err == nil {
		var s *session
		if s, err = a.session(conn); err == nil {
			l := &tcpLine{session: s, raw: conn, credit: make(map[uint32]int), news: make(chan struct{}, 1)}
			conn.SetDeadline(time.Time{})
			return l, nil
		}
	}
	conn.Close()
	return nil, err
}

type tcpLine struct {
	*session
	raw   net.Conn
	reads sync.Once

	mu     sync.Mutex
	credit map[uint32]int // that fill has not used
	news   chan struct{}  // there is more of it, or the end; closed at the end
}

func (l *tcpLine) open(o order) error {
	l.reads.Do(func() { go io.Copy(io.Discard, l.conn) })
	id := l.id()
	frames := []frame{dataFrame(syn|o.Flags, id, o.Bytes)}
	if o.Reset {
		frames = append(frames, frame{typ: typeWindow, flags: rst, id: id})
	}
	return l.send(frames...)
}

func (l *tcpLine) fill() error {
	l.reads.Do(func() { go l.collect() })
	id, err := l.session.open("/echo/1")
	if err != nil {
		return err
	}
	piece := make([]byte, 16<<10)
	for credit := initialWindow - len(propose("/echo/1")); credit > 0; credit += l.more(id) {
		for credit > 0 {
			n := min(credit, len(piece))
			if err := l.send(dataFrame(0, id, piece[:n])); err != nil {
				return err
			}
			credit -= n
		}
	}
	return nil
}

// collect reads what comes and keeps the credit.
func (l *tcpLine) collect() {
	defer close(l.news)
	for f, err := l.receive(); err == nil; f, err = l.receive() {
		if f.typ == typeWindow && f.length > 0 {
			l.mu.Lock()
			l.credit[f.id] += int(f.length)
			l.mu.Unlock()
			select {
			case l.news <- struct{}{}:
			default:
			}
		}
	}
}

// more gives the credit that comes for a stream, 0 if none comes for a while.
func (l *tcpLine) more(id uint32) int {
	timeout := time.NewTimer(200 * time.Millisecond)
	defer timeout.Stop()
	for {
		l.mu.Lock()
		n := l.credit[id]
		delete(l.credit, id)
		l.mu.Unlock()
		if n > 0 {
			return n
		}
		select {
		case _, ok := <-l.news:
			if !ok {
				return 0
			}
		case <-timeout.C:
			return 0
		}
	}
}

func (l *tcpLine) close() { l.raw.Close() }

type quicLine struct{ conn *quicgo.Conn }

func (l quicLine) open(o order) error {
	s, err := l.conn.OpenStreamSync(l.conn.Context())
	if err != nil {
		return err
	}
	s.SetWriteDeadline(time.Now().Add(time.Second))
	if _, err := s.Write(o.Bytes); err != nil {
		return l.conn.Context().Err() // the host may have stopped this stream alone
	}
	if o.Reset {
		s.CancelWrite(0)
		s.CancelRead(0)
	} else if o.Flags&fin != 0 {
		s.Close()
		s.CancelRead(0)
	}
	return nil
}

func (l quicLine) fill() error {
	s, err := l.conn.OpenStreamSync(l.conn.Context())
	if err != nil {
		return err
	}
	if _, err := s.Write(propose("/echo/1")); err != nil {
		return err
	}
	piece := make([]byte, 16<<10)
	for {
		s.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		if _, err := s.Write(piece); err != nil {
			return nil // no more is taken
		}
	}
}

func (l quicLine) close() { l.conn.CloseWithError(0, "") }

// sockets are the gang's own UDP sockets, one for each address.
var sockets struct {
	mu sync.Mutex
	by map[netip.Addr]*quicgo.Transport
}

func quicTransport(ip netip.Addr) (*quicgo.Transport, error) {
	sockets.mu.Lock()
	defer sockets.mu.Unlock()
	if tr := sockets.by[ip]; tr != nil {
		return tr, nil
	}
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, 0)))
	if err != nil {
		return nil, err
	}
	if sockets.by == nil {
		sockets.by = make(map[netip.Addr]*quicgo.Transport)
	}
	sockets.by[ip] = &quicgo.Transport{Conn: conn}
	return sockets.by[ip], nil
}

// hangUp tells the host that the gang's connections over QUIC have ended, as the system
// does for those over TCP. Those of an attacker that is just gone last until the idle timeout.
func hangUp() {
	stopDialing()
	<-time.After(50 * time.Millisecond) // those that were under way say so
	quicConns.Range(func(conn, _ any) bool {
		conn.(*quicgo.Conn).CloseWithError(0, "")
		return true
	})
}

var quicConns sync.Map

var dialing, stopDialing = context.WithCancel(context.Background())

// quicDial connects attacker number i; with a wrap over a socket of its own.
func quicDial(o order, i int, wrap func(*net.UDPConn) net.PacketConn) (*quicgo.Conn, error) {
	key, err := peer.GenerateKey(peer.Ed25519)
	if err != nil {
		return nil, err
	}
	security, err := p2ptls.New(key)
	if err != nil {
		return nil, err
	}
	conf := security.QUICConfig(peer.ID{})
	ip := o.From[i%len(o.From)]
	var tr *quicgo.Transport
	if wrap == nil {
		if tr, err = quicTransport(ip); err != nil {
			return nil, err
		}
	} else {
		conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, 0)))
		if err != nil {
			return nil, err
		}
		defer conn.Close() // the host does not learn of it
		tr = &quicgo.Transport{Conn: wrap(conn)}
		defer tr.Close()
	}
	ctx, cancel := context.WithTimeout(dialing, patience)
	defer cancel()
	conn, err := tr.Dial(ctx, net.UDPAddrFromAddrPort(o.Addr), conf, &quicgo.Config{
		MaxIdleTimeout: time.Minute, HandshakeIdleTimeout: patience, KeepAlivePeriod: 5 * time.Second,
		InitialStreamReceiveWindow: 1 << 10, MaxStreamReceiveWindow: 1 << 10, InitialConnectionReceiveWindow: 64 << 10, MaxConnectionReceiveWindow: 64 << 10,
		MaxIncomingStreams: 10,
	})
	if err == nil && wrap == nil {
		quicConns.Store(conn, nil)
		context.AfterFunc(conn.Context(), func() { quicConns.Delete(conn) })
	}
	return conn, err
}

// quiet sends so many datagrams, and none after.
type quiet struct {
	net.PacketConn
	left atomic.Int32
}

func (q *quiet) WriteTo(b []byte, to net.Addr) (int, error) {
	if q.left.Add(-1) < 0 {
		return len(b), nil
	}
	return q.PacketConn.WriteTo(b, to)
}

// begun tells the test that the attack has its full force.
func begun(format string, args ...any) { fmt.Printf("begun "+format+"\n", args...) }

// lines keeps N lines busy with do, forever: who is sent away comes again after a while.
func (o order) lines(do func(l line) error) {
	var ready sync.WaitGroup
	ready.Add(o.N)
	for i := range o.N {
		go func() {
			first := sync.OnceFunc(ready.Done)
			for {
				if l, err := o.line(i); err == nil {
					timer := time.AfterFunc(500*time.Millisecond, first)
					do(l)
					timer.Stop()
					l.close()
				}
				first()
				<-time.After(100 * time.Millisecond)
			}
		}()
	}
	ready.Wait()
	begun("%d", o.N)
}

// holdAttack opens streams and leaves them: Rate of them, or 200 and 64 more in each second.
func holdAttack(o order) error {
	o.lines(func(l line) error {
		n := o.Rate
		if n == 0 {
			n = 200
		}
		for range n {
			if err := l.open(o); err != nil {
				return err
			}
		}
		for o.Rate == 0 {
			<-time.After(time.Second / 64)
			if err := l.open(o); err != nil {
				return err
			}
		}
		select {}
	})
	return nil
}

// stormAttack opens streams as fast as it goes.
func stormAttack(o order) error {
	o.lines(func(l line) error {
		for {
			if err := l.open(o); err != nil {
				return err
			}
		}
	})
	return nil
}

// unreadAttack fills Rate streams of each line. Who is sent away stays away.
func unreadAttack(o order) error {
	var ready sync.WaitGroup
	var away atomic.Int64
	for i := range o.N {
		ready.Go(func() {
			l, err := o.line(i)
			for range o.Rate {
				if err == nil {
					err = l.fill()
				}
			}
			if err != nil {
				away.Add(1)
			}
		})
	}
	ready.Wait()
	begun("%d, sent away %d", o.N, away.Load())
	return nil
}

// churnAttack connects and ends N times a second.
func churnAttack(o order) error {
	begun("%d a second", o.N)
	pace(1<<30, o.N, func(i int) {
		if l, err := o.line(i); err == nil {
			l.close()
		}
	})
	return nil
}

// silenceAttack has N connections come so far and no further, and More in each second.
func silenceAttack(o order) error {
	reach := silentTCP
	if o.Over == "quic" {
		reach = silentQUIC
	}
	var failed atomic.Int64
	one := func(i int) {
		if err := reach(o, i); err != nil {
			failed.Add(1)
		}
	}
	pace(o.N, 1000, one)
	begun("%d, failed %d", o.N, failed.Load())
	pace(1<<30, o.More, one)
	return nil
}

var held struct {
	mu    sync.Mutex
	conns []io.Closer
}

func silentTCP(o order, i int) error {
	conn, err := o.dial(i)
	if err != nil {
		return err
	}
	a, err := newAttacker()
	if err == nil {
		name := map[string]string{"half a hello": "half a TLS hello", "hello": "TLS hello", "muxed": "muxed"}[o.Stage]
		err = errors.New("no such stage: " + o.Stage)
		all, _ := stages()
		for _, s := range all {
			if s.name == name {
				err = s.reach(a, conn)
			}
		}
	}
	if err != nil {
		conn.Close()
		return err
	}
	held.mu.Lock()
	held.conns = append(held.conns, conn)
	held.mu.Unlock()
	return nil
}

func silentQUIC(o order, i int) error {
	if o.Stage == "muxed" {
		_, err := quicDial(o, i, nil)
		return err
	}
	// What a client says first takes two datagrams.
	datagrams := int32(2)
	if o.Stage == "half a hello" {
		datagrams = 1
	}
	go quicDial(o, i, func(conn *net.UDPConn) net.PacketConn {
		q := &quiet{PacketConn: conn}
		q.left.Store(datagrams)
		return q
	})
	return nil
}
