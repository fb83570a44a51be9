// Package memory carries connections inside one process, without the operating
// system: for tests, for simulations in virtual time, and for programs whose peers
// live together. Addresses have the form /memory/N and mean something only within
// one [Network]. Connections are secured and muxed as everywhere else.
//
// Read in this order: memory.go, pipe.go.
package memory
