// Package testkit makes hosts for tests: real ones, with real handshakes, over a
// network in memory that also runs in a testing/synctest bubble.
package testkit
