package yamux_test

import (
	"context"
	"fmt"
	"io"
	"net"

	"github.com/kith-p2p/kith/yamux"
)

// Two streams over one connection. In libp2p that would be an encrypted one.
func Example() {
	a, b := net.Pipe()
	client := yamux.New(yamux.Records(a), true, yamux.Config{})
	server := yamux.New(yamux.Records(b), false, yamux.Config{})
	defer client.Close()
	defer server.Close()
	go client.Serve(nil)
	go server.Serve(func(s *yamux.Stream) {
		go func() { // accept must not block
			defer s.Close()
			fmt.Fprintf(s, "hello, stream %d", s.ID())
		}()
	})

	for range 2 {
		s, err := client.Open(context.Background())
		if err != nil {
			fmt.Println(err)
			return
		}
		text, err := io.ReadAll(s)
		fmt.Println(string(text), err)
		s.Close()
	}
	// Output:
	// hello, stream 1 <nil>
	// hello, stream 3 <nil>
}
