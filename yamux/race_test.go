//go:build race

package yamux

// race tells that the race detector runs, which allocates and slows down.
const race = true
