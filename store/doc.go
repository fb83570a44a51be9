// Package store keeps what must survive a restart: small values under short keys,
// as [host.Store] says. [Memory] lasts as long as the process, [File] is a file.
//
// A File is a bbolt database, kith.db. A change is on disk when Write has returned
// nil: neither the end of the process nor a loss of power takes it back, and what was
// not acknowledged is there wholly or not at all. One process at a time has it open.
//
// Every open looks through the whole file before anything is believed: that each page
// is where it should be, keys are in order, and a checksum over all records is right.
// So a file in which even one bit has changed is refused, unless the bit is one that
// nothing uses, and nothing in a file makes the program fault. A damaged file is never
// written to; the error tells what to do.
//
// Read in this order: memory.go, file.go, check.go, lock_*.go.
//
// # Limits
//
// [MaxKey], [MaxValue], [MaxFile].
//
// # Not implemented
//
// Encryption, several processes at once, backup while open.
package store
