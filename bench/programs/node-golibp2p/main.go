// The command node-golibp2p is a node of go-libp2p with all defaults.
package main

import (
	"fmt"
	"log"

	"github.com/libp2p/go-libp2p"
)

func main() {
	h, err := libp2p.New()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(h.ID(), h.Addrs())
	select {}
}
