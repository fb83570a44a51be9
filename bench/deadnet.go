package main

import "fmt"

// deadAddrs is how many addresses of a peer are dead.
const deadAddrs = 9

// The addresses are like those of the internet, so that delays are those of the
// internet; nobody but us is in the namespace. Live and dead ones alternate, since
// go-libp2p sorts them.
func liveIP(i int) string { return fmt.Sprintf("11.0.0.%d", 20*i+10) }
func deadIP(i int) string { return fmt.Sprintf("11.0.0.%d", 20*i+20) }
