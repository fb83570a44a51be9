// The command limits is the worker that measures what this machine can do: raw TCP,
// TLS 1.3 of the standard library, the records of Noise, and quic-go, each with the
// loads of the others and with nothing between. One goroutine reads or writes; each
// connection carries one transfer at a time.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"time"

	"github.com/kith-p2p/kith/bench/internal/worker"
)

func main() { worker.Main(newNode) }

func newNode(cfg worker.NodeConfig) (worker.Node, error) {
	if cfg.Transport == worker.QUIC {
		return newQUICNode(cfg)
	}
	n := &node{security: cfg.Security, handlers: make(map[string]func(worker.Stream) error)}
	switch cfg.Security {
	case "tcp", "noise":
	case "tls":
		cert, err := selfSigned()
		if err != nil {
			return nil, err
		}
		n.tls = &tls.Config{Certificates: []tls.Certificate{cert}, InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}
	default:
		return nil, fmt.Errorf("no secure channel %q", cfg.Security)
	}
	if cfg.Listen {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		n.addr = ln.Addr().String()
		go n.serve(ln)
	}
	return n, nil
}

type node struct {
	security string
	tls      *tls.Config
	addr     string
	handlers map[string]func(worker.Stream) error // all are there before the first connection
}

func (n *node) Addr() string { return n.addr }

func (n *node) Handle(proto string, serve func(worker.Stream) error) { n.handlers[proto] = serve }

func (n *node) serve(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			// Nothing is negotiated: perf is what limits are measured with.
			n.handlers["/perf/1.0.0"](n.wrap(c.(*net.TCPConn), false))
			c.Close()
		}()
	}
}

func (n *node) wrap(c *net.TCPConn, client bool) worker.Stream {
	switch {
	case n.tls != nil && client:
		return tls.Client(c, n.tls)
	case n.tls != nil:
		return tls.Server(c, n.tls)
	case n.security == "noise":
		return newRecords(c, client)
	}
	return c
}

// Connect does nothing yet: a connection is a stream here.
func (n *node) Connect(_ context.Context, addrs ...string) (worker.Conn, error) {
	return conn{n, addrs[0]}, nil
}

type conn struct {
	node *node
	addr string
}

func (c conn) Open(ctx context.Context, _ string) (worker.Stream, error) {
	var d net.Dialer
	tcp, err := d.DialContext(ctx, "tcp", c.addr)
	if err != nil {
		return nil, err
	}
	return c.node.wrap(tcp.(*net.TCPConn), true), nil
}

func (c conn) Identified(context.Context) error { return nil }

func (c conn) Close() error { return nil }

// selfSigned makes a certificate with a P-256 key, the cheapest to sign with.
func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
