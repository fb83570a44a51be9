package main

import (
	"context"
	"net"
	"net/netip"
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

// A packetProxy is the same link for UDP. It charges nothing for connecting, as each packet of
// a handshake is on its way as long as any other.
type packetProxy struct {
	conn   *net.UDPConn
	server netip.AddrPort
	rtt    time.Duration
}

// maxPacket is more than any implementation of QUIC sends, in bytes.
const maxPacket = 2048

func listenPacketProxy(server string, rtt time.Duration) (*packetProxy, error) {
	to, err := netip.ParseAddrPort(server)
	if err != nil {
		return nil, err
	}
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	p := &packetProxy{conn, to, rtt}
	go p.serve()
	return p, nil
}

func (p *packetProxy) addr() string { return p.conn.LocalAddr().String() }

func (p *packetProxy) Close() error { return p.conn.Close() }

// serve gives each client a socket of its own, so that the server can tell them apart.
func (p *packetProxy) serve() {
	routes := make(map[netip.AddrPort]chan<- piece)
	for {
		buf := make([]byte, maxPacket)
		n, client, err := p.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			break
		}
		up := routes[client]
		if up == nil {
			if up, err = p.route(client); err != nil {
				continue
			}
			routes[client] = up
		}
		p.send(up, buf[:n])
	}
	for _, up := range routes {
		close(up)
	}
}

// route opens the way of a client's packets to the server and back.
func (p *packetProxy) route(client netip.AddrPort) (chan<- piece, error) {
	server, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(p.server))
	if err != nil {
		return nil, err
	}
	up, down := make(chan piece, 1024), make(chan piece, 1024)
	go func() {
		defer server.Close()
		for packet := range up {
			time.Sleep(time.Until(packet.due))
			server.Write(packet.data)
		}
	}()
	go func() {
		for packet := range down {
			time.Sleep(time.Until(packet.due))
			p.conn.WriteToUDPAddrPort(packet.data, client)
		}
	}()
	go func() {
		defer close(down)
		for {
			buf := make([]byte, maxPacket)
			n, err := server.Read(buf)
			if err != nil {
				return
			}
			p.send(down, buf[:n])
		}
	}()
	return up, nil
}

// send puts a packet on its way. When too many are, it is lost, as on any link.
func (p *packetProxy) send(way chan<- piece, packet []byte) {
	select {
	case way <- piece{packet, time.Now().Add(p.rtt / 2)}:
	default:
	}
}
