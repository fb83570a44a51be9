package main

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"testing"
)

// What goes in comes out, whatever the sizes of writes and reads.
func TestRecords(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()

	rng := rand.New(rand.NewPCG(1, 2))
	sent := make([]byte, 3<<20)
	for i := range sent {
		sent[i] = byte(rng.Uint32())
	}
	go func() {
		w := newRecords(client.(*net.TCPConn), true)
		for p := sent; len(p) > 0; {
			n, err := w.Write(p[:min(len(p), 1+rng.IntN(200_000))])
			if err != nil {
				break
			}
			p = p[n:]
		}
		w.CloseWrite()
	}()
	r := newRecords(server.(*net.TCPConn), false)
	var got []byte
	for size := 1; ; size = 1 + (size*7)%100_000 {
		buf := make([]byte, size)
		n, err := r.Read(buf)
		got = append(got, buf[:n]...)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got, sent) {
		t.Errorf("%d bytes came of %d, or others", len(got), len(sent))
	}
}
