//go:build !race

package yamux

const race = false
