// Package peercmd is the command line that Kith's own Go peer programs share: the flags and modes that a test starts them
// with, the JSON events that they print, and the exchanges that two peers run over a connection. It knows no libp2p
// implementation; each program adapts one to [Node] and hands it to [Program.Main]. The same command line, written again for
// other languages, is what jspeer and rustpeer speak; interop/README.md describes it.
//
// Read in this order: program.go (what an implementation provides and what Main does with it), options.go (flags), events.go
// (what is printed), exchange.go (what goes over the wire).
package peercmd
