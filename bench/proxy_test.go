package main

import (
	"fmt"
	"io"
	"net"
	"testing"
	"time"
)

// The proxy takes at least what the link would: one round trip to connect and one for each
// answer. That it takes no more is not tested, as nothing can be sure of that.
func TestDelayProxy(t *testing.T) {
	const rtt = 20 * time.Millisecond
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		io.Copy(c, c)
		io.WriteString(c, "bye")
	}()
	proxy, err := listenProxy(ln.Addr().String(), rtt)
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.Close()

	start := time.Now()
	c, err := net.Dial("tcp", proxy.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(start.Add(20 * time.Second))
	for i := range 3 {
		buf := make([]byte, 4)
		io.WriteString(c, "ping")
		if _, err := io.ReadFull(c, buf); err != nil || string(buf) != "ping" {
			t.Fatalf("got %q, %v", buf, err)
		}
		if took, least := time.Since(start), time.Duration(i+2)*rtt; took < least {
			t.Errorf("answer %d came after %v, before %v", i+1, took, least)
		}
	}
	c.(*net.TCPConn).CloseWrite()
	if rest, err := io.ReadAll(c); string(rest) != "bye" || err != nil {
		t.Errorf("the end is %q, %v", rest, err)
	}
}

// Each packet takes half a round trip, and reaches who it is for.
func TestPacketProxy(t *testing.T) {
	const rtt = 20 * time.Millisecond
	server, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		buf := make([]byte, 100)
		for {
			n, from, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			server.WriteTo(buf[:n], from)
		}
	}()
	proxy, err := listenPacketProxy(server.LocalAddr().String(), rtt)
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.Close()

	start := time.Now()
	var clients []net.Conn
	for i := range 3 {
		c, err := net.Dial("udp4", proxy.addr())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(start.Add(20 * time.Second))
		fmt.Fprintf(c, "ping %d", i)
		clients = append(clients, c)
	}
	for i, c := range clients {
		buf := make([]byte, 100)
		n, err := c.Read(buf)
		if want := fmt.Sprintf("ping %d", i); err != nil || string(buf[:n]) != want {
			t.Fatalf("got %q, %v, want %q", buf[:n], err, want)
		}
		if took := time.Since(start); took < rtt {
			t.Errorf("an answer came after %v", took)
		}
	}
}
