package main

import (
	"context"
	"crypto/tls"
	"net"
	"sync"

	"github.com/quic-go/quic-go"

	"github.com/kith-p2p/kith/bench/internal/worker"
)

// quicConfig has the windows and the streams of go-libp2p; Kith has the same windows.
var quicConfig = &quic.Config{MaxStreamReceiveWindow: 10 << 20, MaxConnectionReceiveWindow: 15 << 20, MaxIncomingStreams: 256}

// A quicNode is quic-go on an ordinary UDP socket of the standard library. Nothing is
// negotiated on a stream: all streams of a connection are for what the client has named in its handshake.
type quicNode struct {
	tls      *tls.Config
	tr       *quic.Transport
	addr     string
	handlers map[string]func(worker.Stream) error // all are there before the first connection
}

func newQUICNode(cfg worker.NodeConfig) (worker.Node, error) {
	cert, err := selfSigned()
	if err != nil {
		return nil, err
	}
	socket, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	n := &quicNode{
		tls:      &tls.Config{Certificates: []tls.Certificate{cert}, InsecureSkipVerify: true, MinVersion: tls.VersionTLS13},
		tr:       &quic.Transport{Conn: socket},
		addr:     socket.LocalAddr().String(),
		handlers: make(map[string]func(worker.Stream) error),
	}
	if cfg.Listen {
		ln, err := n.tr.Listen(n.tls, quicConfig)
		if err != nil {
			return nil, err
		}
		go n.serve(ln)
	}
	return n, nil
}

func (n *quicNode) Addr() string { return n.addr }

func (n *quicNode) Handle(proto string, serve func(worker.Stream) error) {
	n.handlers[proto] = serve
	n.tls.NextProtos = append(n.tls.NextProtos, proto)
}

func (n *quicNode) serve(ln *quic.Listener) {
	for {
		c, err := ln.Accept(context.Background())
		if err != nil {
			return
		}
		go func() {
			serve := n.handlers[c.ConnectionState().TLS.NegotiatedProtocol]
			for {
				s, err := c.AcceptStream(context.Background())
				if err != nil {
					return
				}
				go func() {
					serve(quicStream{s})
					s.Close()
				}()
			}
		}()
	}
}

// Connect does nothing yet: what the connection is for is not known.
func (n *quicNode) Connect(_ context.Context, addrs ...string) (worker.Conn, error) {
	to, err := net.ResolveUDPAddr("udp4", addrs[0])
	if err != nil {
		return nil, err
	}
	return &quicConn{node: n, to: to}, nil
}

type quicConn struct {
	node *quicNode
	to   *net.UDPAddr

	dial sync.Once
	conn *quic.Conn
	err  error // of the dial
}

func (c *quicConn) Open(ctx context.Context, proto string) (worker.Stream, error) {
	c.dial.Do(func() {
		conf := c.node.tls.Clone()
		conf.NextProtos = []string{proto}
		c.conn, c.err = c.node.tr.Dial(ctx, c.to, conf, quicConfig)
	})
	if c.err != nil {
		return nil, c.err
	}
	s, err := c.conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	return quicStream{s}, nil
}

func (c *quicConn) Identified(context.Context) error { return nil }

func (c *quicConn) Close() error { return c.conn.CloseWithError(0, "") }

type quicStream struct{ *quic.Stream }

// CloseWrite is what quic-go calls Close.
func (s quicStream) CloseWrite() error { return s.Stream.Close() }
