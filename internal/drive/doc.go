// Package drive runs pure state machines in real time.
//
// A protocol's core (kad, gossipsub, mdns, the dial scheduler, …) is a Machine:
// it has no goroutine, lock or clock, and tells what it wants done as actions. A
// Loop gives it one goroutine, one timer and one bounded inbox:
//
//	                 Post, TryPost, Call                    do(action)
//	other goroutines ───────────────────▶ inbox ──▶ Machine ───────────▶ I/O
//	                         timer at Machine.Timeout() ──▶
//
// After every input, and after every deadline, the loop carries out all actions
// before it takes the next input. The simulator drives the same machines with a
// heap of (time, sequence) instead.
//
// Limits: the inbox holds a fixed number of inputs. When it is full Post waits
// and TryPost refuses: what a remote can cause is therefore bounded, and the
// caller says who is slowed down.
//
// Read drive.go.
package drive
