package main

import (
	"context"
	"crypto/tls"
	"net"

	"github.com/quic-go/quic-go"

	"github.com/kith-p2p/kith/bench/internal/worker"
)

// quicConfig has the windows of go-libp2p, which Kith has as well.
var quicConfig = &quic.Config{MaxStreamReceiveWindow: 10 << 20, MaxConnectionReceiveWindow: 15 << 20}

// A quicNode is quic-go on an ordinary UDP socket of the standard library.
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
		tls: &tls.Config{
			Certificates: []tls.Certificate{cert}, InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, NextProtos: []string{"bench"},
		},
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

func (n *quicNode) Handle(proto string, serve func(worker.Stream) error) { n.handlers[proto] = serve }

func (n *quicNode) serve(ln *quic.Listener) {
	for {
		c, err := ln.Accept(context.Background())
		if err != nil {
			return
		}
		go func() {
			for {
				s, err := c.AcceptStream(context.Background())
				if err != nil {
					return
				}
				n.handlers["/perf/1.0.0"](quicStream{s})
				s.Close()
			}
		}()
	}
}

func (n *quicNode) Connect(ctx context.Context, addr string) (worker.Conn, error) {
	to, err := net.ResolveUDPAddr("udp4", addr)
	if err != nil {
		return nil, err
	}
	c, err := n.tr.Dial(ctx, to, n.tls, quicConfig)
	if err != nil {
		return nil, err
	}
	return quicConn{c}, nil
}

type quicConn struct{ conn *quic.Conn }

func (c quicConn) Open(ctx context.Context, _ string) (worker.Stream, error) {
	s, err := c.conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	return quicStream{s}, nil
}

func (c quicConn) Identified(context.Context) error { return nil }

func (c quicConn) Close() error { return c.conn.CloseWithError(0, "") }

type quicStream struct{ *quic.Stream }

// CloseWrite is what quic-go calls Close.
func (s quicStream) CloseWrite() error { return s.Stream.Close() }
