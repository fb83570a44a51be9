// The command node-kith is a node of Kith with all defaults.
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/kith-p2p/kith"
)

func main() {
	n, err := kith.Start(context.Background(), kith.Config{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(n.ID(), n.Addrs())
	select {}
}
