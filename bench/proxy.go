package main

import (
	"context"
	"net"
	"time"
)

// A delayProxy is a link to a server that is far away: every byte takes half a
// round trip. Its client is connected at once, as the kernel answers for it; the
// round trip that this would have taken is charged by reading nothing before.
type delayProxy struct {
	ln     net.Listener
	server string
	rtt    time.Duration
}

func listenProxy(server string, rtt time.Duration) (*delayProxy, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &delayProxy{ln, server, rtt}
	go p.serve()
	return p, nil
}

// addr is where the client connects.
func (p *delayProxy) addr() string { return p.ln.Addr().String() }

func (p *delayProxy) Close() error { return p.ln.Close() }

func (p *delayProxy) serve() {
	for {
		client, err := p.ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer client.Close()
			p.forward(client.(*net.TCPConn))
		}()
	}
}

func (p *delayProxy) forward(client *net.TCPConn) {
	time.Sleep(p.rtt)
	up := delayed(client, p.rtt/2)
	// The server is connected half a round trip after its client, and may speak first.
	time.Sleep(p.rtt / 2)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", p.server)
	if err != nil {
		return
	}
	defer conn.Close()
	server := conn.(*net.TCPConn)
	down := delayed(server, p.rtt/2)
	done := make(chan struct{})
	go func() {
		defer close(done)
		deliver(client, down)
	}()
	deliver(server, up)
	<-done
}

// A piece is on its way until it is due.
type piece struct {
	data []byte
	due  time.Time
}

// delayed reads c to its end, which is a piece without data.
func delayed(c *net.TCPConn, delay time.Duration) <-chan piece {
	pieces := make(chan piece, 1024) // more than a handshake has
	go func() {
		defer close(pieces)
		for {
			buf := make([]byte, 32<<10)
			n, err := c.Read(buf)
			pieces <- piece{buf[:n], time.Now().Add(delay)}
			if err != nil {
				return
			}
		}
	}()
	return pieces
}

// deliver writes pieces to c when they are due, then ends that direction.
func deliver(c *net.TCPConn, pieces <-chan piece) {
	for p := range pieces {
		time.Sleep(time.Until(p.due))
		c.Write(p.data) // if c has ended, the other direction will
	}
	c.CloseWrite()
}
